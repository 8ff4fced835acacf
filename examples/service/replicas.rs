//! Several replicas, as processes of their own, which end with this one.

use std::env;
use std::process::Stdio;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::common;

/// Says to a replica that it is one of several.
pub(crate) const CHILD: &str = "--with-parent";

struct Replica {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Runs `count` replicas from port `first` on, 0 for any, until this process is asked to stop.
pub(crate) async fn run(count: u16, first: u16) -> anyhow::Result<()> {
    let stop = common::shutdown()?;
    let etcd = common::etcd().await?;
    let mut replicas = Vec::new();
    for number in 0..count {
        let port = if first == 0 { 0 } else { first.checked_add(number).context("ports end at 65535")? };
        let mut replica = Replica::start(port, &etcd.endpoints)?;
        let begun = replica.lines.next_line().await?.context("a replica could not start")?;
        let address = begun.rsplit(' ').next().unwrap_or_default();
        println!("replica {} (process {}): curl {address}/ready {address}/leader", number + 1, replica.id()?);
        replicas.push(replica);
    }
    println!("kill one, or press Ctrl-C to end them all");
    stop.cancelled().await;
    for replica in &mut replicas {
        // One that was killed has no process any more.
        if let Some(pid) = replica.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        while let Some(line) = replica.lines.next_line().await? {
            println!("{line}");
        }
        replica.child.wait().await?;
    }
    Ok(())
}

impl Replica {
    fn start(port: u16, endpoints: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["--listen", &format!("127.0.0.1:{port}"), CHILD])
            .env("ETCD_ENDPOINTS", endpoints.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("it was asked for")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended already")
    }
}
