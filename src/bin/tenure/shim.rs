//! What the child is before it becomes the command: this program once more, which sees to it that the command dies with
//! `tenure`, and says why if it cannot be run.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgid, getpgrp, getpid, getppid};

use crate::failure::{LOST, NOT_EXECUTABLE, NOT_FOUND};
use crate::terminal::Terminal;

/// Comes before any parsing, so that nothing in the environment can stand in the way.
const ASKED: &str = "__exec-as-child-of";

/// A command that runs this very program, even if its file was replaced meanwhile.
pub(crate) fn this_program() -> io::Result<Command> {
    let this = if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { env::current_exe()? };
    let mut command = Command::new(this);
    command.arg0("tenure");
    Ok(command)
}

/// A command that runs `program` as described above.
pub(crate) fn command(program: &[OsString]) -> io::Result<Command> {
    let mut command = this_program()?;
    command.arg(ASKED).arg(getpid().as_raw_nonzero().to_string()).args(program);
    Ok(command)
}

/// Blocks the signal that a background process gets for taking the terminal back, or for writing to it where that is
/// forbidden. To be undone in the child.
pub(crate) fn set_terminal_stops(blocked: bool) {
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTTOU);
    let done = if blocked { stops.thread_block() } else { stops.thread_unblock() };
    done.expect("the set and the operation are valid");
}

/// Becomes the command if this is the child; returns an exit code if it cannot.
pub(crate) fn run_if_asked() -> Option<u8> {
    let mut args = env::args_os().skip(1);
    if args.next()? != ASKED {
        return None;
    }
    let parent = args.next()?.to_str()?.parse().ok().and_then(Pid::from_raw)?;
    let program = args.next()?;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        eprintln!("tenure: cannot tie the command to this process: {error}");
        return Some(NOT_EXECUTABLE);
    }
    // It may have been killed before it could be asked for.
    if getppid() != Some(parent) {
        return Some(LOST);
    }
    if let Some(terminal) = getpgid(Some(parent)).ok().and_then(Terminal::find) {
        terminal.lend(getpgrp());
    }
    set_terminal_stops(false);
    let error = Command::new(&program).args(args).exec();
    eprintln!("tenure: {}: {error}", program.display());
    Some(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}
