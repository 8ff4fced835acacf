//! What is held, of whatever kind, and how it ends.

use std::time::Duration;

use tenure::{Guard, Leadership, Lost, MultiGuard, Result};
use tokio::time::sleep;

use crate::history::What;
use crate::worker::Worker;

/// How often a holder says that it is one.
pub(crate) const SAMPLE: Duration = Duration::from_millis(20);

pub(crate) trait Held: Sized {
    fn guards(&self) -> &[Guard];
    fn lost(&self) -> Lost;
    fn release(self) -> impl Future<Output = Result<()>> + Send;
}

impl Held for Guard {
    fn guards(&self) -> &[Guard] {
        std::slice::from_ref(self)
    }

    fn lost(&self) -> Lost {
        self.lost()
    }

    fn release(self) -> impl Future<Output = Result<()>> + Send {
        self.unlock()
    }
}

impl Held for Leadership {
    fn guards(&self) -> &[Guard] {
        std::slice::from_ref(self)
    }

    fn lost(&self) -> Lost {
        (**self).lost()
    }

    fn release(self) -> impl Future<Output = Result<()>> + Send {
        self.resign()
    }
}

impl Held for MultiGuard {
    fn guards(&self) -> &[Guard] {
        self.guards()
    }

    fn lost(&self) -> Lost {
        self.lost()
    }

    fn release(self) -> impl Future<Output = Result<()>> + Send {
        self.unlock()
    }
}

/// Says of each guard that it is valid, or `false` if one is not.
pub(crate) fn say_validity(worker: &Worker, held: &impl Held) -> bool {
    let guards = held.guards();
    guards.iter().filter(|guard| worker.say_validity(guard).is_some()).count() == guards.len()
}

/// Says so again and again.
pub(crate) async fn samples(worker: &Worker, held: &impl Held) {
    loop {
        say_validity(worker, held);
        sleep(SAMPLE).await;
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Unlock,
    Drop,
}

/// Says how the hold ended, or ends it. Of several, the loss of one is the end of all.
pub(crate) async fn end<H: Held>(worker: &Worker, held: H, way: Way) {
    let holds: Vec<_> = held.guards().iter().map(Worker::hold).collect();
    let stands = say_validity(worker, &held);
    let lost = if stands { None } else { Some(held.lost().await) };
    for (guard, hold) in held.guards().iter().zip(&holds) {
        if stands || guard.is_valid() {
            worker.log.say(What::Releasing { hold: hold.clone() });
        }
    }
    let why = match (lost, way) {
        (Some(loss), _) => format!("{loss:?}"),
        (None, Way::Drop) => {
            drop(held);
            "Dropped".to_owned()
        }
        (None, Way::Unlock) => match held.release().await {
            Ok(()) => "Released".to_owned(),
            Err(tenure::Error::Lost(loss)) => format!("{loss:?}"),
            Err(error) => format!("{error:?}"),
        },
    };
    holds.into_iter().for_each(|hold| worker.log.say(What::Ended { hold, why: why.clone() }));
}
