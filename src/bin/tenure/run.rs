//! Runs the command while the hold stands.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, getpgrp};
use tenure::Session;
use tokio::sync::mpsc::unbounded_channel;

use crate::args::{How, OnRevocation};
use crate::child::{Change, Child};
use crate::failure::{Failure, LOST, OTHER, SIGNALLED};
use crate::guardian::Guardian;
use crate::hold::{Hold, interrupted};
use crate::output::{Output, Told};
use crate::queues;
use crate::shim;
use crate::signals::{FORWARDED, Signals};
use crate::terminal::{self, Terminal};
use crate::watchdog::{Deed, Watch, Watchdog};

/// What a command that was stopped is not continued with: the watch-dog is about to end it.
const TOO_LATE: Duration = Duration::from_millis(500);

pub(crate) async fn command(
    session: &Session,
    hold: Hold,
    how: &How,
    signals: &mut Signals,
    output: Output,
) -> Result<u8, Failure> {
    shim::set_terminal_stops(true);
    signals.also(&FORWARDED)?;
    let hold = Arc::new(hold);
    let child = start(&hold, &how.command)?;
    let ended = watch(session, &hold, child, how, signals, output).await?;
    let hold = Arc::into_inner(hold).expect("the watch-dog has ended");
    let code = ended.code();
    if ended.was_lost {
        output.hold(Told::Lost(hold.lost().await), &hold, true);
        return Ok(code);
    }
    let name = hold.name().to_owned();
    tokio::select! {
        released = hold.release() => {
            if let Err(error) = released {
                output.note(format_args!("{name}: the command had ended, but the lock was not given back: {error}"));
            }
            Ok(code)
        }
        signal = signals.next() => Ok(interrupted(signal)),
    }
}

fn start(hold: &Hold, command: &[std::ffi::OsString]) -> Result<Child, Failure> {
    let (token, lease) = (hold.token().to_string(), queues::lease_of(hold.key()).to_owned());
    let env = [
        ("TENURE_NAME", hold.name()),
        ("TENURE_KEY", hold.key()),
        ("TENURE_TOKEN", &token),
        ("TENURE_LEASE", &lease),
        ("ETCD_LOCK_KEY", hold.key()),
        ("ETCD_LOCK_REV", &token),
    ];
    Child::spawn(command, &env).map_err(|error| Failure::new(OTHER, format_args!("cannot start a process: {error}")))
}

struct Ended {
    status: ExitStatus,
    deed: Deed,
    was_lost: bool,
}

impl Ended {
    fn code(&self) -> u8 {
        match (self.status.code(), self.status.signal()) {
            _ if self.was_lost => LOST,
            (Some(0), _) => 0,
            _ if self.deed > Deed::Nothing => LOST,
            (Some(code), _) => u8::try_from(code).unwrap_or(OTHER),
            (None, signal) => {
                signal.and_then(|signal| u8::try_from(signal).ok()).map_or(OTHER, |signal| SIGNALLED + signal)
            }
        }
    }
}

/// Until the command has ended, be it by itself or by the watch-dog.
async fn watch(
    session: &Session,
    hold: &Arc<Hold>,
    mut child: Child,
    how: &How,
    signals: &mut Signals,
    output: Output,
) -> Result<Ended, Failure> {
    let group = child.group.clone();
    let (deeds, mut done) = unbounded_channel();
    let watch = Watch {
        hold: hold.clone(),
        group: group.clone(),
        guardian: Guardian::start(&group)?,
        ttl: session.ttl(),
        on_jeopardy: how.on_jeopardy,
        deeds,
    };
    let watchdog = Watchdog::start(watch)?;
    // Lent by the shim, before the command can ask for it.
    let terminal = Terminal::find(getpgrp());
    let (mut lost, mut known) = (hold.lost(), false);
    let (mut requested, mut heard) = (hold.revocation_requested(), false);
    loop {
        tokio::select! {
            change = child.change() => match (change?, &terminal) {
                (Change::Ended, _) => break,
                (Change::Stopped, Some(terminal)) => {
                    terminal.take_back(group.id);
                    if !terminal::stop_with_it() {
                        resume(hold, terminal, &child);
                    }
                }
                // Whoever stopped it will continue it.
                (Change::Stopped, None) => {}
            },
            signal = signals.next() => match &terminal {
                Some(terminal) if signal == Signal::CONT => resume(hold, terminal, &child),
                _ => group.signal(signal),
            },
            asked = &mut requested, if !heard => {
                heard = true;
                output.revocation(hold, &asked);
                if how.on_revocation == OnRevocation::Term {
                    group.signal(Signal::TERM);
                    group.signal(Signal::CONT);
                }
            }
            _ = &mut lost, if !known => {
                known = true;
                watchdog.wake();
            }
            Some(deed) = done.recv() => if deed == Deed::Asked {
                output.note(format_args!("{}: renewals fail: SIGTERM to the command", hold.name()));
            },
        }
    }
    let was_lost = !hold.is_valid();
    let deed = watchdog.stop();
    if was_lost || deed > Deed::Nothing {
        // What the command has started, and what did not end with it.
        group.signal(Signal::KILL);
    }
    if let Some(terminal) = &terminal {
        terminal.take_back(group.id);
    }
    let status = child.reap()?;
    if let Some(terminal) = terminal.filter(|_| status.signal().is_some()) {
        terminal.restore();
    }
    Ok(Ended { status, deed, was_lost: was_lost || deed == Deed::Killed })
}

/// After a stop as a whole: the terminal may be ours again to lend, and the command goes on if the hold has.
fn resume(hold: &Hold, terminal: &Terminal, child: &Child) {
    if hold.deadline().remaining() > TOO_LATE {
        terminal.lend(child.group.id);
        child.group.signal(Signal::CONT);
    }
}
