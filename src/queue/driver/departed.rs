//! A place that its owner has given up, for the janitor to see to its end.

use std::future::Future;
use std::pin::Pin;

use super::Driver;
use crate::name::Key;
use crate::queue::place::{Action, Input};
use crate::session::Session;
use crate::session::janitor::Departing;

/// A driver whose owner is gone. It keeps the session until its key is.
pub(super) struct Departed {
    pub(super) driver: Box<Driver>,
    pub(super) _session: Session,
}

impl Departing for Departed {
    fn queue(&self) -> &str {
        self.driver.seat.name.prefix()
    }

    fn last_key(&mut self) -> Option<Key> {
        if self.driver.call().is_some() {
            return None;
        }
        let inner = self.driver.seat.lock();
        let plain = inner.place.next() == Action::Leave { fence: false } && !inner.place.is_unsure();
        plain.then(|| inner.place.key().clone())
    }

    fn left(&mut self) {
        self.driver.seat.lock().departure.confirm(1);
        self.driver.seat.handle(Input::Left);
    }

    fn unheard(&mut self) {
        self.driver.seat.handle(Input::Unknown);
    }

    fn see_off(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let driver = &mut self.driver;
            if let Some(call) = driver.call().take() {
                let answer = call.answer.await;
                // Whatever it was, what is left to do is to leave.
                let _ = driver.account(call.action, &call.lease, answer).await;
                driver.seat.release(true);
            }
            // A place that leaves fails for nothing but its lease, which ends it.
            let _ = driver.drive(|_| false).await;
        })
    }
}

impl Drop for Departed {
    fn drop(&mut self) {
        self.driver.seat.leave_behind();
    }
}
