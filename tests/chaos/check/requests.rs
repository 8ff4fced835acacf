//! Holders who are asked to let go.

use std::collections::HashSet;

use super::{Facts, NAMESPACE, Rule, Violation};
use crate::history::{DIRECTOR, What};

#[derive(serde::Deserialize)]
struct Request {
    tokens: Vec<i64>,
}

/// Nobody hears of a request that was not made, and none is left when those whom it names are gone.
pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    let room = format!("{NAMESPACE}~session/revoke/");
    let mut asked = HashSet::new();
    for event in facts.events.iter().filter(|event| event.by == DIRECTOR) {
        if let What::Put { key, value, .. } = &event.what
            && let Some(key) = key.strip_prefix(&room)
        {
            let (name, _) = key.rsplit_once('/').expect("it is beside a queue");
            let Request { tokens } = serde_json::from_str(value).expect("requests are JSON");
            asked.extend(tokens.into_iter().map(|token| (name, token)));
        }
    }
    let mut report = |text| found.push(Violation { rule: Rule::Requests, text });
    for event in facts.workers() {
        match &event.what {
            What::Heard { hold } if !asked.contains(&(hold.name.as_str(), hold.token)) => {
                report(format!("{}: token {} heard a request, and there was none", hold.name, hold.token));
            }
            What::Requests { keys } if !keys.is_empty() => report(format!("process {} has left {keys:?}", event.by)),
            _ => {}
        }
    }
}
