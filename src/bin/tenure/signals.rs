//! Signals, for us and to pass on.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Those that mean: stop.
pub(crate) const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Those that besides are passed on to a command. SIGCONT has to do with the terminal.
pub(crate) const FORWARDED: [Signal; 4] = [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT];

/// Signals as they arrive.
pub(crate) struct Signals {
    arrived: UnboundedReceiver<Signal>,
    arrivals: UnboundedSender<Signal>,
}

impl Signals {
    pub(crate) fn listen(wanted: &[Signal]) -> io::Result<Self> {
        let (arrivals, arrived) = unbounded_channel();
        let signals = Self { arrived, arrivals };
        signals.also(wanted)?;
        Ok(signals)
    }

    /// Listens for those of `wanted` that whoever started us does not have us ignore, as `nohup` does.
    pub(crate) fn also(&self, wanted: &[Signal]) -> io::Result<()> {
        let ignored = ignored();
        for &wanted in wanted.iter().filter(|wanted| ignored & (1 << (wanted.as_raw() - 1)) == 0) {
            let mut stream = signal(SignalKind::from_raw(wanted.as_raw()))?;
            let arrivals = self.arrivals.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && arrivals.send(wanted).is_ok() {} });
        }
        Ok(())
    }

    /// The next one. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Signal {
        self.arrived.recv().await.expect("it owns a sender")
    }
}

/// The signals that are ignored, a bit each; where that cannot be told, none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
