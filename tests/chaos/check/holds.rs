//! Exclusion, order, and deadlines.

use super::{Facts, Life, Rule, SCHEDULING, Violation};
use crate::history::{DIRECTOR, Hold, How, Left, Nanos, What};

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    for lives in facts.names.values() {
        exclusion(facts, lives, found);
        work(facts, lives, found);
        for life in lives {
            deadline(facts, life, found);
        }
    }
    for Hold { name, token } in &facts.doubles {
        found.push(Violation { rule: Rule::Exclusion, text: format!("{name}: token {token} was granted twice") });
    }
    asks(facts, found);
}

/// Of two holds that exclude each other, the one with the smaller token is over when the other begins; of more that
/// may not all hold at once, so many. An operator who takes the key away is the one who makes too many of them.
fn exclusion(facts: &Facts, lives: &[Life], found: &mut Vec<Violation>) {
    let mut earlier: Vec<(Nanos, &Life)> = Vec::new();
    for life in lives {
        let Some((first, last)) = life.valid else { continue };
        let taken = facts.taken(life).unwrap_or(Nanos::MAX);
        if first > taken {
            continue;
        }
        if let Some((until, other)) = in_the_way(life, earlier.iter().filter(|(until, _)| *until >= first)) {
            found.push(Violation {
                rule: Rule::Exclusion,
                text: format!(
                    "{}: process {} with token {} was valid {} ms after process {} was with token {} ({:?})",
                    life.hold.name,
                    other.process,
                    other.hold.token,
                    (until - first) / 1_000_000,
                    life.process,
                    life.hold.token,
                    other.ended,
                ),
            });
        }
        earlier.push((last.min(taken), life));
    }
}

/// Who of those beside it, all earlier in the queue, holds longest, if there is no room for it.
fn in_the_way<'a>(
    life: &Life,
    beside: impl Iterator<Item = &'a (Nanos, &'a Life)> + Clone,
) -> Option<(Nanos, &'a Life)> {
    let weight = beside.clone().fold(0u64, |sum, (_, other)| sum + u64::from(other.share.weight));
    let too_many = weight + u64::from(life.share.weight) > u64::from(life.share.of);
    too_many.then(|| beside.max_by_key(|(until, _)| *until).copied()).flatten()
}

/// Whoever has a guard hears of its end.
fn deadline(facts: &Facts, life: &Life, found: &mut Vec<Violation>) {
    let mut late = |what: &str, at: Nanos| {
        found.push(Violation {
            rule: Rule::Deadline,
            text: format!(
                "{}: process {} with token {} {what} {} ms after its deadline",
                life.hold.name,
                life.process,
                life.hold.token,
                (at - life.deadline) / 1_000_000
            ),
        });
    };
    if let Some((_, last)) = life.valid
        && last > life.deadline
    {
        late("was valid", last);
    }
    if let Some((at, why)) = &life.ended
        && why == "Expired"
        && life.valid.is_some()
        && life.releasing.is_none()
        && *at > facts.in_time(life.process, life.deadline)
    {
        late("heard of its end", *at);
    }
}

/// No work is alive after its deadline, nor while that of the next holder is.
fn work(facts: &Facts, lives: &[Life], found: &mut Vec<Violation>) {
    let mut earlier: Vec<(Nanos, &Life)> = Vec::new();
    for life in lives {
        let Some(work) = life.work else { continue };
        let mut report = |text: String| {
            let text =
                format!("{}: work of process {} with token {} {text}", life.hold.name, life.process, life.hold.token);
            found.push(Violation { rule: Rule::Work, text });
        };
        let Some(ended) = work.ended.or(facts.killed.get(&life.process).copied()) else {
            report("never ended".into());
            continue;
        };
        // Of one that was killed, the last that it said.
        let known = if work.ended.is_some() { work.deadline } else { life.deadline };
        if work.ended.is_some() && ended > facts.in_time(life.process, known) {
            report(format!("ended {} ms after its deadline", (ended - known) / 1_000_000));
        }
        if let Some((until, other)) = in_the_way(life, earlier.iter().filter(|(until, _)| *until > work.began)) {
            report(format!(
                "began {} ms before that of process {} with token {} ended",
                (until - work.began) / 1_000_000,
                other.process,
                other.hold.token
            ));
        }
        // What comes after the deadline was reported above, unless its process was stopped.
        earlier.push((ended.min(known).min(facts.taken(life).unwrap_or(Nanos::MAX)), life));
    }
}

/// Who waits without a limit is not turned away, and a limit is what it says.
fn asks(facts: &Facts, found: &mut Vec<Violation>) {
    let asks = facts.asks();
    for event in facts.events.iter().filter(|event| event.by != DIRECTOR) {
        let What::Left { ask, why } = &event.what else { continue };
        let Some(&(asked, how, name)) = asks.get(&(event.by, *ask)) else { continue };
        match (how, why) {
            (how, Left::Failed(error)) if how.is_patient() => found.push(Violation {
                rule: Rule::Patience,
                text: format!("{name}: process {} was turned away ({how:?}): {error}", event.by),
            }),
            (How::TryFor { millis }, Left::NotFree) if event.at - asked < millis * 1_000_000 => found.push(Violation {
                rule: Rule::Limit,
                text: format!("{name}: process {} gave up before its {millis} ms", event.by),
            }),
            _ => {}
        }
    }
}

/// How much later than its deadline any work ended whose process was not stopped.
pub(super) fn latest(facts: &Facts) -> Nanos {
    let works = facts.names.values().flatten().filter_map(|life| {
        let (work, process) = (life.work?, life.process);
        let stopped = facts.in_time(process, work.deadline) != work.deadline.saturating_add(SCHEDULING);
        Some(if stopped { 0 } else { work.ended?.saturating_sub(work.deadline) })
    });
    works.max().unwrap_or(0)
}
