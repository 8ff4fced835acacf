//! Starts the processes, hears what they say, and insists on what they should say.
//!
//! All write into one pipe, so that their lines come in the order in which they were written.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::timeline::Timeline;

/// For what should happen at once: far more than a busy machine needs.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Stage {
    pub(crate) timeline: Timeline,
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
    pipe: io::PipeWriter,
    lines: mpsc::UnboundedReceiver<Line>,
}

/// What a process has said.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) who: String,
    event: String,
    pub(crate) token: Option<i64>,
}

impl Stage {
    pub(crate) fn set(endpoints: Vec<String>, namespace: String) -> anyhow::Result<Self> {
        let (reader, pipe) = io::pipe()?;
        let (heard, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let _ = heard.send(Line::parse(&line));
            }
        });
        Ok(Self { timeline: Timeline::begin(), endpoints, namespace, pipe, lines })
    }

    /// Starts this program again, in a part, under a name.
    pub(crate) fn start(&self, part: &str, name: &str) -> anyhow::Result<Actor> {
        let mut child = Command::new(env::current_exe()?)
            .args([part, name, &self.namespace])
            .env("ETCD_ENDPOINTS", self.endpoints.join(","))
            .stdin(Stdio::piped())
            .stdout(self.pipe.try_clone()?)
            // A Ctrl-C at the terminal is for the demo, which ends the others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        Ok(Actor { name: name.to_owned(), child, _stdin: stdin })
    }

    /// Something that the demo does itself.
    pub(crate) fn note(&self, who: &str, event: &str, token: Option<i64>) -> Instant {
        let now = Instant::now();
        self.timeline.row(now, who, event, token);
        now
    }

    /// Hears the next line, which must be that `who` says `event`.
    pub(crate) async fn expect(&mut self, who: &str, event: &str, limit: Duration) -> anyhow::Result<Line> {
        let Ok(line) = timeout(limit, self.lines.recv()).await else {
            bail!("{who} should have said `{event}` within {limit:?}, and nobody said anything");
        };
        let line = line.context("the pipe is closed")?;
        self.timeline.row(line.at, &line.who, &line.event, line.token);
        ensure!(
            line.who == who && line.event == event,
            "{who} should have said `{event}`, and {} said `{}`",
            line.who,
            line.event
        );
        Ok(line)
    }

    /// Insists that nobody has said anything more.
    pub(crate) fn expect_silence(&mut self) -> anyhow::Result<()> {
        match self.lines.try_recv() {
            Ok(line) => bail!("{} should have said nothing, and said `{}`", line.who, line.event),
            Err(_) => Ok(()),
        }
    }
}

impl Line {
    fn parse(line: &str) -> Self {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut field = || fields.next().unwrap_or_default();
        Self { at: Instant::now(), who: field(), event: field(), token: field().parse().ok() }
    }
}

/// A process that has been started. It ends when this is dropped.
pub(crate) struct Actor {
    pub(crate) name: String,
    child: Child,
    /// Closed, it would end the process.
    _stdin: Option<ChildStdin>,
}

impl Actor {
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(kill_process(pid.with_context(|| format!("{} has ended", self.name))?, signal)?)
    }

    /// Waits until the process has ended by itself, in good order.
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        let status = timeout(SOON, self.child.wait()).await;
        let status = status.with_context(|| format!("{} did not end within {SOON:?}", self.name))??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

/// Waits until `holds` does.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        ensure!(begun.elapsed() < SOON, "waited {SOON:?} in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
