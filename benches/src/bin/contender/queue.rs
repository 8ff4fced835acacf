//! Waiters that queue up behind a holder, and are then let through, one after the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use tenure::Session;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::bench::{self, Bench, Settings};
use crate::clock::{Nanos, millis, now};
use crate::distribution::Distribution;

/// How long nobody may have asked etcd for anything until it is said that nobody does.
const QUIET: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(30);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Who waits behind the holder.
    #[arg(long, default_value_t = 100)]
    waiters: usize,
    /// The sessions over which they are spread.
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// Sessions opened at a time.
    #[arg(long, default_value_t = 64)]
    parallel: usize,
    /// How many may be asking for their place at a time; 0: all at once.
    #[arg(long, default_value_t = 0)]
    join: usize,
}

pub async fn run(Options { settings, waiters, sessions, parallel, join }: Options) -> Result<()> {
    let mut bench = Bench::open(settings, "queue").await?;
    let connected = bench.probe().await?;
    let begun = now();
    let holder = bench.session(0).await?;
    let sessions = bench.sessions(sessions.clamp(1, waiters), parallel).await?;
    let opened = now() - begun;
    let name = bench.name("queue");
    let guard = holder.mutex(&name).lock().await?;
    let open = bench.probe().await?;

    let begun = now();
    let mut line = Line::enqueue(&sessions, &name, waiters, join).await?;
    let stored = now() - begun;
    let watching = settle(&bench).await?.max(begun + stored) - begun;
    let queued = bench.probe().await?;

    let begun = now();
    guard.unlock().await?;
    let holds = line.drain(waiters).await?;
    let all_left = now() - begun;
    let emptied = bench.probe().await?;
    let drained = holds.last().map_or(0, |hold| hold.at - begun);

    bench.set("ok", true);
    bench.set("waiters", waiters);
    bench.set("sessions", sessions.len());
    bench.set("join", join);
    bench.set("open_sessions_ms", millis(opened));
    // Until the last one has its place, and until the last one has asked for all that it waits for.
    bench.set("enqueue_keys_ms", millis(stored));
    bench.set("enqueue_watching_ms", millis(watching));
    // Until the last one holds, and until the last release is confirmed.
    bench.set("drain_ms", millis(drained));
    bench.set("emptied_ms", millis(all_left));
    bench.set("drain_handoffs_s", waiters as f64 / (drained as f64 / 1e9));
    bench.set("drain_gap", gaps(begun, &holds).summary());
    // While more than half of the queue is still there.
    bench.set("drain_gap_first_half", gaps(begun, &holds[..waiters.div_ceil(2)]).summary());
    bench.set("out_of_order", holds.windows(2).filter(|pair| pair[1].token < pair[0].token).count());
    let memory = [("connected", &connected), ("sessions_open", &open), ("enqueued", &queued), ("drained", &emptied)];
    bench.set("memory", memory.into_iter().map(|(when, probe)| (when, probe.memory())).collect::<serde_json::Value>());
    bench.set("client_bytes_per_waiter", json!((queued.client_bytes_since(&open) / waiters as f64).round()));
    bench.set("etcd_bytes_per_waiter", json!((queued.etcd_bytes_since(&open) / waiters as f64).round()));
    bench.set("cost_enqueue", queued.cost(&open, waiters));
    bench.set("cost_drain", emptied.cost(&queued, waiters));
    bench.print();
    bench::close(sessions).await?;
    bench::close(vec![holder]).await
}

/// That a waiter has got the lock.
struct Hold {
    at: Nanos,
    token: i64,
}

/// Everyone who waits behind the holder. Each releases at once what it gets.
struct Line {
    tasks: JoinSet<tenure::Result<()>>,
    granted: mpsc::UnboundedReceiver<Hold>,
}

impl Line {
    /// Returns when all have their place.
    async fn enqueue(sessions: &[Session], name: &str, waiters: usize, join: usize) -> Result<Self> {
        let (sender, granted) = mpsc::unbounded_channel();
        let standing = Arc::new(Semaphore::new(0));
        let joining = Arc::new(Semaphore::new(if join == 0 { waiters } else { join }));
        let mut tasks = JoinSet::new();
        for index in 0..waiters {
            let mutex = sessions[index % sessions.len()].mutex(name);
            let turn = joining.clone().acquire_owned().await?;
            let (sender, standing) = (sender.clone(), standing.clone());
            tasks.spawn(async move {
                let mut ticket = mutex.enqueue().await?;
                drop(turn);
                standing.add_permits(1);
                let guard = ticket.granted().await?;
                // Nobody listens only after a failure.
                let _ = sender.send(Hold { at: now(), token: guard.token().into() });
                guard.unlock().await
            });
        }
        let mut line = Self { tasks, granted };
        tokio::select! {
            all = standing.acquire_many(u32::try_from(waiters)?) => all?.forget(),
            failure = line.failure() => return Err(failure),
        }
        Ok(line)
    }

    /// In the order in which they held; all have released.
    async fn drain(&mut self, waiters: usize) -> Result<Vec<Hold>> {
        let mut holds = Vec::with_capacity(waiters);
        while let Some(left) = self.tasks.join_next().await {
            left??;
        }
        while let Ok(hold) = self.granted.try_recv() {
            holds.push(hold);
        }
        holds.sort_by_key(|hold| hold.at);
        if holds.len() != waiters {
            bail!("{} of {waiters} have held", holds.len());
        }
        Ok(holds)
    }

    async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error.into(),
                Some(Err(error)) => return error.into(),
                None => return anyhow::anyhow!("everyone has left before the holder"),
            }
        }
    }
}

fn gaps(mut last: Nanos, holds: &[Hold]) -> Distribution {
    let mut gap = |hold: &Hold| std::mem::replace(&mut last, hold.at).abs_diff(hold.at);
    Distribution::of(holds.iter().map(&mut gap).collect::<Vec<_>>())
}

/// Waits until nobody asks etcd for anything any more. When that began.
async fn settle(bench: &Bench) -> Result<Nanos> {
    let mut asked = bench.probe().await?.messages();
    let mut since = now();
    while now() - since < QUIET.as_nanos() as Nanos {
        tokio::time::sleep(POLL).await;
        let messages = bench.probe().await?.messages();
        if messages != asked {
            (asked, since) = (messages, now());
        }
    }
    Ok(since)
}
