//! Leaders that resign, and who sees it. Those that vanish are in `failover`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tenure::{Election, Observation};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;

use crate::bench::{self, Bench, Settings};
use crate::clock::{self, Nanos, now};
use crate::contest::{Contest, Kind};
use crate::distribution::Distribution;
use crate::failover;
use crate::handoff::{Measured, Round, Spread};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Hand-overs measured.
    #[arg(long, default_value_t = 300)]
    n: usize,
    /// Hand-overs before measuring.
    #[arg(long, default_value_t = 20)]
    warmup: usize,
    /// How long each leads, such as 150ms.
    #[arg(long, default_value = "0", value_parser = clock::duration)]
    hold: Duration,
    /// Who stands, each on a session of its own.
    #[arg(long, default_value_t = 3)]
    candidates: usize,
    /// The processes over which they are spread.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Fail-overs, side by side in elections of their own.
    #[arg(long, default_value_t = 8)]
    failovers: usize,
    /// The TTL of a leader that vanishes, in seconds.
    #[arg(long, default_value_t = 5)]
    failover_ttl: u64,
}

pub async fn run(options: Options) -> Result<()> {
    let Options { settings, n, warmup, hold, candidates, processes, failovers, failover_ttl } = options;
    let mut bench = Bench::open(settings, "election").await?;
    if n > 0 {
        let turns = (warmup + n + 1).div_ceil(candidates) + 1;
        let contest = Contest::new(Kind::Election, bench.name("election"), candidates, turns, hold);
        let session = bench.session(0).await?;
        let observer = Observer::open(session.election(&contest.name)).await?;
        let round = Round::run(&bench, &contest, Spread { sessions: candidates, processes }).await?;
        let seen = observer.end().await?;
        let measured = Measured::of(&round.turns, warmup, n);
        let (mut since_resign, mut since_lead) = (Distribution::new(), Distribution::new());
        let mut missed = 0;
        for pair in round.turns[warmup..=warmup + n].windows(2) {
            let Some(at) = seen.get(&pair[1].token) else {
                missed += 1;
                continue;
            };
            since_resign.add(at.saturating_sub(pair[0].released));
            since_lead.add(at.saturating_sub(pair[1].granted));
        }
        bench.set("n", measured.count);
        bench.set("candidates", candidates);
        bench.set("processes", processes);
        bench.set("handover", measured.handoff);
        bench.set("handovers_s", measured.per_second);
        bench.set("resign", measured.unlock);
        bench.set("overlaps", measured.overlaps);
        bench.set("out_of_order", measured.out_of_order);
        bench.set("observer_since_resign", since_resign.summary());
        bench.set("observer_since_campaign_returned", since_lead.summary());
        bench.set("observer_missed", missed);
        bench.set("cost", round.after.cost(&round.before, round.turns.len()));
        bench::close(vec![session]).await?;
    }
    if failovers > 0 {
        failover::run(&mut bench, failovers, failover_ttl).await?;
    }
    bench.print();
    Ok(())
}

/// Notes when it saw each leader, until it is asked.
struct Observer {
    end: oneshot::Sender<()>,
    seen: mpsc::UnboundedReceiver<(i64, Nanos)>,
}

impl Observer {
    async fn open(election: Election) -> Result<Self> {
        let mut observations = election.observe().await?;
        let (end, mut ended) = oneshot::channel();
        let (sender, seen) = mpsc::unbounded_channel();
        let (opened, open) = oneshot::channel();
        tokio::spawn(async move {
            // The first says that it sees.
            let _ = observations.next().await;
            let _ = opened.send(());
            loop {
                let observed = tokio::select! {
                    observed = observations.next() => observed,
                    _ = &mut ended => return,
                };
                match observed {
                    Some(Ok(Observation::Leader(leader))) => {
                        if sender.send((leader.token().into(), now())).is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        });
        open.await?;
        Ok(Self { end, seen })
    }

    async fn end(mut self) -> Result<HashMap<i64, Nanos>> {
        // What is on its way arrives: the last hand-over is not measured.
        let _ = self.end.send(());
        let mut seen = HashMap::new();
        while let Some((token, at)) = self.seen.recv().await {
            seen.entry(token).or_insert(at);
        }
        Ok(seen)
    }
}
