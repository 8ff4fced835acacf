//! Several locks at once, of sets of names that overlap.

use std::sync::Arc;

use fastrand::Rng;
use tenure::MultiGuard;
use tokio::time::{sleep, timeout};

use crate::held::{Way, end, say_validity};
use crate::history::{How, Left, Share, What};
use crate::work::{millis, put};
use crate::worker::Worker;

pub(crate) const SHELVES: [&str; 4] = ["shelf-0", "shelf-1", "shelf-2", "shelf-3"];

/// Locks two or three of them, in any order, and writes into the sets of all of them, fenced.
pub(crate) async fn together(worker: Arc<Worker>, mut rng: Rng) {
    while !worker.finish.is_cancelled() {
        let mut names = SHELVES;
        rng.shuffle(&mut names);
        let how = match rng.u32(..8) {
            0..5 => How::Lock,
            5 => How::Try,
            6 => How::TryFor { millis: rng.u64(..1_500) },
            _ => How::Dropped { millis: rng.u64(..200) },
        };
        if let Some(guards) = ask(&worker, &names[..rng.usize(2..4)], how).await {
            let longest = if rng.u32(..8) == 0 { 1_000 } else { 30 };
            let (times, nap) = (rng.u32(1..4), millis(rng.u64(..longest)));
            let writing = async {
                for _ in 0..times {
                    say_validity(&worker, &guards);
                    if put(&worker, &guards, nap, MultiGuard::txn).await.is_none() {
                        break;
                    }
                }
            };
            let _ = guards.run(writing).await;
            end(&worker, guards, if rng.bool() { Way::Unlock } else { Way::Drop }).await;
        }
        sleep(millis(rng.u64(..150))).await;
    }
}

async fn ask(worker: &Worker, names: &[&str], how: How) -> Option<MultiGuard> {
    let (ask, session) = (worker.next_ask(), &worker.session);
    worker.log.say(What::Asked { ask, name: names.join(" and "), how });
    let outcome = match how {
        How::Try => session.try_lock_all(names).await,
        How::TryFor { millis: limit } => session.try_lock_all_for(names, millis(limit)).await,
        How::Dropped { millis: limit } => timeout(millis(limit), session.lock_all(names)).await.ok().transpose(),
        _ => session.lock_all(names).await.map(Some),
    };
    let why = match outcome {
        Ok(Some(guards)) => {
            for guard in guards.guards() {
                let (hold, key) = (Worker::hold(guard), guard.key().to_owned());
                worker.log.say(What::Granted { ask, hold, key, share: Share::ALONE });
            }
            say_validity(worker, &guards);
            return Some(guards);
        }
        Ok(None) if matches!(how, How::Dropped { .. }) => Left::GaveUp,
        Ok(None) => Left::NotFree,
        Err(error) => Left::Failed(format!("{error:?}")),
    };
    worker.log.say(What::Left { ask, why });
    None
}
