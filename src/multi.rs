//! Several mutexes at once.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Deadline;
use crate::error::{Error, Loss, Result};
use crate::etcd_client::{Compare, Txn, TxnResponse};
use crate::guard::{self, Guard, Lost, any, fenced};
use crate::mutex::Mutex;
use crate::session::Session;

/// Proof of several holds, taken together: as a [`Guard`] for all of them.
///
/// It is lost as soon as any of its holds is. What the others are worth by then is for their owner to say:
/// [`guards`](Self::guards) tells of each, and dropping all of it gives the rest back.
///
/// Dropping it releases all in the background; [`unlock`](Self::unlock) waits until etcd has confirmed.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// use tenure::etcd_client::{Txn, TxnOp};
///
/// let guards = session.lock_all(["accounts/7", "accounts/3"]).await?;
/// // Applied only while both holds stand.
/// let puts = [TxnOp::put("balance/7", "40", None), TxnOp::put("balance/3", "60", None)];
/// guards.txn(Txn::new().and_then(puts)).await?;
/// guards.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example transfer` moves money between accounts, by many tasks at once.
#[derive(Debug)]
#[must_use = "guards that are dropped at once release their holds at once"]
pub struct MultiGuard {
    /// In the order of names. There is one at least.
    guards: Vec<Guard>,
}

/// For how long to wait for all of them.
#[derive(Clone, Copy)]
enum Wait {
    Patiently,
    Not,
    Until(Instant),
}

impl Session {
    /// Locks the mutexes of all these names, given in any order; a name that is given twice is locked once.
    ///
    /// They are locked one after the other, in the order of their names, by everyone: so whoever takes locks in this
    /// way alone never waits in a circle. While it waits for one it holds those before it. Should one of those be lost
    /// meanwhile, all are given back, and it begins again.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`], with all of them given back in the background; and
    /// [`Error::InvalidOption`], before anything is sent, if there are no names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up all holds and the place in the queue, in the background.
    pub async fn lock_all(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<MultiGuard> {
        let mutexes = self.mutexes(names)?;
        loop {
            match gather(&mutexes, Wait::Patiently).await {
                Ok(Some(guards)) => return Ok(guards),
                Ok(None) => unreachable!("nobody gives up"),
                Err(Error::Lost(Loss::Closed)) => return Err(Error::Closed),
                Err(Error::Lost(loss)) => {
                    tracing::warn!(%loss, "one of several locks was lost before all were held: they are locked anew");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Locks the mutexes of all these names if all are free right now.
    ///
    /// `None` means that etcd answered "not free" for one of them. Those before it were locked for a moment and are
    /// given back, in the background: until then others who try find them locked.
    ///
    /// # Errors
    ///
    /// As [`Mutex::try_lock`], and as [`lock_all`](Self::lock_all) for names. [`Error::Lost`] if one was lost before
    /// all were held.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_lock_all(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Option<MultiGuard>> {
        gather(&self.mutexes(names)?, Wait::Not).await
    }

    /// Locks the mutexes of all these names, if the turn of each comes within `limit`, which is one for all of them.
    /// What is free when its turn to be locked comes is got even if nothing is left of `limit`.
    ///
    /// `None` means that etcd answered "not free" for one of them, and that all are given back, in the background.
    ///
    /// # Errors
    ///
    /// As [`try_lock_all`](Self::try_lock_all). An outage of etcd during the wait for one that is not free is waited
    /// out until the limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up all holds and the place in the queue, in the background.
    pub async fn try_lock_all_for(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
        limit: Duration,
    ) -> Result<Option<MultiGuard>> {
        let until = Instant::now().checked_add(limit);
        gather(&self.mutexes(names)?, until.map_or(Wait::Patiently, Wait::Until)).await
    }

    /// In the one order that all take.
    fn mutexes(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Vec<Mutex>> {
        let names: BTreeSet<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        if names.is_empty() {
            return Err(Error::InvalidOption { option: "names", reason: "there are none".to_owned() });
        }
        let mutexes = names.into_iter().map(|name| {
            let mutex = self.mutex(name);
            mutex.check().map(|()| mutex)
        });
        mutexes.collect()
    }
}

/// All of them, or an error or `None` with all given back: also if one is lost while another is waited for.
async fn gather(mutexes: &[Mutex], wait: Wait) -> Result<Option<MultiGuard>> {
    let mut guards = Vec::with_capacity(mutexes.len());
    for mutex in mutexes {
        let lost = Lost::of(&guards);
        let lock = async {
            match wait {
                Wait::Patiently => mutex.lock().await.map(Some),
                Wait::Not => mutex.try_lock().await,
                Wait::Until(until) => mutex.try_lock_for(until.saturating_duration_since(Instant::now())).await,
            }
        };
        let guard = tokio::select! {
            biased;
            loss = lost => return Err(loss.into()),
            guard = lock => guard?,
        };
        match guard {
            Some(guard) => guards.push(guard),
            None => return Ok(None),
        }
    }
    Ok(Some(MultiGuard { guards }))
}

impl MultiGuard {
    /// The guard of each, in the order of their names.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Whether all holds stand, as far as is known here. Asks no one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.guards.iter().all(Guard::is_valid)
    }

    /// Until when none of the holds can have expired; passed once one is lost.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.guards.iter().map(Guard::deadline).fold(self.guards[0].deadline(), Ord::min)
    }

    /// Completes when any of the holds has ended, with the reason: [`Loss::Released`] after an unlock.
    pub fn lost(&self) -> Lost {
        Lost::of(&self.guards)
    }

    /// Runs `future` while all holds stand, and drops it as soon as one does not.
    ///
    /// # Errors
    ///
    /// The [`Loss`], if a hold ended first. What `future` had done by then is done.
    ///
    /// # Cancel safety
    ///
    /// Dropping this drops `future`; the holds go on.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Loss> {
        let ended = any(self.guards.iter().map(|guard| Box::pin(guard.ended())).collect());
        match guard::run_until(self.guards[0].session(), ended, future).await {
            Some(output) => Ok(output),
            None => Err(self.lost().await),
        }
    }

    /// Asks etcd whether all holds stand, in one moment.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if one does not, [`Error::Unknown`] or [`Error::Etcd`] if etcd did not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn verify(&self) -> Result<()> {
        fenced::verify(&self.guards).await
    }

    /// Commits `txn` only if all holds stand in that very moment in etcd. Where they do, the reply is that of `txn`,
    /// whose own conditions decide on its branch.
    ///
    /// Each hold is one condition more, and etcd's limit of 128 (`--max-txn-ops`) counts them with what is inside: with
    /// *n* names `txn` may have 128 − *n* operations in a branch, and as many conditions. It is sent once.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if a hold does not stand: nothing was applied. [`Error::Unknown`] if etcd did not answer in
    /// time: it may have been applied. [`Error::Etcd`] if etcd refused, such as a transaction that is too long.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the transaction may or may not be applied.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse> {
        fenced::txn(&self.guards, txn).await
    }

    /// The conditions under which all holds stand, for a transaction of one's own: as
    /// [`Guard::compare`] of each.
    #[must_use]
    pub fn compares(&self) -> Vec<Compare> {
        self.guards.iter().map(Guard::compare).collect()
    }

    /// Gives all holds back, and waits until etcd has confirmed.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if one of the holds had ended before, or its lease ended before etcd could be reached. The
    /// others are given back all the same.
    ///
    /// # Cancel safety
    ///
    /// The holds are given back in the background, whether or not the future is awaited to its end.
    pub async fn unlock(self) -> Result<()> {
        let mut releases: JoinSet<Result<()>> = self.guards.into_iter().map(Guard::unlock).collect();
        let mut all = Ok(());
        while let Some(released) = releases.join_next().await {
            // A task that does not run to its end ends with its runtime.
            all = all.and(released.unwrap_or(Err(Error::Closed)));
        }
        all
    }
}
