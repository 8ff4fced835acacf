//! The terminal, lent to the command as a shell lends it: Ctrl-C and Ctrl-Z are the command's, and whoever is stopped
//! stops as a whole.

use std::io::{stdin, stdout};

use rustix::process::{Pid, Signal, getppid, getsid, kill_current_process_group};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

pub(crate) struct Terminal {
    ours: Pid,
    modes: Option<Termios>,
}

impl Terminal {
    /// The one that `tenure`, whose group is `ours`, was started at, if there is one. Within a pipeline it is not ours
    /// to lend: others of it, such as a pager, may need it.
    pub(crate) fn find(ours: Pid) -> Option<Self> {
        let controls = isatty(stdin()) && isatty(stdout()) && tcgetpgrp(stdin()).is_ok();
        controls.then(|| Self { ours, modes: tcgetattr(stdin()).ok() })
    }

    /// Lends it to the group of the command, if we are in the foreground.
    pub(crate) fn lend(&self, group: Pid) {
        self.pass(self.ours, group);
    }

    /// Takes it back from a group that has stopped or ended.
    pub(crate) fn take_back(&self, group: Pid) {
        self.pass(group, self.ours);
    }

    /// As it was before, after a command that could not put it in order itself.
    pub(crate) fn restore(&self) {
        if let Some(modes) = self.modes.as_ref().filter(|_| self.owner() == Some(self.ours)) {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, modes);
        }
    }

    fn pass(&self, from: Pid, to: Pid) {
        if self.owner() == Some(from) {
            let _ = tcsetpgrp(stdin(), to);
        }
    }

    fn owner(&self) -> Option<Pid> {
        tcgetpgrp(stdin()).ok()
    }
}

/// Stops this process too, with those in its group, if somebody is there to continue it: a shell. Returns whether.
pub(crate) fn stop_with_it() -> bool {
    let ours = getsid(None).ok();
    let watched = getppid().is_some_and(|parent| getsid(Some(parent)).ok() == ours);
    watched && kill_current_process_group(Signal::TSTP).is_ok()
}
