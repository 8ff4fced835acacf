//! One caller of the core, and what is on its way between it and etcd.

use std::collections::VecDeque;

use super::etcd::{Lease, Message, Reply};
use super::plan::Task;
use super::promises::Grant;
use crate::name::Key;
use crate::queue::place::{Action, Input, Place, Revision};

#[derive(Debug)]
pub(super) struct Client {
    pub(super) task: Task,
    pub(super) session: usize,
    pub(super) place: Place,
    /// The lease of its key, until it is told that it is lost.
    pub(super) lease: Option<Lease>,
    /// The lease of its last key.
    pub(super) seated_under: Lease,
    /// The create revision of its key, as the last `Entered` said.
    pub(super) created: Revision,
    pub(super) request: Option<Flight>,
    /// Its leave travels in the request of this client.
    pub(super) riding: Option<usize>,
    /// What its watches and its neighbours told it, not yet read.
    pub(super) inbox: VecDeque<Input>,
    /// The keys of whose watches it hears.
    pub(super) joined: Vec<Key>,
    pub(super) intent: Intent,
    /// What its turn rests on.
    pub(super) by: Grant,
    /// Whether this round had its hold.
    pub(super) turn: Turn,
    /// How often it looked in a row without having been told anything in between.
    pub(super) idle_looks: u32,
    pub(super) told: Told,
    pub(super) rounds_left: u8,
    /// The revision at which this round began.
    pub(super) began: Revision,
}

/// A request, or its reply.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) message: Message,
    pub(super) reply: Option<Reply>,
    /// Other clients whose keys leave in the same transaction.
    pub(super) riders: Vec<usize>,
}

/// What the caller of a place is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Have,
    /// It gave up, or releases: the place leaves as soon as no request is on its way.
    Quit(Handing),
    /// The place was told to leave.
    Left,
    /// It is through with this and every round.
    Done,
}

/// Whether it was told anything since it last looked that may be worth another look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Something,
}

/// A hold comes once in a round and does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    ToCome,
    Had,
}

/// How a guard that is released reaches its neighbours in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handing {
    Nobody,
    AtOnce,
    /// Behind what they have not read yet.
    Queued,
}

impl Client {
    pub(super) fn new(task: Task, session: usize, rounds: u8) -> Self {
        Self {
            task,
            session,
            place: Place::new(task.rule, task.patience),
            lease: None,
            seated_under: 0,
            created: 0,
            request: None,
            riding: None,
            inbox: VecDeque::new(),
            joined: Vec::new(),
            intent: Intent::Have,
            by: Grant::ByEtcd,
            turn: Turn::ToCome,
            idle_looks: 0,
            told: Told::Something,
            rounds_left: rounds - 1,
            began: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.request.is_none() && self.riding.is_none()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_idle() && matches!(self.place.next(), Action::Leave { .. })
    }

    /// The first key of whose deletion it has to hear and does not.
    pub(super) fn unwatched(&self) -> Option<&Key> {
        self.place.watching().find(|key| !self.joined.contains(key))
    }

    /// Forgets the watches that it needs no more.
    pub(super) fn drop_watches(&mut self) {
        let Self { place, joined, .. } = self;
        joined.retain(|key| place.watching().any(|watched| watched == key));
    }
}
