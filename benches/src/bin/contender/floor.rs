//! What etcd itself takes, by the same client: single requests, and a delete to its event on an open watch.

pub mod listener;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tenure::etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};
use tokio::sync::mpsc;

use self::listener::listen;
use crate::bench::{self, Bench, Settings};
use crate::clock::{self, Nanos, now};
use crate::distribution::Distribution;
use crate::share::Process;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Repetitions of each.
    #[arg(long, default_value_t = 2000)]
    n: usize,
    /// A pause before each delete, such as 150ms; then only the event is measured.
    #[arg(long, default_value = "0", value_parser = clock::duration)]
    pace: Duration,
    /// Leaves out the requests by themselves.
    #[arg(long)]
    event_only: bool,
    /// With 2, the watch is in a process of its own.
    #[arg(long, default_value_t = 1)]
    processes: usize,
}

pub async fn run(Options { settings, n, pace, event_only, processes }: Options) -> Result<()> {
    let mut bench = Bench::open(settings, "floor").await?;
    let mut client = bench.client(0);
    let key = bench.name("watched");
    let mut ear = if processes < 2 {
        let watcher = bench::connect(&bench.settings.endpoints).await?;
        let (sender, heard) = mpsc::unbounded_channel();
        let opened = listen(watcher, &key).await?;
        tokio::spawn(opened.forward(move |at| sender.send(at).is_ok()));
        Ear::Here(heard)
    } else {
        let mut arguments = vec!["listen".to_owned(), "--key".into(), key.clone()];
        arguments.extend(bench.settings.flags(1));
        let mut process = Process::start(&arguments)?;
        process.expect("ready").await?;
        Ear::There(Box::new(process))
    };

    let (mut event, mut answer) = (Distribution::new(), Distribution::new());
    let before = bench.probe().await?;
    for _ in 0..n {
        client.put(key.as_str(), "", None).await?;
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        let begun = now();
        client.delete(key.as_str(), None).await?;
        answer.add(now() - begun);
        event.add(ear.next().await?.saturating_sub(begun));
    }
    let after = bench.probe().await?;
    bench.set("n", n);
    bench.set("processes", processes);
    bench.set("pace_ms", clock::millis(pace.as_nanos() as Nanos));
    bench.set("delete_to_event", event.summary());
    bench.set("delete_with_watch_rtt", answer.summary());
    bench.set("watch_cost", after.cost(&before, n));
    if pace.is_zero() && !event_only {
        requests(&mut bench, client, n).await?;
    }
    bench.print();
    Ok(())
}

/// Whoever hears of deletions.
enum Ear {
    Here(mpsc::UnboundedReceiver<Nanos>),
    There(Box<Process>),
}

impl Ear {
    async fn next(&mut self) -> Result<Nanos> {
        match self {
            Self::Here(heard) => heard.recv().await.context("the watch has ended"),
            Self::There(process) => Ok(process.line().await?.parse()?),
        }
    }
}

/// Round trips, one at a time, one of each in turn.
async fn requests(bench: &mut Bench, mut client: Client, n: usize) -> Result<()> {
    let (plain, queued) = (bench.name("plain"), bench.name("queue/0"));
    let serializable = || Some(GetOptions::new().with_serializable());
    let [mut put, mut get, mut stale, mut delete, mut enter] = [(); 5].map(|()| Distribution::new());
    let timed = |distribution: &mut Distribution, begun| distribution.add(now() - begun);
    for _ in 0..n {
        let begun = now();
        client.put(plain.as_str(), "", None).await?;
        timed(&mut put, begun);
        let begun = now();
        client.get(plain.as_str(), None).await?;
        timed(&mut get, begun);
        let begun = now();
        client.get(plain.as_str(), serializable()).await?;
        timed(&mut stale, begun);
        let begun = now();
        client.delete(plain.as_str(), None).await?;
        timed(&mut delete, begun);
        // The shape of the request that takes a place in a queue.
        let absent = Compare::create_revision(queued.as_str(), CompareOp::Equal, 0);
        let ahead = GetOptions::new().with_prefix().with_limit(2);
        let place = [TxnOp::put(queued.as_str(), "", None), TxnOp::get(bench.name("queue/"), Some(ahead))];
        let begun = now();
        client.txn(Txn::new().when([absent]).and_then(place)).await?;
        timed(&mut enter, begun);
        client.delete(queued.as_str(), None).await?;
    }
    bench.set("put_rtt", put.summary());
    bench.set("get_linearizable_rtt", get.summary());
    bench.set("get_serializable_rtt", stale.summary());
    bench.set("delete_rtt", delete.summary());
    bench.set("txn_put_and_range_rtt", enter.summary());
    Ok(())
}
