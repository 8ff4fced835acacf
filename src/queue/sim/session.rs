//! What the clients of one process share: a lease, its fence, and the watches.

use std::collections::VecDeque;

use super::etcd::{Etcd, Lease};
use crate::name::Key;
use crate::queue::place::Revision;

#[derive(Debug)]
pub(super) struct Session {
    /// The lease under which new keys are put, if one stands.
    pub(super) lease: Option<Lease>,
    pub(super) fence: Fence,
    pub(super) watches: Vec<Watch>,
}

/// The fence of the session's lease, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    At(Revision),
    /// A reply said that it is gone: nobody enters before it is written again.
    Missing,
}

/// The watch of one key, for every client of the session that waits for it.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) key: Key,
    pub(super) stage: Stage,
    /// Deletions that etcd has sent and that have not arrived.
    pub(super) pending: VecDeque<Revision>,
    /// The last deletion that has arrived.
    pub(super) told: Option<Revision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asked for: from now, or from the revision after this one.
    Opening(Option<Revision>),
    /// It stands, and tells of what is deleted after this revision.
    Open(Revision),
}

impl Session {
    /// A session under a new lease.
    pub(super) fn open(etcd: &mut Etcd, lease: Lease) -> Self {
        let fence = Fence::At(etcd.move_fence(lease));
        Self { lease: Some(lease), fence, watches: Vec::new() }
    }

    pub(super) fn learn_fence(&mut self, lease: Lease, moved: Option<Revision>) {
        if self.lease != Some(lease) {
            return;
        }
        self.fence = match (self.fence, moved) {
            (Fence::At(known), Some(moved)) => Fence::At(known.max(moved)),
            (Fence::Missing, Some(moved)) => Fence::At(moved),
            (_, None) => Fence::Missing,
        };
    }

    pub(super) fn watch(&mut self, key: &Key) -> Option<&mut Watch> {
        self.watches.iter_mut().find(|watch| watch.key == *key)
    }

    /// Whether the next event of a watch may be delivered now.
    pub(super) fn has_event(&self, index: usize, ordered: bool) -> bool {
        let next = |watch: &Watch| watch.pending.front().copied();
        let Some(at) = self.watches.get(index).and_then(next) else { return false };
        !ordered || self.watches.iter().filter_map(next).all(|other| at <= other)
    }

    /// A key was deleted: whoever watches it will hear of it.
    pub(super) fn announce(&mut self, key: &Key, at: Revision) {
        if let Some(watch) = self.watch(key)
            && matches!(watch.stage, Stage::Open(_))
        {
            watch.pending.push_back(at);
        }
    }

    /// The watch stream ends, and is opened again.
    pub(super) fn break_watches(&mut self) {
        for watch in &mut self.watches {
            watch.stage = Stage::Opening(None);
            watch.pending.clear();
            watch.told = None;
        }
    }
}

impl Watch {
    pub(super) fn new(key: Key, from: Option<Revision>) -> Self {
        Self { key, stage: Stage::Opening(from), pending: VecDeque::new(), told: None }
    }

    /// Etcd accepts it, at a member that lags by so many revisions. Says after which revision it reports.
    pub(super) fn open(&mut self, etcd: &Etcd, lag: Revision) -> Revision {
        let Stage::Opening(asked) = self.stage else { unreachable!("it opens once") };
        let from = asked.unwrap_or((etcd.revision - lag).max(0));
        let missed = etcd.past.iter().filter(|(kv, at)| kv.key == self.key && *at > from).map(|(_, at)| *at);
        self.pending = missed.collect();
        self.stage = Stage::Open(from);
        from
    }
}
