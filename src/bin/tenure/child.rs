//! The command as a child, in a process group of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{self, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::signal::unix::{self, SignalKind};

use crate::shim;

/// The child and what it has started, as far as that has stayed in its group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Pid,
    /// After that the id may be another's.
    reaped: Mutex<bool>,
}

impl Group {
    /// Sends a signal to all of them. That nobody is left is no failure; somebody who has become another user is out of
    /// reach.
    pub(crate) fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            let _ = kill_process_group(self.id, signal);
        }
    }
}

pub(crate) struct Child {
    process: process::Child,
    pub(crate) group: Arc<Group>,
    news: unix::Signal,
}

/// What has become of a child.
pub(crate) enum Change {
    /// It has ended, and can be reaped.
    Ended,
    /// It was stopped, as by Ctrl-Z.
    Stopped,
}

impl Child {
    /// Starts `program`. The calling thread has to live as long as this process, since on Linux the child dies with it.
    pub(crate) fn spawn(program: &[OsString], env: &[(&str, &str)]) -> io::Result<Self> {
        let news = unix::signal(SignalKind::child())?;
        let process = shim::command(program)?.envs(env.iter().copied()).process_group(0).spawn()?;
        let id = Pid::from_child(&process);
        Ok(Self { process, group: Arc::new(Group { id, reaped: Mutex::new(false) }), news })
    }

    /// Waits until it has ended or was stopped. Dropping the future loses nothing.
    pub(crate) async fn change(&mut self) -> io::Result<Change> {
        loop {
            let child = WaitId::Pid(self.group.id);
            // Both at once: asked for a stop alone, an ended one is no child.
            let either = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(child.clone(), either)? {
                Some(status) if status.stopped() => {
                    // Told once. It may have ended since.
                    let _ = waitid(child, WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
                    return Ok(Change::Stopped);
                }
                Some(_) => return Ok(Change::Ended),
                None => {}
            }
            self.news.recv().await;
        }
    }

    /// How it ended. From here on its group cannot be signalled.
    pub(crate) fn reap(mut self) -> io::Result<ExitStatus> {
        *self.group.reaped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.process.wait()
    }
}

/// Nothing goes on without somebody who watches it.
impl Drop for Child {
    fn drop(&mut self) {
        if !*self.group.reaped.lock().unwrap_or_else(PoisonError::into_inner) {
            self.group.signal(Signal::KILL);
            let _ = self.process.wait();
        }
    }
}
