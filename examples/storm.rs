//! The load of very many sessions, by arithmetic and by simulation, side by side: renewals after everything was started
//! at once, and fail-overs when many holders die at once. No etcd; the same seed gives the same figures.
//!
//! When a session renews is the crate's own rule, compiled from its sources and run in virtual time. What etcd does stands
//! below as constants. `docs/scaling.md` uses the arithmetic; the exit code is 0 only if both agree within 5 %.
//!
//! ```text
//! cargo run --example storm
//! cargo run --example storm -- 7    # another seed
//! ```

#[allow(dead_code, reason = "jeopardy plays no part in it")]
#[path = "../src/session/deadline.rs"]
mod deadline;

use std::collections::BinaryHeap;
use std::env;
use std::time::Duration;

use clock::Moment;
use deadline::Step;
use fastrand::Rng;

/// What the rule counts in: here it is virtual.
mod clock {
    use std::ops::Add;
    use std::time::Duration;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Moment(pub(crate) Duration);

    impl Moment {
        pub(crate) fn since(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl Add<Duration> for Moment {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }
}

/// Of one cluster: a tenth of a million.
const SESSIONS: u32 = 100_000;
const TTL: Duration = Duration::from_secs(10);

/// etcd looks for expired leases so often, and ends so many of them each time at most.
const LOOK: Duration = Duration::from_millis(500);
const EACH_LOOK: usize = 500;
/// Where more than 1,000 leases would expire in a second, a new leader of etcd spreads them to so many a second.
const SPREAD: f64 = 750.0;
/// For how long etcd has no leader, and what it then gives every lease beside its TTL: an election time-out.
const LEADERLESS: f64 = 2.0;
const ELECTION: f64 = 1.0;

const TOLERANCE: f64 = 0.05;

fn main() -> anyhow::Result<()> {
    let seed = env::args().nth(1).map_or(Ok(1), |seed| seed.parse())?;
    let mut table = Table { rng: Rng::with_seed(seed), apart: 0 };
    let (sessions, ttl) = (f64::from(SESSIONS), TTL.as_secs_f64());
    // Half of the time to a deadline at 98 % of the TTL.
    let interval = 0.49 * ttl;

    println!(
        "{SESSIONS} sessions with a TTL of {ttl} s renew every {interval} s: {:.0}/s on average\n",
        sessions / interval
    );
    println!("{:<58} {:>12} {:>12}", "", "arithmetic", "simulated");

    println!("renewals in the busiest second, when all were started");
    table.row("at the same moment", sessions, |rng| busiest(rng, 0.0, interval));
    for intervals in [0.5, 1.0, 2.5, 4.0] {
        let jitter: f64 = intervals * interval;
        // Those who began an interval apart renew together.
        let peak = intervals.ceil() * sessions / jitter;
        table.row(&format!("within {jitter:.1} s"), peak, |rng| busiest(rng, jitter, interval));
    }

    println!("seconds from a crash of many holders to the last one's successor");
    for dead in [1_000, 10_000, 50_000, 100_000] {
        let ends = ttl.max(ttl - interval + f64::from(dead) / 1_000.0);
        table.row(&format!("{dead} die"), ends, |rng| {
            let leases = (0..dead).map(|_| ttl - rng.f64() * interval);
            last_expiry(leases.collect())
        });
    }

    println!("the same, when etcd's leader dies with them");
    let ends = LEADERLESS + ttl + ELECTION + sessions / SPREAD;
    for dead in [1_000, 10_000] {
        table.row(&format!("{dead} of {SESSIONS} die"), ends, |rng| last_expiry(spread_by_a_new_leader(rng, dead)));
    }

    anyhow::ensure!(table.apart == 0, "{} figures are more than 5 % apart", table.apart);
    println!("\neach within {:.0} % of the other", TOLERANCE * 100.0);
    Ok(())
}

struct Table {
    rng: Rng,
    apart: u32,
}

impl Table {
    fn row(&mut self, what: &str, arithmetic: f64, simulate: impl FnOnce(&mut Rng) -> f64) {
        let simulated = simulate(&mut self.rng);
        let apart = (simulated - arithmetic).abs() > TOLERANCE * arithmetic;
        self.apart += u32::from(apart);
        let mark = if apart { "  apart" } else { "" };
        println!("  {what:<56} {arithmetic:>12.1} {simulated:>12.1}{mark}");
    }
}

/// Renewals in the busiest second after all sessions have been started, which happens within `jitter` seconds.
fn busiest(rng: &mut Rng, jitter: f64, interval: f64) -> f64 {
    let (from, until) = (jitter.ceil(), (jitter + 4.0 * interval).floor());
    let mut seconds = vec![0_u32; until as usize + 1];
    for _ in 0..SESSIONS {
        let mut sent = Moment(Duration::from_secs_f64(rng.f64() * jitter));
        while sent.0.as_secs_f64() < until {
            seconds[sent.0.as_secs() as usize] += 1;
            sent = next_renewal(rng, sent);
        }
    }
    let after = &seconds[from as usize..until as usize];
    f64::from(*after.iter().max().expect("there are some seconds"))
}

/// By the crate's rule, after a renewal that was sent then and is acknowledged; a timer is late by a millisecond or two.
fn next_renewal(rng: &mut Rng, sent: Moment) -> Moment {
    let mut now = sent;
    loop {
        match deadline::step(sent, TTL, now) {
            Step::Renew => return now,
            Step::Sleep(duration) => now = now + duration + Duration::from_micros(rng.u64(1_000..2_000)),
            Step::Over => unreachable!("a timer is not that late"),
        }
    }
}

/// When the last of these leases has ended, whose times are over at the given seconds.
fn last_expiry(leases: Vec<f64>) -> f64 {
    // The earliest first.
    let mut waiting: BinaryHeap<_> =
        leases.into_iter().map(|ends| std::cmp::Reverse(Duration::from_secs_f64(ends))).collect();
    let mut now = Duration::ZERO;
    while !waiting.is_empty() {
        now += LOOK;
        for _ in 0..EACH_LOOK {
            if waiting.peek().is_none_or(|ends| ends.0 > now) {
                break;
            }
            waiting.pop();
        }
    }
    now.as_secs_f64()
}

/// When the times of the dead are over, which stand anywhere among all sessions.
fn spread_by_a_new_leader(rng: &mut Rng, dead: usize) -> Vec<f64> {
    let full = LEADERLESS + TTL.as_secs_f64() + ELECTION;
    let mut places: Vec<u32> = (0..SESSIONS).collect();
    rng.shuffle(&mut places);
    places[..dead].iter().map(|&place| full + f64::from(place) / SPREAD).collect()
}
