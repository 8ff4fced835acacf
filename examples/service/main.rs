//! A service of which one replica leads, with the two endpoints that its surroundings ask for.
//!
//! - `/ready` is 200 only while the session is sure of its lease, for a load balancer or a readiness probe.
//! - `/leader` says who leads, and for how long that is certain. Only the leader itself can be certain, and only
//!   until its deadline: the others tell whom they saw last.
//!
//! ```text
//! cargo run --example service -- --replicas 3                  # three of them, on an etcd of their own
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example service -- --listen 127.0.0.1:8080
//! ```
//!
//! SIGTERM and Ctrl-C end it in good order: the work first, then the office, then the session.

#[path = "../common/mod.rs"]
mod common;
mod replicas;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tenure::etcd_client::{Client, PutOptions, Txn, TxnOp};
use tenure::{Election, Health, Leader, Leadership, Observation, Session, connect_options};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt;

const USAGE: &str = "usage: service --listen HOST:PORT | --replicas N [--port FIRST]";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--listen", address] => serve(address).await,
        ["--listen", address, replicas::CHILD] => {
            common::end_with_parent()?;
            serve(address).await
        }
        ["--replicas", count] => replicas::run(count.parse().context(USAGE)?, 8081).await,
        ["--replicas", count, "--port", first] => {
            replicas::run(count.parse().context(USAGE)?, first.parse().context(USAGE)?).await
        }
        _ => bail!(USAGE),
    }
}

/// What the endpoints know.
#[derive(Clone)]
struct Replica {
    address: String,
    health: watch::Receiver<Health>,
    election: Election,
    /// Whom this replica saw leading last.
    seen: watch::Receiver<Option<Leader>>,
}

async fn serve(address: &str) -> anyhow::Result<()> {
    let shutdown = common::shutdown()?;
    let etcd = common::etcd().await?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?.to_string();
    let client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    let session = Session::builder(client).identity(&address).ttl(Duration::from_secs(5)).open().await?;

    let election = session.election("examples/service");
    let (sender, seen) = watch::channel(None);
    let mut observations = election.observe().await?;
    tokio::spawn(async move {
        while let Some(Ok(observation)) = observations.next().await {
            let leader = if let Observation::Leader(leader) = observation { Some(leader) } else { None };
            sender.send_replace(leader);
        }
    });

    // Campaigns, leads and campaigns again, until `shutdown`.
    let lease = session.lease_id();
    let leading = election.clone().grace(Duration::from_secs(2));
    let leading = leading.run(address.clone(), shutdown.clone(), move |term| work(term, lease));
    let ends_with_it = shutdown.clone().drop_guard();
    let leading = tokio::spawn(async move {
        let _ends_with_it = ends_with_it;
        leading.await
    });

    let replica = Replica { address: address.clone(), health: session.health(), election, seen };
    let routes = Router::new().route("/ready", get(ready)).route("/leader", get(leader)).with_state(replica);
    println!("listening on http://{address}");
    axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await?;

    leading.await??;
    session.close().await?;
    println!("{address} has left");
    Ok(())
}

async fn ready(State(replica): State<Replica>) -> (StatusCode, Json<Value>) {
    match *replica.health.borrow() {
        Health::Safe => (StatusCode::OK, Json(json!({ "ready": true }))),
        Health::Jeopardy(deadline) => {
            let left = deadline.remaining().as_secs_f64();
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "lease_ends_in_seconds": left })))
        }
        Health::Lost(loss) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "why": loss.to_string() })))
        }
    }
}

async fn leader(State(replica): State<Replica>) -> (StatusCode, Json<Value>) {
    if let Some(term) = replica.election.term().filter(|term| term.is_valid()) {
        let (token, certain) = (term.token().to_string(), term.deadline().remaining().as_secs_f64());
        let leader = json!({ "leader": replica.address, "token": token, "certain_for_seconds": certain });
        return (StatusCode::OK, Json(leader));
    }
    match &*replica.seen.borrow() {
        Some(leader) => {
            let (address, token) = (String::from_utf8_lossy(leader.value()), leader.token().to_string());
            let leader = json!({ "leader": address, "token": token, "certain_for_seconds": 0 });
            (StatusCode::OK, Json(leader))
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "leader": null }))),
    }
}

/// What only the leader does. A report goes through the term, so that etcd refuses it once another one leads, and is
/// on the session's lease, with which it goes.
async fn work(term: Arc<Leadership>, lease: i64) {
    println!("leading with token {}", term.token());
    let ending = term.ending();
    let mut rounds = tokio::time::interval(Duration::from_secs(1));
    while ending.run_until_cancelled(rounds.tick()).await.is_some() {
        let report = format!("{} works", term.token());
        let report = TxnOp::put("examples/service-report", report, Some(PutOptions::new().with_lease(lease)));
        if let Err(error) = term.txn(Txn::new().and_then([report])).await {
            println!("the report failed: {error}");
        }
    }
    println!("no longer leading");
}
