//! What a guard asks of its place.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use super::place::{Action, End, Input, Listing};
use super::{Resignation, Seat};
use crate::clock::Moment;
use crate::error::Loss;
use crate::session::keepalive::TICK;
use crate::session::lease::Lease;

impl Seat {
    /// Whether it holds now, by the clock too.
    pub(crate) fn holds(&self) -> bool {
        let mut inner = self.lock();
        inner.check_lease();
        inner.place.held().is_some() && inner.resignation == Resignation::None
    }

    /// Why it does not hold any more. While the reason for a vanished key is looked for, neither this nor `holds`.
    pub(crate) fn loss(&self) -> Option<Loss> {
        let mut inner = self.lock();
        inner.check_lease();
        let lease = inner.lease.as_ref()?;
        match inner.place.end()? {
            End::Left => Some(Loss::Released),
            End::LeaseLost => lease.loss(),
            End::NotFree => None,
            End::KeyGone => match inner.resignation {
                Resignation::None => lease.explain(inner.key_gone.expect("noted when it was heard")),
                Resignation::Sent => None,
                Resignation::Done => Some(Loss::Released),
            },
        }
    }

    /// Its owner deletes the key by a request of its own, and holds no more; or it was told why that has not happened.
    pub(crate) fn resigns(self: &Arc<Self>, resignation: Resignation) {
        let mut inner = self.lock();
        inner.resignation = resignation;
        self.settle(inner);
    }

    /// The key was deleted by its owner.
    pub(crate) fn resigned(self: &Arc<Self>) {
        self.resigns(Resignation::Done);
        self.miss_key();
    }

    /// A reply that was not asked for by the place has shown that its key is gone.
    pub(crate) fn miss_key(self: &Arc<Self>) {
        self.handle(Input::Looked { own: None, listing: Listing::default() });
    }

    /// Why its key is gone, as the answer to its release has just shown.
    pub(crate) async fn reason(&self, lease: &Lease) -> Loss {
        let gone = Moment::now();
        self.core.doubt_lease();
        self.until(lease, || lease.explain(gone)).await
    }

    /// Completes once the hold has ended.
    pub(crate) async fn ended(&self, lease: &Lease) {
        self.until(lease, || (!self.holds()).then_some(())).await;
    }

    /// Completes once it is known why the hold has ended.
    pub(crate) async fn lost(&self, lease: &Lease) -> Loss {
        self.until(lease, || self.loss()).await
    }

    /// Nobody sees to the place from here on. If its key may be there, the session is at its end.
    pub(super) fn leave_behind(&self) {
        let mut inner = self.lock();
        inner.check_lease();
        let Some(lease) = inner.lease.clone() else { return };
        let may_stand = match (lease.loss(), inner.place.next(), inner.place.end()) {
            (None, next, _) => !matches!(next, Action::Stop(_)),
            (Some(Loss::Closed), _, end) => {
                !inner.departure.is_answered() && !matches!(end, Some(End::NotFree | End::KeyGone))
            }
            (Some(_), ..) => false,
        };
        let key = inner.place.key().clone();
        drop(inner);
        if may_stand {
            self.core.remains.add(key, &lease);
        }
    }

    /// Asks `question` at every poll, whenever something changes, and every 250 ms, since timers stand still while
    /// the machine sleeps and the clock does not.
    async fn until<T>(&self, lease: &Lease, question: impl Fn() -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let tick = sleep(lease.deadline().remaining().clamp(Duration::from_millis(1), TICK));
            let over = lease.loss().is_some();
            let mut something = pin!(async {
                tokio::select! {
                    () = changed => {}
                    () = tick => {}
                    () = lease.over(), if !over => {}
                }
            });
            let answer = poll_fn(|context| match question() {
                Some(answer) => Poll::Ready(Some(answer)),
                None => something.as_mut().poll(context).map(|()| None),
            });
            if let Some(answer) = answer.await {
                return answer;
            }
        }
    }
}
