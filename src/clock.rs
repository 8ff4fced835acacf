//! The clock that goes on while the machine sleeps.
//!
//! A lease runs out at the server whether or not this machine is awake, so deadlines are kept on the boot-time
//! clock where there is one (Linux, Android) and on the monotonic clock elsewhere, which on macOS goes on too.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// An instant of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    #[cfg(unix)]
    pub(crate) fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        let time = clock_gettime(CLOCK);
        let since = |t: i64| u64::try_from(t).expect("the clock counts from boot");
        Self(Duration::from_secs(since(time.tv_sec)) + Duration::from_nanos(since(time.tv_nsec)))
    }

    #[cfg(not(unix))]
    pub(crate) fn now() -> Self {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self(START.elapsed())
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).expect("584 years have not passed since boot")
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// The local instant until which the server cannot have expired a lease.
///
/// It is the instant at which the last acknowledged renewal was **sent**, plus the granted TTL, less a margin of
/// 2 % of the TTL for two clocks that each run 1 % off. It is kept on a clock that goes on while the machine sleeps.
///
/// Compared, the later deadline is the greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub(crate) Moment);

impl Deadline {
    /// The time left, zero once it has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.since(Moment::now())
    }

    /// Whether it has passed: from then on the server may have given the lease's holds to others.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        Moment::now() >= self.0
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deadline(in {:?})", self.remaining())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_clock_keeps_pace_and_never_goes_back() {
        const WHILE: Duration = Duration::from_millis(5);
        let (first, start) = (Moment::now(), Instant::now());
        let mut last = first;
        while start.elapsed() < WHILE {
            let now = Moment::now();
            assert!(now >= last);
            last = now;
        }
        assert!(Moment::now().since(first) >= WHILE);
        assert_eq!(first.since(first + WHILE), Duration::ZERO);
    }

    #[test]
    fn a_moment_is_so_many_nanoseconds_after_boot() {
        assert_eq!(Moment::from_nanos(7).as_nanos(), 7);
    }

    #[test]
    fn a_deadline_passes_when_nothing_remains() {
        let ahead = Deadline(Moment::now() + HOUR);
        assert!(!ahead.has_passed() && ahead.remaining() > HOUR / 2);
        let passed = Deadline(Moment::from_nanos(0));
        assert!(passed.has_passed() && passed.remaining().is_zero());
        assert_eq!(format!("{passed:?}"), "Deadline(in 0ns)");
    }
}
