//! One member: its ports, its data, and the process that comes and goes.
//!
//! A signal is sent only to a child that has not been reaped, under the lock that reaping takes too. So it never
//! reaches a stranger that got the same process id.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::Client;
use rustix::io::retry_on_intr;
use rustix::process::{self, Pid, WaitId, WaitIdOptions};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::child;
use super::error::{Error, Result, io_error};
use super::launch::Plan;

/// How long one question to a member may take before it is asked again.
const ASK: Duration = Duration::from_secs(2);

/// How much of a log an error quotes.
const TAIL_LINES: usize = 40;

#[derive(Debug)]
pub(super) struct Member {
    index: usize,
    name: String,
    port: u16,
    binary: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    process: Mutex<Process>,
}

#[derive(Debug)]
enum Process {
    Running(Child),
    Paused(Child),
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Pause,
    Resume,
    Stop,
}

impl Member {
    pub(super) fn new(index: usize, plan: &Plan<'_>) -> Self {
        Self {
            index,
            name: plan.name(index),
            port: plan.ports[index].0,
            binary: plan.binary.into(),
            args: plan.args(index),
            log: plan.dir.join(format!("{index}.log")),
            process: Mutex::new(Process::Ended),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &*self.process() {
            Process::Running(child) | Process::Paused(child) => Some(child.id()),
            Process::Ended => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.process(), Process::Running(_))
    }

    /// Starts the process, which must have ended before.
    pub(super) fn spawn(&self) -> Result<()> {
        let mut process = self.process();
        assert!(matches!(*process, Process::Ended), "etcd member {} runs already", self.index);
        let spawned = child::spawn(&self.binary, &self.args, &self.log);
        *process = Process::Running(spawned.map_err(io_error(|| format!("run {}", self.binary.display())))?);
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.process();
        let child = self.alive(&mut process)?;
        let pid = Pid::from_child(&child);
        let sent = match signal {
            Signal::Pause => process::kill_process(pid, process::Signal::STOP).and_then(|()| {
                // It stops a little after the signal was sent; nothing is to be answered in between.
                let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                retry_on_intr(|| process::waitid(WaitId::Pid(pid), stopped)).map(drop)
            }),
            Signal::Resume => process::kill_process(pid, process::Signal::CONT),
            // One that is paused takes the signal only once it goes on.
            Signal::Stop => process::kill_process(pid, process::Signal::TERM)
                .and_then(|()| process::kill_process(pid, process::Signal::CONT)),
        };
        *process = match signal {
            Signal::Pause => Process::Paused(child),
            Signal::Resume | Signal::Stop => Process::Running(child),
        };
        sent.map_err(io::Error::from).map_err(io_error(|| format!("signal etcd member {}", self.index)))
    }

    pub(super) fn kill(&self) -> Result<()> {
        let mut process = self.process();
        let child = self.alive(&mut process)?;
        child::end(child).map_err(io_error(|| format!("kill etcd member {}", self.index)))
    }

    /// Whether it has been killed, was stopped, or ended by itself.
    pub(super) fn has_ended(&self) -> Result<bool> {
        match self.check() {
            Ok(()) => Ok(false),
            Err(Error::NotRunning { .. } | Error::Exited { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// An error unless there is a process.
    pub(super) fn check(&self) -> Result<()> {
        let mut process = self.process();
        let paused = matches!(*process, Process::Paused(_));
        let child = self.alive(&mut process)?;
        *process = if paused { Process::Paused(child) } else { Process::Running(child) };
        Ok(())
    }

    /// Takes the child if it lives, leaving `Ended`.
    fn alive(&self, process: &mut Process) -> Result<Child> {
        let (Process::Running(mut child) | Process::Paused(mut child)) = std::mem::replace(process, Process::Ended)
        else {
            return Err(Error::NotRunning { member: self.index });
        };
        match child.try_wait() {
            Ok(None) => Ok(child),
            Ok(Some(status)) => Err(self.exited(status)),
            Err(source) => Err(Error::Io { what: format!("wait for etcd member {}", self.index), source }),
        }
    }

    fn exited(&self, status: ExitStatus) -> Error {
        Error::Exited { member: self.index, status, log: self.tail() }
    }

    /// Whether it answers a linearizable read, and is itself rather than another etcd that was faster to take the port.
    pub(super) async fn answers(&self, client: &mut Client) -> bool {
        let asked = async {
            client.get("health", None).await?;
            let list = client.member_list().await?;
            Ok::<_, etcd_client::Error>(list.members().iter().any(|member| member.name() == self.name))
        };
        matches!(timeout(ASK, asked).await, Ok(Ok(true)))
    }

    pub(super) async fn listens(&self) -> bool {
        matches!(timeout(ASK, TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))).await, Ok(Ok(_)))
    }

    /// The raft term in which it says that it leads, if it does.
    pub(super) async fn leads(&self, client: &mut Client) -> Option<u64> {
        let status = timeout(ASK, client.status()).await.ok()?.ok()?;
        let own = status.header()?.member_id();
        (status.leader() == own).then(|| status.raft_term())
    }

    /// The last lines of the log.
    pub(super) fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Process::Running(child) | Process::Paused(child) = std::mem::replace(process, Process::Ended) {
            // Nobody is left to hear of a failure.
            let _ = child::end(child);
        }
    }
}
