//! Who measures what, with which arguments, and what of it is shown.

use std::time::Duration;

use crate::contenders::{FLOOR, GO, RING, TENURE};
use crate::figure::{Figure, Unit};
use crate::place::Place;

pub const ROWS: [&str; 8] = ["uncontended", "kinds", "handoff", "waited", "inside", "leader", "failover", "queue"];

/// Waiters of the hand-offs between processes.
pub const BETWEEN: [usize; 4] = [2, 8, 32, 128];
/// Tasks of the hand-offs inside one process.
pub const INSIDE: [usize; 3] = [2, 128, 1000];
pub const QUEUED: [usize; 3] = [100, 1_000, 10_000];
/// Sessions over which a queue is spread.
pub const SPREAD: [usize; 2] = [1, 32];
/// As many as can be queued up with Go's package in reasonable time.
const GO_QUEUED: usize = 5_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Quick,
    Full,
}

impl Extent {
    /// What is left of three and of ten minutes when everything is built.
    pub fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::Quick => 160,
            Self::Full => 560,
        })
    }

    pub fn failover_ttl(self) -> u64 {
        match self {
            Self::Quick => 2,
            Self::Full => 5,
        }
    }
}

/// One thing that everybody measures.
pub struct Case {
    pub id: String,
    pub row: &'static str,
    pub title: String,
    pub places: Vec<Place>,
    /// Subcommand and flags; `None` is left out.
    floor: Option<&'static str>,
    ring: Option<String>,
    tenure: String,
    go: Option<String>,
    /// Of all other peers.
    others: Option<String>,
    /// At most.
    pub rounds: usize,
    /// Of Go's, which is slow; the other peers have one.
    pub peer_rounds: usize,
    /// On an etcd of its own for each, because its memory is looked at.
    pub fresh: bool,
    pub figures: Vec<Figure>,
}

impl Case {
    pub fn arguments(&self, contender: &str) -> Option<&str> {
        match contender {
            FLOOR => self.floor,
            RING => self.ring.as_deref(),
            TENURE => Some(&self.tenure),
            GO => self.go.as_deref(),
            _ => self.others.as_deref(),
        }
    }

    /// How often, at most.
    pub fn rounds_of(&self, contender: &str, place: Place) -> usize {
        match contender {
            _ if self.arguments(contender).is_none() || !self.places.contains(&place) => 0,
            FLOOR | RING | TENURE => self.rounds,
            GO => self.peer_rounds.min(self.rounds),
            _ if place == Place::ThreeMembers => 0,
            _ => 1,
        }
    }
}

pub struct Work {
    pub extent: Extent,
    pub cases: Vec<Case>,
}

impl Work {
    pub fn case(&self, id: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.id == id)
    }
}

pub fn work(extent: Extent, only: &[String]) -> Work {
    let quick = extent == Extent::Quick;
    let mut cases = vec![uncontended(), kinds()];
    cases.extend(BETWEEN.into_iter().filter(|&waiters| !quick || waiters != 8).map(between));
    cases.extend(INSIDE.into_iter().filter(|&tasks| !quick || tasks == 128).map(inside));
    cases.push(leader());
    cases.push(failover(extent.failover_ttl()));
    if !quick {
        cases.push(waited());
    }
    // The long ones last, so that what is missing when the time is over is one of them.
    cases.extend(QUEUED.into_iter().filter(|&waiters| !quick || waiters != 1_000).flat_map(queues));
    for case in &mut cases {
        if quick {
            case.peer_rounds = case.peer_rounds.min(1);
            case.places.retain(|&place| place != Place::ThreeMembers);
        }
    }
    cases.retain(|case| only.is_empty() || only.iter().any(|row| row == case.row));
    Work { extent, cases }
}

const fn micros(label: &'static str, path: &'static str, floor: &'static str) -> Figure {
    Figure { label, path, floor, unit: Unit::Micros }
}

const fn figure(label: &'static str, path: &'static str, unit: Unit) -> Figure {
    Figure { label, path, floor: "", unit }
}

const ETCD_CPU: Figure = figure("etcd's CPU, µs each", "cost.per_op.etcd_cpu_us", Unit::Count);
const COMMITS: Figure = figure("etcd's commits, each", "cost.per_op.raft_proposals", Unit::Count);
const EVENTS: Figure = figure("watch events, each", "cost.per_op.watch_events", Unit::Count);
const READS: Figure = figure("reads, each", "cost.per_op.rpc_started.Range", Unit::Count);

/// What the hand-offs are compared with.
const EVENT: &str = "floor --n 300 --processes 2 --event-only";

fn uncontended() -> Case {
    let all = "uncontended --n 500 --warmup 100";
    Case {
        id: "uncontended".into(),
        row: "uncontended",
        title: "lock and unlock, uncontended".into(),
        places: Place::ALL.into(),
        floor: Some("floor --n 300"),
        ring: None,
        tenure: all.into(),
        go: Some(all.into()),
        others: Some(all.into()),
        rounds: 7,
        peer_rounds: 3,
        fresh: false,
        figures: vec![
            micros("lock (floor: put)", "beside_lock|lock", "floor_put"),
            micros("unlock (floor: delete)", "beside_unlock|unlock", "floor_delete"),
            micros("cycle (floor: put and delete)", "beside_cycle|cycle", "floor_cycle"),
            micros("delete to its event, in the same process", "", "delete_to_event"),
            micros("linearizable range of one key", "", "get_linearizable_rtt"),
            micros("serializable range of one key", "", "get_serializable_rtt"),
            micros("put and range in a transaction with one condition", "", "txn_put_and_range_rtt"),
            COMMITS,
            ETCD_CPU,
        ],
    }
}

fn kinds() -> Case {
    Case {
        id: "kinds".into(),
        row: "kinds",
        title: "every kind, uncontended, beside the mutex".into(),
        places: vec![Place::Disk, Place::Memory],
        floor: None,
        ring: None,
        tenure: "kinds --n 60 --warmup 6 --clients 2".into(),
        go: None,
        others: None,
        rounds: 3,
        peer_rounds: 0,
        fresh: false,
        figures: vec![
            micros("read and unlock (floor: a mutex)", "read", "mutex"),
            micros("write and unlock (floor: a mutex)", "write", "mutex"),
            micros("acquire and unlock (floor: a mutex)", "acquire", "mutex"),
            micros("re-entrant, first lock and unlock (floor: a mutex)", "reentrant", "mutex"),
            micros("re-entrant, locked again and unlocked", "reentrant_again", ""),
            micros("lock_all of 3 and unlock (floor: a mutex)", "lock_all", "mutex"),
            micros("campaign and resign (floor: a mutex)", "election", "mutex"),
            micros("request_revocation to its being heard", "request_revocation", ""),
            micros("transfer_to to the next term, one gives way", "transfer_to", ""),
        ],
    }
}

fn between(waiters: usize) -> Case {
    // About two seconds for the slowest.
    let (cycles, peer_cycles) = match waiters {
        0..8 => (600, 40),
        8..32 => (800, 160),
        32..128 => (1_000, 500),
        _ => (1_500, 1_000),
    };
    let all = format!("handoff --waiters {waiters} --clients {waiters}");
    let peers = format!("{all} --cycles {peer_cycles} --warmup {}", waiters.max(4));
    Case {
        id: format!("handoff/{waiters}"),
        row: "handoff",
        title: format!("hand-off between processes, {waiters} sessions"),
        places: Place::ALL.into(),
        floor: Some(EVENT),
        ring: Some(format!("{all} --ring --processes 2 --cycles {cycles}")),
        tenure: format!("{all} --processes 2 --cycles {cycles}"),
        go: Some(peers.clone()),
        others: Some(peers),
        rounds: 7,
        peer_rounds: 3,
        fresh: false,
        figures: vec![
            micros("hand-off (floor: delete to event)", "handoff", "delete_to_event"),
            figure("hand-offs", "handoffs_s", Unit::PerSecond),
            READS,
            EVENTS,
            ETCD_CPU,
        ],
    }
}

fn waited() -> Case {
    let all = "handoff --waiters 2 --clients 2 --cycles 20 --warmup 2 --hold 150ms";
    Case {
        id: "waited".into(),
        row: "waited",
        title: "hand-off between processes, after 150 ms".into(),
        places: vec![Place::Disk, Place::Memory],
        ring: None,
        floor: Some("floor --n 20 --pace 150ms --processes 2"),
        tenure: format!("{all} --processes 2"),
        go: Some(all.into()),
        others: None,
        rounds: 3,
        peer_rounds: 1,
        fresh: false,
        figures: vec![micros("hand-off (floor: delete to event)", "handoff", "delete_to_event")],
    }
}

fn inside(tasks: usize) -> Case {
    let peers = format!("handoff --waiters {tasks} --clients 1 --cycles {}", if tasks < 8 { 40 } else { 1_000 });
    let warmup = tasks.max(10);
    Case {
        id: format!("inside/{tasks}"),
        row: "inside",
        title: format!("hand-off inside one process, {tasks} tasks"),
        places: vec![Place::Disk, Place::Memory],
        floor: None,
        ring: None,
        tenure: format!("handoff --waiters {tasks} --sessions 1 --clients 1 --cycles {}", 2_000.max(4 * tasks)),
        go: Some(format!("{peers} --warmup {warmup}")),
        others: (tasks < 1_000).then(|| format!("{peers} --warmup {warmup}")),
        rounds: 5,
        peer_rounds: 1,
        fresh: false,
        figures: vec![
            micros("hand-off", "handoff", ""),
            figure("hand-offs", "handoffs_s", Unit::PerSecond),
            READS,
            ETCD_CPU,
        ],
    }
}

fn leader() -> Case {
    let peers = "election --n 60 --warmup 6 --clients 4 --failovers 0";
    Case {
        id: "leader".into(),
        row: "leader",
        title: "leader hand-over by resign, 3 candidates".into(),
        places: Place::ALL.into(),
        floor: Some(EVENT),
        ring: None,
        tenure: "election --n 300 --clients 4 --processes 2 --failovers 0".into(),
        go: Some(peers.into()),
        others: Some(peers.into()),
        rounds: 5,
        peer_rounds: 2,
        fresh: false,
        figures: vec![
            micros("hand-over (floor: delete to event)", "handover", "delete_to_event"),
            micros("resign to what an observer sees", "observer_since_resign", "delete_to_event"),
            figure("hand-overs", "handovers_s", Unit::PerSecond),
        ],
    }
}

fn failover(ttl: u64) -> Case {
    let peers = format!("election --n 2 --warmup 1 --failovers 8 --failover-ttl {ttl}");
    Case {
        id: "failover".into(),
        row: "failover",
        title: format!("fail-over, 8 leaders, TTL {ttl} s"),
        places: vec![Place::Memory],
        floor: None,
        ring: None,
        tenure: format!("election --n 0 --failovers 8 --failover-ttl {ttl}"),
        go: Some(peers.clone()),
        others: Some(peers),
        rounds: 1,
        peer_rounds: 1,
        fresh: false,
        figures: vec![
            figure("SIGKILL (peers: no more renewals)", "failover_kill|failover_orphan", Unit::Seconds),
            figure(
                "the same, as an observer sees it",
                "failover_kill_observer|failover_orphan_observer",
                Unit::Seconds,
            ),
            micros("session closed", "failover_close", ""),
        ],
    }
}

fn queues(waiters: usize) -> impl Iterator<Item = Case> {
    SPREAD.into_iter().map(move |sessions| {
        let alone = sessions == 1;
        let peers = |waiters: usize| format!("queue --waiters {waiters} --clients {sessions} --join 64");
        Case {
            id: format!("queue/{waiters}/{sessions}"),
            row: "queue",
            title: format!("{waiters} waiters on {sessions} session{}", if alone { "" } else { "s" }),
            places: vec![Place::Memory],
            floor: None,
            ring: None,
            tenure: format!("queue --waiters {waiters} --sessions {sessions} --clients {sessions}"),
            go: alone.then(|| peers(waiters.min(GO_QUEUED))),
            others: (alone && waiters == 1_000).then(|| peers(waiters)),
            rounds: 2,
            peer_rounds: 1,
            fresh: true,
            figures: vec![
                figure("queue up, ms", "enqueue_watching_ms|enqueue_keys_ms", Unit::Millis),
                figure("drain, ms", "emptied_ms|drain_ms", Unit::Millis),
                micros("hand-off, in the first half", "drain_gap_first_half|drain_gap", ""),
                figure("client memory, bytes a waiter", "client_bytes_per_waiter", Unit::Bytes),
                figure("etcd memory, bytes a waiter", "etcd_bytes_per_waiter", Unit::Bytes),
                figure("etcd's CPU to queue up, µs each", "cost_enqueue.per_op.etcd_cpu_us", Unit::Count),
                figure("etcd's CPU to drain, µs each", "cost_drain.per_op.etcd_cpu_us", Unit::Count),
            ],
        }
    })
}
