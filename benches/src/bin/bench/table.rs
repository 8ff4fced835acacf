//! The report, in Markdown.

use std::fmt::Write;

use crate::contenders::{Contenders, FLOOR, TENURE};
use crate::figure::{Figure, Unit, leaf, shown};
use crate::machine::Machine;
use crate::place::Place;
use crate::plan::{Case, Work};
use crate::records::{Of, Outcome, Records};
use crate::targets::Verdict;

const LEGEND: &str = "Latencies are p50 (p99) in µs, fail-overs p50 (slowest) in s; each is the median of the rounds, whose number is beside \
what was measured. The floor is what etcd takes for the bare requests, with the same client; the ring is a queue of nothing but those, in which everyone knows from the beginning whom it waits for. Hand-offs between processes are \
measured from the holder's call of unlock to the next one's hold, on the clock that the processes share; Tenure's, the floor's and \
the ring's are in two processes, the peers' in one, with a connection for each session. † means fewer waiters, as many as its line in \
records.jsonl says, since more fail or take minutes.";

pub fn report(
    machine: &Machine,
    records: &Records,
    work: &Work,
    contenders: &Contenders,
    verdicts: &[Verdict],
) -> String {
    let mut report = format!("# Tenure beside the floor and its peers\n\n{machine}.\n\n{LEGEND}\n");
    for (name, reason) in &contenders.missing {
        let _ = writeln!(report, "\n{name} is left out: {reason}.");
    }
    for place in Place::ALL {
        let measured = |case: &&Case| {
            contenders.names().any(|contender| records.of(Of { case: &case.id, place, contender }).next().is_some())
        };
        let cases: Vec<_> = work.cases.iter().filter(measured).collect();
        if cases.is_empty() {
            continue;
        }
        let names: Vec<_> = contenders.names().collect();
        let _ = writeln!(report, "\n## {}\n\n| | {} |", capital(&place.to_string()), names.join(" | "));
        let _ = writeln!(report, "|---|{}", "---|".repeat(names.len()));
        for case in cases {
            let rounds = records.rounds(Of { case: &case.id, place, contender: TENURE });
            let _ = writeln!(report, "| **{}** ({rounds}) |{}", case.title, " |".repeat(names.len()));
            for figure in &case.figures {
                let cells: Vec<_> = names.iter().map(|name| cell(records, case, place, figure, name)).collect();
                let _ = writeln!(report, "| {} | {} |", figure.label, cells.join(" | "));
            }
        }
    }
    let faults = records.faults(None);
    if !faults.is_empty() {
        let _ = writeln!(report, "\n## Faults, and what a peer does not promise\n\n- {}", faults.join("\n- "));
    }
    if !verdicts.is_empty() {
        report.push_str("\n## Targets\n\n| | where | target | measured | |\n|---|---|---|---|---|\n");
        for verdict in verdicts {
            let _ = writeln!(report, "{}", verdict.row());
        }
    }
    report
}

fn cell(records: &Records, case: &Case, place: Place, figure: &Figure, contender: &str) -> String {
    let of = Of { case: &case.id, place, contender };
    if contender == FLOOR {
        // Where it is not measured by itself, it is measured along with Tenure.
        let tenure = Of { contender: TENURE, ..of };
        let floor = Figure { path: figure.floor, ..*figure };
        return value(records, of, &floor).or_else(|| value(records, tenure, &floor)).unwrap_or_default();
    }
    if let Some(value) = value(records, of, figure) {
        let waiters = |contender| records.median(Of { contender, ..of }, "waiters");
        let fewer = waiters(contender) < waiters(TENURE);
        return if fewer { format!("{value} †") } else { value };
    }
    match records.of(of).last().map(|record| &record.outcome) {
        Some(Outcome::NotOffered) => "not offered".into(),
        Some(Outcome::Failed(_)) => "failed".into(),
        Some(Outcome::Measured(_)) | None => String::new(),
    }
}

fn value(records: &Records, of: Of<'_>, figure: &Figure) -> Option<String> {
    if figure.path.is_empty() {
        return None;
    }
    let distribution = |name: &str| records.median(of, &leaf(figure.path, name));
    Some(match figure.unit {
        Unit::Micros => format!("{} ({})", shown(distribution("p50_us")?), shown(distribution("p99_us")?)),
        Unit::Seconds => {
            format!("{} ({})", shown(distribution("p50_us")? / 1e6), shown(distribution("max_us")? / 1e6))
        }
        Unit::PerSecond => format!("{}/s", shown(records.median(of, figure.path)?)),
        Unit::Millis | Unit::Bytes => shown(records.median(of, figure.path)?),
        Unit::Count => shown(records.median(of, figure.path).or_else(|| uncalled(records, of, figure.path))?),
    })
}

/// A method that was never called is not named beside those that were.
fn uncalled(records: &Records, of: Of<'_>, path: &str) -> Option<f64> {
    let (family, _) = path.rsplit_once('.').filter(|(family, _)| family.ends_with("rpc_started"))?;
    let mut answers = records.answers(of);
    answers.any(|(_, answer)| family.split('.').try_fold(answer, |value, key| value.get(key)).is_some()).then_some(0.0)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
