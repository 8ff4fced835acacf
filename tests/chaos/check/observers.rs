//! What observers saw, beside the leaders that there were.

use std::collections::{BTreeMap, HashMap};

use super::{Facts, NAMESPACE, RECOVERY, Rule, Violation};
use crate::history::{DIRECTOR, Nanos, Process, Seen, What};

/// When it was seen, and what.
type Sight<'a> = (Nanos, &'a Option<Seen>);

/// Who led from a revision on, and when that was seen.
pub(super) struct Reign {
    at: Nanos,
    pub(super) leader: Option<Seen>,
}

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    let mut observers: HashMap<(Process, &str), Vec<Sight<'_>>> = HashMap::new();
    for event in facts.workers() {
        if let What::Saw { election, leader } = &event.what {
            observers.entry((event.by, election)).or_default().push((event.at, leader));
        }
    }
    let finished: HashMap<Process, Nanos> =
        facts.workers().filter(|event| event.what == What::Finished).map(|event| (event.by, event.at)).collect();
    let reigns: HashMap<&str, _> = observers.keys().map(|(_, election)| (*election, reigns(facts, election))).collect();
    for ((process, election), seen) in observers {
        let reigns = &reigns[election];
        let mut report = |text: String| {
            let text = format!("{election}: the observer of process {process} {text}");
            found.push(Violation { rule: Rule::Observers, text });
        };
        let mut next = 0;
        for (_, leader) in &seen {
            match reigns[next..].iter().position(|reign| reign.leader == **leader) {
                Some(found) => next += found + 1,
                None => {
                    report(format!("saw {leader:?}, which came before what it had seen, or never was"));
                    break;
                }
            }
        }
        // One that lives to the end has caught up with what was so when all was healed.
        let healed = facts.healed.unwrap_or(Nanos::MAX);
        let due = reigns.iter().rposition(|reign| reign.at < healed);
        let began = seen.first().is_some_and(|(at, _)| *at < healed);
        let lived = finished.get(&process).is_some_and(|at| *at > healed.saturating_add(RECOVERY));
        if let Some(due) = due.filter(|due| began && lived && next <= *due) {
            report(format!("never saw {:?} nor what came after", reigns[due].leader));
        }
    }
}

/// The leaders by revision, as the store has it: the oldest key leads.
pub(super) fn reigns(facts: &Facts, election: &str) -> Vec<Reign> {
    let queue = format!("{NAMESPACE}{election}/");
    type Changes<'a> = Vec<(&'a str, Option<Seen>)>;
    let mut revisions: BTreeMap<i64, (Nanos, Changes<'_>)> = BTreeMap::new();
    for event in facts.events.iter().filter(|event| event.by == DIRECTOR) {
        let (revision, key, leader) = match &event.what {
            What::Put { revision, key, created, value } => {
                let seen = Seen { token: *created, key: key.clone(), value: value.clone() };
                (revision, key, Some(seen))
            }
            What::Deleted { revision, key } => (revision, key, None),
            _ => continue,
        };
        if key.starts_with(&queue) {
            revisions.entry(*revision).or_insert((event.at, Vec::new())).1.push((key, leader));
        }
    }
    let mut candidates: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut reigns = vec![Reign { at: 0, leader: None }];
    for (_, (at, changes)) in revisions {
        for (key, change) in changes {
            match change {
                Some(seen) => candidates.insert(key, seen),
                None => candidates.remove(key),
            };
        }
        let leader = candidates.values().min_by_key(|seen| seen.token).cloned();
        if reigns.last().is_none_or(|reign| reign.leader != leader) {
            reigns.push(Reign { at, leader });
        }
    }
    reigns
}
