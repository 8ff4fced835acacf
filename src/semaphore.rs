//! A fair semaphore.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::queue::rule::Rule;
use crate::session::Session;
use crate::ticket::{Queue, Ticket};
use crate::token::Waiter;

/// A fair semaphore, shared by every process that names it: at most so many permits are held at once.
///
/// Permits are granted in the order in which the requests reached etcd, over all processes and all tasks. A request
/// for many waits until there is room for it, and everyone behind it waits too, so that small requests cannot starve
/// it.
///
/// The number of permits is that of whoever uses the name first: it stands in the keys of those who hold or wait, and
/// whoever comes with another one meanwhile is turned away with [`Error::CapacityMismatch`]. Once nobody is there the
/// number may change. A name in use by a semaphore cannot be a mutex or a read-write lock, nor the other way round,
/// which is [`Error::KindMismatch`]. Keys that state nothing, those of other clients and of elections, count as all of
/// the permits.
///
/// Permits are held through the session's lease, as a [`Mutex`](crate::Mutex) is, and what is said there of
/// [fencing](crate::guide::fencing) is true here: for a moment more may be at work than there are permits. Several hold at
/// once, so a [token](Guard::token) tells later holders from earlier ones, and not the one from all others.
///
/// It is made for tens of permits, not for thousands: whoever waits watches as many keys as there are permits, and
/// a release is heard by as many who wait.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// let gpus = session.semaphore("gpu", 4);
/// let one = gpus.acquire().await?;
/// let three = gpus.acquire_many(3).await?;
/// assert!(gpus.try_acquire().await?.is_none());
/// three.unlock().await?;
/// one.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example semaphore_workers` has ten workers at a machine with three places.
#[derive(Clone, Debug)]
#[must_use = "a handle does nothing until a permit is acquired"]
pub struct Semaphore {
    pub(crate) queue: Queue,
    permits: u32,
}

impl Session {
    /// A semaphore by the name of `name`, with so many `permits`. Nothing is sent; a name that cannot be one, and a
    /// number of zero, are errors when it is used.
    ///
    /// A name is a path such as `jobs/reindex`, without a leading, trailing or doubled slash, a NUL or a leading `~`.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Semaphore {
        Semaphore { queue: Queue::new(self, name.as_ref()), permits }
    }
}

impl Semaphore {
    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.queue.as_str()
    }

    /// How many permits there are in all.
    #[must_use]
    pub fn permits(&self) -> u32 {
        self.permits
    }

    /// Acquires a permit, after everyone who asked earlier.
    ///
    /// An outage of etcd, a compaction, a moved leader are waited out, and so is the loss of the session's lease:
    /// the request then queues again, at the back, and says so in a `tracing` warning.
    ///
    /// # Errors
    ///
    /// [`Error::CapacityMismatch`] and [`Error::KindMismatch`] if the name is in use with another number of permits,
    /// or by another kind of lock; [`Error::InvalidOption`] for a semaphore without permits. [`Error::Closed`] if the
    /// session is closed first, [`Error::InvalidName`], and [`Error::Etcd`] for what waiting cannot mend, such as a
    /// missing permission.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a later call queues at the end. The place is removed in
    /// the background. To keep it across a `select!`, use [`enqueue`](Self::enqueue).
    pub async fn acquire(&self) -> Result<Guard> {
        self.acquire_many(1).await
    }

    /// Acquires `n` permits at once, after everyone who asked earlier. They are one hold, and are released together.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); and [`Error::InvalidOption`], before anything is sent, if `n` is zero or more
    /// than there are.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a later call queues at the end. The place is removed in
    /// the background. To keep it across a `select!`, use [`enqueue_many`](Self::enqueue_many).
    pub async fn acquire_many(&self, n: u32) -> Result<Guard> {
        let rule = self.rule(n)?;
        self.queue.lock(rule, self.queue.value(rule)).await
    }

    /// Acquires a permit if there is one right now and nobody waits. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free".
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); and an error if etcd gives no answer within a time limit of 5 s (half of the
    /// TTL for a TTL below 10 s, at least 1 s).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        self.try_acquire_many(1).await
    }

    /// Acquires `n` permits if there are as many right now and nobody waits. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free".
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire) and [`acquire_many`](Self::acquire_many).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_acquire_many(&self, n: u32) -> Result<Option<Guard>> {
        let rule = self.rule(n)?;
        self.queue.try_lock(rule, self.queue.value(rule)).await
    }

    /// Acquires a permit if its turn comes within `limit`. This is one full attempt, and `limit` bounds the waiting
    /// alone: asking etcd is not counted, so that a permit that is free is got even with a limit of zero.
    ///
    /// `None` means that etcd answered "not free", and that the place in the queue is given up, in the background.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire). Once it is queued, an outage of etcd is waited out until the limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background.
    pub async fn try_acquire_for(&self, limit: Duration) -> Result<Option<Guard>> {
        self.try_acquire_many_for(1, limit).await
    }

    /// Acquires `n` permits if their turn comes within `limit`, which means the same as in
    /// [`try_acquire_for`](Self::try_acquire_for). Who comes meanwhile waits behind it.
    ///
    /// # Errors
    ///
    /// As [`try_acquire_for`](Self::try_acquire_for) and [`acquire_many`](Self::acquire_many).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background.
    pub async fn try_acquire_many_for(&self, n: u32, limit: Duration) -> Result<Option<Guard>> {
        let rule = self.rule(n)?;
        self.queue.try_lock_for(rule, self.queue.value(rule), limit).await
    }

    /// Takes a place in the queue for one permit, to wait for it later.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place, in the background.
    pub async fn enqueue(&self) -> Result<Ticket> {
        self.enqueue_many(1).await
    }

    /// Takes a place in the queue for `n` permits, to wait for them later.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place, in the background.
    pub async fn enqueue_many(&self, n: u32) -> Result<Ticket> {
        let rule = self.rule(n)?;
        self.queue.enqueue(rule, self.queue.value(rule)).await
    }

    /// Everyone in the queue, in its order: those who hold first.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], and an error if etcd gives no answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn queue(&self) -> Result<Vec<Waiter>> {
        self.queue.waiters().await
    }

    fn rule(&self, n: u32) -> Result<Rule> {
        let permits = self.permits;
        let invalid = |option, reason| Err(Error::InvalidOption { option, reason });
        if permits == 0 {
            invalid("permits", "a semaphore has one permit at least".to_owned())
        } else if n == 0 || n > permits {
            invalid("n", format!("{n} of {permits} permits: it has to be one at least, and all at most"))
        } else {
            Ok(Rule::semaphore(permits, n))
        }
    }
}
