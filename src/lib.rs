//! Locks and leadership on etcd: fair, watch-driven, and honest about when a hold has ended.

mod clock;
mod election;
mod error;
mod guard;
mod mutex;
mod name;
mod queue;
mod retry;
mod session;
mod ticket;
mod token;

#[cfg(feature = "testing")]
pub mod testing;

pub use clock::Deadline;
pub use election::{Election, Leader, Leadership, Observation, Observations};
pub use error::{Error, Loss, Result};
pub use etcd_client;
pub use guard::{Guard, Lost};
pub use mutex::Mutex;
pub use session::{Health, Session, SessionBuilder, connect_options};
pub use ticket::{Grant, Ticket};
pub use token::{FencingToken, Waiter};
