//! What was measured, as it was said: a line of JSON each, and in memory.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figure::{median, number};
use crate::machine::{self, Machine};
use crate::place::Place;

/// Counts that are zero where a lock does what it promises.
const FAULTS: [&str; 3] = ["overlaps", "out_of_order", "observer_missed"];

pub struct Record {
    pub case: String,
    pub place: Place,
    pub round: usize,
    pub contender: String,
    pub outcome: Outcome,
}

pub enum Outcome {
    Measured(Value),
    NotOffered,
    Failed(String),
}

/// Whose figures of which case.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub case: &'a str,
    pub place: Place,
    pub contender: &'a str,
}

pub struct Records {
    file: File,
    all: Vec<Record>,
}

impl Records {
    pub fn create(path: &Path, machine: &Machine) -> Result<Self> {
        let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{}", json!({ "run": machine.json() }))?;
        Ok(Self { file, all: Vec::new() })
    }

    pub fn add(&mut self, record: Record, arguments: &str) -> Result<()> {
        let mut line = json!({
            "case": record.case, "place": record.place.id(), "round": record.round,
            "contender": record.contender, "arguments": arguments, "load": machine::load(),
        });
        let (key, value) = match &record.outcome {
            Outcome::Measured(answer) => ("result", answer.clone()),
            Outcome::NotOffered => ("not_offered", json!(true)),
            Outcome::Failed(error) => ("error", json!(error)),
        };
        line[key] = value;
        writeln!(self.file, "{line}")?;
        self.all.push(record);
        Ok(())
    }

    pub fn of<'a>(&'a self, of: Of<'a>) -> impl Iterator<Item = &'a Record> {
        let fits = move |record: &&Record| {
            record.case == of.case && record.place == of.place && record.contender == of.contender
        };
        self.all.iter().filter(fits)
    }

    /// Answers by round.
    pub fn answers<'a>(&'a self, of: Of<'a>) -> impl Iterator<Item = (usize, &'a Value)> {
        self.of(of).filter_map(|record| match &record.outcome {
            Outcome::Measured(answer) => Some((record.round, answer)),
            _ => None,
        })
    }

    /// Whose records there are, in the order in which they came.
    pub fn contenders(&self) -> Vec<String> {
        let mut names = Vec::new();
        for record in &self.all {
            if !names.contains(&record.contender) {
                names.push(record.contender.clone());
            }
        }
        names
    }

    /// Over the rounds.
    pub fn median(&self, of: Of<'_>, path: &str) -> Option<f64> {
        median(self.answers(of).filter_map(|(_, answer)| number(answer, path)))
    }

    /// The largest of all rounds.
    pub fn largest(&self, of: Of<'_>, path: &str) -> Option<f64> {
        self.answers(of).filter_map(|(_, answer)| number(answer, path)).reduce(f64::max)
    }

    /// Of the ratios in each round that has both.
    pub fn ratio(&self, (above, path): (Of<'_>, &str), (below, beside): (Of<'_>, &str)) -> Option<f64> {
        median(self.answers(above).filter_map(|(round, answer)| {
            let (_, other) = self.answers(below).find(|(other, _)| *other == round)?;
            Some(number(answer, path)? / number(other, beside)?)
        }))
    }

    /// Whether another try would take its time in vain.
    pub fn given_up(&self, of: Of<'_>) -> bool {
        self.of(of).any(|record| !matches!(record.outcome, Outcome::Measured(_)))
    }

    /// What went wrong in what was measured: `WHERE, CASE, CONTENDER: 3 overlaps`.
    pub fn faults(&self, contender: Option<&str>) -> Vec<String> {
        let mut faults = Vec::new();
        for record in self.all.iter().filter(|record| contender.is_none_or(|name| record.contender == name)) {
            let at = format!("{}, {}, {}", record.place.id(), record.case, record.contender);
            match &record.outcome {
                Outcome::Measured(answer) => {
                    for fault in FAULTS {
                        if let Some(count) = answer[fault].as_u64().filter(|&count| count > 0) {
                            faults.push(format!("{at}: {count} {}", fault.replace('_', " ")));
                        }
                    }
                }
                Outcome::Failed(error) => faults.push(format!("{at}: {error}")),
                Outcome::NotOffered => {}
            }
        }
        faults
    }

    /// How often a case was measured.
    pub fn rounds(&self, of: Of<'_>) -> usize {
        self.answers(of).count()
    }
}
