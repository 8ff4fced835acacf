//! A process beside the command that ends its group should `tenure` be killed or stopped, when nobody else can.
//!
//! The parent-death signal reaches the command alone, and only if this program dies. The guardian is told of every
//! renewal through a pipe. If that closes, or if the time that it was told runs out, it kills the group.

use std::env;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::child::Group;
use crate::shim;

const ASKED: &str = "__guard-group";

/// The guardian as `tenure` sees it. It goes when this is dropped, without having done anything.
pub(crate) struct Guardian {
    process: Child,
    pipe: ChildStdin,
}

impl Guardian {
    pub(crate) fn start(group: &Group) -> io::Result<Self> {
        let mut command = shim::this_program()?;
        command.arg(ASKED).arg(group.id.as_raw_nonzero().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is not meant for it.
        let mut process = command.process_group(0).spawn()?;
        let pipe = process.stdin.take().expect("it is piped");
        // The watch-dog does not wait for a guardian that was stopped.
        ioctl_fionbio(&pipe, true)?;
        Ok(Self { process, pipe })
    }

    /// Tells it in how much time the group has to end, unless it is told again. A guardian that is gone, for somebody
    /// killed it, is done without.
    pub(crate) fn allow(&mut self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let _ = self.pipe.write_all(&millis.to_le_bytes());
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Before the pipe closes.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Guards, if this process is to be the guardian.
pub(crate) fn run_if_asked() -> Option<u8> {
    let mut args = env::args_os().skip(1);
    if args.next()? != ASKED {
        return None;
    }
    let group = args.next()?.to_str()?.parse().ok().and_then(Pid::from_raw)?;
    // Not by way of `Stdin`, which reads ahead.
    let pipe = io::stdin().as_fd().try_clone_to_owned().ok()?;
    guard(group, pipe.into());
    Some(0)
}

fn guard(group: Pid, mut pipe: File) {
    let mut until: Option<Instant> = None;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                let _ = kill_process_group(group, Signal::KILL);
                until = None;
            }
            _ => {
                let mut millis = [0; 8];
                if pipe.read_exact(&mut millis).is_err() {
                    let _ = kill_process_group(group, Signal::KILL);
                    return;
                }
                until = Instant::now().checked_add(Duration::from_millis(u64::from_le_bytes(millis)));
            }
        }
    }
}
