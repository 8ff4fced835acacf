//! Holders who are asked to let go, and holds that are taken from them.
//!
//! 1. A request names the tokens of those who held when it was made: nobody else hears of it.
//! 2. It is gone when none of them holds any more, when the same session asks again, or with the session's lease.
//! 3. What is taken by force is the hold of one token, never that of whoever has its key by then.

mod requested;

use std::sync::PoisonError;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::requested::{ROOM, Request};
pub use self::requested::{Revocation, RevocationRequested};
use crate::election::{self, Election};
use crate::error::{Error, Result, Verdict, verdict};
use crate::etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use crate::mutex::Mutex;
use crate::name::Key;
use crate::queue::holding;
use crate::retry;
use crate::rwlock::RwLock;
use crate::semaphore::Semaphore;
use crate::session::lookout::gone;
use crate::session::note::Note;
use crate::ticket::Queue;
use crate::token::{FencingToken, Waiter};

impl Mutex {
    /// Asks whoever holds to let go, and says why: their [`revocation_requested`](crate::Guard::revocation_requested)
    /// completes. Whether they do is up to them. Returns once the request is recorded in etcd, with those that it is
    /// addressed to; where nobody holds it writes nothing, and returns none.
    ///
    /// Who holds later is not asked, and another client's holder does not hear of it. The request is taken back when
    /// none of those asked holds any more; when this session asks again by this name, which replaces it; and when this
    /// session loses its lease or is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let etcd = tenure::testing::Etcd::start().await?;
    /// # let (session, operator) = (tenure::Session::open(etcd.client().await?).await?, tenure::Session::open(etcd.client().await?).await?);
    /// let guard = session.mutex("jobs/reindex").lock().await?;
    /// let job = tokio::spawn(async move {
    ///     let (requested, lost) = (guard.revocation_requested(), guard.lost());
    ///     tokio::select! {
    ///         () = std::future::pending() => println!("the work is done"),
    ///         asked = requested => println!("{} asks: {}", asked.identity(), asked.reason()),
    ///         loss = lost => println!("{loss}"),
    ///     }
    ///     // Leave things tidy, and let go.
    ///     guard.unlock().await
    /// });
    ///
    /// let mutex = operator.mutex("jobs/reindex");
    /// for holder in mutex.request_revocation("the disk is full").await? {
    ///     println!("asked {}", holder.identity());
    /// }
    /// let guard = mutex.lock().await?;
    /// # job.await??;
    /// # guard.unlock().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::Closed`], [`Error::Lost`] if the session loses its lease meanwhile, and an
    /// error if etcd gives no answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the request back, in the background, unless it was recorded by then.
    pub async fn request_revocation(&self, reason: impl Into<String>) -> Result<Vec<Waiter>> {
        self.queue.request_revocation(reason.into()).await
    }

    /// For operators: ends the hold with this token, and no other, without asking its holder, whose guard is told
    /// that it is lost: [`Loss::Deleted`](crate::Loss::Deleted). Says so in a `tracing` warning. `false` means that
    /// nothing was done: nobody holds with this token, be it that the hold has ended or that it is still a waiter's.
    ///
    /// Until it hears of that, and on etcd's word alone that is a moment, the holder may still believe in its hold
    /// beside the next one: see [fencing](crate::guide::fencing). `etcdctl lock` does not notice at all.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]; [`Error::Unknown`] if etcd did not answer in time: the hold may have been ended.
    /// [`Error::Etcd`] if etcd refused.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the hold may or may not be ended.
    pub async fn force_release(&self, token: FencingToken) -> Result<bool> {
        self.queue.force_release(token).await
    }
}

impl RwLock {
    /// Asks whoever holds to let go, the writer or all readers, as [`Mutex::request_revocation`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::request_revocation`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the request back, in the background, unless it was recorded by then.
    pub async fn request_revocation(&self, reason: impl Into<String>) -> Result<Vec<Waiter>> {
        self.queue.request_revocation(reason.into()).await
    }

    /// For operators: ends the hold with this token, and no other, be it a reader's or a writer's, as
    /// [`Mutex::force_release`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::force_release`].
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the hold may or may not be ended.
    pub async fn force_release(&self, token: FencingToken) -> Result<bool> {
        self.queue.force_release(token).await
    }
}

impl Semaphore {
    /// Asks everyone who holds permits to let go, as [`Mutex::request_revocation`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::request_revocation`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the request back, in the background, unless it was recorded by then.
    pub async fn request_revocation(&self, reason: impl Into<String>) -> Result<Vec<Waiter>> {
        self.queue.request_revocation(reason.into()).await
    }

    /// For operators: ends the hold with this token, and no other, with all of its permits, as
    /// [`Mutex::force_release`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::force_release`].
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the hold may or may not be ended.
    pub async fn force_release(&self, token: FencingToken) -> Result<bool> {
        self.queue.force_release(token).await
    }
}

impl Election {
    /// Asks the leader to resign, as [`Mutex::request_revocation`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::request_revocation`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the request back, in the background, unless it was recorded by then.
    pub async fn request_revocation(&self, reason: impl Into<String>) -> Result<Vec<Waiter>> {
        let leader = self.queue.holders().await?;
        let waiters = election::candidates(&self.queue, &leader).await?;
        self.queue.record(reason.into(), &leader).await?;
        Ok(waiters)
    }

    /// For operators: ends the term with this token, and no other, as [`Mutex::force_release`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutex::force_release`].
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the term may or may not be ended.
    pub async fn force_release(&self, token: FencingToken) -> Result<bool> {
        self.queue.force_release(token).await
    }
}

impl Queue {
    async fn holders(&self) -> Result<Vec<KeyValue>> {
        let queue = self.list().await?;
        let waiters: Vec<_> = queue.iter().map(Waiter::from).collect();
        Ok(holding(&waiters).into_iter().map(|(place, _)| queue[place].clone()).collect())
    }

    async fn request_revocation(&self, reason: String) -> Result<Vec<Waiter>> {
        let holders = self.holders().await?;
        self.record(reason, &holders).await?;
        Ok(holders.iter().map(Waiter::from).collect())
    }

    /// Records a request to `holders`, in place of the last one of the session, until none of them holds.
    async fn record(&self, reason: String, holders: &[KeyValue]) -> Result<()> {
        if holders.is_empty() {
            return Ok(());
        }
        let (name, core) = (self.name()?, self.session().core().clone());
        let revocation = Revocation { identity: self.session().identity().into(), reason: reason.into() };
        let tokens = holders.iter().map(KeyValue::create_revision).collect();
        let request = serde_json::to_vec(&Request { revocation, tokens }).expect("strings and numbers are JSON");
        let lease = core.lease().await?;
        let note = Note::new(&core, lease.clone(), &name.beside(ROOM));
        note.write(request).await?;

        let (replaced, crowd) = (CancellationToken::new(), self.crowd().clone());
        let last = crowd.request.lock().unwrap_or_else(PoisonError::into_inner).replace(replaced.clone().drop_guard());
        drop(last);
        let holders: Vec<_> = holders.iter().map(|kv| (Key::from(kv.key()), kv.create_revision())).collect();
        core.clone().spawn(async move {
            tokio::select! {
                () = gone(&core, holders) => {}
                () = replaced.cancelled() => {}
                () = lease.over() => {}
            }
            // The crowd keeps what would cancel it.
            drop((note, crowd));
        });
        Ok(())
    }

    async fn force_release(&self, token: FencingToken) -> Result<bool> {
        let holders = self.holders().await?;
        let Some(holder) = holders.iter().find(|kv| kv.create_revision() == token.0) else { return Ok(false) };
        let stands = Compare::create_revision(holder.key(), CompareOp::Equal, token.0);
        let txn = Txn::new().when([stands]).and_then([TxnOp::delete(holder.key(), None)]);
        let core = self.session().core();
        let (begun, mut delays) = (Instant::now(), retry::delays());
        let released = loop {
            let mut kv = core.kv.clone();
            let error = match core.call(kv.txn(txn.clone())).await {
                Ok(reply) => break reply.succeeded(),
                Err(error) => error,
            };
            // Sent again only if it was not applied for sure: what it did could not be told afterwards.
            match error.as_ref().map(verdict) {
                Some(Verdict::Again) if begun.elapsed() < core.call_limit => sleep(delays.next()).await,
                Some(Verdict::Reauthenticate) if begun.elapsed() < core.call_limit => core.reauthenticate().await,
                _ => return Err(Error::failed(error)),
            }
        };
        if released {
            let (by, holder) = (self.session().identity(), Waiter::from(holder));
            let (name, key, identity) = (self.as_str(), holder.key(), holder.identity());
            tracing::warn!(name, %token, key, holder = identity, by, "a hold was ended by force");
        }
        Ok(released)
    }
}
