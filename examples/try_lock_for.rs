//! A lock now, within three seconds, or not at all.
//!
//! Two sessions stand for two processes that share a lock.
//!
//! ```text
//! cargo run --example try_lock_for
//! ```

mod common;

use std::time::{Duration, Instant};

use tenure::Session;

const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let (nightly, hourly) = (Session::connect(&etcd.endpoints).await?, Session::connect(&etcd.endpoints).await?);
    let (theirs, ours) = (nightly.mutex("examples/try"), hourly.mutex("examples/try"));

    // Now, or not at all. A try that fails never enters the queue, and writes nothing.
    let guard = theirs.try_lock().await?.ok_or_else(|| anyhow::anyhow!("somebody else holds examples/try"))?;
    anyhow::ensure!(ours.try_lock().await?.is_none(), "two hold one lock");
    println!("now:               not free, {} holds it", ours.queue().await?[0].identity());

    // `None` means that etcd answered "not free". No answer would be an error: a failed try is never a hold.
    let begun = Instant::now();
    anyhow::ensure!(ours.try_lock_for(PATIENCE).await?.is_none(), "two hold one lock");
    println!("within three:      not free, for {:.2?}", begun.elapsed());

    // This time the holder leaves after a second; who waits in the queue has the lock in the same moment.
    let begun = Instant::now();
    let leave = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        guard.unlock().await
    };
    let (left, got) = tokio::join!(leave, ours.try_lock_for(PATIENCE));
    left?;
    let guard = got?.ok_or_else(|| anyhow::anyhow!("the lock was free, and not got"))?;
    println!("within three:      got after {:.2?}, with token {}", begun.elapsed(), guard.token());
    guard.unlock().await?;

    // The time bounds the waiting alone: what is free is got even with a limit of zero.
    let free = ours.try_lock_for(Duration::ZERO).await?;
    anyhow::ensure!(free.is_some(), "the lock was free, and not got");
    println!("without waiting:   got");
    drop(free); // released in the background

    hourly.close().await?;
    nightly.close().await?;
    Ok(())
}
