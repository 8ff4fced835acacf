//! Keys that nobody deletes any more. They go with the lease: at once, where the session is closed. Where its runtime
//! shuts down first nobody revokes that, and the keys stand in the way of others until it expires.

use std::mem::take;
use std::sync::{Mutex, PoisonError};

use super::lease::Lease;
use crate::clock::{Deadline, Moment};
use crate::name::Key;

#[derive(Default)]
pub(crate) struct Remains(Mutex<State>);

enum State {
    /// The session may yet be closed.
    Open(Vec<Remnant>),
    Gone,
    /// Nobody is left to revoke the lease.
    CutOff,
}

struct Remnant {
    key: Key,
    lease: i64,
    expires: Moment,
}

impl Remains {
    /// A key that nobody will delete.
    pub(crate) fn add(&self, key: Key, lease: &Lease) {
        let remnant = Remnant { key, lease: lease.id, expires: lease.sent() + lease.ttl };
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(remnants) => remnants.push(remnant),
            State::Gone => {}
            State::CutOff => remnant.warn(),
        }
    }

    /// The lease is revoked, or has expired.
    pub(super) fn gone(&self) {
        self.end(State::Gone);
    }

    /// The lease is left to expire, unless it was revoked before.
    pub(super) fn cut_off(&self) {
        for remnant in self.end(State::CutOff) {
            remnant.warn();
        }
    }

    fn end(&self, end: State) -> Vec<Remnant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Open(remnants) = &mut *state else { return Vec::new() };
        let remnants = take(remnants);
        *state = end;
        remnants
    }
}

impl Remnant {
    fn warn(&self) {
        let expires_in = Deadline(self.expires).remaining();
        if !expires_in.is_zero() {
            let (key, lease) = (String::from_utf8_lossy(&self.key), self.lease);
            tracing::warn!(
                %key,
                lease,
                ?expires_in,
                "a place or a hold was given up when the runtime of its session had shut down: etcd keeps its key until \
                 the lease expires"
            );
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}
