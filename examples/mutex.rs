//! Five tasks share a counter that is read and written in two steps: without a lock, updates would be lost.
//!
//! Each waits for its turn, and turns come in the order in which etcd received the requests. What is written goes
//! through [`Guard::txn`](tenure::Guard::txn), so that it cannot be written after the hold has ended.
//!
//! ```text
//! cargo run --example mutex
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example mutex    # with an etcd that runs already
//! ```

mod common;

use anyhow::Context;
use tenure::etcd_client::{Client, Txn, TxnOp};
use tenure::{Mutex, Session, connect_options};
use tokio::task::JoinSet;

const COUNTER: &str = "examples/counter";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;

    // One session is enough for a process: a lease, renewed in the background.
    let session = Session::open(client.clone()).await?;
    client.put(COUNTER, "0", None).await?;

    let mut tasks = JoinSet::new();
    for task in 1..=5 {
        tasks.spawn(increment(task, session.mutex("examples/mutex"), client.clone()));
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }

    let counter = read(&mut client).await?;
    println!("the counter is at {counter}");
    client.delete(COUNTER, None).await?;
    session.close().await?;
    anyhow::ensure!(counter == 5, "updates were lost");
    Ok(())
}

async fn increment(task: u32, mutex: Mutex, mut client: Client) -> anyhow::Result<()> {
    let guard = mutex.lock().await?;

    // Nobody else is here now. `run` drops the work if the hold is lost half-way.
    let counter = guard.run(read(&mut client)).await??;
    println!("task {task} holds with token {}, and finds {counter}", guard.token());

    // Refused by etcd unless the hold stands in the very moment of the write.
    let put = TxnOp::put(COUNTER, (counter + 1).to_string(), None);
    guard.txn(Txn::new().and_then([put])).await?;

    // Dropping the guard would do too; this waits until etcd has confirmed.
    guard.unlock().await?;
    Ok(())
}

async fn read(client: &mut Client) -> anyhow::Result<u32> {
    let found = client.get(COUNTER, None).await?;
    let counter = found.kvs().first().context("somebody deleted the counter")?;
    Ok(counter.value_str()?.parse()?)
}
