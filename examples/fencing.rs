//! A holder that is paused, and wakes up late.
//!
//! A process looks whether it holds the lock, and is stopped (SIGSTOP) before it writes: as by a machine that swaps,
//! a debugger, a virtual machine that migrates. Its lease expires, the next one takes over. When the process goes on,
//! the write is the next thing that it does. An ordinary write goes through; through `guard.txn` etcd refuses it.
//!
//! ```text
//! cargo run --example fencing
//! ```

mod common;

use std::env;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getpid, kill_process};
use tenure::etcd_client::{Client, Txn, TxnOp};
use tenure::{Error, Guard, Session, connect_options};
use tokio::process::Command;

const UNFENCED: &str = "examples/unfenced";
const FENCED: &str = "examples/fenced";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if env::args().nth(1).as_deref() == Some("late") {
        common::end_with_parent()?;
        return late().await;
    }
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;

    let mut holder = Command::new(env::current_exe()?)
        .arg("late")
        .env("ETCD_ENDPOINTS", etcd.endpoints.join(","))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    // Closed, it would end the holder; `wait` would close it.
    let _open = holder.stdin.take();
    let pid = holder.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the holder has ended")?;

    // Takes over once the lease of the stopped process has expired.
    let session = Session::connect(&etcd.endpoints).await?;
    let mutex = session.mutex("examples/fencing");
    while mutex.queue().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let guard = mutex.lock().await?;
    println!("next:   I hold with token {}", guard.token());
    client.put(UNFENCED, "next", None).await?;
    fenced(&guard, "next").await?;

    kill_process(pid, Signal::CONT)?;
    ensure!(holder.wait().await?.success(), "the late holder was not refused");

    for (key, expected) in [(UNFENCED, "late"), (FENCED, "next")] {
        let written = client.get(key, None).await?;
        let value = written.kvs().first().context("nothing was written")?.value_str()?;
        println!("{key} was written last by `{value}`");
        ensure!(value == expected, "it should be `{expected}`");
        client.delete(key, None).await?;
    }
    guard.unlock().await?;
    session.close().await?;
    Ok(())
}

/// The process that is stopped at the worst moment.
async fn late() -> anyhow::Result<()> {
    let mut client = Client::connect(common::etcd().await?.endpoints, Some(connect_options())).await?;
    let session = Session::builder(client.clone()).ttl(Duration::from_secs(2)).open().await?;
    let guard = session.mutex("examples/fencing").lock().await?;
    println!("late:   I hold with token {}", guard.token());

    // No check before a write can help: what if the process stops after the check?
    ensure!(guard.is_valid(), "lost before it began");
    println!("late:   it is still valid, so I write ... (stopped)");
    kill_process(getpid(), Signal::STOP)?;

    client.put(UNFENCED, "late", None).await?;
    println!("late:   my ordinary write went through");
    match fenced(&guard, "late").await {
        Err(Error::Lost(loss)) => println!("late:   my fenced write was refused: {loss}"),
        other => anyhow::bail!("the late write was not refused: {other:?}"),
    }
    session.close().await?;
    Ok(())
}

/// A write that etcd applies only while the hold stands.
async fn fenced(guard: &Guard, value: &str) -> tenure::Result<()> {
    guard.txn(Txn::new().and_then([TxnOp::put(FENCED, value, None)])).await.map(drop)
}
