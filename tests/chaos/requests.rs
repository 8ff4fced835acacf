//! Holders who are asked to let go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tenure::etcd_client::GetOptions;
use tenure::{Result, Waiter};
use tokio::time::{sleep, timeout};

use crate::check::{NAMESPACE, RECOVERY};
use crate::held::{Way, end, samples};
use crate::history::{How, What, lease_of};
use crate::locks::Lock;
use crate::office::OFFICE;
use crate::work::{ask, millis};
use crate::worker::{ASK, Worker};

/// Who holds it lets go only when it is asked: were a request not heard, everyone would wait for ever.
pub(crate) const DESK: &str = "desk";

pub(crate) async fn desk(worker: Arc<Worker>, mut rng: Rng) {
    let mutex = Lock::mutex(&worker.session, DESK);
    while !worker.finish.is_cancelled() {
        if let Some(guard) = ask(&worker, &mutex, How::Lock).await {
            tokio::select! {
                _ = guard.lost() => {}
                _ = guard.revocation_requested() => worker.log.say(What::Heard { hold: Worker::hold(&guard) }),
                () = samples(&worker, &guard) => {}
            }
            end(&worker, guard, Way::Unlock).await;
        }
        sleep(millis(rng.u64(..300))).await;
    }
}

/// Asks here and there, and by the desk until nobody holds it any more; then all that it has asked is to be gone.
pub(crate) async fn requests(worker: Arc<Worker>, mut rng: Rng) {
    loop {
        let finishing = worker.finish.is_cancelled();
        let name = if finishing { DESK } else { [DESK, DESK, "jobs", "pages", "permits", OFFICE][rng.usize(..6)] };
        // Dropped half-way once in a while.
        let limit = millis(if rng.u32(..4) == 0 { rng.u64(..20) } else { 5_000 });
        let asked = timeout(limit, request(&worker, name)).await;
        if finishing && matches!(asked, Ok(Ok(asked)) if asked.is_empty()) {
            break;
        }
        sleep(millis(rng.u64(20..300))).await;
    }
    let (begun, limit) = (Instant::now(), 2 * worker.config.ttl + Duration::from_nanos(RECOVERY));
    let keys = loop {
        match left(&worker).await {
            Some(keys) if keys.is_empty() || begun.elapsed() > limit => break keys,
            _ => sleep(millis(50)).await,
        }
    };
    worker.log.say(What::Requests { keys });
}

async fn request(worker: &Worker, name: &str) -> Result<Vec<Waiter>> {
    let (session, reason) = (&worker.session, "chaos");
    match name {
        OFFICE => session.election(name).request_revocation(reason).await,
        "pages" => session.rwlock(name).request_revocation(reason).await,
        "permits" => session.semaphore(name, crate::locks::PERMITS).request_revocation(reason).await,
        _ => session.mutex(name).request_revocation(reason).await,
    }
}

/// This session's requests.
async fn left(worker: &Worker) -> Option<Vec<String>> {
    let (mut kv, options) = (worker.kv.clone(), GetOptions::new().with_prefix().with_keys_only());
    let found = timeout(ASK, kv.get(format!("{NAMESPACE}~session/revoke/"), Some(options))).await.ok()?.ok()?;
    let keys = found.kvs().iter().filter_map(|kv| kv.key_str().ok());
    let lease = worker.session.lease_id();
    Some(keys.filter(|key| lease_of(key) == Some(lease)).map(str::to_owned).collect())
}
