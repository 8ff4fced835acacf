//! Leases that etcd gave away before their time.
//!
//! A leader that was frozen, and is not one any more, still counts the leases down when it wakes, and has the new
//! leader revoke those that were renewed meanwhile: etcd #15247, made rarer in 3.4.31 and 3.5.13, and seen with
//! 3.5.30 all the same. No client can know before it hears of it. What was written fenced is safe from that too.

use std::collections::HashMap;

use super::{Facts, SCHEDULING};
use crate::history::{DIRECTOR, Nanos, SECOND, What, lease_of};

/// Where a session's fence key lies: it goes with the lease, and with nothing else.
const FENCES: &str = "chaos/~session/";

/// After these a leader may wake that is none.
const FREEZES: [&str; 6] =
    ["StopMemberBriefly", "StopMemberForLong", "StopLeaderForLong", "LoseQuorum", "IsolateMember", "CutMembers"];

/// How long after it woke, at most.
const AWAKE: Nanos = 2 * SECOND;

/// The leases, and from when on they may have been gone: those that vanished before the deadline that their owner
/// knew, right after a leader may have woken.
pub(super) fn leases(facts: &Facts) -> HashMap<i64, Nanos> {
    let mut deadlines: HashMap<i64, Nanos> = HashMap::new();
    for life in facts.names.values().flatten() {
        if let Some(lease) = lease_of(&life.key) {
            let deadline = deadlines.entry(lease).or_default();
            *deadline = life.deadline.max(*deadline);
        }
    }
    let mut woken: Option<Nanos> = None;
    let mut found = HashMap::new();
    for event in facts.events.iter().filter(|event| event.by == DIRECTOR) {
        match &event.what {
            What::FaultOver { kind } if FREEZES.contains(&kind.as_str()) => woken = Some(event.at),
            What::Deleted { key, .. } => {
                let lease = key.strip_prefix(FENCES).and_then(|lease| i64::from_str_radix(lease, 16).ok());
                let Some(lease) = lease.filter(|lease| !facts.is_revoked(*lease)) else { continue };
                let believed = deadlines.get(&lease).is_some_and(|deadline| *deadline > event.at);
                if believed && woken.is_some_and(|woken| event.at - woken < AWAKE) {
                    // The store's history is heard of a little later than it happens.
                    found.insert(lease, event.at.saturating_sub(SCHEDULING));
                }
            }
            _ => {}
        }
    }
    found
}
