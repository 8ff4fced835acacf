//! The ways to get a hold, the same for every kind of lock: wait, try, try for a while, take a ticket.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::consent::Candidacy;
use crate::error::{Error, Loss, Result};
use crate::etcd_client::{GetOptions, KeyValue, SortOrder, SortTarget};
use crate::guard::Guard;
use crate::name::Name;
use crate::queue::driver::Attempt;
use crate::queue::place::Patience;
use crate::queue::rule::{Kind, Rule};
use crate::queue::wire::Value;
use crate::queue::{Claim, Seat};
use crate::session::Session;
use crate::session::crowd::Crowd;
use crate::token::Waiter;

/// What a place in a queue becomes once it holds.
pub trait Grant: Sized {
    #[doc(hidden)]
    fn of(guard: Guard, seal: Seal) -> Self;
}

pub(crate) use sealed::Seal;

mod sealed {
    /// Only this crate grants: nobody else can name this.
    #[derive(Debug)]
    pub struct Seal(pub(super) ());
}

impl Grant for Guard {
    fn of(guard: Guard, _: Seal) -> Self {
        guard
    }
}

/// A name in a session: what every handle is made of.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    session: Session,
    /// A name that cannot be one is refused when it is used.
    name: Result<Arc<Name>, Box<str>>,
    crowd: Arc<Crowd>,
}

impl Queue {
    pub(crate) fn new(session: &Session, name: &str) -> Self {
        let checked = Name::new(session.core().namespace(), name).map(Arc::new).map_err(|_| name.into());
        let crowd = checked.as_ref().map_or_else(|_| Arc::default(), |name| session.core().crowds.of(name));
        Self { session: session.clone(), name: checked, crowd }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    pub(crate) fn name(&self) -> Result<Arc<Name>> {
        match &self.name {
            Ok(name) => Ok(name.clone()),
            Err(name) => Name::new("", name).map(Arc::new),
        }
    }

    /// The name as it was given.
    pub(crate) fn as_str(&self) -> &str {
        self.name.as_ref().map_or_else(|name| &**name, |name| name.as_str())
    }

    pub(crate) async fn lock<G: Grant>(&self, rule: Rule, value: Vec<u8>) -> Result<G> {
        let mut ticket = self.enter(rule, value)?;
        ticket.granted().await
    }

    pub(crate) async fn enqueue<G: Grant>(&self, rule: Rule, value: Vec<u8>) -> Result<Ticket<G>> {
        let mut ticket = self.enter(rule, value)?;
        ticket.attempt.as_mut().expect("it is not spent").queue().await?;
        Ok(ticket)
    }

    pub(crate) async fn try_lock<G: Grant>(&self, rule: Rule, value: Vec<u8>) -> Result<Option<G>> {
        let patience = if self.crowd.met.load(Ordering::Relaxed) { Patience::TryAfterLook } else { Patience::Try };
        let mut attempt = Attempt::brief(&self.session, self.seat(rule, value, patience)?);
        match attempt.hold().await? {
            Some(claim) => Ok(Some(self.grant(attempt, claim))),
            None => self.not_granted(&attempt),
        }
    }

    pub(crate) async fn try_lock_for<G: Grant>(
        &self,
        rule: Rule,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<Option<G>> {
        let mut attempt = Attempt::brief(&self.session, self.seat(rule, value, Patience::Wait)?);
        attempt.meet().await?;
        attempt.be_patient();
        let mut candidacy = candidacy(&attempt);
        let waiting = self.wait(&mut attempt, candidacy.as_deref_mut());
        let claim = match tokio::time::timeout(limit, waiting).await {
            Ok(claim) => claim?,
            // It may hold by an event that came together with the end of the time.
            Err(_) => attempt.seat().claim_now(),
        };
        match claim {
            Some(claim) => Ok(Some(self.grant(attempt, claim))),
            None => self.not_granted(&attempt),
        }
    }

    /// The direct children of the queue, oldest first.
    pub(crate) async fn list(&self) -> Result<Vec<KeyValue>> {
        self.range(0).await
    }

    /// The oldest direct child of the queue.
    pub(crate) async fn oldest(&self) -> Result<Option<KeyValue>> {
        // Nested keys may hide it.
        let alone = self.range(1).await?.pop();
        Ok(if alone.is_some() { alone } else { self.list().await?.into_iter().next() })
    }

    async fn range(&self, limit: i64) -> Result<Vec<KeyValue>> {
        let name = self.name()?;
        let sorted = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let options = sorted.with_limit(limit);
        let core = self.session.core();
        let (prefix, options) = (name.prefix(), &options);
        let mut reply = core.read(|mut kv| async move { kv.get(prefix, Some(options.clone())).await }).await?;
        let mut kvs = reply.take_kvs();
        kvs.retain(|kv| name.is_direct(kv.key()));
        Ok(kvs)
    }

    pub(crate) async fn waiters(&self) -> Result<Vec<Waiter>> {
        Ok(self.list().await?.iter().map(Waiter::from).collect())
    }

    /// The value of a lock's key.
    pub(crate) fn value(&self, rule: Rule) -> Vec<u8> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        Value { since, ..Value::new(self.session.identity(), rule) }.to_bytes()
    }

    fn seat(&self, rule: Rule, value: Vec<u8>, patience: Patience) -> Result<Arc<Seat>> {
        let core = self.session.core().clone();
        Ok(Seat::new(core, self.name()?, self.crowd.clone(), rule, value.into(), patience))
    }

    fn enter<G: Grant>(&self, rule: Rule, value: Vec<u8>) -> Result<Ticket<G>> {
        let attempt = Attempt::patient(&self.session, self.seat(rule, value, Patience::Wait)?);
        Ok(Ticket { candidacy: candidacy(&attempt), attempt: Some(attempt), queue: self.clone(), granted: PhantomData })
    }

    /// Waits for the hold of `attempt`, or of the place that it gives way to.
    async fn wait(&self, attempt: &mut Attempt, candidacy: Option<&mut Candidacy>) -> Result<Option<Claim>> {
        match candidacy {
            // Boxed: those who wait for locks would carry it.
            Some(candidacy) => Box::pin(candidacy.hold(self, attempt)).await,
            None => attempt.hold().await,
        }
    }

    fn grant<G: Grant>(&self, attempt: Attempt, claim: Claim) -> G {
        self.crowd.met.store(attempt.met_others(), Ordering::Relaxed);
        G::of(Guard::of(attempt, claim), Seal(()))
    }

    /// The queue was not free; or it was, and the hold was lost before it could be given.
    fn not_granted<G>(&self, attempt: &Attempt) -> Result<Option<G>> {
        self.crowd.met.store(true, Ordering::Relaxed);
        attempt.seat().loss().map_or(Ok(None), |loss| Err(loss.into()))
    }
}

/// Candidates alone give way.
fn candidacy(attempt: &Attempt) -> Option<Box<Candidacy>> {
    (attempt.seat().kind() == Kind::Election).then(Box::default)
}

/// A place in a queue, kept until it is granted or dropped.
///
/// Where a `lock()` that is dropped gives up its place, a ticket keeps it: wait for it in a `select!`, with a
/// timeout, or later. Dropping the ticket gives the place up in the background; of a runtime that shuts down first, see
/// [`Guard`].
///
/// Should the session lose its lease meanwhile, the place goes with it; `granted` then queues again, at the back,
/// and says so in a `tracing` warning.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let session = tenure::Session::open(etcd.client().await?).await?;
/// # let mut other_work = tokio::time::interval(std::time::Duration::from_millis(1));
/// let mut ticket = session.mutex("jobs/reindex").enqueue().await?;
/// let guard = loop {
///     tokio::select! {
///         guard = ticket.granted() => break guard?,
///         _ = other_work.tick() => println!("{} ahead of us", ticket.position().await?),
///     }
/// };
/// guard.unlock().await?;
/// # Ok(())
/// # }
/// ```
///
/// `cargo run --example ticket` has another branch come first.
#[must_use = "a ticket that is dropped gives its place up"]
pub struct Ticket<G = Guard> {
    /// `None` once it is spent.
    attempt: Option<Attempt>,
    candidacy: Option<Box<Candidacy>>,
    queue: Queue,
    granted: PhantomData<fn() -> G>,
}

impl<G: Grant> Ticket<G> {
    /// Waits until it is this place's turn. After that the ticket is spent.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the session is closed first, [`Error::Etcd`] for what waiting cannot mend. Lost
    /// connections are waited out.
    ///
    /// # Panics
    ///
    /// If the ticket is spent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future keeps the place.
    pub async fn granted(&mut self) -> Result<G> {
        loop {
            let attempt = self.attempt.as_mut().expect("the ticket was granted before and is spent");
            let claim = self.queue.wait(attempt, self.candidacy.as_deref_mut()).await?;
            let attempt = self.attempt.take().expect("looked at just now");
            match claim {
                Some(claim) => return Ok(self.queue.grant(attempt, claim)),
                // Its turn came, and was lost again before anyone asked for it.
                None => {
                    let attempt = self.attempt.insert(Attempt::patient(self.queue.session(), attempt.seat().again()));
                    self.candidacy = candidacy(attempt);
                }
            }
        }
    }

    /// How many stand before it in the queue, as [`Mutex::queue`](crate::Mutex::queue) lists it: 0 holds. Where several
    /// may hold at once, those after it may hold too.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the place was lost and [`granted`](Self::granted) has not queued again yet, and
    /// [`Error::Etcd`] if etcd cannot be asked.
    ///
    /// # Panics
    ///
    /// If the ticket is spent.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn position(&self) -> Result<usize> {
        let attempt = self.attempt.as_ref().expect("the ticket was granted before and is spent");
        let key = attempt.seat().key();
        let position = self.queue.list().await?.iter().position(|kv| kv.key() == &*key);
        position.ok_or(Error::Lost(Loss::Deleted))
    }
}

impl<G> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("name", &self.queue.as_str()).finish_non_exhaustive()
    }
}
