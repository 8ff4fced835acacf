//! How long to wait before the next try.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Jittered delays that double from 10 ms to 1 s, without end.
#[derive(Debug)]
pub(crate) struct Delays(ExponentialBackoff);

pub(crate) fn delays() -> Delays {
    Delays(builder().build())
}

impl Delays {
    pub(crate) fn next(&mut self) -> Duration {
        self.0.next().expect("the delays have no end")
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        *self = delays();
    }
}

fn builder() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_secs(1))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
}
