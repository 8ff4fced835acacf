//! A place in the queue that survives `select!`.
//!
//! `lock()` in a `select!` loop would start over at the back of the queue whenever another branch is taken first. A
//! ticket is taken once; waiting for it can be broken off and taken up again, and the place is kept.
//!
//! ```text
//! cargo run --example ticket
//! ```

mod common;

use std::time::Duration;

use anyhow::ensure;
use tenure::Session;
use tokio::time::{interval, sleep};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let session = Session::connect(&etcd.endpoints).await?;
    let mutex = session.mutex("examples/ticket");

    // Somebody holds, we queue, somebody else queues behind us.
    let holder = mutex.lock().await?;
    let mut ticket = mutex.enqueue().await?;
    let behind = mutex.enqueue().await?;
    tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        holder.unlock().await
    });

    // The heartbeat breaks the waiting off every 200 ms. The place stays.
    let mut heartbeat = interval(Duration::from_millis(200));
    let guard = loop {
        tokio::select! {
            guard = ticket.granted() => break guard?,
            _ = heartbeat.tick() => println!("heartbeat: {} ahead of us", ticket.position().await?),
        }
    };
    println!("granted with token {}", guard.token());

    let queue = mutex.queue().await?;
    ensure!(queue[0].key() == guard.key(), "somebody was let in before us");
    ensure!(queue.len() == 2, "there should be one behind us");

    // A ticket that is dropped gives its place up.
    drop(behind);
    guard.unlock().await?;
    session.close().await?;
    Ok(())
}
