//! Campaign, resign, observe; and what happens when a leader goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use etcd_client::{Client, LeaderKey, ResignOptions};
use tenure_peers::{Election, Probe, Report, Result, Sample, Session, unique};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::session::{Connections, EtcdSession};

pub async fn run(flags: &Election, connections: &Connections, report: &mut Report) -> Result<()> {
    hand_over(flags, connections, report).await?;
    for (name, end) in [("orphan", End::Orphan), ("close", End::Close)] {
        let mut running = JoinSet::new();
        for i in 0..flags.failovers {
            let (old, next) = (connections.client(i), connections.client(i + 1));
            running.spawn(fail_over(flags.clone(), i, old, next, end));
        }
        let (mut gone, mut seen) = (Sample::default(), Sample::default());
        while let Some(done) = running.join_next().await {
            let (leads, heard) = done??;
            gone.add(leads);
            if let Some(heard) = heard {
                seen.add(heard);
            }
        }
        report.set(&format!("failover_{name}"), gone.summary());
        report.set(&format!("failover_{name}_observer"), seen.summary());
    }
    report.set("failover_ttl_s", flags.failover_ttl);
    Ok(())
}

/// When an observer first saw each proposal.
#[derive(Clone, Default)]
struct Observed(Arc<Mutex<HashMap<Vec<u8>, Instant>>>);

impl Observed {
    /// Without waiting for etcd, which does not answer before there is a leader.
    fn start(mut client: Client, name: &str) -> Self {
        let observed = Self::default();
        let (name, seen) = (name.to_owned(), observed.clone());
        tokio::spawn(async move {
            let mut leaders = client.observe(name).await?;
            while let Ok(Some(leader)) = leaders.message().await {
                if let Some(kv) = leader.kv() {
                    seen.seen().entry(kv.value().to_vec()).or_insert_with(Instant::now);
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        observed
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn campaign(session: &mut EtcdSession, name: &str, proposal: &str) -> Result<LeaderKey> {
    let mut won = session.client.campaign(name, proposal, session.lease).await?;
    won.take_leader().context("a campaign that names no leader")
}

struct Shared {
    flags: Election,
    name: String,
    turns: AtomicUsize,
    stop: AtomicBool,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    resigned: Option<Instant>,
    handover: Sample,
    resign: Sample,
    /// Of each proposal: when the leader before it resigned, and when it led.
    led: HashMap<Vec<u8>, (Instant, Instant)>,
    start: Option<Probe>,
    end: Option<(Probe, Instant)>,
}

/// Each candidate campaigns, leads for a while, resigns, and campaigns again.
async fn hand_over(flags: &Election, connections: &Connections, report: &mut Report) -> Result<()> {
    let shared = Arc::new(Shared {
        flags: flags.clone(),
        name: unique("election"),
        turns: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        measured: Mutex::default(),
    });
    let observed = Observed::start(connections.client(flags.candidates), &shared.name);
    let mut candidates = JoinSet::new();
    for i in 0..flags.candidates {
        candidates.spawn(stand(connections.session(i).await?, i, shared.clone()));
    }
    while let Some(done) = candidates.join_next().await {
        done??;
    }
    sleep(Duration::from_millis(200)).await;

    let measured = shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = observed.seen();
    let (mut since_resign, mut since_lead) = (Sample::default(), Sample::default());
    for (proposal, (resigned, led)) in &measured.led {
        if let Some(at) = seen.get(proposal) {
            // The observer may have been told first: no time at all then.
            since_resign.add(at.duration_since(*resigned));
            since_lead.add(at.saturating_duration_since(*led));
        }
    }
    let start = measured.start.as_ref().context("nothing was measured")?;
    let (end, ended) = measured.end.as_ref().context("nothing was measured")?;
    report.set("n", flags.n);
    report.set("candidates", flags.candidates);
    report.set("hold_ms", flags.hold.as_millis() as u64);
    report.set("handover", measured.handover.summary());
    report.set("handovers_s", (flags.n as f64 / (*ended - start.at).as_secs_f64() * 10.0).round() / 10.0);
    report.set("resign", measured.resign.summary());
    report.set("observer_since_resign", since_resign.summary());
    report.set("observer_since_campaign_returned", since_lead.summary());
    report.set("observer_missed", measured.led.keys().filter(|proposal| !seen.contains_key(*proposal)).count());
    report.set("cost", end.cost(start, flags.n));
    Ok(())
}

async fn stand(mut session: EtcdSession, candidate: usize, shared: Arc<Shared>) -> Result<()> {
    let measured = || shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    let (n, warmup) = (shared.flags.n, shared.flags.warmup);
    for attempt in 0.. {
        if shared.stop.load(SeqCst) {
            break;
        }
        let proposal = format!("{candidate}-{attempt}");
        let leader = campaign(&mut session, &shared.name, &proposal).await?;
        let leads = Instant::now();
        let turn = shared.turns.fetch_add(1, SeqCst) + 1;
        let counts = turn > warmup && turn <= warmup + n;
        if counts && let Measured { resigned: Some(resigned), handover, led, .. } = &mut *measured() {
            handover.add(leads.duration_since(*resigned));
            led.insert(proposal.into_bytes(), (*resigned, leads));
        }
        if turn == warmup.max(1) {
            let probe = Probe::take(&shared.flags.settings).await?;
            measured().start = Some(probe);
        }
        if turn == warmup + n {
            let probe = Probe::take(&shared.flags.settings).await?;
            measured().end = Some((probe, leads));
            shared.stop.store(true, SeqCst);
        }
        if !shared.flags.hold.is_zero() {
            sleep(shared.flags.hold).await;
        }
        let resigning = Instant::now();
        measured().resigned = Some(resigning);
        session.client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
        if counts {
            measured().resign.add(resigning.elapsed());
        }
    }
    session.close().await
}

/// How a leader goes: its lease is no longer kept alive, or it is revoked.
#[derive(Clone, Copy)]
enum End {
    Orphan,
    Close,
}

/// How long a second candidate waits from the leader's end, and an observer until it sees that one.
async fn fail_over(
    flags: Election,
    i: usize,
    old: Client,
    next: Client,
    end: End,
) -> Result<(Duration, Option<Duration>)> {
    sleep(Duration::from_millis(137) * u32::try_from(i)?).await;
    let name = unique("failover");
    let observed = Observed::start(next.clone(), &name);
    let mut old = EtcdSession::open(old, flags.failover_ttl).await?;
    let mut next = EtcdSession::open(next, flags.settings.ttl).await?;
    campaign(&mut old, &name, "old").await?;
    let waiting = tokio::spawn(async move {
        campaign(&mut next, &name, "new").await?;
        Ok::<_, anyhow::Error>((next, Instant::now()))
    });
    // Somewhere in the period of the old session's keep-alives, a third of its TTL, and longer than the 100 ms of the
    // server's catch-up timer.
    let share = Duration::from_secs(flags.failover_ttl) / 3 * u32::try_from(i)? / u32::try_from(flags.failovers)?;
    sleep(Duration::from_millis(500) + share).await;
    let start = Instant::now();
    match end {
        End::Orphan => old.orphan(),
        End::Close => old.close().await?,
    }
    let (next, leads) = timeout(Duration::from_secs(60), waiting).await.context("no fail-over in 60 s")???;
    sleep(Duration::from_millis(300)).await;
    let heard = observed.seen().get(b"new".as_slice()).map(|at| at.duration_since(start));
    next.close().await?;
    Ok((leads.duration_since(start), heard))
}
