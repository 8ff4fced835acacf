//! A replica of a service of which one at a time does the work.
//!
//! Start three of them in three terminals, and stop or kill the one that leads:
//!
//! ```text
//! export ETCD_ENDPOINTS=localhost:2379
//! cargo run --example leader api-1
//! cargo run --example leader api-2
//! cargo run --example leader api-3
//! ```
//!
//! Ctrl-C and SIGTERM hand the office over in milliseconds; after a crash the next one leads once the lease has
//! expired. Without `ETCD_ENDPOINTS` it starts an etcd of its own, and leads alone.

mod common;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use tenure::etcd_client::{Client, PutOptions, Txn, TxnOp};
use tenure::{Leadership, Session, connect_options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shutdown = common::shutdown()?;
    let etcd = common::etcd().await?;
    let client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    let name = env::args().nth(1).unwrap_or_else(|| format!("api-{}", std::process::id()));
    let session = Session::builder(client).identity(&name).ttl(Duration::from_secs(5)).open().await?;

    // Campaigns, leads, and campaigns again, until `shutdown` fires, by Ctrl-C or SIGTERM. Then, and whenever the hold is in doubt, `ending`
    // fires in the term; the work has two seconds to finish, and only after that the next one leads.
    println!("{name} stands; Ctrl-C to stop");
    let election = session.election("examples/leader").grace(Duration::from_secs(2));
    let ran = election.run(name.as_str(), shutdown, |term| lead(term, session.lease_id())).await;

    session.close().await?;
    println!("{name} has left");
    Ok(ran?)
}

/// The work of one term.
async fn lead(term: Arc<Leadership>, lease: i64) {
    println!("leading with token {}", term.token());
    let ending = term.ending();
    let mut rounds = tokio::time::interval(Duration::from_secs(1));
    for round in 1.. {
        tokio::select! {
            () = ending.cancelled() => break,
            _ = rounds.tick() => {}
        }
        // Whatever a leader writes goes through its term: etcd refuses it once another one leads. This report is on
        // the session's lease, and goes with it.
        let with_lease = PutOptions::new().with_lease(lease);
        let report = TxnOp::put("examples/report", format!("{} in round {round}", term.token()), Some(with_lease));
        match term.txn(Txn::new().and_then([report])).await {
            Ok(_) => println!("round {round}"),
            Err(error) => println!("round {round} failed: {error}"),
        }
    }
    println!("no longer leading");
}
