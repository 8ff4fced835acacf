//! When to renew a lease, and when it is over: plain arithmetic over instants.

use std::time::Duration;

use crate::clock::Moment;

/// What the renewal loop should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Renew,
    Sleep(Duration),
    Over,
}

/// Until when the server cannot have expired a lease of `ttl` whose last acknowledged renewal was sent at `sent`.
/// The margin is for two clocks that each run 1 % off.
pub(crate) fn deadline(sent: Moment, ttl: Duration) -> Moment {
    sent + (ttl - ttl / 50)
}

/// When renewals count as failing: two thirds of the TTL after the last acknowledged one was sent.
pub(crate) fn jeopardy(sent: Moment, ttl: Duration) -> Moment {
    sent + ttl * 2 / 3
}

/// Renews at half of the time that an acknowledged renewal gives.
pub(crate) fn step(sent: Moment, ttl: Duration, now: Moment) -> Step {
    let deadline = deadline(sent, ttl);
    let half = sent + deadline.since(sent) / 2;
    if now >= deadline {
        Step::Over
    } else if now >= half {
        Step::Renew
    } else {
        Step::Sleep(half.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_deadline_counts_from_the_send_and_keeps_a_margin() {
        assert_eq!(deadline(at(1_000), TTL), at(10_800));
    }

    #[test]
    fn a_lease_is_renewed_at_half_of_its_time() {
        assert_eq!(step(at(0), TTL, at(0)), Step::Sleep(Duration::from_millis(4_900)));
        assert_eq!(step(at(0), TTL, at(4_899)), Step::Sleep(Duration::from_millis(1)));
        assert_eq!(step(at(0), TTL, at(4_900)), Step::Renew);
        assert_eq!(step(at(0), TTL, at(9_799)), Step::Renew);
    }

    #[test]
    fn at_the_deadline_a_lease_is_over_however_late_the_caller_woke() {
        assert_eq!(step(at(0), TTL, at(9_800)), Step::Over);
        assert_eq!(step(at(0), TTL, at(3_600_000)), Step::Over);
    }

    #[test]
    fn jeopardy_begins_between_the_first_renewal_and_the_deadline() {
        for seconds in [2, 10, 9_000_000_000] {
            let ttl = Duration::from_secs(seconds);
            let jeopardy = jeopardy(at(0), ttl);
            assert_eq!(step(at(0), ttl, jeopardy), Step::Renew);
            assert!(jeopardy < deadline(at(0), ttl));
        }
    }
}
