//! The core against a model of etcd, under a random scheduler that delays, reorders and loses whatever it can.
//!
//! # Promises
//!
//! 1. A guard has a key, unless an operator took it a moment ago.
//! 2. Safety and order: at a grant everyone older whom the place waits for is gone, has handed over, or leaves
//!    room; and no guard is beside another that it excludes.
//! 3. Tokens grow, where every hold excludes every other.
//! 4. Promptness: when nothing but releases can happen, nobody waits who could hold, and nobody waits or holds
//!    without a key.
//! 5. Cleanliness: a place that stopped leaves no key, no watch, and no request that could bring its key back. The
//!    fence may stand while its lease lives.
//! 6. Every place ends for a reason: it was told to, its try met somebody, an operator took its key, or its lease
//!    was lost.
//! 7. Frugality: nobody looks without having been told something since.
//!
//! # What is believed of the driver
//!
//! A client has one request on its way at most, and leaves when that is answered or given up. What its watches and
//! neighbours tell it reaches it in one queue, while replies overtake that queue. Before anything else it is told
//! that its lease is lost. The watches of a session are shared by all its clients that wait for the same key.

mod client;
#[cfg(feature = "testing")]
mod conformance;
mod etcd;
mod event;
mod plan;
mod promises;
mod run;
mod schedule;
mod session;
mod steps;
mod world;

/// The name over whose queue all quarrel.
const QUEUE: &str = "q";

/// 50,000 schedules over every plan, or as many as `TENURE_SEEDS` says, from `TENURE_FROM` on; or, told by
/// `TENURE_REPLAY`, a single one that is printed step by step.
#[test]
fn no_schedule_breaks_a_promise() {
    run::from_environment();
}
