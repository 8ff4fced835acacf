//! What of etcd the protocol relies on: revisions, transactions, leases, and the history of deletions.

use super::QUEUE;
use crate::name::{Key, Name};
use crate::queue::place::{Elder, Input, Listing, Revision};
use crate::queue::rule::{Kind, Rule};

/// A lease by its number.
pub(super) type Lease = i64;

/// A living key.
#[derive(Clone, Debug)]
pub(super) struct Kv {
    pub(super) key: Key,
    pub(super) created: Revision,
    pub(super) lease: Lease,
    pub(super) weight: Option<u32>,
}

/// One request on its way, under the key of the place that sent it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) key: Key,
    pub(super) lease: Lease,
    pub(super) rule: Rule,
    pub(super) request: Request,
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Lists so many of those before it, if any.
    Enter {
        fence: Revision,
        list: Option<usize>,
    },
    Try {
        fence: Revision,
        known: Revision,
    },
    Probe {
        limit: Option<usize>,
    },
    Look {
        created: Revision,
        limit: Option<usize>,
    },
    Glance {
        view: Vec<Key>,
    },
    Leave {
        keys: Vec<Key>,
        fence: bool,
        mark: Option<Revision>,
    },
}

/// What comes back.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// What the place is told, as it stands.
    Seen(Input),
    /// The fence is not the one that was sent; here is the one that stands.
    Fenced(Option<Revision>),
    /// The keys are gone, and the fence was moved to this revision.
    Left {
        fence: Option<Revision>,
    },
    Refused,
    NoLease,
}

/// Which end of the queue a limit leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Key,
    Newest,
}

#[derive(Debug)]
pub(super) struct Etcd {
    name: Name,
    pub(super) revision: Revision,
    pub(super) live: Vec<Kv>,
    /// The dead keys, each with the revision that deleted it.
    pub(super) past: Vec<(Kv, Revision)>,
    dead: Vec<Lease>,
    pub(super) fences: Vec<(Lease, Revision)>,
    /// The mark, and the lease that it is on.
    mark: Option<(Lease, Revision)>,
    /// From how many keys on the queue counts as deep.
    deep: usize,
    /// Fence keys may not be written for now, nor the mark.
    pub(super) refuses_fences: bool,
    /// How many of `past` the watches were told of.
    pub(super) announced: usize,
}

impl Etcd {
    pub(super) fn new(deep: usize) -> Self {
        Self {
            name: Name::new("", QUEUE).expect("a valid name"),
            revision: 1,
            live: Vec::new(),
            past: Vec::new(),
            dead: Vec::new(),
            fences: Vec::new(),
            mark: None,
            deep,
            refuses_fences: false,
            announced: 0,
        }
    }

    pub(super) fn created(&self, key: &Key) -> Option<Revision> {
        self.live.iter().find(|kv| kv.key == *key).map(|kv| kv.created)
    }

    pub(super) fn put(&mut self, key: Key, lease: Lease, weight: Option<u32>) -> Revision {
        self.revision += 1;
        self.live.push(Kv { key, created: self.revision, lease, weight });
        self.revision
    }

    /// Deletes in one revision whatever `doomed` says.
    pub(super) fn delete(&mut self, doomed: impl Fn(&Kv) -> bool) {
        if !self.live.iter().any(&doomed) {
            return;
        }
        self.revision += 1;
        self.bury(doomed);
    }

    /// The same in the revision that stands, for a transaction that has made one already.
    fn bury(&mut self, doomed: impl Fn(&Kv) -> bool) {
        let (dead, live) = std::mem::take(&mut self.live).into_iter().partition(doomed);
        self.live = live;
        self.past.extend(Vec::into_iter(dead).map(|kv| (kv, self.revision)));
    }

    pub(super) fn is_dead(&self, lease: Lease) -> bool {
        self.dead.contains(&lease)
    }

    pub(super) fn expire(&mut self, lease: Lease) {
        self.dead.push(lease);
        self.fences.retain(|(owner, _)| *owner != lease);
        self.mark = self.mark.filter(|(owner, _)| *owner != lease);
        self.delete(|kv| kv.lease == lease);
    }

    pub(super) fn fence(&self, lease: Lease) -> Option<Revision> {
        self.fences.iter().find(|(owner, _)| *owner == lease).map(|(_, moved)| *moved)
    }

    pub(super) fn marked(&self, lease: Lease) -> bool {
        self.mark.is_some_and(|(owner, _)| owner == lease)
    }

    pub(super) fn move_fence(&mut self, lease: Lease) -> Revision {
        self.revision += 1;
        self.fences.retain(|(owner, _)| *owner != lease);
        self.fences.push((lease, self.revision));
        self.revision
    }

    pub(super) fn is_direct(&self, key: &[u8]) -> bool {
        self.name.is_direct(key)
    }

    /// The keys that a place under `rule` waits for, nested ones and its own included.
    pub(super) fn is_behind(&self, rule: Rule) -> impl Fn(&[u8]) -> bool {
        let (from, until) = rule.behind(&self.name);
        move |key| *from <= *key && *key < *until
    }

    pub(super) fn commit(&mut self, message: &Message) -> Reply {
        let Message { key, lease, rule, request } = message;
        match request {
            Request::Enter { fence, list } => self.enter(message, *fence, None).unwrap_or_else(|| {
                let listed = list.map(|limit| self.list(message, Some(limit), Order::Key, Revision::MAX));
                let elders = listed.unwrap_or_else(|| self.unlisted());
                let created = self.put(key.clone(), *lease, stated_weight(*rule));
                Reply::Seen(Input::Entered { created, listing: Listing { revision: created, ..elders } })
            }),
            Request::Try { fence, known } => self.enter(message, *fence, Some(*known)).unwrap_or_else(|| {
                let created = self.put(key.clone(), *lease, stated_weight(*rule));
                Reply::Seen(Input::Entered { created, listing: self.unlisted() })
            }),
            Request::Probe { limit } => {
                Reply::Seen(Input::Probed(self.list(message, *limit, Order::Key, Revision::MAX)))
            }
            Request::Look { created, limit } => {
                let own = self.created(key);
                let listing = self.list(message, *limit, Order::Newest, *created);
                Reply::Seen(Input::Looked { own, listing })
            }
            Request::Glance { view } => Reply::Seen(Input::Glanced {
                own: self.created(key),
                revision: self.revision,
                elders: view.iter().filter_map(|key| self.live.iter().find(|kv| kv.key == *key)).map(by_key).collect(),
                mark: self.mark.map(|(_, mark)| mark),
            }),
            Request::Leave { keys, fence, mark } => self.leave(*lease, keys, *fence, *mark),
        }
    }

    /// The outcome of an `Enter` or a `Try` that puts nothing, if it puts nothing.
    fn enter(&self, message: &Message, fence: Revision, known: Option<Revision>) -> Option<Reply> {
        let Message { key, lease, rule, .. } = message;
        let window = Some(rule.view() + 1);
        if let Some(created) = self.created(key) {
            let listed = known.map(|_| self.list(message, window, Order::Key, Revision::MAX));
            let listing = listed.unwrap_or_else(|| self.unlisted());
            return Some(Reply::Seen(Input::Entered { created, listing }));
        }
        let behind = self.is_behind(*rule);
        let is_newer = |kv: &Kv| known.is_some_and(|known| behind(&kv.key) && kv.created > known);
        if self.fence(*lease) != Some(fence) {
            Some(Reply::Fenced(self.fence(*lease)))
        } else if self.live.iter().any(is_newer) {
            Some(Reply::Seen(Input::Occupied(self.list(message, window, Order::Key, Revision::MAX))))
        } else {
            self.is_dead(*lease).then_some(Reply::NoLease)
        }
    }

    fn leave(&mut self, lease: Lease, keys: &[Key], fence: bool, mark: Option<Revision>) -> Reply {
        let puts = fence || mark.is_some();
        if puts && self.is_dead(lease) {
            return Reply::NoLease;
        }
        if puts && self.refuses_fences {
            return Reply::Refused;
        }
        let doomed = |kv: &Kv| keys.contains(&kv.key);
        if !puts {
            self.delete(doomed);
            return Reply::Left { fence: None };
        }
        self.mark = mark.map(|mark| (lease, mark)).or(self.mark);
        let moved = fence.then(|| self.move_fence(lease));
        self.revision += i64::from(!fence);
        self.bury(doomed);
        Reply::Left { fence: moved }
    }

    fn unlisted(&self) -> Listing {
        Listing { revision: self.revision, more: true, ..Listing::default() }
    }

    /// Lists as the server does, limit first, then strikes out what the wire layer strikes out.
    fn list(&self, message: &Message, limit: Option<usize>, order: Order, newest: Revision) -> Listing {
        let behind = self.is_behind(message.rule);
        let mut found: Vec<&Kv> = self.live.iter().filter(|kv| kv.created <= newest && behind(&kv.key)).collect();
        match order {
            Order::Key => found.sort_unstable_by(|a, b| a.key.cmp(&b.key)),
            Order::Newest => found.sort_unstable_by_key(|kv| std::cmp::Reverse(kv.created)),
        }
        let deep = self.live.iter().filter(|kv| behind(&kv.key)).count() >= self.deep;
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        let nested = found.iter().any(|kv| !self.is_direct(&kv.key));
        found.retain(|kv| kv.key != message.key && self.is_direct(&kv.key));
        let elders = found.into_iter().map(|kv| elder(kv, message.rule)).collect();
        Listing { revision: self.revision, elders, more, nested, deep }
    }
}

/// Read by its key alone.
fn by_key(kv: &Kv) -> Elder {
    Elder { key: kv.key.clone(), created: kv.created, lease: kv.lease, weight: None }
}

/// Weights are read where there is more than one permit.
fn elder(kv: &Kv, rule: Rule) -> Elder {
    let weight = kv.weight.filter(|_| rule.permits > 1);
    Elder { key: kv.key.clone(), created: kv.created, lease: kv.lease, weight }
}

/// The weight that a key of ours states: a semaphore's alone do.
fn stated_weight(rule: Rule) -> Option<u32> {
    (rule.kind == Kind::Semaphore).then_some(rule.weight)
}
