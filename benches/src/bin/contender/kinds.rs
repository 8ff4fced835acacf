//! Every kind of lock, and what can be asked of a holder, alternately with the plain mutex.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tenure::{Guard, Session};
use tokio::time::timeout;

use crate::bench::{self, Bench, Settings};
use crate::clock::{Nanos, now};
use crate::distribution::Distribution;

/// Locked together.
const TOGETHER: usize = 3;

/// More than any of it takes.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Turns, in each of which everything happens once.
    #[arg(long, default_value_t = 500)]
    n: usize,
    /// Turns before measuring.
    #[arg(long, default_value_t = 20)]
    warmup: usize,
}

/// In the order in which they are measured.
const MEASURED: [&str; 10] = [
    "mutex",
    "read",
    "write",
    "acquire",
    "reentrant",
    "reentrant_again",
    "lock_all",
    "election",
    "request_revocation",
    "transfer_to",
];

pub async fn run(Options { settings, n, warmup }: Options) -> Result<()> {
    let mut bench = Bench::open(settings, "kinds").await?;
    let (ours, other) = (bench.session(0).await?, bench.session(1).await?);
    let heir = Session::builder(bench.client(1)).ttl(other.ttl()).identity("heir").open().await?;
    let sessions = [ours, other, heir];
    let mut measured: [Distribution; MEASURED.len()] = std::array::from_fn(|_| Distribution::new());
    for turn in 0..warmup + n {
        let taken = everything(&bench, &sessions).await?;
        if turn >= warmup {
            measured.iter_mut().zip(taken).for_each(|(distribution, nanos)| distribution.add(nanos));
        }
    }
    bench.set("n", n);
    for (name, distribution) in MEASURED.iter().zip(&measured) {
        bench.set(name, distribution.summary());
    }
    bench.print();
    bench::close(sessions.into()).await
}

/// One of each in turn, so that all meet the machine at the same speed.
async fn everything(bench: &Bench, [ours, other, heir]: &[Session; 3]) -> Result<[Nanos; MEASURED.len()]> {
    let (mutex, rwlock) = (ours.mutex(bench.name("mutex")), ours.rwlock(bench.name("rwlock")));
    let semaphore = ours.semaphore(bench.name("semaphore"), 3);
    let owner = ours.mutex(bench.name("reentrant")).reentrant();
    let election = ours.election(bench.name("election"));
    let names: [String; TOGETHER] = std::array::from_fn(|index| bench.name(&format!("together/{index}")));
    Ok([
        cycle(mutex.lock()).await?,
        cycle(rwlock.read()).await?,
        cycle(rwlock.write()).await?,
        cycle(semaphore.acquire()).await?,
        cycle(owner.lock()).await?,
        {
            let guard = owner.lock().await?;
            let again = cycle(owner.lock()).await?;
            guard.unlock().await?;
            again
        },
        {
            let begun = now();
            ours.lock_all(names).await?.unlock().await?;
            now() - begun
        },
        {
            let begun = now();
            election.campaign("").await?.resign().await?;
            now() - begun
        },
        requested(&bench.name("requested"), ours, other).await?,
        transferred(&bench.name("transferred"), [ours, other, heir]).await?,
    ])
}

async fn cycle(locking: impl Future<Output = tenure::Result<Guard>>) -> Result<Nanos> {
    let begun = now();
    locking.await?.unlock().await?;
    Ok(now() - begun)
}

/// From the call of who asks until the holder hears of it, which listens already.
async fn requested(name: &str, ours: &Session, other: &Session) -> Result<Nanos> {
    let guard = ours.mutex(name).lock().await?;
    let requested = guard.revocation_requested();
    let hearing = tokio::spawn(async move {
        requested.await;
        now()
    });
    // Its watch is made meanwhile: most of what is measured is then the request and the event.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let (mutex, begun) = (other.mutex(name), now());
    ensure!(mutex.request_revocation("").await?.len() == 1, "nobody was asked");
    let heard = timeout(LIMIT, hearing).await.context("nobody heard")??;
    guard.unlock().await?;
    Ok(heard - begun)
}

/// From the call until the named candidate leads, where one stands before it.
async fn transferred(name: &str, [ours, other, heir]: [&Session; 3]) -> Result<Nanos> {
    let term = ours.election(name).campaign("").await?;
    let mut before = other.election(name).enqueue("").await?;
    let mut last = heir.election(name).enqueue("").await?;
    let leading = tokio::spawn(async move {
        let term = last.granted().await;
        (now(), term)
    });
    let standing = tokio::spawn(async move { before.granted().await });
    let begun = now();
    term.transfer_to(heir.identity()).await?;
    let (led, term) = timeout(LIMIT, leading).await.context("nobody leads")??;
    term?.resign().await?;
    timeout(LIMIT, standing).await.context("who gave way never leads")???.resign().await?;
    Ok(led - begun)
}
