//! etcd's own tool.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{TestResult, World, soon};

/// A running `etcdctl`, which says on a line that it holds.
pub(crate) struct Etcdctl {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Etcdctl {
    pub(crate) fn run(world: &World, args: &[&str]) -> TestResult<Self> {
        let mut command = Command::new("etcdctl");
        command.arg("--endpoints").arg(world.etcd.endpoints().join(",")).args(args);
        let mut child = command.env("ETCDCTL_API", "3").stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Ok(Self { child, lines })
    }

    /// What it prints next.
    pub(crate) async fn line(&mut self) -> TestResult<String> {
        let line = soon("etcdctl says something", self.lines.next_line()).await?;
        Ok(line.ok_or("etcdctl ended")?)
    }

    /// Ends it as a user does, with Ctrl-C.
    pub(crate) async fn interrupt(mut self) -> TestResult {
        let pid = self.child.id().ok_or("etcdctl ended")?.to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await?.success());
        assert!(soon("etcdctl ends", self.child.wait()).await?.success());
        Ok(())
    }
}
