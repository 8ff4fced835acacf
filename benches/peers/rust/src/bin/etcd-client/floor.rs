//! What the server itself costs: single requests of one caller, and one watch event.

use std::time::Instant;

use anyhow::Context;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType,
    WatchOptions,
};
use tenure_peers::{Floor, Probe, Report, Result, Sample, unique};
use tokio::sync::mpsc;
use tokio::time::sleep;

pub async fn run(flags: &Floor, mut client: Client, report: &mut Report) -> Result<()> {
    let prefix = unique("floor/");
    report.set("n", flags.n);
    report.set("pace_ms", flags.pace.as_millis() as u64);
    event(flags, &mut client, format!("{prefix}watched"), report).await?;

    let plain = format!("{prefix}plain");
    client.put(plain.as_str(), "", None).await?;
    let mut sample = Sample::default();
    for _ in 0..flags.n {
        sleep(flags.pace).await;
        let start = Instant::now();
        client.get(plain.as_str(), None).await?;
        sample.add(start.elapsed());
    }
    report.set("get_linearizable_rtt", sample.summary());
    if flags.pace.is_zero() {
        requests(flags.n, &mut client, &plain, report).await?;
        joins(flags.n, &mut client, &format!("{prefix}held/"), report).await?;
    }
    client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
    Ok(())
}

/// One watch, open all along; a key is put and then deleted.
async fn event(flags: &Floor, client: &mut Client, key: String, report: &mut Report) -> Result<()> {
    let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut watch = client.watch(key.as_str(), Some(options)).await?;
    let (seen, mut events) = mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        while let Ok(Some(message)) = watch.message().await {
            if !message.events().is_empty() && seen.send(Instant::now()).is_err() {
                break;
            }
        }
    });
    let (mut event, mut answer) = (Sample::default(), Sample::default());
    let before = Probe::take(&flags.settings).await?;
    for _ in 0..flags.n {
        client.put(key.as_str(), "", None).await?;
        sleep(flags.pace).await;
        let start = Instant::now();
        client.delete(key.as_str(), None).await?;
        answer.add(start.elapsed());
        event.add(events.recv().await.context("the watch has ended")?.duration_since(start));
    }
    let after = Probe::take(&flags.settings).await?;
    watching.abort();
    report.set("delete_to_event", event.summary());
    report.set("delete_with_watch_rtt", answer.summary());
    report.set("watch_cost", after.cost(&before, flags.n));
    Ok(())
}

async fn requests(n: usize, client: &mut Client, key: &str, report: &mut Report) -> Result<()> {
    let (mut put, mut get, mut delete) = (Sample::default(), Sample::default(), Sample::default());
    for _ in 0..n {
        let start = Instant::now();
        client.put(key, "", None).await?;
        put.add(start.elapsed());
    }
    for _ in 0..n {
        let start = Instant::now();
        client.get(key, Some(GetOptions::new().with_serializable())).await?;
        get.add(start.elapsed());
    }
    for _ in 0..n {
        let start = Instant::now();
        client.delete(key, None).await?;
        delete.add(start.elapsed());
        client.put(key, "", None).await?;
    }
    report.set("put_rtt", put.summary());
    report.set("get_serializable_rtt", get.summary());
    report.set("delete_rtt", delete.summary());
    Ok(())
}

/// The shape of the request that joins the queue of a lock. Every 16th time the keys are cleared, to keep the prefix
/// short.
async fn joins(n: usize, client: &mut Client, prefix: &str, report: &mut Report) -> Result<()> {
    let first = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
    let mut sample = Sample::default();
    for i in 0..n {
        let key = format!("{prefix}{i}");
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, "", None), TxnOp::get(prefix, Some(first.clone()))]);
        let start = Instant::now();
        client.txn(txn).await?;
        sample.add(start.elapsed());
        if i % 16 == 15 {
            client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
        }
    }
    report.set("txn_put_and_first_rtt", sample.summary());
    Ok(())
}
