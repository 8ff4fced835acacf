//! Sees to it that the command has ended before its hold can be another's.
//!
//! 1. It is a thread of its own, and waits for nobody: neither for the runtime nor for etcd nor for a terminal.
//! 2. It goes by the guard's deadline alone, which moves with every renewal and has passed once the hold is lost, and
//!    which counts the time that the machine sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedSender;

use crate::args::OnJeopardy;
use crate::child::Group;
use crate::guardian::Guardian;
use crate::hold::Hold;

/// SIGKILL comes so long before the deadline: what it takes to end, and for the next to begin.
const KILL: Duration = Duration::from_millis(500);

/// The longest sleep: timers stand still while the machine sleeps.
const NAP: Duration = Duration::from_millis(250);

/// What was done to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Nothing,
    /// SIGTERM.
    Asked,
    /// SIGKILL.
    Killed,
}

pub(crate) struct Watchdog {
    thread: JoinHandle<Deed>,
    done: Arc<AtomicBool>,
}

/// What it watches, and how.
pub(crate) struct Watch {
    pub(crate) hold: Arc<Hold>,
    pub(crate) group: Arc<Group>,
    pub(crate) guardian: Guardian,
    /// As granted.
    pub(crate) ttl: Duration,
    pub(crate) on_jeopardy: OnJeopardy,
    /// Told of every deed, after it.
    pub(crate) deeds: UnboundedSender<Deed>,
}

impl Watchdog {
    pub(crate) fn start(watch: Watch) -> std::io::Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let thread = thread::Builder::new().name("watchdog".into()).spawn(move || watch.run(&over))?;
        Ok(Self { thread, done })
    }

    /// Has it look now: something has happened to the hold.
    pub(crate) fn wake(&self) {
        self.thread.thread().unpark();
    }

    /// Ends it, once the command has ended.
    pub(crate) fn stop(self) -> Deed {
        self.done.store(true, Ordering::Release);
        self.wake();
        self.thread.join().expect("the watch-dog does not panic")
    }
}

impl Watch {
    fn run(mut self, over: &AtomicBool) -> Deed {
        let (mut done, mut told) = (Deed::Nothing, None);
        while !over.load(Ordering::Acquire) {
            let deadline = self.hold.deadline();
            let remaining = deadline.remaining();
            if told.replace(deadline) != Some(deadline) {
                self.guardian.allow(remaining.saturating_sub(KILL));
            }
            let due = due(remaining, self.ttl, self.on_jeopardy);
            match due {
                Deed::Killed => self.group.signal(Signal::KILL),
                // Continued, for one that is stopped could not end.
                Deed::Asked if done < due => {
                    for signal in [Signal::TERM, Signal::CONT] {
                        self.group.signal(signal);
                    }
                }
                _ => {}
            }
            if done < due {
                done = due;
                let _ = self.deeds.send(due);
            }
            thread::park_timeout(nap(remaining, self.ttl));
        }
        done
    }
}

/// When SIGTERM is due.
fn ask(ttl: Duration) -> Duration {
    ttl / 4
}

/// What has to have been done when so much time remains.
fn due(remaining: Duration, ttl: Duration, on_jeopardy: OnJeopardy) -> Deed {
    if remaining <= KILL {
        Deed::Killed
    } else if remaining <= ask(ttl) && on_jeopardy == OnJeopardy::Term {
        Deed::Asked
    } else {
        Deed::Nothing
    }
}

/// Until the next deed may be due.
fn nap(remaining: Duration, ttl: Duration) -> Duration {
    let next = if remaining > ask(ttl) { ask(ttl) } else { KILL };
    remaining.checked_sub(next).map_or(NAP, |until| until.clamp(Duration::from_millis(1), NAP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::MIN_TTL_OF_COMMAND;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn it_asks_at_a_quarter_and_kills_at_half_a_second() {
        let at = |millis, policy| due(Duration::from_millis(millis), TTL, policy);
        let times = [9_800, 2_501, 2_500, 501, 500, 0];
        let (nothing, asked, killed) = (Deed::Nothing, Deed::Asked, Deed::Killed);
        assert_eq!(times.map(|time| at(time, OnJeopardy::Term)), [nothing, nothing, asked, asked, killed, killed]);
        assert_eq!(
            times.map(|time| at(time, OnJeopardy::Ignore)),
            [nothing, nothing, nothing, nothing, killed, killed]
        );
    }

    /// Renewals come at half of the time: they must not look like trouble, and there must be time to end.
    #[test]
    fn the_shortest_ttl_leaves_time_before_and_between() {
        let ask = ask(MIN_TTL_OF_COMMAND);
        assert!(ask < MIN_TTL_OF_COMMAND / 2 && ask >= KILL + Duration::from_millis(250));
    }

    #[test]
    fn it_never_sleeps_past_what_is_due() {
        for millis in 0..9_800 {
            let remaining = Duration::from_millis(millis);
            let nap = nap(remaining, TTL);
            assert!(!nap.is_zero() && nap <= NAP);
            for mark in [ask(TTL), KILL] {
                assert!(remaining <= mark || remaining - nap.min(remaining) >= mark, "{remaining:?}");
            }
        }
    }
}
