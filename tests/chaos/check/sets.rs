//! The two sets: one in a file, which knows nothing of tokens, and one in etcd, written with `guard.txn`.

use std::collections::{BTreeMap, HashSet};

use super::{Facts, Rule, Violation};
use crate::history::{DIRECTOR, Hold, Nanos, Process, What};

/// The prefix of the set in etcd: `set/e/<place>` has `<token> <element>`, and `set/count` how many there are.
pub(crate) const SET: &str = "set/";

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    fenced(facts, found);
    unfenced(facts, found);
}

fn fenced(facts: &Facts, found: &mut Vec<Violation>) {
    let mut report = |text: String| found.push(Violation { rule: Rule::Fenced, text });
    let mut places: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    let (mut count, mut newest) = (0, 0);
    let mut puts: Vec<_> = facts.events.iter().filter(|event| event.by == DIRECTOR).collect();
    puts.sort_by_key(|event| match &event.what {
        What::Put { revision, .. } => *revision,
        _ => 0,
    });
    for event in puts {
        let What::Put { key, value, revision, .. } = &event.what else { continue };
        let Some(key) = key.strip_prefix(SET) else { continue };
        if let Some(place) = key.strip_prefix("e/") {
            let place = place.parse().expect("workers write numbers");
            let (token, element) = value.split_once(' ').expect("workers write two numbers");
            let written = (token.parse().expect("a token"), element.parse().expect("an element"));
            if written.0 < newest {
                report(format!("at revision {revision} token {} wrote after token {newest}", written.0));
            }
            newest = newest.max(written.0);
            if let Some(lost) = places.insert(place, written) {
                report(format!("place {place} was written twice: by token {} and by token {}", lost.0, written.0));
            }
        } else {
            count = value.parse().expect("workers write numbers");
        }
    }
    if count != places.len() as u64 {
        report(format!("{} elements, and the count is {count}", places.len()));
    }
    for event in facts.workers() {
        let What::Fenced { hold, place, element } = &event.what else { continue };
        if places.get(place) != Some(&(hold.token, *element)) {
            report(format!("place {place}, acknowledged to token {}, has {:?}", hold.token, places.get(place)));
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
    let Some(life) = life(facts, write.hold) else { return false };
    let taken = facts.taken(&life.key).is_some_and(|taken| taken <= write.to);
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
        let late = ended > known || facts.taken(&life.key).is_some_and(|taken| taken < ended);
        late && work.began < write.to && ended > write.from
    })
}

fn life<'a>(facts: &'a Facts, hold: &Hold) -> Option<&'a super::Life> {
    let lives = facts.names.get(&hold.name)?;
    lives.binary_search_by_key(&hold.token, |life| life.hold.token).ok().map(|found| &lives[found])
}
