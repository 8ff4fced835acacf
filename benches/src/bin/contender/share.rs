//! A part of the waiters of a contest, in a process of its own.
//!
//! The process says `ready` when its sessions are open, waits for a line, says `queued` when all of its waiters stand
//! in the queue, and prints their turns when they have had them.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bench::{self, Bench, Settings};
use crate::clock;
use crate::contest::{Contest, Kind, Turn};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    #[arg(long, value_enum)]
    kind: Kind,
    #[arg(long)]
    name: String,
    #[arg(long)]
    sessions: usize,
    #[arg(long)]
    tasks: usize,
    #[arg(long)]
    all: usize,
    #[arg(long)]
    before: usize,
    #[arg(long)]
    turns: usize,
    #[arg(long, value_parser = clock::duration)]
    hold: Duration,
}

pub async fn run(options: Options) -> Result<()> {
    let bench = Bench::open(options.settings, "share").await?;
    let Options { kind, name, tasks, all, before, turns, hold, .. } = options;
    let contest = Contest { kind, name, tasks, all, before, turns, hold };
    let sessions = contest.sessions(&bench, options.sessions).await?;
    println!("ready");
    BufReader::new(tokio::io::stdin()).lines().next_line().await?;
    let turns = contest.run(&bench, &sessions, || println!("queued")).await?;
    println!("{}", serde_json::to_string(&turns)?);
    bench::close(sessions).await
}

/// Such a process. It ends with this value.
pub struct Share {
    process: Process,
}

impl Share {
    pub async fn start(settings: &Settings, contest: &Contest, sessions: usize) -> Result<Self> {
        let mut arguments = vec!["share".to_owned()];
        arguments.extend(settings.flags(settings.clients.min(sessions)));
        let kind = match contest.kind {
            Kind::Mutex => "mutex",
            Kind::Election => "election",
            Kind::Ring => "ring",
        };
        arguments.extend(["--kind".into(), kind.into(), "--name".into(), contest.name.clone()]);
        let Contest { tasks, all, before, turns, .. } = *contest;
        let numbers =
            [("--sessions", sessions), ("--tasks", tasks), ("--all", all), ("--before", before), ("--turns", turns)];
        for (flag, value) in numbers {
            arguments.extend([flag.into(), value.to_string()]);
        }
        arguments.extend(["--hold".into(), format!("{}ms", contest.hold.as_millis())]);
        let mut process = Process::start(&arguments)?;
        process.expect("ready").await?;
        Ok(Self { process })
    }

    pub async fn enqueue(&mut self) -> Result<()> {
        self.process.tell("go").await?;
        self.process.expect("queued").await
    }

    pub async fn turns(mut self) -> Result<Vec<Turn>> {
        let turns = serde_json::from_str(&self.process.line().await?)?;
        self.process.end().await?;
        Ok(turns)
    }
}

/// This program in another process, which ends with this value.
pub struct Process {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
    hears: ChildStdin,
}

impl Process {
    pub fn start(arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let says = BufReader::new(child.stdout.take().context("it was asked for")?).lines();
        let hears = child.stdin.take().context("it was asked for")?;
        Ok(Self { child, says, hears })
    }

    pub async fn line(&mut self) -> Result<String> {
        self.says.next_line().await?.context("a process of the contest has ended")
    }

    pub async fn expect(&mut self, said: &str) -> Result<()> {
        let line = self.line().await?;
        ensure!(line == said, "a process of the contest said `{line}` for `{said}`");
        Ok(())
    }

    pub async fn tell(&mut self, word: &str) -> Result<()> {
        Ok(self.hears.write_all(format!("{word}\n").as_bytes()).await?)
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Result<()> {
        drop(self.hears);
        let status = self.child.wait().await?;
        ensure!(status.success(), "a process of the contest has failed: {status}");
        Ok(())
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
