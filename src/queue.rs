//! Takes a place through etcd: all kinds of lock stand on it.
//!
//! A [`Seat`] is a place with everything that may change its mind: replies, the session's watches, its lease. It
//! is shared by whoever waits, holds or cleans up. A [`driver`] sends its requests, one at a time.
//!
//! 1. Before a place hears anything, its lease is looked at: one past its deadline grants nothing.
//! 2. What a place watches is what it says it watches, after everything that it hears.

#[cfg(test)]
mod cases;
mod departure;
pub(crate) mod driver;
mod hold;
mod holders;
pub(crate) mod place;
pub(crate) mod rule;
#[cfg(test)]
mod sim;
pub(crate) mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::error::{Error, code};
use crate::name::{Key, Name};
use crate::session::Core;
use crate::session::crowd::Crowd;
use crate::session::lease::Lease;
use crate::session::watch::{Notice, Told, Watcher};
use crate::telemetry::Waiting;
pub(crate) use departure::{Departure, Resignation};
use driver::{Answer, Driver};
pub(crate) use holders::holding;
use place::{Action, End, Input, Patience, Place, Revision};
use rule::{Kind, Rule};
use wire::{Fence, Sender};

/// A place with everything that may change its mind.
pub(crate) struct Seat {
    core: Arc<Core>,
    name: Arc<Name>,
    rule: Rule,
    crowd: Arc<Crowd>,
    /// Of the key, put together when a lease is known.
    value: Arc<[u8]>,
    pub(crate) waiting: Waiting,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    place: Place,
    lease: Option<Arc<Lease>>,
    /// Of its key.
    number: Option<u64>,
    /// How many it had to wait for when that was first known.
    ahead: Option<usize>,
    /// The keys that the session's stream watches for this place.
    watched: Vec<Key>,
    attention: Attention,
    /// When its key was found gone, while it held.
    key_gone: Option<Moment>,
    departure: Departure,
    resignation: Resignation,
    /// In the queue, since that was last told.
    stood: bool,
    /// Why the place cannot go on.
    failed: Option<Error>,
}

/// A hold that is a guard's from here on, though it may be lost by now.
pub(crate) struct Claim {
    pub(crate) lease: Arc<Lease>,
    pub(crate) token: Revision,
}

/// Who sends the place's requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attention {
    /// A driver, whenever its future is polled.
    Driver,
    /// Nobody: it is a guard's. Should a request be due, a task is spawned for it.
    Guard,
    /// That task.
    Task,
}

impl Seat {
    pub(crate) fn new(
        core: Arc<Core>,
        name: Arc<Name>,
        crowd: Arc<Crowd>,
        rule: Rule,
        value: Arc<[u8]>,
        patience: Patience,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            place: Place::new(rule, patience),
            lease: None,
            number: None,
            ahead: None,
            watched: Vec::new(),
            attention: Attention::Driver,
            key_gone: None,
            departure: Departure::Open,
            resignation: Resignation::None,
            stood: false,
            failed: None,
        });
        let waiting = Waiting::new(rule.kind, name.as_str(), core.identity());
        crowd.seats.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { core, name, rule, crowd, value, waiting, inner, changed: Notify::new() })
    }

    /// A place like this one, that waits.
    pub(crate) fn again(&self) -> Arc<Self> {
        let Self { core, name, crowd, rule, value, .. } = self;
        Self::new(core.clone(), name.clone(), crowd.clone(), *rule, value.clone(), Patience::Wait)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.rule.kind
    }

    pub(crate) fn name(&self) -> &Arc<Name> {
        &self.name
    }

    pub(crate) fn key(&self) -> Key {
        self.lock().place.key().clone()
    }

    /// While it stands in the queue: the revision that created its key, and the lease that the key is on.
    pub(crate) fn standing(&self) -> Option<(Revision, Arc<Lease>)> {
        let inner = self.lock();
        Some((inner.place.created()?, inner.lease.clone()?))
    }

    /// Makes it a guard's, if it holds by now.
    pub(crate) fn claim_now(self: &Arc<Self>) -> Option<Claim> {
        let mut inner = self.lock();
        inner.check_lease();
        self.claim(&mut inner)
    }

    fn claim(self: &Arc<Self>, inner: &mut Inner) -> Option<Claim> {
        let token = inner.place.held()?;
        inner.attention = Attention::Guard;
        self.attend(inner);
        Some(Claim { lease: inner.lease.clone().expect("a hold has a lease"), token })
    }

    /// Gives the hold up: from here on nothing is left but to delete the key. With `hand_over`, whoever of this
    /// session waits for it need not wait for that.
    pub(crate) fn release(self: &Arc<Self>, hand_over: bool) {
        let mut inner = self.lock();
        inner.check_lease();
        let handed = match (inner.place.held(), &inner.lease) {
            (Some(created), Some(lease)) if hand_over && self.rule.hands_over() => {
                let (key, exclusive) = (inner.place.key().clone(), self.rule.is_exclusive());
                Some((key.clone(), Notice::Handed { key, created, lease: lease.id, exclusive }))
            }
            _ => None,
        };
        inner.place.leave();
        inner.attention = Attention::Driver;
        self.settle(inner);
        if let Some((key, notice)) = handed {
            self.core.hub.announce(&key, &notice);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the place account for an input, under a lease that stands.
    fn handle(self: &Arc<Self>, input: Input) {
        let mut inner = self.lock();
        inner.check_lease();
        self.account(&mut inner, input);
        self.settle(inner);
    }

    fn account(self: &Arc<Self>, inner: &mut Inner, input: Input) {
        let held = inner.place.held().is_some();
        inner.place.handle(input);
        inner.stood |= inner.place.created().is_some();
        if held && inner.place.end() == Some(End::KeyGone) {
            inner.key_gone = Some(Moment::now());
            self.core.doubt_lease();
        }
        if !held && inner.place.held().is_some() && inner.watched.is_empty() {
            let me: Weak<Self> = Arc::downgrade(self);
            self.core.hub.remind(me);
        }
    }

    /// Brings the watches in line with the place, says that something changed, and sees to it that somebody does
    /// what is to be done.
    fn settle(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>) {
        let me: Arc<dyn Watcher> = self.clone();
        let mut changed = true;
        while std::mem::take(&mut changed) {
            // A hold that did not wait has no watch until it comes of age.
            let waited = !inner.watched.is_empty();
            let wanted: Vec<Key> = match inner.place.held() {
                Some(_) if !waited => Vec::new(),
                _ => inner.place.watching().cloned().collect(),
            };
            let watched = std::mem::take(&mut inner.watched).into_iter();
            let (kept, others): (Vec<_>, Vec<_>) = watched.partition(|key| wanted.contains(key));
            inner.watched = kept;
            others.iter().for_each(|key| self.core.hub.unwatch(key, &me));
            for key in wanted {
                if !inner.watched.contains(&key) {
                    changed |= self.watch(&mut inner, key, None);
                }
            }
        }
        self.attend(&mut inner);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Spawns a task for what is due, if the place is a guard's.
    fn attend(self: &Arc<Self>, inner: &mut Inner) {
        let due = !matches!(inner.place.next(), Action::Wait | Action::Stop(_));
        if due && inner.attention == Attention::Guard {
            inner.attention = Attention::Task;
            self.core.spawn(Driver::patient(self.clone()).attend());
        }
    }

    /// Says whether that told of a deletion.
    fn watch(self: &Arc<Self>, inner: &mut Inner, key: Key, after: Option<Revision>) -> bool {
        let told = self.core.hub.watch(&key, after, self.clone());
        inner.watched.push(key.clone());
        let Some(Told { from, deleted }) = told else { return false };
        self.account(inner, Input::Covered { key: key.clone(), from });
        if let Some(at) = deleted {
            self.account(inner, Input::Deleted { key, at });
        }
        deleted.is_some()
    }

    fn take_place(self: &Arc<Self>, lease: Arc<Lease>) {
        let mut inner = self.lock();
        // A place that could not be taken again, since the lease was gone too, is not lost a second time.
        let stood = std::mem::take(&mut inner.stood);
        if let Some(last) = inner.lease.replace(lease.clone()).filter(|_| stood) {
            self.waiting.again(self.name.as_str(), last.id, lease.id);
        }
        inner.departure = Departure::Open;
        inner.give_number_back(&self.core);
        let number = self.core.numbers.take();
        (inner.number, inner.ahead) = (Some(number), None);
        let key = self.name.key(self.rule.lane, lease.id, number);
        self.waiting.under(&key);
        inner.place.seat(key, lease.id);
        self.settle(inner);
    }

    fn send(&self, action: Action, lease: &Lease) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let inner = self.lock();
        let sender = Sender {
            kv: self.core.kv.clone(),
            name: self.name.clone(),
            crowd: self.crowd.clone(),
            rule: self.rule,
            key: inner.place.key().clone(),
            created: inner.place.created().unwrap_or(0),
            view: if action == Action::Glance { inner.place.view() } else { Vec::new() },
            mark: inner.place.mark(),
            value: self.value.clone(),
            lease: lease.id,
            fence: Fence {
                key: self.core.fence_key(lease.id),
                value: self.core.fence_value(),
                revision: lease.fence(),
            },
        };
        let limit = self.core.call_limit;
        Box::pin(async move {
            let reply = tokio::time::timeout(limit, sender.send(action)).await;
            reply.map_or(Err(None), |reply| reply.map_err(Some))
        })
    }

    /// A place that waits cannot go on; a hold stands, and is told of its end by its lease alone.
    fn denied(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.place.held().is_some() {
            tracing::warn!(name = self.name.as_str(), reason, "a held key cannot be watched");
        } else {
            inner.failed = Some(Error::told(code::PERMISSION_DENIED, reason));
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.seats.fetch_sub(1, Ordering::Relaxed);
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).give_number_back(&self.core);
    }
}

impl Inner {
    fn give_number_back(&mut self, core: &Core) {
        if let (Some(number), true) = (self.number.take(), self.place.is_clean()) {
            core.numbers.give_back(number);
        }
    }

    fn check_lease(&mut self) {
        if self.lease.as_ref().is_some_and(|lease| lease.loss().is_some()) {
            self.place.handle(Input::LeaseLost);
        }
    }
}

impl Watcher for Seat {
    fn tell(self: Arc<Self>, notice: Notice) {
        match notice {
            Notice::Covered { key, from } => self.handle(Input::Covered { key, from }),
            Notice::Deleted { key, at } => self.handle(Input::Deleted { key, at }),
            Notice::Broken => self.handle(Input::Broken),
            Notice::Handed { key, created, lease, exclusive } => {
                self.handle(Input::Handed { key, created, lease, exclusive });
            }
            Notice::Denied { reason } => self.denied(&reason),
            Notice::Written => {}
            Notice::Aged => {
                let mut inner = self.lock();
                if let (Some(created), true) = (inner.place.held(), inner.watched.is_empty()) {
                    let key = inner.place.key().clone();
                    self.watch(&mut inner, key, Some(created));
                    self.settle(inner);
                }
            }
        }
    }
}
