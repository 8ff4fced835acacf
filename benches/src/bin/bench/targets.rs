//! What is promised of the figures, and whether a run kept it.

use std::fmt;

use crate::contenders::{Contenders, FLOOR, GO, REDIS, TENURE};
use crate::figure::shown;
use crate::place::Place;
use crate::plan::{BETWEEN, SPREAD, Work};
use crate::records::{Of, Records};

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

struct Target {
    says: String,
    case: String,
    place: Place,
    /// Without whom there is nothing to say.
    beside: Option<&'static str>,
    limit: Limit,
    unit: &'static str,
    figure: Figure,
}

type Figure = Box<dyn Fn(&Records, Of<'_>) -> Option<f64>>;

pub struct Verdict {
    says: String,
    place: Place,
    limit: Limit,
    unit: &'static str,
    result: Result<f64, String>,
    /// Whether its absence is excused.
    excused: bool,
}

impl Verdict {
    pub fn missed(&self) -> bool {
        match (&self.result, &self.limit) {
            (Ok(figure), Limit::AtMost(limit)) => figure > limit,
            (Ok(figure), Limit::AtLeast(limit)) => figure < limit,
            (Err(_), _) => !self.excused,
        }
    }

    pub fn row(&self) -> String {
        let outcome = match (self.missed(), &self.result) {
            (true, _) => "**missed**",
            (false, Ok(_)) => "met",
            (false, Err(_)) => "-",
        };
        format!(
            "| {} | {} | {} | {} | {outcome} |",
            self.says,
            self.place.id(),
            self.limit_shown(),
            self.figure_shown()
        )
    }

    fn limit_shown(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("≤ {}{}", shown(limit), self.unit),
            Limit::AtLeast(limit) => format!("≥ {}{}", shown(limit), self.unit),
        }
    }

    fn figure_shown(&self) -> String {
        match &self.result {
            Ok(figure) => format!("{}{}", shown(*figure), self.unit),
            Err(reason) => reason.clone(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}, target {}", self.says, self.place, self.figure_shown(), self.limit_shown())
    }
}

/// All targets of what was to be measured.
pub fn judge(records: &Records, work: &Work, contenders: &Contenders) -> Vec<Verdict> {
    let planned = |target: &Target| work.case(&target.case).is_some_and(|case| case.places.contains(&target.place));
    let judged = targets(work).into_iter().filter(planned).map(|target| {
        let Target { says, case, place, beside, limit, unit, figure } = target;
        let measured = figure(records, Of { case: &case, place, contender: TENURE });
        let absent = beside.filter(|beside| !contenders.has(beside));
        let result = measured.filter(|figure| figure.is_finite()).ok_or_else(|| match absent {
            Some(beside) => format!("{beside} is not here"),
            None => "not measured".into(),
        });
        Verdict { says, place, limit, unit, result, excused: absent.is_some() }
    });
    judged.collect()
}

/// Ratios are those of one round, and their median over the rounds.
fn targets(work: &Work) -> Vec<Target> {
    let mut all = Vec::new();
    for place in [Place::Disk, Place::Memory] {
        all.extend(uncontended(place));
        all.extend(hand_offs(place));
        all.push(Target {
            says: "leader hand-over by resign, p50, × delete to event".into(),
            case: "leader".into(),
            place,
            beside: None,
            limit: Limit::AtMost(1.2),
            unit: " ×",
            figure: beside(FLOOR, "handover.p50_us", "delete_to_event.p50_us"),
        });
    }
    all.extend(BETWEEN.into_iter().map(|waiters| Target {
        says: format!("contended hand-off, {waiters} sessions, p50, × Redis' with rslock"),
        case: format!("handoff/{waiters}"),
        place: Place::Disk,
        beside: Some(REDIS),
        limit: Limit::AtMost(1.0),
        unit: " ×",
        figure: beside(REDIS, "handoff.p50_us", "handoff.p50_us"),
    }));
    all.extend(queues());
    let ttl = work.extent.failover_ttl();
    all.push(Target {
        says: format!("fail-over after SIGKILL, the slowest, TTL {ttl} s"),
        case: "failover".into(),
        place: Place::Memory,
        beside: None,
        limit: Limit::AtMost(ttl as f64 + 0.7),
        unit: " s",
        figure: Box::new(|records, of| Some(records.largest(of, "failover_kill.max_us")? / 1e6)),
    });
    all
}

fn uncontended(place: Place) -> [Target; 2] {
    let case = || "uncontended".to_owned();
    [
        Target {
            says: "uncontended cycle, p50, × bare put and delete".into(),
            case: case(),
            place,
            beside: None,
            limit: Limit::AtMost(1.05),
            unit: " ×",
            figure: Box::new(|records, of| records.ratio((of, "beside_cycle.p50_us"), (of, "floor_cycle.p50_us"))),
        },
        Target {
            says: "requests of an uncontended cycle".into(),
            case: case(),
            place,
            beside: None,
            limit: Limit::AtMost(2.0),
            unit: "",
            figure: Box::new(|records, of| {
                let (_, answer) = records.answers(of).last()?;
                let requests = answer["cost"]["per_op"]["rpc_started"].as_object()?;
                Some(requests.values().filter_map(serde_json::Value::as_f64).sum())
            }),
        },
    ]
}

fn hand_offs(place: Place) -> Vec<Target> {
    let mut all = Vec::new();
    for waiters in BETWEEN {
        let case = || format!("handoff/{waiters}");
        for (quantile, limit, path, floor) in [
            ("p50", 1.15, "handoff.p50_us", "delete_to_event.p50_us"),
            ("p99", 2.0, "handoff.p99_us", "delete_to_event.p99_us"),
        ] {
            all.push(Target {
                says: format!("hand-off between processes, {waiters} sessions, {quantile}, × delete to event"),
                case: case(),
                place,
                beside: None,
                limit: Limit::AtMost(limit),
                unit: " ×",
                figure: beside(FLOOR, path, floor),
            });
        }
        all.push(Target {
            says: format!("reads per hand-off, {waiters} sessions"),
            case: case(),
            place,
            beside: None,
            // The holder before the first is not counted among the hand-offs.
            limit: Limit::AtMost(1.005),
            unit: "",
            figure: Box::new(|records, of| {
                // A method that was never called is not named.
                let read = records.median(of, "cost.per_op.rpc_started.Range").unwrap_or_default();
                (records.rounds(of) > 0).then_some(read)
            }),
        });
    }
    let against_go = [("handoff/2", 50.0), ("handoff/32", 5.0), ("handoff/128", 2.0), ("inside/128", 10.0)];
    all.extend(against_go.into_iter().map(|(case, limit)| Target {
        says: format!("hand-offs a second, {case}, × Go's"),
        case: case.into(),
        place,
        beside: Some(GO),
        limit: Limit::AtLeast(limit),
        unit: " ×",
        figure: beside(GO, "handoffs_s", "handoffs_s"),
    }));
    all
}

fn queues() -> Vec<Target> {
    let mut all = vec![
        Target {
            says: "10,000 waiters queue up and drain, × faster than Go's (fewer, scaled)".into(),
            case: "queue/10000/1".into(),
            place: Place::Memory,
            beside: Some(GO),
            limit: Limit::AtLeast(10.0),
            unit: " ×",
            figure: Box::new(|records, of| {
                let each = |of: Of<'_>| {
                    let queued = records.median(of, "enqueue_watching_ms")?;
                    Some((queued + records.median(of, "emptied_ms|drain_ms")?) / records.median(of, "waiters")?)
                };
                Some(each(Of { contender: GO, ..of })? / each(of)?)
            }),
        },
        Target {
            says: "client memory per waiter, 10,000 waiters".into(),
            case: "queue/10000/1".into(),
            place: Place::Memory,
            beside: None,
            limit: Limit::AtMost(2048.0),
            unit: " bytes",
            figure: Box::new(|records, of| records.median(of, "client_bytes_per_waiter")),
        },
    ];
    all.extend(SPREAD.into_iter().map(|sessions| Target {
        says: format!("hand-off with 10,000 queued, {sessions} sessions, p50, × with 100"),
        case: format!("queue/10000/{sessions}"),
        place: Place::Memory,
        beside: None,
        limit: Limit::AtMost(1.5),
        unit: " ×",
        figure: Box::new(move |records, of| {
            let short = format!("queue/100/{sessions}");
            let path = "drain_gap_first_half.p50_us";
            records.ratio((of, path), (Of { case: &short, ..of }, path))
        }),
    }));
    all
}

/// Tenure's figure over another's.
fn beside(contender: &'static str, path: &'static str, other: &'static str) -> Figure {
    Box::new(move |records, of| records.ratio((of, path), (Of { contender, ..of }, other)))
}
