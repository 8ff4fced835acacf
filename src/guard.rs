//! The one proof of a hold, whatever granted it.

pub(crate) mod fenced;
mod shared;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crate::clock::Deadline;
use crate::error::{Error, Loss, Result};
use crate::etcd_client::{Compare, CompareOp, Txn, TxnResponse};
use crate::queue::driver::Attempt;
use crate::queue::{Claim, Departure, Seat};
use crate::revocation::RevocationRequested;
use crate::session::Session;
use crate::session::lease::Lease;
use crate::telemetry::Holding;
use crate::token::FencingToken;
pub(crate) use shared::{Ending, LastHold};

/// Proof of a hold: of a lock, or, inside a [`Leadership`](crate::Leadership), of an office.
///
/// A hold ends when its guard is unlocked or dropped, and before that when it is lost: at the lease's
/// [deadline](Self::deadline), when the lease is revoked, or when the key is deleted. No hold outlives its deadline,
/// although etcd may not have been reached: [`is_valid`](Self::is_valid) is false from then on, and
/// [`lost`](Self::lost) and [`run`](Self::run) fire.
///
/// What a guard cannot promise is that its *process* is awake. What must never be done by two is written
/// [fenced](crate::guide::fencing), by [`txn`](Self::txn) or [`token`](Self::token): `cargo run --example fencing`.
///
/// Dropping a guard releases it in the background, wherever it is dropped; [`unlock`](Self::unlock) waits until etcd has
/// confirmed. A runtime that shuts down first, or has, cannot release it: the key then keeps others waiting until the
/// lease expires, and a `tracing` warning names the key and says how long that is. The way to avoid it is to await
/// `unlock`, or [`Session::close`](crate::Session::close), at the end of `main`.
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
/// let guard = session.mutex("accounts/7").lock().await?;
/// // Dropped as soon as the hold is lost.
/// let balance = guard.run(async { 42 }).await?;
/// // Applied only while the hold stands.
/// guard.txn(Txn::new().and_then([TxnOp::put("accounts/7/balance", balance.to_string(), None)])).await?;
/// guard.unlock().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a guard that is dropped at once releases the hold at once"]
pub struct Guard {
    hold: Arc<Hold>,
    session: Session,
    /// An attempt sees to its end.
    left: AtomicBool,
}

/// What outlives the guard in those who ask after it.
struct Hold {
    seat: Arc<Seat>,
    lease: Arc<Lease>,
    token: FencingToken,
    key: Box<str>,
    /// The guards that share it, unless it was ended without them: the last one that goes ends it.
    guards: AtomicUsize,
    /// Writes in this hold's name that may still be on their way: conditions given out, and transactions whose
    /// outcome is unknown. With any of them the hold is not handed over before its key is gone.
    travelling: AtomicUsize,
    holding: Holding,
}

impl Guard {
    /// The guard of a place that was claimed for it.
    pub(crate) fn of(attempt: Attempt, claim: Claim) -> Self {
        let (seat, Claim { lease, token }) = (attempt.seat().clone(), claim);
        let key: Box<str> = String::from_utf8_lossy(&seat.key()).into();
        let (session, token) = (attempt.finish(), FencingToken(token));
        let holding = seat.waiting.granted(seat.name().as_str(), session.identity(), &key, token);
        let (guards, travelling) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let hold = Hold { seat, lease, token, key, guards, travelling, holding };
        Self { hold: Arc::new(hold), session, left: AtomicBool::new(false) }
    }

    /// The fencing token: larger than that of every earlier holder of the name.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.hold.token
    }

    /// The key whose existence, with the [token](Self::token) as its create revision, is the hold. Once the hold has
    /// ended, a later one of the session may have it.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.hold.key
    }

    /// The name that is held, without the session's namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hold.seat.name().as_str()
    }

    /// The id of the lease to which the key is attached.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.hold.lease.id
    }

    /// Whether the hold stands, as far as is known here: false once it is lost, and once the deadline has passed.
    /// Asks no one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.hold.seat.holds()
    }

    /// Until when the hold cannot have expired; passed once it is lost.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        if self.is_valid() { self.hold.lease.deadline() } else { Deadline(self.hold.lease.sent()) }
    }

    /// Completes when the hold has ended, with the reason: [`Loss::Released`] after an unlock.
    pub fn lost(&self) -> Lost {
        Lost::of(slice::from_ref(self))
    }

    /// Completes when somebody [asks](crate::Mutex::request_revocation) for this hold, with who asks and why: also if
    /// that was before this call, as long as the request stands.
    ///
    /// It never completes if the hold ends first: wait for [`lost`](Self::lost) beside it. Costs nothing until it is
    /// polled, and then one watch and one read.
    pub fn revocation_requested(&self) -> RevocationRequested {
        RevocationRequested::of(self)
    }

    /// Runs `future` while the hold stands, and drops it as soon as it does not.
    ///
    /// # Errors
    ///
    /// The [`Loss`], if the hold ended first. What `future` had done by then is done.
    ///
    /// # Cancel safety
    ///
    /// Dropping this drops `future`; the hold goes on.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Loss> {
        match run_until(&self.session, self.ended(), future).await {
            Some(output) => Ok(output),
            None => Err(self.lost().await),
        }
    }

    /// Asks etcd whether the hold stands.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if it does not, [`Error::Unknown`] or [`Error::Etcd`] if etcd did not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn verify(&self) -> Result<()> {
        fenced::verify(slice::from_ref(self)).await
    }

    /// Commits `txn`, a transaction of at most 127 operations and 127 conditions, only if the hold stands in that
    /// very moment in etcd. Where it does, the reply is that of `txn`, whose own conditions decide on its branch.
    ///
    /// It is sent once.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the hold does not stand: nothing was applied. [`Error::Unknown`] if etcd did not answer in
    /// time: it may have been applied. [`Error::Etcd`] if etcd refused.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the transaction may or may not be applied.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse> {
        fenced::txn(slice::from_ref(self), txn).await
    }

    /// The condition under which the hold stands, for a transaction of one's own.
    ///
    /// Once it was given out, the hold is not handed to a neighbour on this session before etcd has confirmed its
    /// release, since a late transaction could still find its key.
    #[must_use]
    pub fn compare(&self) -> Compare {
        self.hold.travelling.fetch_add(1, Ordering::AcqRel);
        self.condition()
    }

    /// Gives the hold back, and waits until etcd has confirmed. Of the guards of a
    /// [re-entrant](crate::ReentrantMutex) hold the last one does so; the others have nothing to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the hold had ended before, or its lease ended before etcd could be reached.
    ///
    /// # Cancel safety
    ///
    /// The hold is given back in the background, whether or not the future is awaited to its end.
    pub async fn unlock(self) -> Result<()> {
        self.release().await
    }

    /// As `unlock`, for a guard that others may still refer to.
    pub(crate) async fn release(&self) -> Result<()> {
        if !self.is_valid() {
            return Err(self.lost().await.into());
        }
        let Hold { seat, lease, .. } = &*self.hold;
        let Some(mut attempt) = self.leave() else { return Ok(()) };
        match attempt.leave().await {
            Departure::Confirmed => Ok(()),
            Departure::NoKey => Err(seat.reason(lease).await.into()),
            Departure::Open | Departure::Unheard => Err(Error::Lost(lease.loss().unwrap_or(Loss::Expired))),
        }
    }

    /// Why the hold has ended, as a reply has just shown that it has.
    pub(crate) async fn why_gone(&self) -> Loss {
        self.hold.seat.miss_key();
        self.hold.seat.lost(&self.hold.lease).await
    }

    /// Completes once the hold has ended, before it is known why.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let hold = self.hold.clone();
        async move { hold.seat.ended(&hold.lease).await }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.hold.seat
    }

    pub(crate) fn held_lease(&self) -> &Arc<Lease> {
        &self.hold.lease
    }

    /// The condition, for transactions whose outcome is heard.
    pub(crate) fn condition(&self) -> Compare {
        Compare::create_revision(self.key(), CompareOp::Equal, self.token().0)
    }

    /// As dropping it, for a guard that others may still refer to.
    pub(crate) fn abandon(&self) {
        drop(self.leave());
    }

    /// Ends the hold, unless others share it. What is left to do is the attempt's, or, once that is dropped, the
    /// janitor's.
    fn leave(&self) -> Option<Attempt> {
        let last = !self.left.swap(true, Ordering::AcqRel) && self.hold.loses_guard();
        last.then(|| self.hold.leave(&self.session))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("key", &self.key())
            .field("token", &self.token())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

/// Runs `future` until `ended` completes, and drops it then; closing the session waits for that.
pub(crate) async fn run_until<F: Future>(
    session: &Session,
    ended: impl Future<Output = ()>,
    future: F,
) -> Option<F::Output> {
    let running = session.core().runs.token();
    let output = tokio::select! {
        biased;
        () = ended => None,
        output = future => Some(output),
    };
    drop(running);
    output
}

/// What the first of them gives; of none, nothing ever.
pub(crate) async fn any<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    poll_fn(|context| {
        let ready = futures.iter_mut().map(|future| Pin::new(future).poll(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

/// Completes with the reason when a hold has ended, or any of several. See [`Guard::lost`] and
/// [`MultiGuard::lost`](crate::MultiGuard::lost).
#[must_use = "a future does nothing unless it is polled"]
pub struct Lost {
    holds: Vec<Arc<Hold>>,
    waiting: Option<Pin<Box<dyn Future<Output = Loss> + Send + Sync>>>,
}

impl Lost {
    pub(crate) fn of(guards: &[Guard]) -> Self {
        Self { holds: guards.iter().map(|guard| guard.hold.clone()).collect(), waiting: None }
    }
}

impl Future for Lost {
    type Output = Loss;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Loss> {
        let Self { holds, waiting } = &mut *self;
        let waiting = waiting.get_or_insert_with(|| {
            let lost = |hold: Arc<Hold>| Box::pin(async move { hold.seat.lost(&hold.lease).await });
            Box::pin(any(holds.iter().cloned().map(lost).collect()))
        });
        waiting.as_mut().poll(context)
    }
}

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self { holds: self.holds.clone(), waiting: None }
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.holds.iter().map(|hold| &*hold.key).collect();
        f.debug_struct("Lost").field("keys", &keys).finish_non_exhaustive()
    }
}
