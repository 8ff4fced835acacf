//! Leaders whose process is killed, and leaders who leave by closing their session.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tenure::Observation;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::bench::{self, Bench, Settings};
use crate::clock::{Nanos, now};
use crate::distribution::Distribution;
use crate::share::Process;

/// Far more than any TTL that is measured.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct LeadOptions {
    #[command(flatten)]
    settings: Settings,
    /// The elections are called NAME-0, NAME-1, ..
    #[arg(long)]
    name: String,
    #[arg(long)]
    elections: usize,
}

/// Leads, each election on a session of its own, says `ready`, goes on until a line comes, closes one session after the
/// other, and says when.
pub async fn lead(LeadOptions { settings, name, elections }: LeadOptions) -> Result<()> {
    let period = Duration::from_secs(settings.ttl) / 2;
    let bench = Bench::open(settings, "lead").await?;
    let mut sessions = Vec::new();
    let mut terms = Vec::new();
    for index in 0..elections {
        let session = bench.session(index).await?;
        terms.push(session.election(format!("{name}-{index}")).campaign("old").await?);
        sessions.push(session);
        // So that they are killed at different times since their last renewal.
        tokio::time::sleep(period / u32::try_from(elections)?).await;
    }
    println!("ready");
    BufReader::new(tokio::io::stdin()).lines().next_line().await?;
    let mut left = Vec::new();
    for session in sessions {
        left.push(now());
        session.close().await?;
    }
    println!("{}", serde_json::to_string(&left)?);
    Ok(())
}

pub async fn run(bench: &mut Bench, elections: usize, ttl: u64) -> Result<()> {
    for how in ["kill", "close"] {
        let name = bench.name(how);
        let settings = Settings { ttl, clients: elections, ..bench.settings.clone() };
        let mut arguments = vec!["lead".to_owned(), "--name".into(), name.clone()];
        arguments.extend(["--elections".into(), elections.to_string()]);
        arguments.extend(settings.flags(elections));
        let mut leaders = Process::start(&arguments)?;
        leaders.expect("ready").await?;

        let mut next = JoinSet::new();
        let mut sessions = Vec::new();
        for index in 0..elections {
            let session = bench.session(index).await?;
            let election = session.election(format!("{name}-{index}"));
            let mut ticket = election.enqueue("new").await?;
            let mut observations = election.observe().await?;
            sessions.push(session);
            next.spawn(tokio::time::timeout(LIMIT, async move {
                let observed = async {
                    while let Some(observation) = observations.next().await {
                        match observation? {
                            Observation::Leader(leader) if leader.value() == b"new" => return Ok(now()),
                            _ => {}
                        }
                    }
                    Err(anyhow::anyhow!("the observation has ended"))
                };
                let led = async {
                    let term = ticket.granted().await?;
                    anyhow::Ok((now(), term))
                };
                let ((led, term), seen) = tokio::try_join!(led, observed)?;
                term.resign().await?;
                anyhow::Ok::<(usize, Nanos, Nanos)>((index, led, seen))
            }));
        }
        let left: Vec<Nanos> = if how == "kill" {
            let begun = now();
            leaders.kill().await?;
            vec![begun; elections]
        } else {
            leaders.tell("close").await?;
            let left = serde_json::from_str(&leaders.line().await?)?;
            leaders.end().await?;
            left
        };
        let (mut gone, mut seen) = (Distribution::new(), Distribution::new());
        while let Some(waited) = next.join_next().await {
            let (index, led, observed) = waited???;
            let begun = left[index];
            ensure!(led >= begun, "led before the leader had gone");
            gone.add(led - begun);
            seen.add(observed.saturating_sub(begun));
        }
        bench.set(&format!("failover_{how}"), gone.summary());
        bench.set(&format!("failover_{how}_observer"), seen.summary());
        bench::close(sessions).await?;
    }
    bench.set("failover_ttl_s", ttl);
    Ok(())
}
