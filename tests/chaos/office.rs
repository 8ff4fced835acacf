//! An office whose holder hands it over.

use std::sync::Arc;

use fastrand::Rng;
use tenure::{Election, Error, Leadership};
use tokio::time::{sleep, timeout};

use crate::held::{Way, end, samples};
use crate::history::{How, Left, Outcome, Share, What};
use crate::work::millis;
use crate::worker::{ASK, Worker};

pub(crate) const OFFICE: &str = "office";

/// Stands again and again; the proposal is who stands.
pub(crate) async fn office(worker: Arc<Worker>, mut rng: Rng) {
    let election = worker.session.election(OFFICE);
    while !worker.finish.is_cancelled() {
        let ask = worker.next_ask();
        worker.log.say(What::Asked { ask, name: OFFICE.to_owned(), how: How::Lock });
        match election.campaign(worker.session.identity()).await {
            Ok(term) => {
                let (hold, key) = (Worker::hold(&term), term.key().to_owned());
                worker.log.say(What::Granted { ask, hold, key, share: Share::ALONE });
                lead(&worker, &election, term, &mut rng).await;
            }
            Err(error) => worker.log.say(What::Left { ask, why: Left::Failed(format!("{error:?}")) }),
        }
        sleep(millis(rng.u64(..100))).await;
    }
}

async fn lead(worker: &Worker, election: &Election, term: Leadership, rng: &mut Rng) {
    let longest = if rng.u32(..8) == 0 { 4_000 } else { 300 };
    let length = millis(rng.u64(..longest));
    tokio::select! {
        _ = term.lost() => {}
        _ = term.revocation_requested() => worker.log.say(What::Heard { hold: Worker::hold(&term) }),
        () = sleep(length) => {}
        () = worker.finish.cancelled() => {}
        () = samples(worker, &term) => {}
    }
    let to = tokio::select! {
        _ = term.lost() => None,
        to = heir(election, rng) => to,
        () = samples(worker, &term) => None,
    };
    if let Some(to) = to {
        // Mostly longer than it may take.
        let limit = millis(if rng.u32(..4) == 0 { rng.u64(..200) } else { 20_000 });
        let outcome = tokio::select! {
            outcome = term.transfer_to(&to) => Some(outcome),
            () = sleep(limit) => None,
            () = samples(worker, &term) => None,
        };
        let outcome = outcome.map(|outcome| match outcome {
            Ok(()) => Outcome::Done,
            Err(Error::Lost(_)) => Outcome::Lost,
            Err(error) => Outcome::Refused(format!("{error:?}")),
        });
        let (hold, done) = (Worker::hold(&term), outcome == Some(Outcome::Done));
        if let Some(outcome) = outcome {
            worker.log.say(What::HandedOver { hold: hold.clone(), to, outcome });
        }
        if done {
            return worker.log.say(What::Ended { hold, why: "HandedOver".to_owned() });
        }
    }
    end(worker, term, if rng.bool() { Way::Unlock } else { Way::Drop }).await;
}

/// Mostly any candidate, once in a while one that does not stand; or the office is to be given up.
async fn heir(election: &Election, rng: &mut Rng) -> Option<String> {
    if rng.u32(..4) == 0 {
        return None;
    }
    let candidates = timeout(ASK, election.candidates()).await.ok()?.ok()?;
    match rng.u32(..10) {
        0 => Some("nobody".to_owned()),
        _ => rng.choice(candidates.get(1..)?).map(|candidate| candidate.identity().to_owned()),
    }
}
