//! Ten workers, and a machine with three places. Most jobs take one, some take two, and none takes the whole machine
//! for ever: whoever asks for much is not passed by those who ask for little.
//!
//! ```text
//! cargo run --example semaphore_workers
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example semaphore_workers    # with an etcd that runs already
//! ```

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tenure::{Error, Semaphore, Session};
use tokio::task::JoinSet;

const PLACES: u32 = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let session = Session::connect(&etcd.endpoints).await?;
    let machine = session.semaphore("examples/machine", PLACES);
    // Held for the whole of it, so that the name stays in use.
    let first = machine.acquire().await?;

    // A service that has not heard of the third place would not fit in.
    match session.semaphore("examples/machine", 2).acquire().await {
        Err(error @ Error::CapacityMismatch { .. }) => println!("turned away: {error}"),
        other => anyhow::bail!("two numbers for one machine: {other:?}"),
    }

    let busy = Arc::new(AtomicU32::new(1));
    let mut workers = JoinSet::new();
    for worker in 1..=10 {
        let places = if worker % 4 == 0 { 2 } else { 1 };
        workers.spawn(work(worker, places, machine.clone(), busy.clone()));
    }
    while let Some(finished) = workers.join_next().await {
        finished??;
    }
    first.unlock().await?;
    session.close().await?;
    Ok(())
}

async fn work(worker: u32, places: u32, machine: Semaphore, busy: Arc<AtomicU32>) -> anyhow::Result<()> {
    let guard = machine.acquire_many(places).await?;
    // Dropped as soon as the hold is lost, since somebody else may have the place by then.
    let now = guard
        .run(async {
            let now = busy.fetch_add(places, Ordering::SeqCst) + places;
            tokio::time::sleep(Duration::from_millis(20)).await;
            busy.fetch_sub(places, Ordering::SeqCst);
            now
        })
        .await?;
    println!("worker {worker} took {places}: {now} of {PLACES} in use");
    ensure!(now <= PLACES, "more than there are");
    guard.unlock().await?;
    Ok(())
}
