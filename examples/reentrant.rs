//! A function that locks calls another one that locks.
//!
//! `take` may be called by itself, and locks the stock for that. `order` holds it while it takes several things, so that
//! nobody else's order comes between; within it `take` locks again, is granted at once, and shares its hold. With a
//! plain mutex it would wait for its own caller.
//!
//! ```text
//! cargo run --example reentrant
//! ```

mod common;

use anyhow::{Context, ensure};
use tenure::etcd_client::{Client, Txn, TxnOp};
use tenure::{ReentrantMutex, Session, connect_options};

const THINGS: [&str; 2] = ["nuts", "bolts"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    let session = Session::open(client.clone()).await?;
    for thing in THINGS {
        client.put(key(thing), "100", None).await?;
    }

    // The owner is this value. Another `reentrant()` would be another owner, and wait for this one.
    let owner = session.mutex("examples/reentrant").reentrant();
    take(&owner, &mut client, "nuts", 10).await?;
    order(&owner, &mut client, 30).await?;

    let left = [stock(&mut client, "nuts").await?, stock(&mut client, "bolts").await?];
    for thing in THINGS {
        client.delete(key(thing), None).await?;
    }
    session.close().await?;
    ensure!(left == [60, 70], "{left:?} are left");
    Ok(())
}

async fn order(owner: &ReentrantMutex, client: &mut Client, count: u32) -> anyhow::Result<()> {
    let guard = owner.lock().await?;
    println!("order holds with token {}", guard.token());
    for thing in THINGS {
        take(owner, client, thing, count).await?;
    }
    // The last guard releases.
    guard.unlock().await?;
    Ok(())
}

async fn take(owner: &ReentrantMutex, client: &mut Client, thing: &str, count: u32) -> anyhow::Result<()> {
    let guard = owner.lock().await?;
    let left = stock(client, thing).await?.checked_sub(count).context("there is too little")?;
    println!("take holds with token {}, and leaves {left} {thing}", guard.token());
    // Refused by etcd unless the hold stands in the very moment of the write.
    guard.txn(Txn::new().and_then([TxnOp::put(key(thing), left.to_string(), None)])).await?;
    guard.unlock().await?;
    Ok(())
}

async fn stock(client: &mut Client, thing: &str) -> anyhow::Result<u32> {
    let found = client.get(key(thing), None).await?;
    let stock = found.kvs().first().context("there is no such thing")?;
    Ok(stock.value_str()?.parse()?)
}

fn key(thing: &str) -> String {
    format!("examples/stock/{thing}")
}
