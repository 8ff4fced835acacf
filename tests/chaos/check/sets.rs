//! The two sets: one in a file, which knows nothing of tokens, and one in etcd, written with `guard.txn`.

use std::collections::{BTreeMap, HashSet};

use super::{Facts, Rule, Violation};
use crate::history::{DIRECTOR, Hold, Nanos, Process, What};

/// The prefix of the sets in etcd, one for each name: `set/NAME/e/<place>` has `<token> <element>`, and
/// `set/NAME/count` how many there are.
pub(crate) const SET: &str = "set/";

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    fenced(facts, found);
    unfenced(facts, found);
}

/// What was written by a name.
#[derive(Default)]
struct Set {
    /// The token and the element.
    places: BTreeMap<u64, (i64, u64)>,
    count: u64,
    newest: i64,
}

fn fenced(facts: &Facts, found: &mut Vec<Violation>) {
    let mut report = |text: String| found.push(Violation { rule: Rule::Fenced, text });
    let mut sets: BTreeMap<&str, Set> = BTreeMap::new();
    let mut puts: Vec<_> = facts.events.iter().filter(|event| event.by == DIRECTOR).collect();
    puts.sort_by_key(|event| match &event.what {
        What::Put { revision, .. } => *revision,
        _ => 0,
    });
    for event in puts {
        let What::Put { key, value, revision, .. } = &event.what else { continue };
        let Some((name, key)) = key.strip_prefix(SET).and_then(|key| key.split_once('/')) else { continue };
        let set = sets.entry(name).or_default();
        if let Some(place) = key.strip_prefix("e/") {
            let place = place.parse().expect("workers write numbers");
            let (token, element) = value.split_once(' ').expect("workers write two numbers");
            let written = (token.parse().expect("a token"), element.parse().expect("an element"));
            if written.0 < set.newest {
                report(format!("{name}: at revision {revision} token {} wrote after token {}", written.0, set.newest));
            }
            set.newest = set.newest.max(written.0);
            if let Some(lost) = set.places.insert(place, written) {
                report(format!("{name}: place {place} was written by token {} and by token {}", lost.0, written.0));
            }
        } else {
            set.count = value.parse().expect("workers write numbers");
        }
    }
    for (name, Set { places, count, .. }) in &sets {
        if *count != places.len() as u64 {
            report(format!("{name}: {} elements, and the count is {count}", places.len()));
        }
    }
    for event in facts.workers() {
        let What::Fenced { hold, place, element } = &event.what else { continue };
        let written = sets.get(hold.name.as_str()).and_then(|set| set.places.get(place));
        if written != Some(&(hold.token, *element)) {
            report(format!("{}: place {place}, acknowledged to token {}, has {written:?}", hold.name, hold.token));
        }
    }
}

/// A write to the file, from the reading to the writing.
struct Write<'a> {
    process: Process,
    hold: &'a Hold,
    element: u64,
    from: Nanos,
    to: Nanos,
}

fn unfenced(facts: &Facts, found: &mut Vec<Violation>) {
    let writes = facts.workers().filter_map(|event| match &event.what {
        What::Wrote { hold, element, begun } => {
            Some(Write { process: event.by, hold, element: *element, from: *begun, to: event.at })
        }
        _ => None,
    });
    let mut writes: Vec<_> = writes.collect();
    writes.sort_by_key(|write| write.from);
    let mut overlapping = HashSet::new();
    let mut last: Option<&Write<'_>> = None;
    for write in &writes {
        if let Some(other) = last.filter(|other| other.to > write.from && other.hold != write.hold) {
            overlapping.extend([write.element, other.element]);
            if !is_excused(facts, other) && !is_excused(facts, write) {
                found.push(Violation {
                    rule: Rule::Unfenced,
                    text: format!(
                        "{}: process {} with token {} wrote while process {} with token {} did",
                        write.hold.name, write.process, write.hold.token, other.process, other.hold.token
                    ),
                });
            }
        }
        if last.is_none_or(|other| write.to > other.to) {
            last = Some(write);
        }
    }
    let remains = facts.events.iter().find_map(|event| match &event.what {
        What::Remains { file, .. } => Some(file.iter().copied().collect::<HashSet<u64>>()),
        _ => None,
    });
    let Some(remains) = remains else { return };
    for write in writes.iter().filter(|write| !remains.contains(&write.element)) {
        // Lost to whoever read before it was written and wrote after: an unacknowledged writer can be that too.
        let excused = overlapping.contains(&write.element) || has_unseen_rival(facts, write);
        if !excused {
            found.push(Violation {
                rule: Rule::Unfenced,
                text: format!(
                    "{}: what token {} wrote is lost, and nobody wrote at the time",
                    write.hold.name, write.hold.token
                ),
            });
        }
    }
}

/// The holder was stopped past its deadline, or an operator had taken its key. Scheduling delays are excused no
/// longer than the work that is delayed: see [`Rule::Work`].
fn is_excused(facts: &Facts, write: &Write<'_>) -> bool {
    let Some(life) = facts.life(write.hold) else { return false };
    let taken = facts.taken(life).is_some_and(|taken| taken <= write.to);
    let deadline = life.deadline.max(life.work.map_or(0, |work| work.deadline));
    taken || (write.to > deadline && write.to <= facts.in_time(write.process, deadline))
}

/// Work of a process that was stopped past its deadline, and then killed or made to drop it before it said that it
/// wrote.
fn has_unseen_rival(facts: &Facts, write: &Write<'_>) -> bool {
    let rivals = facts.names.get(&write.hold.name).into_iter().flatten();
    rivals.filter(|life| life.hold != *write.hold).any(|life| {
        let Some(work) = life.work else { return false };
        let ended = work.ended.or(facts.killed.get(&life.process).copied()).unwrap_or(Nanos::MAX);
        let known = if work.ended.is_some() { work.deadline } else { life.deadline };
        let late = ended > known || facts.taken(life).is_some_and(|taken| taken < ended);
        late && work.began < write.to && ended > write.from
    })
}
