//! A mutex that its owner may lock again.
//!
//! 1. An owner has one hold at most: while one stands that was not given back, every grant is a share of it.
//! 2. All clones that wait have one place in the queue, whoever of them polls; it goes with the last of them.
//! 3. A place that is granted is shared with everyone who waits for it, though others may give their shares back first.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{self, Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::guard::{Guard, LastHold};
use crate::mutex::Mutex;
use crate::token::Waiter;

/// An owner of a [`Mutex`]: while it holds, it may lock it again.
///
/// [`lock`](Self::lock) on this handle, or on a clone of it, is granted at once while one of its guards stands. Guards
/// are counted, share one [token](Guard::token), and the last one that is unlocked or dropped releases. So a function
/// that locks may call another one that locks.
///
/// The owner is this *value* with its clones, wherever they go: never a thread or a task. Two values of
/// [`Mutex::reentrant`] are two owners, who exclude each other and everyone else by that name, on the same session or
/// not, in the same order as ever. Give a clone to those who are meant to hold together, and to nobody else: two tasks
/// that lock clones of one handle do *not* exclude each other.
///
/// A hold that was [lost](Guard::lost) is not handed out again. The next `lock` queues afresh, at the back, and gets a
/// new token, while guards of the lost hold may still be around and remain lost.
///
/// Clones that wait at the same time have one place in the queue, and are granted together. There is no `enqueue`: a
/// pinned `lock()` keeps the place across a `select!`. Locking again meanwhile does not wait until that is polled, but
/// the hold does: it goes on until every `lock()` that was granted is a guard that is gone, or is dropped.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// let owner = session.mutex("accounts/7").reentrant();
/// let guard = owner.lock().await?;
/// let again = owner.lock().await?;
/// assert_eq!(guard.token(), again.token());
///
/// guard.unlock().await?;
/// assert!(again.is_valid());
/// again.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example reentrant` has a function that locks call another one that locks.
#[derive(Clone)]
#[must_use = "a handle does nothing until it is locked"]
pub struct ReentrantMutex {
    mutex: Mutex,
    owner: Arc<Owner>,
}

/// What the clones share.
#[derive(Default)]
struct Owner {
    state: sync::Mutex<State>,
    /// A try got a hold.
    got: Notify,
}

#[derive(Default)]
struct State {
    hold: LastHold,
    waiting: Option<WeakShared<Waiting>>,
}

/// The place of all clones that wait.
type Waiting = Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[derive(Clone)]
enum Outcome {
    /// Kept by everyone who waits until they have their shares.
    Granted(Arc<Guard>),
    /// For whoever comes first; the others ask again for themselves.
    Failed(Arc<sync::Mutex<Option<Error>>>),
}

impl Mutex {
    /// A new owner of this mutex, who may lock it again while it holds.
    pub fn reentrant(&self) -> ReentrantMutex {
        ReentrantMutex { mutex: self.clone(), owner: Arc::default() }
    }
}

impl ReentrantMutex {
    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.mutex.name()
    }

    /// Locks the mutex: at once if this owner holds it, else after everyone who asked earlier, as [`Mutex::lock`].
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, in the background, unless a clone waits too: then it is
    /// that one's.
    pub async fn lock(&self) -> Result<Guard> {
        loop {
            let waiting = match self.share_or_wait() {
                Ok(guard) => return Ok(guard),
                Err(waiting) => waiting,
            };
            let answer = match waiting.await {
                // Lost by now, if there is none to share.
                Outcome::Granted(guard) => LastHold::of(&guard).share(self.mutex.session()).map(Ok),
                Outcome::Failed(error) => lock(&error).take().map(Err),
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Locks the mutex if this owner holds it, or if it is free right now. A try that fails writes nothing.
    ///
    /// `None` means that etcd answered "not free": it is that, too, while a clone waits in the queue, whose turn the
    /// try does not wait for.
    ///
    /// # Errors
    ///
    /// As [`Mutex::try_lock`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_lock(&self) -> Result<Option<Guard>> {
        if let Some(guard) = self.share() {
            return Ok(Some(guard));
        }
        match self.mutex.try_lock().await? {
            Some(guard) => {
                self.keep(&guard);
                Ok(Some(guard))
            }
            // What stood in the way may have been a clone.
            None => Ok(self.share()),
        }
    }

    /// Locks the mutex if this owner holds it, if it is free, or if its turn comes within `limit`, which bounds the
    /// waiting alone: first it is asked for as by [`try_lock`](Self::try_lock), so that a lock that is free is got even
    /// with a limit of zero.
    ///
    /// `None` means that etcd answered "not free", and that the place in the queue is given up, in the background,
    /// unless a clone waits too.
    ///
    /// # Errors
    ///
    /// As [`Mutex::try_lock_for`].
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn try_lock_for(&self, limit: Duration) -> Result<Option<Guard>> {
        match self.try_lock().await? {
            Some(guard) => Ok(Some(guard)),
            None => tokio::time::timeout(limit, self.lock()).await.ok().transpose(),
        }
    }

    /// Everyone in the queue, the holder first. All clones are one of them.
    ///
    /// # Errors
    ///
    /// As [`Mutex::queue`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn queue(&self) -> Result<Vec<Waiter>> {
        self.mutex.queue().await
    }

    fn share(&self) -> Option<Guard> {
        lock(&self.owner.state).hold.share(self.mutex.session())
    }

    /// A share of the hold, or of the wait for it.
    fn share_or_wait(&self) -> Result<Guard, Shared<Waiting>> {
        let mut state = lock(&self.owner.state);
        if let Some(guard) = state.hold.share(self.mutex.session()) {
            return Ok(guard);
        }
        let under_way = state.waiting.as_ref().and_then(WeakShared::upgrade);
        Err(under_way.filter(|waiting| waiting.peek().is_none()).unwrap_or_else(|| {
            let waiting: Waiting = Box::pin(self.clone().wait());
            let waiting = waiting.shared();
            state.waiting = waiting.downgrade();
            waiting
        }))
    }

    async fn wait(self) -> Outcome {
        let mut turn = pin!(self.mutex.lock());
        loop {
            let mut got = pin!(self.owner.got.notified());
            got.as_mut().enable();
            if let Some(guard) = self.share() {
                return Outcome::Granted(Arc::new(guard));
            }
            tokio::select! {
                biased;
                guard = &mut turn => return match guard {
                    Ok(guard) => {
                        self.keep(&guard);
                        Outcome::Granted(Arc::new(guard))
                    }
                    Err(error) => Outcome::Failed(Arc::new(sync::Mutex::new(Some(error)))),
                },
                () = got => {}
            }
        }
    }

    /// From here on the clones share this guard's hold.
    fn keep(&self, guard: &Guard) {
        lock(&self.owner.state).hold = LastHold::of(guard);
        self.owner.got.notify_waiters();
    }
}

fn lock<T>(mutex: &sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for ReentrantMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReentrantMutex").field("name", &self.name()).finish_non_exhaustive()
    }
}
