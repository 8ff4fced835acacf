//! Locks and leadership on etcd: fair, watch-driven, and honest about when a hold has ended.
//!
//! For services that need one leader, for jobs that must run one at a time in the order in which they asked, and for
//! workers that want a lock now, or within three seconds, or not at all.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let etcd = tenure::testing::Etcd::start().await?;
//! # let endpoints = etcd.endpoints();
//! use tenure::Session;
//! use tenure::etcd_client::{Txn, TxnOp};
//!
//! let session = Session::connect(endpoints).await?;
//!
//! let guard = session.mutex("jobs/reindex").lock().await?;
//! // Dropped as soon as the hold is lost.
//! let pages = guard.run(async { 42 }).await?;
//! // Refused by etcd unless the hold stands in the very moment of the write.
//! guard.txn(Txn::new().and_then([TxnOp::put("index/pages", pages.to_string(), None)])).await?;
//! guard.unlock().await?;
//!
//! session.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//!
//! | item | what it is |
//! |---|---|
//! | [`Session`], [`SessionBuilder`], [`connect_options`], [`Endpoints`] | a process's membership: a lease, renewed in the background. One is enough for a process |
//! | [`Health`], [`Deadline`] | how sure the session is of its lease, and until when |
//! | [`Mutex`] | a fair lock: wait, try, try for a while, or take a ticket |
//! | [`ReentrantMutex`] | an owner of a mutex, who may lock it again while it holds |
//! | [`RwLock`] | many readers or one writer, in turn |
//! | [`Semaphore`] | so many permits, one or several to a holder |
//! | [`Ticket`] | a place in a queue that survives `select!` |
//! | [`Guard`], [`Lost`], [`Loss`] | the one proof of a hold: whether it stands, and why it ended |
//! | [`MultiGuard`] | several mutexes, taken [together](Session::lock_all) without deadlock |
//! | [`Revocation`], [`RevocationRequested`] | who [asks](Mutex::request_revocation) a holder to let go, and why |
//! | [`FencingToken`] | a number that is larger for every later holder |
//! | [`Election`], [`Leadership`] | an office: [campaign](Election::campaign), or [run](Election::run) one for as long as a service lives; [hand it over](Leadership::transfer_to) |
//! | [`Leader`], [`Observation`], [`Observations`] | who leads, now and from now on |
//! | [`Waiter`], [`Kind`] | who stands in a queue, and for what; [who of them holds](Waiter::holders) |
//! | [`Error`] | what a caller can act on |
//! | `tenure` | (feature `cli`) the command, for scripts and for looking: `tenure --help` |
//! | `testing` | (feature `testing`) a real etcd in child processes, for tests and examples |
//!
//! # What it promises
//!
//! - **Order.** Holds of a name are granted in the order in which etcd received the requests, over all processes and
//!   all tasks. Exclusion is per guard: a thousand tasks on one session exclude each other, on one lease.
//! - **No hold outlives its deadline.** At the [`deadline`](Guard::deadline) [`is_valid`](Guard::is_valid) is false,
//!   [`lost`](Guard::lost) has fired and [`run`](Guard::run) has dropped its work, although etcd may never have been
//!   reached. The deadline counts from when the last acknowledged renewal was *sent*, on a clock that goes on while
//!   the machine sleeps, with a margin of 2 % for clocks that run at different speeds.
//! - **Cancel safety.** Every future may be dropped at any point, and leaves no key, lease or watch behind. Each says
//!   in its documentation what is lost: [`Ticket::granted`] keeps the place in the queue, every other way to wait
//!   gives it up.
//! - **Patience.** What waits rides out an outage of etcd, a compaction, a moved leader, and the loss of its own lease
//!   while it is still queued: then it queues again, at the back, and says so in a `tracing` warning. It fails at once
//!   for what waiting cannot mend, such as a missing permission.
//! - **No false hold.** A try that fails is `None`, and no answer is an error; neither can be taken for a guard.
//!
//! # Fencing
//!
//! What no lock on a lease can promise is that *its holder is awake*: a process that is paused may sleep past its deadline,
//! and go on with the write for which it looked. So whoever *stores* has to refuse what comes late.
//!
//! - What is written to the same etcd goes through [`Guard::txn`], which applies a transaction only if the hold stands
//!   in that very moment, or carries the condition [`Guard::compare`] in a transaction of one's own.
//! - What is written elsewhere carries the [`token`](Guard::token). A store that keeps the largest token it has seen
//!   with the data, and refuses a smaller one, is safe.
//! - What cannot be fenced, such as an e-mail, can happen twice.
//!
//! # The guide
//!
//! | page | what it answers |
//! |---|---|
//! | [`guide::leases`] | what else a lease cannot promise, jeopardy, losses, runtimes, and every way in which a hold ends |
//! | [`guide::fencing`] | fencing with etcd, SQL and object stores |
//! | [`guide::ttl`] | which TTL |
//! | [`guide::migrating`] | from Go's `concurrency`, from etcd-client's `lock()` and `campaign()`, from a Redis lock |
//! | [`guide::watching`] | spans, warnings and metrics |
//! | [`guide::keys`] | what stands in etcd, and which permissions a session needs |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod consent;
mod election;
mod error;
mod guard;
mod multi;
mod mutex;
mod name;
mod queue;
mod reentrant;
mod retry;
mod revocation;
mod rwlock;
mod semaphore;
mod session;
mod telemetry;
mod ticket;
mod token;

#[cfg(any(doc, doctest))]
pub mod guide;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::Deadline;
pub use election::{Election, Leader, Leadership, Observation, Observations};
pub use error::{Error, Loss, Result};
pub use etcd_client;
pub use guard::{Guard, Lost};
pub use multi::MultiGuard;
pub use mutex::Mutex;
pub use queue::rule::Kind;
pub use reentrant::ReentrantMutex;
pub use revocation::{Revocation, RevocationRequested};
pub use rwlock::RwLock;
pub use semaphore::Semaphore;
pub use session::{Endpoints, Health, Session, SessionBuilder, connect_options};
pub use ticket::{Grant, Ticket};
pub use token::{FencingToken, Waiter};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/scaling.md")]
struct Scaling;
