//! Sends a place's requests, one at a time, and sees it to its end.
//!
//! 1. A request is never dropped while it may create a key: a driver that is dropped hands it on.
//! 2. Whatever happens to a future, its place is seen to its end: here, or by the janitor.
//! 3. Every request is idempotent, so not knowing its outcome means asking again.

mod departed;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use self::departed::Departed;
use super::place::{Action, Input};
use super::wire::{Reply, SeenFence};
use super::{Attention, Claim, Departure, Inner, Seat};
use crate::error::{Error, Loss, Result, Verdict, code, verdict};
use crate::etcd_client;
use crate::retry::{self, Delays};
use crate::session::Session;
use crate::session::lease::Lease;

/// Sends a seat's requests, one at a time.
pub(crate) struct Driver {
    seat: Arc<Seat>,
    /// The request that is on its way. The mutex is there for `Sync` alone.
    call: Mutex<Option<Call>>,
    /// Its turn to enter, among the places of the session.
    turn: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
    delays: Option<Box<Delays>>,
    /// Until when there has to be an answer, if there has to be one.
    until: Option<Instant>,
    /// Since when etcd refuses to let the key go.
    refused: Option<Instant>,
}

/// A request on its way.
struct Call {
    action: Action,
    lease: Arc<Lease>,
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    _turn: Option<OwnedSemaphorePermit>,
}

/// What became of a request: `Err(None)` if the time limit passed.
pub(super) type Answer = Result<Reply, Option<etcd_client::Error>>;

impl Driver {
    /// Rides out whatever can pass.
    pub(super) fn patient(seat: Arc<Seat>) -> Self {
        Self { seat, call: Mutex::new(None), turn: None, pause: None, delays: None, until: None, refused: None }
    }

    /// Goes on until `done` is true of the place or it has ended. May be dropped at any time, and called again.
    async fn drive(&mut self, mut done: impl FnMut(&mut Inner) -> bool) -> Result<()> {
        loop {
            let until = self.until;
            if let Some(call) = self.call() {
                // A request that is not answered in time stays on its way, for whoever sees the place to its end.
                let answer = in_time(until, call.answer.as_mut()).await.ok_or(Error::Unknown)?;
                let call = self.call().take().expect("it was just awaited");
                // Boxed, here and below: what is rarely waited for is large, and would be carried by all who wait.
                Box::pin(self.account(call.action, &call.lease, answer)).await?;
            }
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            let seat = self.seat.clone();
            let mut changed = pin!(seat.changed.notified());
            changed.as_mut().enable();
            let (action, lease) = {
                let mut inner = seat.lock();
                inner.check_lease();
                if done(&mut inner) {
                    return Ok(());
                }
                if inner.place.end().is_none()
                    && let Some(error) = inner.failed.take()
                {
                    return Err(error);
                }
                (inner.place.next(), inner.lease.clone())
            };
            match (action, lease) {
                (Action::Stop(_), _) => return Ok(()),
                (Action::Seat, _) => {
                    let lease = Box::pin(in_time(until, seat.core.lease())).await;
                    seat.take_place(lease.unwrap_or_else(|| Err(no_lease()))?);
                }
                (Action::Wait, Some(lease)) => tokio::select! { () = changed => {}, () = lease.over() => {} },
                (Action::Enter, Some(_)) if self.turn.is_none() => {
                    self.turn = Some(in_time(until, seat.core.turn()).await.ok_or_else(no_turn)?);
                }
                (action, Some(lease)) => {
                    let (answer, turn) = (seat.send(action, &lease), self.turn.take());
                    *self.call() = Some(Call { action, lease, answer, _turn: turn });
                }
                (action, None) => unreachable!("{action:?} without a lease"),
            }
        }
    }

    fn call(&mut self) -> &mut Option<Call> {
        self.call.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    async fn account(&mut self, action: Action, lease: &Arc<Lease>, answer: Answer) -> Result<()> {
        match answer {
            Ok(reply) => self.hear(lease, reply).await,
            Err(error) => self.fail(action, lease, error).await,
        }
    }

    /// A request failed: whether it is worth another try, and when.
    async fn fail(&mut self, action: Action, lease: &Lease, error: Option<etcd_client::Error>) -> Result<()> {
        let leaving = matches!(action, Action::Leave { .. });
        let meaning = error.as_ref().map_or(Verdict::Unknown, verdict);
        tracing::debug!(name = self.seat.name.as_str(), ?action, ?error, ?meaning, "a request failed");
        match meaning {
            Verdict::Unknown => {
                self.seat.handle(Input::Unknown);
                if leaving {
                    self.seat.lock().departure.lose();
                }
            }
            Verdict::NoLease => {
                lease.end(Loss::Revoked);
                return Ok(());
            }
            Verdict::Reauthenticate => self.seat.core.reauthenticate().await,
            Verdict::Again => {}
            Verdict::Exhausted | Verdict::Never if leaving => self.refused_to_leave(action, lease),
            Verdict::Never if action == Action::Glance => {
                self.seat.handle(Input::Refused);
                return Ok(());
            }
            Verdict::Exhausted => {}
            Verdict::Never => return Err(Error::failed(error)),
        }
        let delay = self.delays.get_or_insert_with(|| Box::new(retry::delays())).next();
        if self.until.is_some_and(|until| Instant::now() + delay >= until) {
            return Err(Error::failed(error));
        }
        self.pause = Some(Box::pin(sleep(delay)));
        Ok(())
    }

    async fn hear(&mut self, lease: &Arc<Lease>, reply: Reply) -> Result<()> {
        match reply.fence {
            Some(SeenFence::At(revision)) => lease.learn_fence(revision),
            Some(SeenFence::Missing) if reply.input == Input::Fenced => {
                return match self.seat.core.rewrite_fence(lease).await {
                    Ok(revision) => {
                        lease.learn_fence(revision);
                        Ok(())
                    }
                    Err(error) => self.fail(Action::Enter, lease, error).await,
                };
            }
            Some(SeenFence::Missing) | None => {}
        }
        self.delays = None;
        if reply.input == Input::Left {
            self.seat.lock().departure.confirm(reply.deleted);
        }
        if let Some(ahead) = reply.ahead
            && self.seat.lock().ahead.replace(ahead).is_none()
        {
            self.seat.waiting.behind(ahead);
        }
        let waits = self.seat.lock().place.held().is_none();
        self.seat.handle(reply.input);
        match reply.mismatch {
            Some(mismatch) if waits => {
                self.seat.release(false);
                Err(mismatch)
            }
            _ => Ok(()),
        }
    }

    /// A key that cannot be deleted would keep its queue waiting for ever: after a TTL of refusals the session
    /// gives up its lease, and the key with it.
    fn refused_to_leave(&mut self, action: Action, lease: &Lease) {
        if action == (Action::Leave { fence: true }) || self.seat.lock().place.mark().is_some() {
            self.seat.handle(Input::Refused);
        }
        if self.refused.get_or_insert_with(Instant::now).elapsed() > lease.ttl {
            let name = self.seat.name.as_str();
            tracing::error!(name, lease = lease.id, "etcd refuses to release a key: giving the lease up");
            lease.end(Loss::Expired);
        }
    }

    /// Sees to what is due while a guard holds the seat. Once that gives it up, its key is another driver's.
    pub(super) async fn attend(mut self) {
        let idle = |inner: &Inner| matches!(inner.place.next(), Action::Wait | Action::Stop(_));
        loop {
            let driven = self.drive(|inner| inner.attention != Attention::Task || idle(inner)).await;
            let mut inner = self.seat.lock();
            match inner.attention {
                Attention::Task if driven.is_err() || idle(&inner) => inner.attention = Attention::Guard,
                Attention::Task => continue,
                Attention::Driver | Attention::Guard => {}
            }
            return;
        }
    }
}

/// What `future` gives before `until`.
async fn in_time<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until, future).await.ok(),
        None => Some(future.await),
    }
}

fn no_lease() -> Error {
    Error::told(code::UNAVAILABLE, "the session could not get a lease in time")
}

fn no_turn() -> Error {
    Error::told(code::UNAVAILABLE, "too many others of the session were entering queues")
}

/// A driver in use. Dropped before its place has ended, it leaves in the background.
pub(crate) struct Attempt {
    driver: Option<Box<Driver>>,
    session: Session,
}

impl Attempt {
    /// A place that rides out whatever can pass.
    pub(crate) fn patient(session: &Session, seat: Arc<Seat>) -> Self {
        Self { driver: Some(Box::new(Driver::patient(seat))), session: session.clone() }
    }

    /// A place that wants an answer within the session's time limit for a call.
    pub(crate) fn brief(session: &Session, seat: Arc<Seat>) -> Self {
        let until = Some(Instant::now() + session.core().call_limit);
        Self { driver: Some(Box::new(Driver { until, ..Driver::patient(seat) })), session: session.clone() }
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().expect("it is taken only at the end")
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.driver.as_ref().expect("it is taken only at the end").seat
    }

    /// From now on whatever can pass is ridden out.
    pub(crate) fn be_patient(&mut self) {
        self.driver().until = None;
    }

    /// Whether somebody else was in the queue: it had to wait, or did not get its turn.
    pub(crate) fn met_others(&self) -> bool {
        let inner = self.seat().lock();
        !inner.watched.is_empty() || inner.place.held().is_none()
    }

    /// Enters, until it is known whether others are ahead.
    pub(crate) async fn meet(&mut self) -> Result<()> {
        self.driver().drive(|inner| inner.place.held().is_some() || inner.place.is_behind()).await
    }

    /// Takes the place in the queue.
    pub(crate) async fn queue(&mut self) -> Result<()> {
        self.driver().drive(|inner| inner.place.created().is_some()).await
    }

    /// Waits for the hold: `None` if the place ended without one, or with one that nobody claimed.
    pub(crate) async fn hold(&mut self) -> Result<Option<Claim>> {
        let (seat, mut claim) = (self.seat().clone(), None);
        let claimed = |inner: &mut Inner| {
            claim = seat.claim(inner);
            claim.is_some()
        };
        self.driver().drive(claimed).await?;
        Ok(claim)
    }

    /// Waits until etcd has answered to the deletion of the key, or the lease has ended.
    pub(crate) async fn leave(&mut self) -> Departure {
        // A place that leaves fails for nothing but its lease, which ends it.
        let _ = self.driver().drive(|inner| inner.departure.is_answered()).await;
        self.seat().lock().departure
    }

    /// Leaves a claimed place to its guard.
    pub(crate) fn finish(mut self) -> Session {
        self.driver = None;
        self.session.clone()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(mut driver) = self.driver.take() else { return };
        // Nobody waits for an answer any more.
        driver.until = None;
        let creates = |call: &Call| matches!(call.action, Action::Enter | Action::Try { .. });
        if !driver.call().as_ref().is_some_and(creates) {
            if driver.call().take().is_some() {
                driver.seat.handle(Input::Unknown);
            }
            driver.seat.release(true);
            if matches!(driver.seat.lock().place.next(), Action::Stop(_)) {
                return driver.seat.leave_behind();
            }
        }
        let departed = Departed { driver, _session: self.session.clone() };
        self.session.core().take(Box::new(departed));
    }
}
