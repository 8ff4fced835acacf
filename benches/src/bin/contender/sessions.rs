//! What sessions cost that neither hold nor wait, how many renewals etcd answers, and how fast it lets leases go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use tenure::etcd_client::{GetOptions, PutOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bench::{self, Bench, Settings};
use crate::clock::{Nanos, millis, now};
use crate::distribution::Distribution;
use crate::probe::Probe;

/// etcd's minimum at its default election time-out.
const SHORTEST: i64 = 2;
const POLL: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Options {
    /// A connection for each, with `--clients`, is what processes of their own have.
    #[command(flatten)]
    settings: Settings,
    /// Sessions that are open at the same time.
    #[arg(long, default_value_t = 1_000)]
    n: usize,
    /// Sessions opened at a time.
    #[arg(long, default_value_t = 64)]
    parallel: usize,
    /// For how long the sessions do nothing but renew.
    #[arg(long, default_value = "10s", value_parser = crate::clock::duration)]
    idle: Duration,
    /// Streams on which renewals follow each other without a pause.
    #[arg(long, default_value_t = 32)]
    streams: usize,
    /// For how long they do.
    #[arg(long, default_value = "5s", value_parser = crate::clock::duration)]
    busy: Duration,
    /// Leases with a key each that nobody renews.
    #[arg(long, default_value_t = 0)]
    expire: usize,
}

pub async fn run(Options { settings, n, parallel, idle, streams, busy, expire }: Options) -> Result<()> {
    let alone = Probe::take(&settings).await?;
    let mut bench = Bench::open(settings, "sessions").await?;
    bench.set("sessions", n);
    let begun = now();
    let sessions = bench.sessions(n, parallel).await?;
    bench.set("open_ms", millis(now() - begun));
    let open = bench.probe().await?;
    sleep(idle).await;
    let renewed = bench.probe().await?;
    // With its connection.
    bench.set("client_bytes_each", json!((open.client_bytes_since(&alone) / n as f64).round()));
    bench.set("etcd_bytes_each", json!((renewed.etcd_bytes_since(&alone) / n as f64).round()));
    bench.set("idle_renewals_s", (renewed.renewals() - open.renewals()) / idle.as_secs_f64());
    bench.set("idle", renewed.cost(&open, n));
    bench::close(sessions).await?;

    if streams > 0 {
        let before = bench.probe().await?;
        let answers = hammer(&bench, streams, busy).await?;
        let after = bench.probe().await?;
        bench.set("streams", streams);
        bench.set("busy_renewals_s", answers.len() as f64 / busy.as_secs_f64());
        bench.set("busy", after.cost(&before, answers.len()));
        bench.set("busy_round_trip", Distribution::of(answers).summary());
    }
    if expire > 0 {
        let (took, late) = let_go(&bench, expire).await?;
        bench.set(
            "expire",
            json!({ "leases": expire, "ms": millis(took), "a_second": expire as f64 / (took as f64 / 1e9),
            "last_after_ttl_ms": millis(late) }),
        );
    }
    bench.set("ok", true);
    bench.print();
    Ok(())
}

/// Renews leases, one on each stream, one renewal after the other. How long each took.
async fn hammer(bench: &Bench, streams: usize, busy: Duration) -> Result<Vec<Nanos>> {
    let mut renewing = JoinSet::new();
    for index in 0..streams {
        let mut leases = bench.client(index).lease_client();
        renewing.spawn(async move {
            let lease = leases.grant(60, None).await?.id();
            let (mut requests, mut replies) = leases.keep_alive(lease).await?;
            let (until, mut took) = (Instant::now() + busy, Vec::new());
            while Instant::now() < until {
                let sent = now();
                requests.keep_alive().await?;
                let reply = replies.message().await?.context("the stream ended")?;
                ensure!(reply.ttl() > 0, "the lease is gone");
                took.push(now() - sent);
            }
            leases.revoke(lease).await?;
            Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = renewing.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

/// From the first key's end to the last one's, where all leases were granted in one go, and from the last grant's TTL on.
async fn let_go(bench: &Bench, leases: usize) -> Result<(Nanos, Nanos)> {
    let prefix = bench.name("expire/");
    // Not shorter than granting takes, or the first are gone before the last have come.
    let ttl = SHORTEST.max(i64::try_from(leases / 1_000)?);
    let mut granting = JoinSet::new();
    for worker in 0..64 {
        let (mut client, prefix) = (bench.client(worker), prefix.clone());
        granting.spawn(async move {
            for index in (worker..leases).step_by(64) {
                let lease = client.lease_grant(ttl, None).await?.id();
                client.put(format!("{prefix}{index}"), "", Some(PutOptions::new().with_lease(lease))).await?;
            }
            anyhow::Ok(now())
        });
    }
    let mut granted = 0;
    while let Some(last) = granting.join_next().await {
        granted = granted.max(last??);
    }
    let mut client = bench.client(0);
    let mut first = None;
    let until = Instant::now() + LIMIT;
    loop {
        let count = GetOptions::new().with_prefix().with_count_only();
        let left = usize::try_from(client.get(prefix.as_str(), Some(count)).await?.count())?;
        if left < leases {
            first.get_or_insert_with(now);
        }
        if left == 0 {
            break;
        }
        ensure!(Instant::now() < until, "{left} leases have not expired");
        sleep(POLL).await;
    }
    let (gone, ttl) = (now(), Duration::from_secs(u64::try_from(ttl)?).as_nanos() as Nanos);
    Ok((gone - first.context("none has expired")?, gone.saturating_sub(granted + ttl)))
}
