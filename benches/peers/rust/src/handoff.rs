//! Sessions contend for one lock. Each waits for it, holds it for a while, releases it and asks again.
//!
//! A hand-off runs from just before the old holder's unlock to lock having returned in the new holder, on this process's
//! monotonic clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::sample::round;
use crate::{Handoff, Probe, Report, Result, Sample, Session, unique};

/// Who may ask for the lock that has just been released.
#[derive(Clone, Copy, PartialEq)]
pub enum Turns {
    /// Everyone at once: the lock has a queue.
    Any,
    /// The one who released it only once another has had it: without a queue the old holder would nearly always be the
    /// next one, and nothing would be handed over.
    Alternate,
}

struct Shared {
    flags: Handoff,
    name: String,
    turns: Turns,
    /// How often the lock was taken.
    taken: watch::Sender<usize>,
    /// Holders at this moment. More than one is a fault.
    inside: AtomicUsize,
    overlaps: AtomicUsize,
    stop: AtomicBool,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    released: Option<Instant>,
    handoff: Sample,
    wait: Sample,
    unlock: Sample,
    /// At the first hand-off measured, and at the last with the moment of its end.
    start: Option<Probe>,
    end: Option<(Probe, Instant)>,
}

pub async fn run<S: Session>(flags: &Handoff, sessions: Vec<S>, turns: Turns, report: &mut Report) -> Result<()> {
    anyhow::ensure!(turns == Turns::Any || flags.waiters > 1, "turns cannot alternate with {} sessions", flags.waiters);
    let shared = Arc::new(Shared {
        flags: flags.clone(),
        name: unique("handoff"),
        turns,
        taken: watch::Sender::new(0),
        inside: AtomicUsize::new(0),
        overlaps: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        measured: Mutex::default(),
    });
    let mut contending = JoinSet::new();
    for session in sessions {
        contending.spawn(contend(session, shared.clone()));
    }
    let mut done = Vec::new();
    while let Some(session) = contending.join_next().await {
        // The first who fails ends it for all: the others are dropped with the set.
        done.push(session??);
    }
    for session in done {
        session.close().await?;
    }

    let measured = shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    let start = measured.start.as_ref().context("nothing was measured")?;
    let (end, ended) = measured.end.as_ref().context("nothing was measured")?;
    let cycles = shared.flags.cycles;
    report.set("waiters", shared.flags.waiters);
    report.set("cycles", cycles);
    report.set("hold_ms", shared.flags.hold.as_millis() as u64);
    report.set("turns", if turns == Turns::Any { "any" } else { "alternate" });
    report.set("handoff", measured.handoff.summary());
    report.set("wait", measured.wait.summary());
    report.set("unlock", measured.unlock.summary());
    report.set("handoffs_s", round(cycles as f64 / (*ended - start.at).as_secs_f64(), 1));
    report.set("overlaps", shared.overlaps.load(SeqCst));
    report.set("cost", end.cost(start, cycles));
    Ok(())
}

async fn contend<S: Session>(mut session: S, shared: Arc<Shared>) -> Result<S> {
    let measured = || shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    let (warmup, cycles) = (shared.flags.unmeasured(), shared.flags.cycles);
    let mut taken = shared.taken.subscribe();
    while !shared.stop.load(SeqCst) {
        let asked = Instant::now();
        let held = session.lock(&shared.name).await?;
        let locked = Instant::now();
        if shared.inside.fetch_add(1, SeqCst) != 0 {
            shared.overlaps.fetch_add(1, SeqCst);
        }
        let mut turn = 0;
        shared.taken.send_modify(|taken| {
            *taken += 1;
            turn = *taken;
        });
        let counts = turn > warmup && turn <= warmup + cycles;
        if counts && let Measured { released: Some(released), handoff, wait, .. } = &mut *measured() {
            handoff.add(locked.duration_since(*released));
            wait.add(locked - asked);
        }
        if turn == warmup.max(1) {
            let probe = Probe::take(&shared.flags.settings).await?;
            measured().start = Some(probe);
        }
        if turn == warmup + cycles {
            let probe = Probe::take(&shared.flags.settings).await?;
            measured().end = Some((probe, locked));
            shared.stop.store(true, SeqCst);
        }
        if !shared.flags.hold.is_zero() {
            tokio::time::sleep(shared.flags.hold).await;
        }
        shared.inside.fetch_sub(1, SeqCst);
        let releasing = Instant::now();
        measured().released = Some(releasing);
        session.unlock(held).await?;
        if counts {
            measured().unlock.add(releasing.elapsed());
        }
        if shared.turns == Turns::Alternate && !shared.stop.load(SeqCst) {
            taken.wait_for(|taken| *taken > turn).await?;
        }
    }
    Ok(session)
}
