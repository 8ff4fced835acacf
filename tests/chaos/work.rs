//! What workers do.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tenure::etcd_client::{Txn, TxnOp, TxnResponse};
use tenure::{Guard, Leadership, Observation};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

use crate::check::RECOVERY;
use crate::held::{Held, SAMPLE, Way, end, samples};
use crate::history::{Hold, How, Left, Seen, Share, What, now};
use crate::locks::Lock;
use crate::worker::{ASK, Worker, deadline};

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Locks in every way there is, and holds for a while.
pub(crate) async fn locks(worker: Arc<Worker>, name: &'static str, mut rng: Rng) {
    while !worker.finish.is_cancelled() {
        let lock = Lock::of(&worker.session, name, &mut rng);
        let how = match rng.u32(..10) {
            0..3 => How::Lock,
            3 => How::Try,
            4..6 => How::TryFor { millis: rng.u64(..1_500) },
            6..8 => How::Ticket { drops: rng.u32(..4), millis: rng.u64(..100) },
            8 => How::Dropped { millis: rng.u64(..200) },
            _ => How::GivenUp { millis: rng.u64(..200) },
        };
        if let Some(guard) = ask(&worker, &lock, how).await {
            let guard = again(&worker, &lock, guard).await;
            let way = if rng.bool() { Way::Unlock } else { Way::Drop };
            match rng.u32(..20) {
                // Until its deadline, should nobody renew it meanwhile.
                0 => work_long(&worker, &guard, millis(rng.u64(..8_000))).await,
                1 => hold(&worker, &guard, millis(rng.u64(..8_000))).await,
                _ => hold(&worker, &guard, millis(rng.u64(..60))).await,
            }
            end(&worker, guard, way).await;
        }
        sleep(millis(rng.u64(..100))).await;
    }
}

/// An owner that holds locks again, and gives its first guard back: the hold is that of the other.
async fn again(worker: &Worker, lock: &Lock, guard: Guard) -> Guard {
    let Lock::Owner(_, owner) = lock else { return guard };
    let ask = worker.next_ask();
    let Ok(Some(other)) = owner.try_lock().await else { return guard };
    if other.token() == guard.token() {
        guard.unlock().await.ok();
        return other;
    }
    // The first was lost meanwhile.
    let (hold, key) = (Worker::hold(&other), other.key().to_owned());
    worker.log.say(What::Granted { ask, hold, key, share: lock.share() });
    end(worker, guard, Way::Drop).await;
    other
}

/// Asks for a hold, and says so.
pub(crate) async fn ask(worker: &Worker, lock: &Lock, how: How) -> Option<Guard> {
    let ask = worker.next_ask();
    worker.log.say(What::Asked { ask, name: lock.name().to_owned(), how });
    let outcome = match how {
        How::Lock | How::Run => lock.lock().await.map(Some),
        How::Try => lock.try_lock().await,
        How::TryFor { millis: limit } => lock.try_lock_for(millis(limit)).await,
        How::Ticket { drops, millis: limit } => ticket(lock, drops, millis(limit)).await.map(Some),
        How::Dropped { millis: limit } => timeout(millis(limit), lock.lock()).await.ok().transpose(),
        How::GivenUp { millis: limit } => {
            let ticket = lock.enqueue().await;
            sleep(millis(limit)).await;
            ticket.map(|_| None)
        }
    };
    match outcome {
        Ok(Some(guard)) => {
            let (hold, key) = (Worker::hold(&guard), guard.key().to_owned());
            worker.log.say(What::Granted { ask, hold, key, share: lock.share() });
            worker.say_validity(&guard);
            return Some(guard);
        }
        Ok(None) => {
            let why = if matches!(how, How::Try | How::TryFor { .. }) { Left::NotFree } else { Left::GaveUp };
            worker.log.say(What::Left { ask, why });
        }
        Err(error) => worker.log.say(What::Left { ask, why: Left::Failed(format!("{error:?}")) }),
    }
    None
}

async fn ticket(lock: &Lock, drops: u32, limit: Duration) -> tenure::Result<Guard> {
    let mut ticket = lock.enqueue().await?;
    for _ in 0..drops {
        if let Ok(granted) = timeout(limit, ticket.granted()).await {
            return granted;
        }
    }
    ticket.granted().await
}

/// Holds for so long, or until it hears that the hold is lost, that somebody asks for it, or that all is to finish.
async fn hold(worker: &Worker, guard: &Guard, length: Duration) {
    tokio::select! {
        _ = guard.lost() => {}
        _ = guard.revocation_requested() => worker.log.say(What::Heard { hold: Worker::hold(guard) }),
        () = sleep(length) => {}
        () = worker.finish.cancelled() => {}
        () = samples(worker, guard) => {}
    }
}

/// Works for so long, or until it is dropped.
async fn work_long(worker: &Worker, guard: &Guard, length: Duration) {
    let working = async {
        let (work, until) = (Work::begin(worker, guard), Instant::now() + length);
        while Instant::now() < until && !worker.finish.is_cancelled() {
            work.sample(guard);
            sleep(SAMPLE).await;
        }
    };
    let _ = guard.run(working).await;
}

/// Says when work begins, and when it ends, however it does.
struct Work<'a> {
    worker: &'a Worker,
    hold: Hold,
    deadline: AtomicU64,
}

impl<'a> Work<'a> {
    fn begin(worker: &'a Worker, guard: &Guard) -> Self {
        let (hold, deadline) = (Worker::hold(guard), AtomicU64::new(deadline(guard)));
        worker.log.say(What::WorkBegan { hold: hold.clone() });
        Self { worker, hold, deadline }
    }

    fn sample(&self, guard: &Guard) {
        let deadline = self.worker.say_validity(guard);
        self.deadline.fetch_max(deadline.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let deadline = self.deadline.load(Ordering::Relaxed);
        self.worker.log.say(What::WorkEnded { hold: self.hold.clone(), deadline });
    }
}

/// Writes into the set in the file, unfenced: reads it as a whole, and writes it as a whole a little later.
pub(crate) async fn file(worker: Arc<Worker>, mut rng: Rng) {
    let mutex = Lock::mutex(&worker.session, "file");
    while !worker.finish.is_cancelled() {
        if let Some(guard) = ask(&worker, &mutex, How::Lock).await {
            let (times, nap) = (rng.u32(1..5), millis(rng.u64(1..8)));
            let writing = async {
                let work = Work::begin(&worker, &guard);
                for _ in 0..times {
                    work.sample(&guard);
                    write(&worker, &work.hold, nap).await;
                }
            };
            let _ = guard.run(writing).await;
            end(&worker, guard, Way::Unlock).await;
        }
        sleep(millis(rng.u64(20..150))).await;
    }
}

async fn write(worker: &Worker, hold: &Hold, nap: Duration) {
    let (begun, element, path) = (now(), worker.next_element(), &worker.config.file);
    let mut set = read(path);
    sleep(nap).await;
    set.push(element);
    let text: String = set.iter().map(|element| format!("{element}\n")).collect();
    // Renamed as a whole, so that a kill leaves the old or the new.
    let draft = path.with_extension(worker.config.process.to_string());
    std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path)).expect("the directory can be written");
    worker.log.say(What::Wrote { hold: hold.clone(), element, begun });
}

pub(crate) fn read(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("workers write numbers")).collect()
}

/// Writes into a set in etcd, fenced: reads how many there are, and puts the next.
pub(crate) async fn fenced(worker: Arc<Worker>, mut rng: Rng) {
    let mutex = Lock::mutex(&worker.session, "fenced");
    while !worker.finish.is_cancelled() {
        if let Some(guard) = ask(&worker, &mutex, How::Lock).await {
            let (times, careless) = (rng.u32(1..4), rng.u32(..4) == 0);
            let nap = millis(rng.u64(..if careless { 400 } else { 30 }));
            let writing = async {
                for _ in 0..times {
                    worker.say_validity(&guard);
                    // After an unknown outcome the count may still change: nothing more is built on it.
                    if put(&worker, &guard, nap, Guard::txn).await.is_none() {
                        break;
                    }
                }
            };
            // Whoever does not listen for the end of the hold is not let write after it all the same.
            if careless {
                writing.await;
                let (hold, why) = (Worker::hold(&guard), "Unwatched".to_owned());
                worker.log.say(What::Ended { hold, why });
            } else {
                let _ = guard.run(writing).await;
                end(&worker, guard, if rng.bool() { Way::Unlock } else { Way::Drop }).await;
            }
        }
        sleep(millis(rng.u64(20..150))).await;
    }
}

/// Puts the next into the set of each guard, in one transaction.
pub(crate) async fn put<H: Held>(
    worker: &Worker,
    held: &H,
    nap: Duration,
    apply: impl AsyncFnOnce(&H, Txn) -> tenure::Result<TxnResponse>,
) -> Option<()> {
    let (mut puts, mut written) = (Vec::new(), Vec::new());
    for guard in held.guards() {
        let (mut kv, set) = (worker.kv.clone(), format!("set/{}", guard.name()));
        let found = timeout(ASK, kv.get(format!("{set}/count"), None)).await.ok()?.ok()?;
        let count = found.kvs().first().and_then(|kv| kv.value_str().ok());
        let place: u64 = count.map_or(0, |count| count.parse().expect("workers write numbers"));
        let (hold, element) = (Worker::hold(guard), worker.next_element());
        puts.push(TxnOp::put(format!("{set}/count"), (place + 1).to_string(), None));
        puts.push(TxnOp::put(format!("{set}/e/{place}"), format!("{} {element}", hold.token), None));
        written.push(What::Fenced { hold, place, element });
    }
    sleep(nap).await;
    apply(held, Txn::new().and_then(puts)).await.ok()?;
    written.into_iter().for_each(|fenced| worker.log.say(fenced));
    Some(())
}

/// Stands for election again and again, with `run`.
pub(crate) async fn lead(worker: Arc<Worker>, mut rng: Rng) {
    let election = worker.session.election("leader");
    while !worker.finish.is_cancelled() {
        let shutdown = worker.finish.child_token();
        let (ask, grace) = (worker.next_ask(), millis([0, 400, 4_000, 4_000][rng.usize(..4)]));
        worker.log.say(What::Asked { ask, name: "leader".to_owned(), how: How::Run });
        let after = millis(rng.u64(1_000..20_000));
        let run = election.clone().grace(grace).run(format!("{}", worker.config.process), shutdown.clone(), |term| {
            work_as_leader(&worker, term, rng.fork())
        });
        let mut run = std::pin::pin!(run);
        let outcome = tokio::select! {
            outcome = &mut run => outcome,
            () = sleep(after) => {
                shutdown.cancel();
                run.await
            }
        };
        let why = outcome.map_or_else(|error| Left::Failed(format!("{error:?}")), |()| Left::GaveUp);
        worker.log.say(What::Left { ask, why });
    }
}

async fn work_as_leader(worker: &Worker, term: Arc<Leadership>, mut rng: Rng) {
    let (hold, key) = (Worker::hold(&term), term.key().to_owned());
    worker.log.say(What::Granted { ask: worker.next_ask(), hold, key, share: Share::ALONE });
    let work = Work::begin(worker, &term);
    let until = Instant::now() + millis(rng.u64(50..15_000));
    let (ending, heeds) = (term.ending(), rng.bool());
    while Instant::now() < until && !(heeds && ending.is_cancelled()) {
        work.sample(&term);
        if rng.u32(..20) == 0 {
            let _ = timeout(SAMPLE, term.proclaim(format!("{} {}", worker.config.process, rng.u32(..)))).await;
        }
        sleep(SAMPLE).await;
    }
}

/// Watches who leads, and for a while longer than all others work.
pub(crate) async fn observe(worker: Arc<Worker>, name: &'static str) {
    let election = worker.session.election(name);
    let mut seen = election.observe().await.expect("the name is one");
    let over = async {
        worker.finish.cancelled().await;
        sleep(Duration::from_nanos(RECOVERY)).await;
    };
    let mut over = std::pin::pin!(over);
    loop {
        let seen = tokio::select! {
            () = &mut over => return,
            seen = seen.next() => seen.expect("the session is open"),
        };
        let leader = match seen.expect("nothing ends an observer but its session") {
            Observation::Vacant => None,
            Observation::Leader(leader) => Some(Seen {
                token: leader.token().into(),
                key: leader.key().to_owned(),
                value: String::from_utf8_lossy(leader.value()).into_owned(),
            }),
        };
        worker.log.say(What::Saw { election: name.to_owned(), leader });
    }
}
