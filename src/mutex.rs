//! A fair mutual exclusion lock.

use std::time::Duration;

use crate::error::Result;
use crate::guard::Guard;
use crate::queue::rule::Rule;
use crate::session::Session;
use crate::ticket::{Queue, Ticket};
use crate::token::Waiter;

/// A fair mutual exclusion lock, shared by every process that names it.
///
/// Locks are granted in the order in which the requests reached etcd, over all processes and all tasks: two handles,
/// and a thousand tasks on one handle, exclude each other. Whoever has to lock again what it holds makes itself an
/// [owner](Self::reentrant). A lock is held through the session's lease: if this
/// process stops renewing it, the cluster hands the lock on. Work that must not overlap needs more than a guard: see
/// [fencing](crate::guide::fencing).
///
/// A Go service that uses `concurrency.Mutex`, and `etcdctl lock`, may stand in the same queue, and so may readers and
/// writers of a [`RwLock`](crate::RwLock) of the same name.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// let mutex = session.mutex("jobs/reindex");
/// let guard = mutex.lock().await?;
/// assert!(mutex.try_lock().await?.is_none());
/// guard.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example mutex` has five tasks that count together.
#[derive(Clone, Debug)]
#[must_use = "a handle does nothing until it is locked"]
pub struct Mutex {
    pub(crate) queue: Queue,
}

impl Session {
    /// A lock by the name of `name`. Nothing is sent; a name that cannot be one is an error when it is used.
    ///
    /// A name is a path such as `jobs/reindex`, without a leading, trailing or doubled slash, a NUL or a leading `~`.
    pub fn mutex(&self, name: impl AsRef<str>) -> Mutex {
        Mutex { queue: Queue::new(self, name.as_ref()) }
    }
}

impl Mutex {
    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.queue.as_str()
    }

    /// Locks the mutex, after everyone who asked earlier.
    ///
    /// An outage of etcd, a compaction, a moved leader are waited out, and so is the loss of the session's lease:
    /// the request then queues again, at the back, and says so in a `tracing` warning.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) if the session is closed first,
    /// [`Error::InvalidName`](crate::Error::InvalidName),
    /// [`Error::KindMismatch`](crate::Error::KindMismatch) if the name is in use by a semaphore, and
    /// [`Error::Etcd`](crate::Error::Etcd) for what waiting cannot mend, such as a missing permission.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a later call queues at the end. The place is removed in
    /// the background. To keep it across a `select!`, use [`enqueue`](Self::enqueue).
    pub async fn lock(&self) -> Result<Guard> {
        self.queue.lock(Rule::MUTEX, self.value()).await
    }

    /// Locks the mutex if it is free right now. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free".
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock); and an error if etcd gives no answer within a time limit of 5 s (half of the TTL
    /// for a TTL below 10 s, at least 1 s).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_lock(&self) -> Result<Option<Guard>> {
        self.queue.try_lock(Rule::MUTEX, self.value()).await
    }

    /// Locks the mutex if its turn comes within `limit`. This is one full attempt, and `limit` bounds the waiting
    /// alone: asking etcd is not counted, so that a lock that is free is got even with a limit of zero.
    ///
    /// `None` means that etcd answered "not free", and that the place in the queue is given up, in the background.
    /// `cargo run --example try_lock_for` shows it beside the other two ways.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock). Once it is queued, an outage of etcd is waited out until the limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background.
    pub async fn try_lock_for(&self, limit: Duration) -> Result<Option<Guard>> {
        self.queue.try_lock_for(Rule::MUTEX, self.value(), limit).await
    }

    /// Takes a place in the queue, to wait for it later.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place, in the background.
    pub async fn enqueue(&self) -> Result<Ticket> {
        self.queue.enqueue(Rule::MUTEX, self.value()).await
    }

    /// Everyone in the queue, the holder first.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`](crate::Error::InvalidName), and an error if etcd gives no answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn queue(&self) -> Result<Vec<Waiter>> {
        self.queue.waiters().await
    }

    pub(crate) fn session(&self) -> &Session {
        self.queue.session()
    }

    /// Whether its name can be one.
    pub(crate) fn check(&self) -> Result<()> {
        self.queue.name().map(drop)
    }

    fn value(&self) -> Vec<u8> {
        self.queue.value(Rule::MUTEX)
    }
}
