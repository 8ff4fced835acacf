//! Offices that are handed over, or are not.

use std::collections::HashMap;

use super::observers::reigns;
use super::{Facts, Life, Rule, Violation};
use crate::history::{DIRECTOR, Hold, Outcome, What};

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    let mut elections = HashMap::new();
    for event in facts.workers() {
        let What::HandedOver { hold, to, outcome } = &event.what else { continue };
        let mut report = |text: String| {
            let Hold { name, token } = hold;
            let text = format!("{name}: process {} with token {token}, to hand over to {to}, {text}", event.by);
            found.push(Violation { rule: Rule::Transfer, text });
        };
        let Some(life) = facts.life(hold) else { continue };
        let reigns = elections.entry(&hold.name).or_insert_with(|| reigns(facts, &hold.name));
        match outcome {
            Outcome::Done => {
                let own = reigns.iter().rposition(|reign| reign.leader.as_ref().is_some_and(|l| l.token == hold.token));
                let next = own.and_then(|own| reigns.get(own + 1)).and_then(|reign| reign.leader.as_ref());
                // Taken away while the last request was on its way, it cannot know that it was not that.
                if next.is_none_or(|next| next.value != *to) && facts.taken(life).is_none() {
                    report(format!("was followed by {next:?}"));
                }
            }
            Outcome::Refused(why) if is_gone(facts, life) => report(format!("is gone, although it failed: {why}")),
            Outcome::Refused(_) | Outcome::Lost => {}
        }
    }
}

/// Whether its key was deleted before it was let go, and neither by an operator nor with the lease.
fn is_gone(facts: &Facts, life: &Life) -> bool {
    let ended = life.ended.as_ref().map(|(at, _)| *at);
    let released = life.releasing.or(ended).or(facts.killed.get(&life.process).copied());
    let deletions = || {
        facts.events.iter().filter(|event| event.by == DIRECTOR).filter_map(|event| match &event.what {
            What::Deleted { revision, key } => Some((*revision, key, event.at)),
            _ => None,
        })
    };
    // A session uses a key again.
    let own = deletions().filter(|(revision, key, _)| **key == life.key && *revision > life.hold.token);
    let Some((revision, _, at)) = own.min_by_key(|(revision, ..)| *revision) else { return false };
    let fence = Facts::fence_of(&life.key);
    let expired = deletions().any(|(other, key, _)| other == revision && Some(key) == fence.as_ref());
    released.is_none_or(|released| at < released) && !expired && facts.taken(life).is_none()
}
