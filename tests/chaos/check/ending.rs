//! How it ends: nobody waits, nothing remains.

use std::collections::{HashMap, HashSet};

use super::{Facts, RECOVERY, Rule, Violation};
use crate::history::{How, Nanos, Process, SECOND, What};

pub(super) fn check(facts: &Facts, found: &mut Vec<Violation>) {
    let Some(healed) = facts.healed else { return };
    let due = healed + 2 * facts.ttl + RECOVERY;
    let mut answered: HashMap<(Process, u64), Nanos> = HashMap::new();
    for event in facts.workers() {
        if let What::Granted { ask, .. } | What::Left { ask, .. } = event.what {
            answered.insert((event.by, ask), event.at);
        }
    }
    for ((process, ask), (at, how, name)) in facts.asks() {
        if facts.killed.contains_key(&process) || how == How::Run {
            continue;
        }
        let text = match answered.get(&(process, ask)) {
            Some(answered) if *answered <= due || at > healed => continue,
            Some(late) => format!("was answered only {} s after all was healed", (late - healed) / SECOND),
            None => "was never answered".to_owned(),
        };
        found.push(Violation {
            rule: Rule::Ending,
            text: format!("{name}: process {process}, which asked {how:?}, {text}"),
        });
    }
    let finished: HashSet<_> = facts.workers().filter(|event| event.what == What::Finished).map(|e| e.by).collect();
    let workers: HashSet<_> = facts.workers().map(|event| event.by).collect();
    for process in workers.iter().filter(|process| !finished.contains(process) && !facts.killed.contains_key(process)) {
        found.push(Violation { rule: Rule::Ending, text: format!("process {process} did not finish") });
    }
    for event in &facts.events {
        let What::Remains { keys, leases, .. } = &event.what else { continue };
        if !keys.is_empty() || !leases.is_empty() {
            let leases: Vec<_> = leases.iter().map(|lease| format!("{lease:x}")).collect();
            found.push(Violation { rule: Rule::Remains, text: format!("keys {keys:?}, leases {leases:?}") });
        }
    }
}
