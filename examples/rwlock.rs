//! Many who read a configuration, and one who changes it in two steps: nobody ever reads the one without the other.
//!
//! Readers read at the same time. The writer waits for those who came before it, and those who come later wait for the
//! writer, however many they are.
//!
//! ```text
//! cargo run --example rwlock
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example rwlock    # with an etcd that runs already
//! ```

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use tenure::etcd_client::{Client, Txn, TxnOp};
use tenure::{Guard, RwLock, Session, connect_options};
use tokio::task::JoinSet;

const HOST: &str = "examples/config/host";
const PORT: &str = "examples/config/port";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    let session = Session::open(client.clone()).await?;
    let config = session.rwlock("examples/config-lock");
    change(&config.write().await?, 1).await?;

    let reading = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 1..=9 {
        // The place in the queue is taken here, one after the other.
        let (mut ticket, writes) = match task {
            5 => (config.enqueue_write().await?, true),
            _ => (config.enqueue_read().await?, false),
        };
        let (client, reading) = (client.clone(), reading.clone());
        tasks.spawn(async move {
            let guard = ticket.granted().await?;
            if writes {
                change(&guard, 2).await?;
                println!("task {task} has changed it");
            } else {
                let beside = reading.fetch_add(1, Ordering::SeqCst);
                println!("task {task} reads {}, {beside} others do too", read(client).await?);
                reading.fetch_sub(1, Ordering::SeqCst);
            }
            guard.unlock().await?;
            anyhow::Ok(())
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }
    no_writer_waits(&config).await?;
    client.delete(HOST, None).await?;
    client.delete(PORT, None).await?;
    session.close().await?;
    Ok(())
}

/// Each step is refused by etcd unless the hold stands in that very moment.
async fn change(guard: &Guard, version: u32) -> tenure::Result<()> {
    guard.txn(Txn::new().and_then([TxnOp::put(HOST, format!("host-{version}"), None)])).await?;
    guard.txn(Txn::new().and_then([TxnOp::put(PORT, format!("port-{version}"), None)])).await?;
    Ok(())
}

/// Two requests: the lock alone keeps them together.
async fn read(mut client: Client) -> anyhow::Result<String> {
    let (host, port) = (client.get(HOST, None).await?, client.get(PORT, None).await?);
    let host = host.kvs().first().context("there is no host")?.value_str()?.to_owned();
    let port = port.kvs().first().context("there is no port")?.value_str()?.to_owned();
    ensure!(host.strip_prefix("host") == port.strip_prefix("port"), "{host} and {port} do not belong together");
    Ok(format!("{host}:{port}"))
}

async fn no_writer_waits(config: &RwLock) -> anyhow::Result<()> {
    let reader = config.try_read().await?.context("a writer is still there")?;
    reader.unlock().await?;
    Ok(())
}
