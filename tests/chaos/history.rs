//! What happened, as those say who did it: one line of JSON for each event.
//!
//! All processes share the machine's clock, so their instants can be compared. What a worker wrote is in a pipe, and
//! survives the worker.

use serde::{Deserialize, Serialize};

/// Nanoseconds of the clock that goes on while the machine sleeps, by which the crate measures its deadlines.
pub(crate) type Nanos = u64;

pub(crate) const SECOND: Nanos = 1_000_000_000;

/// A process of ours; 0 directs, and each worker has a number that is never used again.
pub(crate) type Process = u32;

pub(crate) const DIRECTOR: Process = 0;

/// All that `etcdctl` does.
pub(crate) const ETCDCTL: Process = Process::MAX;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) at: Nanos,
    pub(crate) by: Process,
    pub(crate) what: What,
}

/// A hold, wherever it is spoken of: the token is unique for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Hold {
    pub(crate) name: String,
    pub(crate) token: i64,
}

/// How much of a name a hold takes up. Those who hold at once take up no more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) weight: u32,
    pub(crate) of: u32,
}

impl Share {
    pub(crate) const ALONE: Self = Self { weight: 1, of: 1 };
    /// Of a read-write lock: as many readers as there are, or one writer.
    pub(crate) const READ: Self = Self { weight: 1, of: u32::MAX };
    pub(crate) const WRITE: Self = Self { weight: u32::MAX, of: u32::MAX };
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A worker asks for a hold.
    Asked {
        ask: u64,
        name: String,
        how: How,
    },
    /// It has one, valid or lost by now.
    Granted {
        ask: u64,
        hold: Hold,
        key: String,
        share: Share,
    },
    /// It has none, and is not in the queue any more.
    Left {
        ask: u64,
        why: Left,
    },
    /// At this instant or a little later the guard said that it is valid, until the deadline at least.
    Valid {
        hold: Hold,
        deadline: Nanos,
    },
    /// The hold is being given back.
    Releasing {
        hold: Hold,
    },
    /// It is over: why, in the crate's words.
    Ended {
        hold: Hold,
        why: String,
    },
    /// Work begins that `run` is to drop in time.
    WorkBegan {
        hold: Hold,
    },
    /// It was dropped or is done; the latest deadline that it knew of.
    WorkEnded {
        hold: Hold,
        deadline: Nanos,
    },
    /// Into the set in the file, read at `begun`.
    Wrote {
        hold: Hold,
        element: u64,
        begun: Nanos,
    },
    /// Into the set in etcd: a transaction of the guard was applied.
    Fenced {
        hold: Hold,
        place: u64,
        element: u64,
    },
    /// The holder hears that somebody asks for the hold, and lets go.
    Heard {
        hold: Hold,
    },
    /// A term was to be handed over to who is called so.
    HandedOver {
        hold: Hold,
        to: String,
        outcome: Outcome,
    },
    /// By this worker's observer of an election.
    Saw {
        election: String,
        leader: Option<Seen>,
    },
    /// Nobody holds any more whom this worker has asked to let go, and so many requests are left.
    Requests {
        keys: Vec<String>,
    },
    /// The worker has closed its session.
    Finished,

    /// The director stops a process ..
    Stopping {
        process: Process,
    },
    /// .. and has let it go on.
    Woken {
        process: Process,
    },
    /// No instruction of the process comes after this.
    Killed {
        process: Process,
    },
    /// An operator deletes this key, with no regard for whose it is.
    Deleting {
        key: String,
    },
    /// An operator revokes a lease.
    Revoking {
        lease: i64,
    },
    Fault {
        kind: String,
        on: String,
    },
    FaultOver {
        kind: String,
    },
    /// No fault is left, and every member answers.
    Healed,
    /// The store has taken a write of the director's, whom no link parts from it.
    Answered,
    /// The store as watched: in order of revisions.
    Put {
        revision: i64,
        key: String,
        created: i64,
        value: String,
    },
    Deleted {
        revision: i64,
        key: String,
    },
    /// What is left when all is over.
    Remains {
        keys: Vec<String>,
        leases: Vec<i64>,
        file: Vec<u64>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) token: i64,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What became of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    /// The term goes on: why.
    Refused(String),
    /// It had ended otherwise.
    Lost,
}

/// How a worker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    Lock,
    Try,
    TryFor {
        millis: u64,
    },
    /// A ticket whose `granted` is dropped so often before it is waited for.
    Ticket {
        drops: u32,
        millis: u64,
    },
    /// A `lock` that is dropped.
    Dropped {
        millis: u64,
    },
    /// A ticket that is dropped.
    GivenUp {
        millis: u64,
    },
    /// By `Election::run`, which asks by itself.
    Run,
}

impl How {
    /// Whether it waits for as long as it takes, and fails for nothing that passes.
    pub(crate) fn is_patient(self) -> bool {
        !matches!(self, Self::Try | Self::TryFor { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Left {
    NotFree,
    GaveUp,
    Failed(String),
}

#[cfg(unix)]
pub(crate) fn now() -> Nanos {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// The last part of a key's session: `NAME/<lease>-<n>` is of this lease, and so is a reader's `NAME/r-<lease>-<n>`.
pub(crate) fn lease_of(key: &str) -> Option<i64> {
    let own = key.rsplit('/').next()?;
    let (lease, _) = own.strip_prefix("r-").unwrap_or(own).split_once('-')?;
    i64::from_str_radix(lease, 16).ok()
}
