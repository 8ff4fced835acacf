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
//! | [`Session`], [`SessionBuilder`], [`connect_options`] | a process's membership: a lease, renewed in the background. One is enough for a process |
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
//! What no lock on a lease can promise is that *its holder is awake*. A process that is paused, by a machine that
//! swaps, by a debugger, or with its virtual machine, may look whether it holds, sleep past its deadline, and go on
//! with the write for which it looked. By then the next one holds. The same is true of a request that was sent in time
//! and arrives late, and of what the work has started elsewhere: dropping a future stops neither a thread nor a query.
//!
//! So whoever *stores* has to refuse what comes late:
//!
//! - What is written to the same etcd goes through [`Guard::txn`], which applies a transaction only if the hold stands
//!   in that very moment, or carries the condition [`Guard::compare`] in a transaction of one's own.
//! - What is written elsewhere carries the [`token`](Guard::token). A store that keeps the largest token it has seen
//!   with the data, and refuses a smaller one, is safe: in SQL, `UPDATE .. SET .., token = $1 WHERE token <= $1`.
//! - What cannot be fenced, such as an e-mail, can happen twice.
//!
//! The same is true of a lease that etcd gives away before its time: a member that was etcd's leader, was frozen for
//! longer than the TTL and wakes up may revoke leases that were renewed with its successor (etcd #15247; mitigated, not
//! cured, in 3.4.31 and 3.5.13).
//!
//! Nor does it help against clocks whose *speeds* differ by more than the margin: then `is_valid` may be true for a
//! moment too long. Fenced writes do not depend on any clock.
//!
//! # Choosing a TTL
//!
//! The TTL is how long a crash, or a cut connection, keeps others from a hold: after a crash the next one holds within
//! the TTL, plus half a second, since etcd looks for expired leases that often; longer if etcd's own leader
//! changes meanwhile, which gives every lease its full time again. Leaving in good order ([`Guard::unlock`],
//! [`Session::close`], the shutdown of [`Election::run`]) takes milliseconds, whatever the TTL.
//!
//! The lease is renewed at half of its time. When two thirds have passed without an answer the session is in
//! [jeopardy](Health::Jeopardy), and leaders are told to [end](Leadership::ending). The default of 10 s rides out an
//! election of etcd's own leader; less than 5 s loses holds to short outages. etcd's minimum is 2 s, whole seconds.
//!
//! # Runtimes
//!
//! A session lives on the tokio runtime in which it was opened, of either flavour, with time and I/O enabled, and ends
//! with it. Code that blocks all of its threads stops the renewals too: move it to
//! [`spawn_blocking`](tokio::task::spawn_blocking), or [isolate](SessionBuilder::isolated) the session, whose lease is
//! then renewed elsewhere. A `current_thread` runtime renews only while its `block_on` runs.
//!
//! Dropping a guard, a ticket or the last handle of a session releases *in the background*, so the runtime has to
//! go on running for that. One that shuts down first leaves the hold to expire with its lease, and a `tracing` warning
//! says so of every guard and ticket that is dropped. At the end of `main`, await [`Session::close`].
//!
//! # Watching it
//!
//! Every wish for a hold is a [`tracing`] span `wait`, until it is granted or given up, and every hold a span `hold`,
//! until it is released or its guard is dropped. Both say `kind`, `name`, `identity`, `key` and `token`. A warning is
//! something that an operator should know of: a lease that is in jeopardy or lost, a place in a queue that is taken
//! again, a permission that is missing.
//!
//! With the feature `metrics` the crate counts through the [`metrics`](https://docs.rs/metrics) facade, for whichever
//! exporter the service installs; example `metrics` shows Prometheus'. `kind` is `mutex`, `election`, `read`, `write` or
//! `semaphore`.
//!
//! | metric | labels | what it counts |
//! |---|---|---|
//! | `tenure_wait_seconds` histogram | `kind` | from asking for a hold to its grant, of those that were granted |
//! | `tenure_hold_seconds` histogram | `kind` | from the grant to the release, or to the end of the guard of a lost hold |
//! | `tenure_queue_length` histogram | `kind` | keys that a place had to wait for when that was first known |
//! | `tenure_losses_total` counter | `kind`, `reason` | guards of holds that ended without a release: `expired`, `revoked`, `deleted` or `closed` |
//! | `tenure_reentries_total` counter | `kind` | places in a queue that were lost with their lease or their key, and taken again, at the back |
//! | `tenure_renewal_seconds` histogram | | from sending a renewal to its reply |
//! | `tenure_renewal_margin_seconds` histogram | | what was left of the time to the deadline when the reply came |
//! | `tenure_renewal_failures_total` counter | | renewals that were not answered in time, or failed |
//! | `tenure_watch_restarts_total` counter | | watch streams that broke and were opened again |
//!
//! # In etcd
//!
//! A name's queue is the set of keys directly under `NAME/`, in the order of their create revisions, as in Go's
//! `client/v3/concurrency`. A Go service, `etcdctl lock`,
//! `etcdctl elect` and a Rust service can stand in one queue.
//!
//! | key | value |
//! |---|---|
//! | `NAME/LEASE-N` | of a lock: JSON with `identity` and `kind`, a semaphore's `weight` and `capacity`, and `since`, the Unix time at which it was asked for; of an election: the proposal. `LEASE` is the lease's id and `N` the smallest number that the session has free, in lower-case hex |
//! | `NAME/r-LEASE-N` | the same, of a reader |
//! | `~session/LEASE` | JSON with `identity`: the session's own key, which voids requests that arrive late |
//! | `~session/mark/NAME` | where more than 256 queue up: the create revision of the last key that held, in decimal |
//! | `~session/revoke/NAME/LEASE-N` | a request to those who hold: JSON with `identity`, `reason`, and their `tokens` |
//! | `~session/transfer/NAME/LEASE-N` | what a leader asks the candidates before its heir: JSON with `to`, the `asked` tokens, and the `stage` |
//! | `~session/consent/NAME/LEASE-N` | a candidate's yes: JSON with its `token` and the create revision of the `request` |
//!
//! All of them are on the session's lease, and under its [namespace](SessionBuilder::namespace). Keys deeper under
//! `NAME/` do not count, so that a lock `a` and a lock `a/b` never meet; Go's locks do count them. With etcd's
//! authentication a session needs read and write access to `NAME/` and to `~session/`.
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
pub use session::{Health, Session, SessionBuilder, connect_options};
pub use ticket::{Grant, Ticket};
pub use token::{FencingToken, Waiter};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
