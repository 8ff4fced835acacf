//! A fair read-write lock.

use std::time::Duration;

use crate::error::Result;
use crate::guard::Guard;
use crate::queue::rule::Rule;
use crate::session::Session;
use crate::ticket::{Queue, Ticket};
use crate::token::Waiter;

/// A fair read-write lock, shared by every process that names it: any number of readers, or one writer.
///
/// Locks are granted in the order in which the requests reached etcd, over all processes and all tasks. A reader
/// waits for the writers before it, so that readers who keep coming cannot starve a writer; a writer waits for
/// everyone before it. When a writer goes, all readers between it and the next writer hold at once.
///
/// A hold cannot be turned into the other kind: a reader that became a writer would have to pass those who wait
/// already, and two that tried would wait for each other. Release it, and queue again.
///
/// A hold is kept by the session's lease, as a [`Mutex`](crate::Mutex)'s is, and what is said there of
/// [fencing](crate::guide::fencing) is true of writers here. A reader can be late too: what it reads at the end of its hold
/// may be what the next writer has just written. What etcd itself stores is read consistently by
/// [`Guard::txn`].
///
/// A [`Mutex`](crate::Mutex) of the same name, a Go service that uses `concurrency.Mutex`, and `etcdctl lock` may stand
/// in the same queue: they count as writers.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// let config = session.rwlock("config");
/// let one = config.read().await?;
/// let other = config.read().await?;
/// assert!(config.try_write().await?.is_none());
/// one.unlock().await?;
/// other.unlock().await?;
/// let writer = config.write().await?;
/// writer.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example rwlock` has a configuration that is changed in two steps, and read all the while.
#[derive(Clone, Debug)]
#[must_use = "a handle does nothing until it is locked"]
pub struct RwLock {
    pub(crate) queue: Queue,
}

impl Session {
    /// A read-write lock by the name of `name`. Nothing is sent; a name that cannot be one is an error when it is
    /// used.
    ///
    /// A name is a path such as `jobs/reindex`, without a leading, trailing or doubled slash, a NUL or a leading `~`.
    pub fn rwlock(&self, name: impl AsRef<str>) -> RwLock {
        RwLock { queue: Queue::new(self, name.as_ref()) }
    }
}

impl RwLock {
    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.queue.as_str()
    }

    /// Locks for reading, beside other readers, after every writer who asked earlier.
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
    /// the background. To keep it across a `select!`, use [`enqueue_read`](Self::enqueue_read).
    pub async fn read(&self) -> Result<Guard> {
        self.queue.lock(Rule::READ, self.value(Rule::READ)).await
    }

    /// Locks for writing, alone, after everyone who asked earlier. What is waited out is the same as in
    /// [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a later call queues at the end. The place is removed in
    /// the background. To keep it across a `select!`, use [`enqueue_write`](Self::enqueue_write).
    pub async fn write(&self) -> Result<Guard> {
        self.queue.lock(Rule::WRITE, self.value(Rule::WRITE)).await
    }

    /// Locks for reading if no writer holds or waits right now. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free".
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); and an error if etcd gives no answer within a time limit of 5 s (half of the TTL
    /// for a TTL below 10 s, at least 1 s).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_read(&self) -> Result<Option<Guard>> {
        self.queue.try_lock(Rule::READ, self.value(Rule::READ)).await
    }

    /// Locks for writing if nobody holds or waits right now. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free".
    ///
    /// # Errors
    ///
    /// As [`try_read`](Self::try_read).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_write(&self) -> Result<Option<Guard>> {
        self.queue.try_lock(Rule::WRITE, self.value(Rule::WRITE)).await
    }

    /// Locks for reading if its turn comes within `limit`. This is one full attempt, and `limit` bounds the waiting
    /// alone: asking etcd is not counted, so that a lock that is free is got even with a limit of zero.
    ///
    /// `None` means that etcd answered "not free", and that the place in the queue is given up, in the background.
    ///
    /// # Errors
    ///
    /// As [`try_read`](Self::try_read). Once it is queued, an outage of etcd is waited out until the limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background.
    pub async fn try_read_for(&self, limit: Duration) -> Result<Option<Guard>> {
        self.queue.try_lock_for(Rule::READ, self.value(Rule::READ), limit).await
    }

    /// Locks for writing if its turn comes within `limit`, which means the same as in
    /// [`try_read_for`](Self::try_read_for). Readers that come meanwhile wait for it.
    ///
    /// # Errors
    ///
    /// As [`try_read_for`](Self::try_read_for).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background.
    pub async fn try_write_for(&self, limit: Duration) -> Result<Option<Guard>> {
        self.queue.try_lock_for(Rule::WRITE, self.value(Rule::WRITE), limit).await
    }

    /// Takes a reader's place in the queue, to wait for it later.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place, in the background.
    pub async fn enqueue_read(&self) -> Result<Ticket> {
        self.queue.enqueue(Rule::READ, self.value(Rule::READ)).await
    }

    /// Takes a writer's place in the queue, to wait for it later. Readers that come meanwhile wait for it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place, in the background.
    pub async fn enqueue_write(&self) -> Result<Ticket> {
        self.queue.enqueue(Rule::WRITE, self.value(Rule::WRITE)).await
    }

    /// Everyone in the queue, in its order: readers and writers, those who hold first.
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

    fn value(&self, rule: Rule) -> Vec<u8> {
        self.queue.value(rule)
    }
}
