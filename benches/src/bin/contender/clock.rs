//! The clock that all processes of one machine share.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock.
pub type Nanos = u64;

pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let positive = |part: i64| u64::try_from(part).expect("the clock counts from boot");
    positive(time.tv_sec) * 1_000_000_000 + positive(time.tv_nsec)
}

pub fn millis(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}

/// `150ms`, `2s`, `0`: as the flags of Go programs are written.
pub fn duration(text: &str) -> Result<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = number.parse().with_context(|| format!("`{text}` is no duration"))?;
    let seconds = match &text[number.len()..] {
        "" if value == 0.0 => 0.0,
        "ms" => value / 1e3,
        "s" => value,
        _ => bail!("`{text}` is no duration: 150ms, 2s"),
    };
    Ok(Duration::try_from_secs_f64(seconds)?)
}
