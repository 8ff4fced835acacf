//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{ETCDCTL, Event, Left, Nanos, Outcome, SECOND, What};

#[derive(Debug, Default)]
pub(crate) struct Figures {
    faults: BTreeMap<String, u32>,
    grants: BTreeMap<String, u32>,
    ends: BTreeMap<String, u32>,
    left: BTreeMap<&'static str, u32>,
    fenced: u32,
    unfenced: u32,
    observations: u32,
    handed_over: u32,
    refused: u32,
    heard: u32,
    by_etcdctl: u32,
    /// The longest time without any grant.
    without_grant: Nanos,
    /// The same, while the store took writes.
    idle: Nanos,
    /// The longest time for which the store took no write.
    without_store: Nanos,
}

impl Figures {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut figures = Self::default();
        let (mut grants, mut answers) = (Vec::new(), Vec::new());
        for event in events {
            match &event.what {
                What::Fault { kind, .. } => *figures.faults.entry(kind.clone()).or_default() += 1,
                What::Granted { hold, .. } => {
                    grants.push(event.at);
                    *figures.grants.entry(hold.name.clone()).or_default() += 1;
                    figures.by_etcdctl += u32::from(event.by == ETCDCTL);
                }
                What::Ended { why, .. } => *figures.ends.entry(why.clone()).or_default() += 1,
                What::Left { why, .. } => {
                    let why = match why {
                        Left::NotFree => "not free",
                        Left::GaveUp => "given up",
                        Left::Failed(_) => "failed",
                    };
                    *figures.left.entry(why).or_default() += 1;
                }
                What::HandedOver { outcome: Outcome::Done, .. } => figures.handed_over += 1,
                What::HandedOver { .. } => figures.refused += 1,
                What::Heard { .. } => figures.heard += 1,
                What::Fenced { .. } => figures.fenced += 1,
                What::Wrote { .. } => figures.unfenced += 1,
                What::Answered => answers.push(event.at),
                What::Saw { .. } => figures.observations += 1,
                _ => {}
            }
        }
        answers.sort_unstable();
        let outages = answers.windows(2).filter(|pair| pair[1] - pair[0] > SECOND);
        // From a grant or the end of an outage to the next grant or outage.
        let mut signs: Vec<(Nanos, Nanos)> = outages.map(|pair| (pair[0], pair[1])).collect();
        signs.extend(grants.iter().map(|&at| (at, at)));
        signs.sort_unstable();
        let mut last = signs.first().map_or(0, |(_, to)| *to);
        for (from, to) in signs {
            figures.idle = figures.idle.max(from.saturating_sub(last));
            last = last.max(to);
        }
        (figures.without_grant, figures.without_store) = (longest_gap(grants), longest_gap(answers));
        figures
    }

    pub(crate) fn short(&self) -> String {
        let (faults, grants): (u32, u32) = (self.faults.values().sum(), self.grants.values().sum());
        let lost: u32 = self.losses().map(|(_, count)| count).sum();
        format!("{faults} faults, {grants} grants, {lost} losses")
    }

    fn losses(&self) -> impl Iterator<Item = (&String, &u32)> {
        self.ends.iter().filter(|(why, _)| !matches!(why.as_str(), "Released" | "Dropped" | "Unwatched" | "HandedOver"))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &mut dyn Iterator<Item = (String, u32)>| {
            let counts: Vec<_> = counts.map(|(what, count)| format!("{what} {count}")).collect();
            counts.join(", ")
        };
        let owned = |counts: &BTreeMap<String, u32>| list(&mut counts.clone().into_iter());
        writeln!(f, "faults: {}", owned(&self.faults))?;
        writeln!(f, "grants: {}", owned(&self.grants))?;
        writeln!(f, "losses: {}", list(&mut self.losses().map(|(why, count)| (why.clone(), *count))))?;
        writeln!(f, "not granted: {}", list(&mut self.left.iter().map(|(why, count)| ((*why).to_owned(), *count))))?;
        writeln!(f, "written: {} fenced, {} unfenced; observed: {}", self.fenced, self.unfenced, self.observations)?;
        let (done, not) = (self.handed_over, self.refused);
        writeln!(
            f,
            "handed over: {done}, and {not} not; asked, and heard: {}; by etcdctl: {}",
            self.heard, self.by_etcdctl
        )?;
        let seconds = |nanos: Nanos| nanos as f64 / SECOND as f64;
        let (grant, idle) = (seconds(self.without_grant), seconds(self.idle));
        write!(f, "longest time without a grant: {grant:.1} s, while the store took writes: {idle:.1} s; ")?;
        write!(f, "without a write that the store took: {:.1} s", seconds(self.without_store))
    }
}

fn longest_gap(mut times: Vec<Nanos>) -> Nanos {
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
