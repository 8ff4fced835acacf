//! What happens in the demo, and what must be true of it.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tenure::{Election, Guard, Mutex, Session};
use tokio::time::sleep;

use super::role::{ELECTION, MUTEX, TTL};
use super::stage::{Actor, SOON, Stage, until};
use super::timeline::Timeline;
use super::worker::PATIENCE;

/// The promise after a crash.
const TAKEOVER: Duration = TTL.saturating_add(Duration::from_secs(1));

/// The promise after a SIGTERM: milliseconds, with room for a busy machine.
const HANDOVER: Duration = Duration::from_millis(250);

/// How long the audience looks at a state.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn tell(mut stage: Stage, session: &Session) -> anyhow::Result<Timeline> {
    let (election, mutex) = (session.election(ELECTION), session.mutex(MUTEX));

    stage.timeline.title("Three replicas stand for one office");
    stage.note("demo", &format!("etcd at {}, leases of {TTL:?}", stage.endpoints.join(", ")), None);
    let [first, second, third] = stand(&mut stage, &election).await?;

    stage.timeline.title("The leader crashes");
    crash(&mut stage, first, &second).await?;

    stage.timeline.title("The leader is stopped");
    hand_over(&mut stage, second, &third).await?;

    stage.timeline.title("Six workers pass one lock, in the order in which they queued");
    let guard = mutex.lock().await?;
    pass_around(&mut stage, &mutex, guard).await?;

    stage.timeline.title("One waits for three seconds at most");
    let guard = mutex.lock().await?;
    go_without(&mut stage, &mutex, guard).await?;

    stage.timeline.title("The end");
    let leader = election.leader().await?.context("nobody leads")?;
    ensure!(leader.value() == third.name.as_bytes(), "{} should lead to the end", third.name);
    leave(&mut stage, third).await?;
    ensure!(election.leader().await?.is_none(), "somebody leads who should have left");
    stage.expect_silence()?;
    Ok(stage.timeline)
}

async fn stand(stage: &mut Stage, election: &Election) -> anyhow::Result<[Actor; 3]> {
    let first = stage.start("replica", "api-1")?;
    stage.expect(&first.name, "leads", SOON).await?;
    let second = stand_behind(stage, election, "api-2", 1).await?;
    let third = stand_behind(stage, election, "api-3", 2).await?;
    sleep(LOOK).await;
    stage.expect_silence()?;
    stage.timeline.checked("three stand, one leads");
    Ok([first, second, third])
}

async fn stand_behind(stage: &Stage, election: &Election, name: &str, ahead: usize) -> anyhow::Result<Actor> {
    let actor = stage.start("replica", name)?;
    until(&format!("{name} stands"), async || Ok(election.candidates().await?.len() > ahead)).await?;
    let candidate = election.candidates().await?.pop().context("nobody stands")?;
    ensure!(candidate.identity() == name, "{} stands where {name} should", candidate.identity());
    stage.note(name, &format!("stands, {ahead} ahead"), Some(candidate.token().into()));
    Ok(actor)
}

async fn crash(stage: &mut Stage, leader: Actor, next: &Actor) -> anyhow::Result<()> {
    let killed = stage.note(&leader.name, "SIGKILL", None);
    leader.signal(Signal::KILL)?;
    let leads = stage.expect(&next.name, "leads", TAKEOVER).await?;
    let after = leads.at - killed;
    ensure!(after <= TAKEOVER, "{} led {after:.3?} after the crash, later than TTL + 1 s", next.name);
    stage.timeline.checked(&format!("led {after:.3?} after the crash; promised within TTL + 1s = {TAKEOVER:?}"));
    sleep(LOOK).await;
    Ok(())
}

async fn hand_over(stage: &mut Stage, leader: Actor, next: &Actor) -> anyhow::Result<()> {
    let stopped = stage.note(&leader.name, "SIGTERM", None);
    leader.signal(Signal::TERM)?;
    let work_ended = stage.expect(&leader.name, "stops its work, and resigns", SOON).await?;
    let leads = stage.expect(&next.name, "leads", SOON).await?;
    ensure!(work_ended.token < leads.token, "the token of {} is not larger", next.name);
    let after = leads.at - stopped;
    ensure!(after <= HANDOVER, "{} led {after:.3?} after the signal, later than {HANDOVER:?}", next.name);
    leader.leave().await?;
    stage.timeline.checked(&format!("led {after:.1?} after the signal, when the work before it had ended"));
    Ok(())
}

async fn pass_around(stage: &mut Stage, mutex: &Mutex, guard: Guard) -> anyhow::Result<()> {
    stage.note("demo", "holds, while six workers start", Some(guard.token().into()));
    let workers: Vec<_> = (1..=6).map(|n| stage.start("worker", &format!("worker-{n}"))).collect::<Result<_, _>>()?;
    until("six workers have queued", async || Ok(mutex.queue().await?.len() == 7)).await?;
    let queue = mutex.queue().await?.split_off(1);
    stage.note("demo", "passes it on", Some(guard.token().into()));
    guard.unlock().await?;

    let mut holders = Vec::new();
    for waiter in &queue {
        let holds = stage.expect(waiter.identity(), "holds", SOON).await?;
        stage.expect(waiter.identity(), "passes it on", SOON).await?;
        holders.push(holds);
    }
    for worker in workers {
        worker.leave().await?;
    }
    println!("\n{:>10}{:<12} {:>15}      {:<12} {:>6}", "", "queued", "create revision", "held", "token");
    for (waiter, holder) in queue.iter().zip(&holders) {
        let (created, token) = (i64::from(waiter.token()), holder.token.context("a holder has a token")?);
        println!("{:>10}{:<12} {created:>15}      {:<12} {token:>6}", "", waiter.identity(), holder.who);
        ensure!(created == token, "{} holds with another token than it queued with", holder.who);
    }
    ensure!(queue.is_sorted_by_key(|waiter| waiter.token()), "the queue is not in the order of create revisions");
    stage.timeline.checked("one after the other, in the order of their create revisions");
    Ok(())
}

async fn go_without(stage: &mut Stage, mutex: &Mutex, guard: Guard) -> anyhow::Result<()> {
    stage.note("demo", "holds, and goes on holding", Some(guard.token().into()));
    let worker = stage.start("hurried-worker", "worker-7")?;
    let waits = stage.expect(&worker.name, "waits, for three seconds at most", SOON).await?;
    let goes = stage.expect(&worker.name, "goes without", PATIENCE + SOON).await?;
    let waited = goes.at - waits.at;
    let late = PATIENCE + Duration::from_millis(500);
    ensure!((PATIENCE..late).contains(&waited), "{} waited {waited:.3?}, not three seconds", worker.name);
    worker.leave().await?;
    let queue = mutex.queue().await?;
    ensure!(queue.len() == 1 && guard.is_valid(), "only the holder should be left in the queue");
    guard.unlock().await?;
    stage.timeline.checked(&format!("waited {waited:.3?}, and left no place in the queue"));
    Ok(())
}

async fn leave(stage: &mut Stage, leader: Actor) -> anyhow::Result<()> {
    stage.note(&leader.name, "SIGTERM", None);
    leader.signal(Signal::TERM)?;
    stage.expect(&leader.name, "stops its work, and resigns", SOON).await?;
    leader.leave().await
}
