//! Money goes round between three accounts, by many tasks at once: none is lost, none is made, and nobody waits for
//! ever.
//!
//! A transfer reads two balances and writes two, so it holds both locks. `lock_all` takes them in one order, whichever
//! account is named first: otherwise a transfer from A to B and one from B to A could each wait for the other's. Both
//! balances are written in one transaction, which etcd refuses unless both holds stand in that very moment.
//!
//! ```text
//! cargo run --example transfer
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example transfer    # with an etcd that runs already
//! ```

mod common;

use anyhow::Context;
use tenure::etcd_client::{Client, Txn, TxnOp};
use tenure::{Session, connect_options};
use tokio::task::JoinSet;

const ACCOUNTS: [&str; 3] = ["ann", "bob", "cleo"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    let session = Session::open(client.clone()).await?;
    for account in ACCOUNTS {
        client.put(balance(account), "100", None).await?;
    }

    let mut transfers = JoinSet::new();
    for n in 0..30 {
        // Both ways round, and across.
        let (from, to) = (ACCOUNTS[n % 3], ACCOUNTS[(n + 1 + n / 3 % 2) % 3]);
        transfers.spawn(transfer(session.clone(), client.clone(), from, to, 1 + n as i64));
    }
    while let Some(finished) = transfers.join_next().await {
        finished??;
    }

    let mut sum = 0;
    for account in ACCOUNTS {
        let has = read(&mut client, account).await?;
        println!("{account} has {has}");
        sum += has;
        client.delete(balance(account), None).await?;
    }
    session.close().await?;
    anyhow::ensure!(sum == 300, "{sum} is not what there was");
    Ok(())
}

async fn transfer(session: Session, mut client: Client, from: &str, to: &str, amount: i64) -> anyhow::Result<()> {
    let guards = session.lock_all([format!("examples/{from}"), format!("examples/{to}")]).await?;

    // `run` drops this if one of the holds is lost half-way.
    let (has, gets) =
        guards.run(async { anyhow::Ok((read(&mut client, from).await?, read(&mut client, to).await?)) }).await??;
    if has >= amount {
        let puts = [
            TxnOp::put(balance(from), (has - amount).to_string(), None),
            TxnOp::put(balance(to), (gets + amount).to_string(), None),
        ];
        guards.txn(Txn::new().and_then(puts)).await?;
        println!("{amount} from {from} to {to}");
    } else {
        println!("{amount} from {from} to {to}: there are {has}");
    }

    guards.unlock().await?;
    Ok(())
}

fn balance(account: &str) -> String {
    format!("examples/balance/{account}")
}

async fn read(client: &mut Client, account: &str) -> anyhow::Result<i64> {
    let found = client.get(balance(account), None).await?;
    let balance = found.kvs().first().context("there is no such account")?;
    Ok(balance.value_str()?.parse()?)
}
