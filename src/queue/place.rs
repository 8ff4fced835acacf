//! One place in one queue, as a state machine that performs no I/O.
//!
//! The caller repeats two steps: do what [`Place::next`] says, and report what it saw to [`Place::handle`]. At
//! most one request of a place is on its way at any time.
//!
//! # Invariants
//!
//! 1. A place holds only while its own key was seen at its create revision, and when everyone older whom it waits
//!    for is known to be gone, or fills less than the permits: by a reply, by deletions that count as facts, or
//!    by a hand-over in memory.
//! 2. A hold never goes back to waiting: it ends by a release, by the loss of its key, or by the loss of its lease.
//! 3. Once `Stop` is reported the key does not exist, and no request still travelling can create it: a place that
//!    is unsure about one voids it with the fence of its lease.
//! 4. From `leave` on a place does nothing but remove its key.

mod belief;
mod state;
mod words;

use self::state::{Reach, State, Then, Way};
pub(crate) use self::words::{Action, Elder, End, Input, Listing, Patience};
use super::rule::Rule;
pub(crate) use crate::name::{Key, Revision};

/// How often a try is repeated when the queue changes under it, before it enters, looks and leaves instead.
const TRIES: u8 = 3;

/// One place in one queue.
#[derive(Debug)]
pub(crate) struct Place {
    rule: Rule,
    patience: Patience,
    key: Key,
    lease: i64,
    /// A request that creates the key may still be travelling.
    unsure: bool,
    /// Every request that writes the key was answered.
    clean: bool,
    /// It held in a deep queue, under this token.
    mark: Option<Revision>,
    state: State,
}

impl Place {
    pub(crate) fn new(rule: Rule, patience: Patience) -> Self {
        Self {
            rule,
            patience,
            key: Key::from([]),
            lease: 0,
            unsure: false,
            clean: false,
            mark: None,
            state: State::Outside,
        }
    }

    /// Gives it a key that nobody used before, or whose last place was [clean](Self::is_clean) at its end; under a
    /// lease that stands.
    pub(crate) fn seat(&mut self, key: Key, lease: i64) {
        assert!(matches!(self.state, State::Outside), "only a place without a key takes one");
        self.key = key;
        self.lease = lease;
        self.clean = true;
        self.mark = None;
        self.state = match self.patience {
            Patience::Wait => State::Entering,
            Patience::Try => State::Trying { left: TRIES, known: 0 },
            Patience::TryAfterLook => State::Probing { left: TRIES, reach: Reach::Window },
        };
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The revision that created its key, if it holds: the fencing token.
    pub(crate) fn held(&self) -> Option<Revision> {
        match &self.state {
            State::Holding(standing) => Some(standing.created),
            _ => None,
        }
    }

    /// The revision that created its key, while it is in the queue.
    pub(crate) fn created(&self) -> Option<Revision> {
        match &self.state {
            State::Waiting(standing) | State::Holding(standing) => Some(standing.created),
            _ => None,
        }
    }

    /// Whether it waits behind others whom it knows.
    pub(crate) fn is_behind(&self) -> bool {
        let State::Waiting(standing) = &self.state else { return false };
        !self.rule.has_room(self.rule.weigh_all(&standing.elders))
    }

    /// Whether a request that creates the key may still be travelling.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Whether its key is gone, or under a lease that nobody sits under any more, and nothing that still travels could
    /// create or delete it: another place may have its number.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean && matches!(self.state, State::Outside | State::Gone(_))
    }

    /// What its release says to whoever comes next in a deep queue: the token of a hold that has ended. No older key
    /// stands.
    pub(crate) fn mark(&self) -> Option<Revision> {
        let State::Leaving { way: Way::Fenced, .. } = self.state else { return None };
        self.mark
    }

    /// The keys of the elders in view.
    pub(crate) fn view(&self) -> Vec<Key> {
        let State::Waiting(standing) = &self.state else { return Vec::new() };
        standing.elders.iter().map(|elder| elder.key.clone()).collect()
    }

    /// How it ended, though its key may still have to go.
    pub(crate) fn end(&self) -> Option<End> {
        match self.state {
            State::Leaving { then: Then::Stop(end), .. } | State::Gone(end) => Some(end),
            _ => None,
        }
    }

    /// The keys whose deletion it has to hear of.
    pub(crate) fn watching(&self) -> impl Iterator<Item = &Key> {
        let (own, elders) = match &self.state {
            State::Waiting(standing) => (Some(&self.key), standing.elders.as_slice()),
            State::Holding(_) => (Some(&self.key), [].as_slice()),
            _ => (None, [].as_slice()),
        };
        own.into_iter().chain(elders.iter().map(|elder| &elder.key))
    }

    /// What to do now. Asking twice is harmless.
    pub(crate) fn next(&self) -> Action {
        match &self.state {
            State::Outside => Action::Seat,
            State::Entering => Action::Enter,
            State::Probing { reach, .. } => Action::Probe { limit: self.limit(*reach, 0) },
            State::Trying { known, .. } => Action::Try { known: *known },
            State::Waiting(standing) if self.must_look(standing) && self.may_glance(standing) => Action::Glance,
            State::Waiting(standing) | State::Holding(standing) if self.must_look(standing) => {
                Action::Look { limit: self.limit(standing.reach, standing.gone.len()) }
            }
            State::Waiting(_) | State::Holding(_) => Action::Wait,
            State::Leaving { way, .. } => Action::Leave { fence: self.unsure && *way == Way::Fenced },
            State::Gone(end) => Action::Stop(*end),
        }
    }

    /// Accounts for what the caller saw.
    pub(crate) fn handle(&mut self, input: Input) {
        match input {
            Input::Entered { created, listing } => self.entered(created, listing),
            Input::Occupied(listing) | Input::Probed(listing) => self.consider(&listing),
            Input::Looked { own, listing } => self.looked(own, listing),
            Input::Glanced { own, revision, elders, mark } => self.glanced(own, revision, elders, mark),
            Input::Left => self.left(),
            Input::Refused => match &mut self.state {
                State::Leaving { way, .. } => *way = Way::Plain,
                State::Waiting(standing) => standing.glanced = true,
                _ => {}
            },
            Input::Unknown => {
                let creates = matches!(self.state, State::Entering | State::Trying { .. });
                self.unsure |= creates;
                self.clean &= !creates && !matches!(self.state, State::Leaving { .. });
            }
            Input::Fenced => {}
            Input::Covered { key, from } => {
                if let State::Waiting(standing) | State::Holding(standing) = &mut self.state {
                    standing.covered.insert(key, from);
                }
            }
            Input::Deleted { key, at } => self.deleted(&key, at),
            Input::Broken => {
                if let State::Waiting(standing) | State::Holding(standing) = &mut self.state {
                    standing.covered.clear();
                }
            }
            Input::Handed { key, created, lease, exclusive } => {
                if lease == self.lease && self.rule.hands_over() {
                    self.handed(&key, created, exclusive);
                }
            }
            Input::LeaseLost => self.lease_lost(),
        }
    }

    /// Starts to leave. No request of the place may be on its way: one whose reply will not come is reported as
    /// [`Input::Unknown`] first.
    pub(crate) fn leave(&mut self) {
        self.depart(End::Left);
    }

    fn depart(&mut self, end: End) {
        if let State::Holding(standing) = &self.state
            && standing.deep
            && !standing.handed
            && self.rule.is_exclusive()
        {
            self.mark = Some(standing.created);
        }
        self.state = match self.state {
            State::Outside => State::Gone(end),
            State::Entering | State::Probing { .. } | State::Trying { .. } if !self.unsure => State::Gone(end),
            State::Leaving { then: Then::Stop(_), .. } | State::Gone(_) => return,
            _ => State::Leaving { then: Then::Stop(end), way: Way::Fenced },
        };
    }

    fn left(&mut self) {
        let State::Leaving { then, way } = self.state else { return };
        if self.unsure && way == Way::Plain {
            self.state = State::Leaving { then, way: Way::Fenced };
            return;
        }
        self.unsure = false;
        self.state = match then {
            Then::Enter => State::Outside,
            Then::Stop(end) => State::Gone(end),
        };
    }

    /// Its key was deleted by someone else, who may try again, or with its lease.
    fn key_gone(&mut self) {
        self.clean = false;
        let then = match self.state {
            State::Waiting(_) => Then::Enter,
            _ => Then::Stop(End::KeyGone),
        };
        // A straggling request could create the key again: the fence voids it.
        self.state = State::Leaving { then, way: Way::Fenced };
        if !self.unsure {
            self.left();
        }
    }

    fn lease_lost(&mut self) {
        self.unsure = false;
        self.state = match self.state {
            State::Holding(_) => State::Gone(End::LeaseLost),
            State::Leaving { then: Then::Stop(end), .. } | State::Gone(end) => State::Gone(end),
            _ => State::Outside,
        };
    }
}
