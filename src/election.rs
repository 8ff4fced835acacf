//! Elections: one leader among those who stand, and everyone else able to see who it is.

mod leader;
mod leadership;
mod observe;
mod transfer;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use self::leader::Leader;
pub use self::leadership::Leadership;
pub use self::observe::{Observation, Observations};
use crate::error::{Error, Loss, Result};
use crate::etcd_client::{KeyValue, Txn, TxnOp, TxnOpResponse};
use crate::queue::rule::Rule;
use crate::retry;
use crate::session::Session;
use crate::ticket::{Queue, Ticket};
use crate::token::Waiter;

/// An office that one candidate at a time holds, in the order in which they stood.
///
/// A Go service that uses `concurrency.Election`, and `etcdctl elect`, may stand in the same election: the leader is
/// the oldest candidate, its value is what it proclaims.
///
/// Most services want [`run`](Self::run): it campaigns, leads, and campaigns again, until it is told to stop.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// let election = session.election("scheduler");
/// let term = election.campaign("10.0.0.7:8080").await?;
/// assert_eq!(election.leader().await?.expect("there is one").value(), b"10.0.0.7:8080");
/// term.resign().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example leader` is a replica of a service; start three.
#[derive(Clone)]
#[must_use = "a handle does nothing until it is used"]
pub struct Election {
    pub(crate) queue: Queue,
    grace: Duration,
    /// The term of a `run` on this handle or a clone.
    term: Arc<Mutex<Weak<Leadership>>>,
}

impl Session {
    /// An election by the name of `name`, for the names of which see [`Session::mutex`]. Nothing is sent.
    pub fn election(&self, name: impl AsRef<str>) -> Election {
        Election { queue: Queue::new(self, name.as_ref()), grace: Duration::ZERO, term: Arc::default() }
    }
}

impl Election {
    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.queue.as_str()
    }

    /// Stands for the office with `value` as proposal, and waits to be elected, after everyone who stood earlier. A
    /// leader that [hands over](Leadership::transfer_to) to somebody behind may ask it to give way: then it waits at the
    /// back.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`](crate::Mutex::lock).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the candidate, in the background; a later call stands at the back. To stay a
    /// candidate across a `select!`, use [`enqueue`](Self::enqueue).
    pub async fn campaign(&self, value: impl Into<Vec<u8>>) -> Result<Leadership> {
        self.queue.lock(Rule::ELECTION, value.into()).await
    }

    /// Takes the office if nobody stands right now. A try that fails writes nothing. `None` means that etcd answered
    /// that somebody stands.
    ///
    /// # Errors
    ///
    /// As [`Mutex::try_lock`](crate::Mutex::try_lock).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up what it may have got, in the background.
    pub async fn try_campaign(&self, value: impl Into<Vec<u8>>) -> Result<Option<Leadership>> {
        self.queue.try_lock(Rule::ELECTION, value.into()).await
    }

    /// Stands, and is elected if its turn comes within `limit`, which bounds the waiting alone. `None` means that it
    /// did not come, and that the candidate is withdrawn, in the background.
    ///
    /// # Errors
    ///
    /// As [`Mutex::try_lock_for`](crate::Mutex::try_lock_for).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the candidate, in the background.
    pub async fn try_campaign_for(&self, value: impl Into<Vec<u8>>, limit: Duration) -> Result<Option<Leadership>> {
        self.queue.try_lock_for(Rule::ELECTION, value.into(), limit).await
    }

    /// Stands, to wait for the office later.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`](crate::Mutex::lock).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the candidate, in the background.
    pub async fn enqueue(&self, value: impl Into<Vec<u8>>) -> Result<Ticket<Leadership>> {
        self.queue.enqueue(Rule::ELECTION, value.into()).await
    }

    /// Who leads, as the cluster has it now.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`](crate::Error::InvalidName), and an error if etcd gives no answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        Ok(self.queue.oldest().await?.as_ref().map(Leader::of))
    }

    /// Follows who leads, from now on: the present state first, then every change in order, vacancies included.
    ///
    /// What is observed never goes back. Breaks of the connection are mended; changes are skipped, up to the present
    /// one, only if etcd has compacted them meanwhile, or if the consumer falls 1,024 observations behind.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`](crate::Error::InvalidName). What goes wrong later is an item of the stream, and its last one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, ends the watch.
    pub async fn observe(&self) -> Result<Observations> {
        Ok(Observations::new(self.queue.session(), self.queue.name()?))
    }

    /// Everyone who stands, the leader first.
    ///
    /// # Errors
    ///
    /// As [`leader`](Self::leader).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn candidates(&self) -> Result<Vec<Waiter>> {
        candidates(&self.queue, &self.queue.list().await?).await
    }

    /// The term of a [`run`](Self::run) on this handle or a clone of it, while it lasts: for readiness, and for
    /// "am I the leader?".
    #[must_use]
    pub fn term(&self) -> Option<Arc<Leadership>> {
        self.current().upgrade().filter(|term| term.is_valid())
    }

    /// How long the work of a [`run`](Self::run) may go on after [`ending`](Leadership::ending) has fired: 0 by
    /// default. The deadline of the hold cuts it short.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Campaigns, leads, and campaigns again, until `shutdown` fires.
    ///
    /// `work` is called with every term, and what it returns runs while the term lasts. At shutdown and in jeopardy
    /// [`ending`](Leadership::ending) fires; the work is dropped after the [`grace`](Self::grace), or at the
    /// deadline, whichever comes first. Only then is the office resigned, so that the next leader never overlaps with
    /// what lives inside the future; tasks that it spawned have to heed `ending` themselves. When the hold is lost,
    /// the work is dropped at once.
    ///
    /// Work that returns gives the office up and stands again at the back; a term shorter than the TTL is followed by
    /// a pause, jittered, that grows to 1 s.
    ///
    /// `cargo run --example failover` runs three replicas, and lets one crash and one stop.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) if the session is closed before `shutdown` fires, and what [`campaign`](Self::campaign)
    /// fails with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the work and resigns, or withdraws the candidate, in the background.
    pub async fn run<F, Fut>(self, value: impl Into<Vec<u8>>, shutdown: CancellationToken, mut work: F) -> Result<()>
    where
        F: FnMut(Arc<Leadership>) -> Fut,
        Fut: Future<Output = ()>,
    {
        let value = value.into();
        let mut pauses = retry::delays();
        loop {
            let term = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                term = self.campaign(value.clone()) => Arc::new(term?),
            };
            let elected = Instant::now();
            *self.current() = Arc::downgrade(&term);
            tracing::info!(name = self.name(), token = %term.token(), "elected");
            let term = Office(term);
            self.lead(&term.0, &shutdown, &mut work).await;
            match term.0.release().await {
                Ok(()) => tracing::info!(name = self.name(), token = %term.0.token(), "resigned"),
                Err(Error::Lost(Loss::Released)) => {
                    tracing::info!(name = self.name(), token = %term.0.token(), "resigned");
                }
                Err(error) => tracing::warn!(name = self.name(), token = %term.0.token(), %error, "the term has ended"),
            }
            if elected.elapsed() >= self.queue.session().ttl() {
                pauses.reset();
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(pauses.next()) => {}
            }
        }
    }

    /// Runs the work of one term; when this returns, it is dropped.
    async fn lead<F, Fut>(&self, term: &Arc<Leadership>, shutdown: &CancellationToken, work: &mut F)
    where
        F: FnMut(Arc<Leadership>) -> Fut,
        Fut: Future<Output = ()>,
    {
        let _running = self.queue.session().core().runs.token();
        let ending = async {
            tokio::select! {
                () = shutdown.cancelled() => term.ending.cancel(),
                () = term.ending.cancelled() => {}
            }
            sleep(self.grace).await;
        };
        let work = pin!(work(term.clone()));
        tokio::select! {
            biased;
            () = term.ended() => {}
            () = ending => {}
            () = work => {}
        }
        term.ending.cancel();
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Weak<Leadership>> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose client a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Session,
    Other,
}

/// Who stands by these keys.
pub(crate) async fn candidates(queue: &Queue, kvs: &[KeyValue]) -> Result<Vec<Waiter>> {
    Ok(owners(queue, kvs).await?.into_iter().map(|(candidate, _)| candidate).collect())
}

/// Whose these keys are. The proposal is the candidate's own affair: who it is says its session's fence key.
async fn owners(queue: &Queue, kvs: &[KeyValue]) -> Result<Vec<(Waiter, Owner)>> {
    let core = queue.session().core();
    let mut candidates = Vec::with_capacity(kvs.len());
    for chunk in kvs.chunks(100) {
        let gets = || chunk.iter().map(|kv| TxnOp::get(core.fence_key(kv.lease()), None)).collect::<Vec<_>>();
        let gets = &gets;
        let reply = core.read(|mut kv| async move { kv.txn(Txn::new().and_then(gets())).await }).await?;
        for (kv, op) in chunk.iter().zip(reply.op_responses()) {
            let TxnOpResponse::Get(fence) = op else { continue };
            let (value, owner) =
                fence.kvs().first().map_or((&[][..], Owner::Other), |fence| (fence.value(), Owner::Session));
            candidates.push((Waiter::of(kv, value), owner));
        }
    }
    Ok(candidates)
}

/// The term of a `run`: ended with it, though others may still refer to it.
struct Office(Arc<Leadership>);

impl Drop for Office {
    fn drop(&mut self) {
        self.0.ending.cancel();
        self.0.abandon();
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election").field("name", &self.name()).field("grace", &self.grace).finish_non_exhaustive()
    }
}
