//! Locks and leadership on etcd: fair, watch-driven, and honest about when a hold has ended.

mod clock;
mod error;
mod name;
mod queue;
mod session;

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, Loss, Result};
pub use etcd_client;
