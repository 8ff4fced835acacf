//! etcd's own tool, among those who lock.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::check::NAMESPACE;
use crate::history::{ETCDCTL, Event, Hold, How, Nanos, SECOND, Share, What, now};
use crate::stage::Stage;

/// A mutex of the workers.
const NAME: &str = "jobs";

/// Since the machine was started, in seconds to two decimals: the workers' clock.
const CLOCK: &str = "/proc/uptime";

/// Where the clock may be by when it has been read.
const TICK: Nanos = SECOND / 100;

/// Runs a command under a lock, again and again, until `over`.
pub(crate) async fn commands(stage: &Stage, over: CancellationToken) {
    let turns = async {
        for ask in 0.. {
            // A waiter of theirs may hang on a member that is cut off.
            let _ = timeout(3 * stage.ttl, turn(stage, ask)).await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    over.run_until_cancelled(turns).await;
}

/// With no fault left it is let through like everybody.
pub(crate) async fn last_turn(stage: &Stage, limit: Duration) {
    if !Path::new(CLOCK).exists() {
        return;
    }
    let ask = u64::MAX;
    stage.add(Event { at: now(), by: ETCDCTL, what: What::Asked { ask, name: NAME.to_owned(), how: How::Lock } });
    let _ = timeout(limit, turn(stage, ask)).await;
    stage.add(Event { at: now(), by: ETCDCTL, what: What::Finished });
}

/// Its command goes on after the loss of the lock. So it counts as a hold only if its key still stands when the
/// command has ended, and only from the beginning to the end of that.
async fn turn(stage: &Stage, ask: u64) -> Option<()> {
    let (lock, endpoints) = (format!("{NAMESPACE}{NAME}"), stage.etcd.endpoints().join(","));
    let clock = format!("cut -d ' ' -f 1 {CLOCK}");
    let asks = format!("etcdctl --endpoints={endpoints} get \"$ETCD_LOCK_KEY\" --write-out=json");
    let script = format!("echo \"$ETCD_LOCK_KEY\"; {clock}; sleep 0.0{}; {clock}; {asks}", fastrand::u32(..9));
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&endpoints);
    command.args(["lock", "--ttl", &stage.ttl.as_secs().to_string(), &lock, "--", "sh", "-c", &script]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let [key, begun, ended, found] = said.lines().collect::<Vec<_>>().try_into().ok()?;
    let found: serde_json::Value = serde_json::from_str(found).ok()?;
    let token = found["kvs"][0]["create_revision"].as_i64()?;
    let (begun, ended) = (seconds(begun)? + TICK, seconds(ended)?);
    let (hold, key, share) = (Hold { name: NAME.to_owned(), token }, key.to_owned(), Share::ALONE);
    let say = |at, what| stage.add(Event { at, by: ETCDCTL, what });
    say(begun, What::Granted { ask, hold: hold.clone(), key, share });
    if begun < ended {
        for at in [begun, ended] {
            say(at, What::Valid { hold: hold.clone(), deadline: ended });
        }
    }
    say(ended.max(begun), What::Ended { hold, why: "Released".to_owned() });
    Some(())
}

fn seconds(text: &str) -> Option<Nanos> {
    let (seconds, hundredths) = text.split_once('.')?;
    Some(seconds.parse::<Nanos>().ok()? * SECOND + hundredths.parse::<Nanos>().ok()? * TICK)
}
