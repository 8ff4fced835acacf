//! Guards that share one hold, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::{Guard, Hold};
use crate::error::Loss;
use crate::queue::driver::Attempt;
use crate::session::Session;

impl Hold {
    /// Whether that was the last of them.
    pub(super) fn loses_guard(&self) -> bool {
        let counted =
            self.guards.fetch_update(Ordering::AcqRel, Ordering::Acquire, |guards: usize| guards.checked_sub(1));
        counted == Ok(1)
    }

    /// Ends it, when its guards are gone. What is left to do is the attempt's, or, once that is dropped, the janitor's.
    pub(super) fn leave(&self, session: &Session) -> Attempt {
        let Self { seat, lease, holding, travelling, .. } = self;
        seat.release(travelling.load(Ordering::Acquire) == 0);
        let loss = seat.loss().or(lease.loss()).unwrap_or(Loss::Deleted);
        holding.ended(Some(loss).filter(|loss| *loss != Loss::Released));
        Attempt::patient(session, seat.clone())
    }
}

/// What it takes to end a hold while it has guards.
pub(crate) struct Ending(Arc<Hold>, Session);

impl Ending {
    pub(crate) fn of(guard: &Guard) -> Self {
        Self(guard.hold.clone(), guard.session.clone())
    }

    /// Gives the hold back in the background. Its guards find it released.
    pub(crate) fn abandon(self) {
        let Self(hold, session) = self;
        if hold.guards.swap(0, Ordering::AcqRel) > 0 {
            drop(hold.leave(&session));
        }
    }
}

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
