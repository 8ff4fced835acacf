//! Waiters queue up behind a holder, who then lets go.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::line::Line;
use crate::sample::{milliseconds, round};
use crate::{Probe, Queue, Report, Result, Sample, Session, unique};

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A lock that stands for a key below its name, as all queues in etcd have it.
pub trait Queued: Session {
    fn key(held: &Self::Held) -> Vec<u8>;
}

/// Opens `n` sessions, at most `parallel` at a time, in their order.
pub async fn open<S, F>(n: usize, parallel: usize, session: impl Fn(usize) -> F) -> Result<Vec<S>>
where
    S: Send + 'static,
    F: Future<Output = Result<S>> + Send + 'static,
{
    let mut opening = JoinSet::new();
    let mut opened: Vec<(usize, S)> = Vec::with_capacity(n);
    for i in 0..n {
        if opening.len() >= parallel.max(1) {
            opened.push(opening.join_next().await.context("some are being opened")???);
        }
        let session = session(i);
        opening.spawn(async move { session.await.map(|session| (i, session)) });
    }
    while let Some(session) = opening.join_next().await {
        opened.push(session??);
    }
    opened.sort_by_key(|(i, _)| *i);
    Ok(opened.into_iter().map(|(_, session)| session).collect())
}

pub async fn run<S, F>(flags: &Queue, session: impl Fn(usize) -> F, report: &mut Report) -> Result<()>
where
    S: Queued,
    F: Future<Output = Result<S>> + Send + 'static,
{
    let settings = &flags.settings;
    let name = unique("queue");
    let mut line = Line::of(settings, &name).await?;
    let connected = Probe::take(settings).await?;
    let start = Instant::now();
    let mut sessions = open(flags.waiters + 1, flags.parallel, session).await?;
    let opening = start.elapsed();
    let opened = Probe::take(settings).await?;

    let mut holder = sessions.remove(0);
    let held = holder.lock(&name).await?;
    let start = Instant::now();
    let mut waiting = JoinSet::new();
    for (i, session) in sessions.into_iter().enumerate() {
        if flags.join > 0 && i >= flags.join {
            // The holder's key counts too.
            timeout(PATIENCE, line.reaches(i + 2 - flags.join)).await.context("the queue does not grow")??;
        }
        waiting.spawn(wait(session, name.clone()));
    }
    let all = timeout(PATIENCE, line.reaches(flags.waiters + 1)).await;
    if !matches!(all, Ok(Ok(()))) || waiting.try_join_next().is_some() {
        anyhow::bail!("of {} waiters {} are queued", flags.waiters, line.len().await?.saturating_sub(1));
    }
    let enqueuing = start.elapsed();
    connected.settled(settings).await?;
    let enqueued = Probe::take(settings).await?;
    let queued = line.keys().await?;
    let behind = queued.strip_prefix(&[S::key(&held)]).context("the holder is not the first")?;

    let start = Instant::now();
    holder.unlock(held).await?;
    let mut passed = Vec::with_capacity(flags.waiters);
    while let Some(done) = timeout(PATIENCE, waiting.join_next()).await.context("the queue does not move")? {
        passed.push(done??);
    }
    let drained = Probe::take(settings).await?;
    passed.sort_by_key(|passed| passed.at);
    let mut gaps = Sample::default();
    let mut last = start;
    for Passed { at, .. } in &passed {
        gaps.add(*at - last);
        last = *at;
    }
    let out_of_order = passed.iter().zip(behind).filter(|(passed, key)| passed.key != **key).count();
    let draining = last - start;

    let start = Instant::now();
    let mut sessions: Vec<_> = passed.into_iter().map(|passed| passed.session).collect();
    sessions.push(holder);
    let mut sessions = sessions.into_iter().map(Session::close);
    let mut closing = JoinSet::new();
    for session in sessions.by_ref().take(flags.parallel.max(1)) {
        closing.spawn(session);
    }
    while let Some(closed) = closing.join_next().await {
        closed??;
        if let Some(session) = sessions.next() {
            closing.spawn(session);
        }
    }
    let closing = start.elapsed();
    let closed = Probe::take(settings).await?;

    report.set("waiters", flags.waiters);
    report.set("parallel", flags.parallel);
    report.set("join", flags.join);
    report.set("ok", true);
    report.set("open_sessions_ms", milliseconds(opening));
    report.set("enqueue_keys_ms", milliseconds(enqueuing));
    report.set("drain_ms", milliseconds(draining));
    report.set("drain_handoffs_s", round(flags.waiters as f64 / draining.as_secs_f64(), 1));
    report.set("drain_gap", gaps.summary());
    report.set("close_sessions_ms", milliseconds(closing));
    report.set("out_of_order", out_of_order);
    let memory = [connected.memory(), opened.memory(), enqueued.memory(), drained.memory(), closed.memory()];
    let [on_connect, on_open, on_enqueue, on_drain, on_close] = memory;
    report.set(
        "memory",
        json!({
            "connected": on_connect,
            "sessions_open": on_open,
            "enqueued": on_enqueue,
            "drained": on_drain,
            "closed": on_close,
        }),
    );
    report.set("cost_open", opened.cost(&connected, flags.waiters + 1));
    report.set("cost_enqueue", enqueued.cost(&opened, flags.waiters));
    report.set("cost_drain", drained.cost(&enqueued, flags.waiters));
    report.set("cost_close", closed.cost(&drained, flags.waiters + 1));
    Ok(())
}

struct Passed<S> {
    at: Instant,
    key: Vec<u8>,
    session: S,
}

/// Locks, and unlocks at once.
async fn wait<S: Queued>(mut session: S, name: String) -> Result<Passed<S>> {
    let held = session.lock(&name).await?;
    let at = Instant::now();
    let key = S::key(&held);
    session.unlock(held).await?;
    Ok(Passed { at, key, session })
}
