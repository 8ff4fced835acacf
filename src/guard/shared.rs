//! Guards that share one hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::{Guard, Hold};
use crate::session::Session;

/// The last hold that an owner was granted, for as long as it has guards.
#[derive(Debug, Default)]
pub(crate) struct LastHold(Weak<Hold>);

impl LastHold {
    pub(crate) fn of(guard: &Guard) -> Self {
        Self(Arc::downgrade(&guard.hold))
    }

    /// One more guard of it, if it stands and was not given back.
    pub(crate) fn share(&self, session: &Session) -> Option<Guard> {
        let hold = self.0.upgrade().filter(|hold| hold.seat.holds())?;
        let counted = |guards| if guards == 0 { None } else { Some(guards + 1) };
        hold.guards.fetch_update(Ordering::AcqRel, Ordering::Acquire, counted).ok()?;
        Some(Guard { hold, session: session.clone(), left: AtomicBool::new(false) })
    }
}
