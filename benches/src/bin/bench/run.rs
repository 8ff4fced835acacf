//! Runs everybody in turn, round after round, until all is done or the time is over.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::contenders::Contenders;
use crate::figure::{leaf, number, shown};
use crate::place::{Place, Running};
use crate::plan::{Case, Work};
use crate::records::{Of, Outcome, Record, Records};

/// Of one contender and one case; far more than any takes that works.
const LIMIT: Duration = Duration::from_secs(100);

/// What a program ends with that has nothing like what was asked for.
const NOT_OFFERED: i32 = 64;

pub struct Run<'a> {
    contenders: &'a Contenders,
    work: &'a Work,
    end: Instant,
    bar: ProgressBar,
}

impl<'a> Run<'a> {
    pub fn new(contenders: &'a Contenders, work: &'a Work, end: Instant) -> Self {
        let rounds = |case: &Case| -> usize {
            let places = Place::ALL.into_iter();
            places.flat_map(|place| contenders.names().map(move |name| case.rounds_of(name, place))).sum()
        };
        let bar = ProgressBar::new(work.cases.iter().map(rounds).sum::<usize>() as u64);
        let style = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} {wide_msg}");
        bar.set_style(style.expect("the template is one"));
        Self { contenders, work, end, bar }
    }

    /// Everything once, and then again for as long as there is time.
    pub async fn everything(&self, records: &mut Records) -> Result<()> {
        let rounds = self.work.cases.iter().map(|case| case.rounds).max().unwrap_or_default();
        let places =
            Place::ALL.into_iter().filter(|place| self.work.cases.iter().any(|case| case.places.contains(place)));
        let places: Vec<_> = places.collect();
        for round in 0..rounds {
            for &place in &places {
                self.round(records, place, round).await?;
            }
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    async fn round(&self, records: &mut Records, place: Place, round: usize) -> Result<()> {
        let here = |case: &&Case| case.places.contains(&place) && round < case.rounds;
        let mut common: Option<Running> = None;
        for case in self.work.cases.iter().filter(here) {
            for contender in self.contenders.names() {
                let Some(arguments) = case.arguments(contender) else { continue };
                let of = Of { case: &case.id, place, contender };
                if round >= case.rounds_of(contender, place) || records.given_up(of) {
                    continue;
                }
                if Instant::now() >= self.end {
                    return Ok(());
                }
                let own;
                let etcd = if case.fresh {
                    own = place.start().await?;
                    &own
                } else {
                    match &mut common {
                        Some(etcd) => etcd,
                        none => none.insert(place.start().await?),
                    }
                };
                self.tell(&format!("{}: {}: {contender}", place.id(), case.title));
                let outcome = self.once(contender, arguments, etcd).await?;
                self.told(place, case, contender, &outcome);
                let (case, contender) = (case.id.clone(), contender.to_owned());
                records.add(Record { case, place, round, contender, outcome }, arguments)?;
            }
        }
        Ok(())
    }

    async fn once(&self, contender: &str, arguments: &str, etcd: &Running) -> Result<Outcome> {
        let mut command = Command::new(self.contenders.program(contender));
        command.args(arguments.split(' ')).args(etcd.flags());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let limit = LIMIT.min(self.end.saturating_duration_since(Instant::now()) + Duration::from_secs(10));
        let Ok(output) = timeout(limit, command.output()).await else {
            return Ok(Outcome::Failed(format!("not done after {} s", limit.as_secs())));
        };
        let output = output?;
        let said = String::from_utf8_lossy(&output.stdout);
        match (output.status.code(), said.trim().lines().last()) {
            (Some(0), Some(line)) => match serde_json::from_str(line) {
                Ok(answer) => Ok(judged(answer)),
                Err(error) => Ok(Outcome::Failed(format!("{error}: {line}"))),
            },
            (Some(NOT_OFFERED), _) => Ok(Outcome::NotOffered),
            _ => {
                let error = String::from_utf8_lossy(&output.stderr);
                Ok(Outcome::Failed(error.trim().lines().last().unwrap_or("it failed without a word").to_owned()))
            }
        }
    }

    fn tell(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    fn told(&self, place: Place, case: &Case, contender: &str, outcome: &Outcome) {
        self.bar.inc(1);
        if !self.bar.is_hidden() && !matches!(outcome, Outcome::Failed(_)) {
            return;
        }
        let outcome = match outcome {
            Outcome::Measured(answer) => headline(case, answer),
            Outcome::NotOffered => "not offered".into(),
            Outcome::Failed(error) => format!("FAILED: {error}"),
        };
        let (at, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let line = format!("{at:>3}/{all} {}: {}: {contender}: {outcome}", place.id(), case.title);
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

/// An answer that is a failure, or that lacks what can be worked out.
fn judged(mut answer: Value) -> Outcome {
    if answer["ok"] == json!(false) {
        return Outcome::Failed(format!("{}", answer["lock_errors"]));
    }
    let count = number(&answer, "waiters").filter(|_| answer.get("memory").is_some());
    let count = count.or_else(|| number(&answer, "cycles|n")).unwrap_or(1.0);
    for cost in ["cost", "cost_enqueue", "cost_drain"] {
        for (figure, total, factor) in [("etcd_cpu_us", "etcd_cpu_ms", 1e3), ("raft_proposals", "raft_proposals", 1.0)]
        {
            let total = number(&answer, &format!("{cost}.{total}"));
            if let (Some(total), Some(None)) = (total, answer[cost].get("per_op").map(|each| each.get(figure))) {
                answer[cost]["per_op"][figure] = json!(total * factor / count);
            }
        }
    }
    // Those who have a session for each waiter pay for it too.
    for (figure, whose) in [("client_bytes_per_waiter", "client_rss_kb"), ("etcd_bytes_per_waiter", "etcd_rss_kb")] {
        let at = |when: &str| number(&answer, &format!("memory.{when}.{whose}"));
        if let (None, Some(before), Some(after)) = (answer.get(figure), at("connected"), at("enqueued")) {
            answer[figure] = json!((after - before) * 1024.0 / count);
        }
    }
    Outcome::Measured(answer)
}

fn headline(case: &Case, answer: &Value) -> String {
    let figures = case.figures.iter().take(3).filter_map(|figure| {
        let value = number(answer, &leaf(figure.path, "p50_us")).or_else(|| number(answer, figure.path));
        let floor = || number(answer, &leaf(figure.floor, "p50_us"));
        Some(format!("{} {}", figure.label, shown(value.or_else(floor)?)))
    });
    figures.collect::<Vec<_>>().join(", ")
}
