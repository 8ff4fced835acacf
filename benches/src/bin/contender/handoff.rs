//! Waiters that pass one lock round: inside one process, or between several.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tenure::Session;
use tenure::etcd_client::Client;

use crate::bench::{self, Bench, Settings};
use crate::clock::{self, Nanos};
use crate::contest::{Contest, Kind, Turn};
use crate::distribution::Distribution;
use crate::probe::Probe;
use crate::ring;
use crate::share::Share;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Who contends.
    #[arg(long, default_value_t = 8)]
    waiters: usize,
    /// Hand-offs measured, of all waiters together.
    #[arg(long, default_value_t = 2000)]
    cycles: usize,
    /// Hand-offs before measuring; by default the larger of WAITERS and 50.
    #[arg(long)]
    warmup: Option<usize>,
    /// How long each holds, such as 150ms.
    #[arg(long, default_value = "0", value_parser = clock::duration)]
    hold: Duration,
    /// The sessions over which they are spread; by default one for each.
    #[arg(long)]
    sessions: Option<usize>,
    /// The processes over which the sessions are spread.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Rather than a lock, the bare requests of a queue: a put, a delete, and a watch on who stands before, whom everyone
    /// knows.
    #[arg(long)]
    ring: bool,
}

pub async fn run(options: Options) -> Result<()> {
    let Options { settings, waiters, cycles, hold, processes, ring, .. } = options;
    let warmup = options.warmup.unwrap_or_else(|| waiters.max(50));
    let sessions = options.sessions.unwrap_or(waiters).min(waiters);
    let mut bench = Bench::open(settings, "handoff").await?;
    // The last round is not measured: there, one after the other stops queueing.
    let turns = (warmup + cycles + 1).div_ceil(waiters) + 1;
    let kind = if ring { Kind::Ring } else { Kind::Mutex };
    let contest = Contest::new(kind, bench.name("handoff"), waiters, turns, hold);
    let round = Round::run(&bench, &contest, Spread { sessions, processes }).await?;
    let measured = Measured::of(&round.turns, warmup, cycles);

    bench.set("waiters", waiters);
    bench.set("sessions", sessions);
    bench.set("processes", processes);
    bench.set("cycles", measured.count);
    bench.set("hold_ms", clock::millis(hold.as_nanos() as Nanos));
    bench.set("handoff", measured.handoff);
    bench.set("wait", measured.wait);
    bench.set("unlock", measured.unlock);
    bench.set("handoffs_s", measured.per_second);
    bench.set("overlaps", measured.overlaps);
    bench.set("out_of_order", measured.out_of_order);
    bench.set("cost", round.after.cost(&round.before, round.turns.len()));
    bench.print();
    Ok(())
}

/// Over how much the waiters are spread.
pub struct Spread {
    pub sessions: usize,
    pub processes: usize,
}

/// A contest from its first release to its last.
pub struct Round {
    /// In the order in which they were granted.
    pub turns: Vec<Turn>,
    pub before: Probe,
    pub after: Probe,
}

impl Round {
    /// Holds until everyone has queued, so that nobody begins alone.
    pub async fn run(bench: &Bench, contest: &Contest, spread: Spread) -> Result<Self> {
        let holder = bench.session(0).await?;
        let first = match contest.kind {
            Kind::Ring => First::key(bench.client(0), ring::first(&contest.name)).await?,
            Kind::Mutex => First::Guard(holder.mutex(&contest.name).lock().await?),
            Kind::Election => First::Term(holder.election(&contest.name).campaign("first").await?),
        };
        let (before, mut turns, after);
        if spread.processes < 2 {
            let sessions = contest.sessions(bench, spread.sessions).await?;
            before = bench.probe().await?;
            let (queued, all) = tokio::sync::oneshot::channel();
            let running = contest.run(bench, &sessions, || queued.send(()).unwrap_or_default());
            let release = async {
                // An error means that the contest has failed, which it says itself.
                let _ = all.await;
                first.release().await
            };
            (turns, ()) = tokio::try_join!(running, release)?;
            after = bench.probe().await?;
            bench::close(sessions).await?;
        } else {
            let mut shares = Vec::new();
            let part = |whole: usize, index| whole / spread.processes + usize::from(index < whole % spread.processes);
            for index in 0..spread.processes {
                let before = (0..index).map(|index| part(contest.tasks, index)).sum();
                let contest = Contest { tasks: part(contest.tasks, index), before, ..contest.clone() };
                shares.push(Share::start(&bench.settings, &contest, part(spread.sessions, index)).await?);
            }
            before = bench.probe().await?;
            for share in &mut shares {
                share.enqueue().await?;
            }
            first.release().await?;
            turns = Vec::new();
            for share in shares {
                turns.extend(share.turns().await?);
            }
            after = bench.probe().await?;
        }
        close(holder).await?;
        turns.sort_by_key(|turn| turn.granted);
        Ok(Self { turns, before, after })
    }
}

enum First {
    Guard(tenure::Guard),
    Term(tenure::Leadership),
    Key(Box<Client>, String),
}

impl First {
    async fn key(mut client: Client, key: String) -> Result<Self> {
        client.put(key.as_str(), "", None).await?;
        Ok(Self::Key(Box::new(client), key))
    }

    async fn release(self) -> Result<()> {
        match self {
            Self::Guard(guard) => guard.unlock().await?,
            Self::Term(term) => term.resign().await?,
            Self::Key(mut client, key) => drop(client.delete(key, None).await?),
        }
        Ok(())
    }
}

async fn close(session: Session) -> Result<()> {
    bench::close(vec![session]).await
}

/// What a contest says.
pub struct Measured {
    pub count: usize,
    /// From the call that gives up to the next one's hold.
    pub handoff: Value,
    pub wait: Value,
    pub unlock: Value,
    pub per_second: Value,
    /// Holds that began before the one before was given up: a fault.
    pub overlaps: usize,
    /// Holds in another order than that of their tokens: a fault.
    pub out_of_order: usize,
}

impl Measured {
    /// Of turns in the order in which they were granted.
    pub fn of(turns: &[Turn], warmup: usize, cycles: usize) -> Self {
        let last = turns.len().min(warmup + cycles + 1);
        let turns = &turns[warmup.min(last)..last];
        let pairs = || turns.windows(2).map(|pair| (pair[0], pair[1]));
        let seconds = match turns {
            [first, .., last] => (last.granted - first.granted) as f64 / 1e9,
            _ => f64::NAN,
        };
        let count = turns.len().saturating_sub(1);
        let handoffs = pairs().map(|(before, next)| next.granted.saturating_sub(before.released));
        Self {
            count,
            handoff: Distribution::of(handoffs).summary(),
            wait: Distribution::of(turns.iter().map(|turn| turn.granted - turn.asked)).summary(),
            unlock: Distribution::of(turns.iter().map(|turn| turn.gone - turn.released)).summary(),
            per_second: json!((count as f64 / seconds * 10.0).round() / 10.0),
            overlaps: pairs().filter(|(before, next)| next.granted < before.released).count(),
            out_of_order: pairs().filter(|(before, next)| next.token < before.token).count(),
        }
    }
}
