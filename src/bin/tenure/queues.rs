//! Keys as queues: who stands where, and who holds. No I/O.

use std::collections::BTreeMap;
use std::ptr;

use tenure::etcd_client::KeyValue;
use tenure::{Kind, Waiter};

/// The part of a path below which keys lie that stand in no queue.
const SESSION: &str = "~session";

/// One who stands in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) waiter: Waiter,
    /// What a candidate, or another client, has in its key.
    pub(crate) value: Option<String>,
    pub(crate) holds: bool,
    /// Its key ends with its own lease, as those of this crate and of Go's `concurrency` do.
    stands: bool,
}

impl Place {
    pub(crate) fn new(kv: &KeyValue) -> Self {
        let waiter = Waiter::from(kv);
        let value = String::from_utf8_lossy(kv.value());
        Self {
            value: (!states(&waiter) && !value.is_empty()).then(|| value.into_owned()),
            stands: kv.lease() != 0 && lease_of(waiter.key()) == format!("{:x}", kv.lease()),
            holds: false,
            waiter,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.waiter.kind() {
            Some(Kind::Mutex) => "mutex",
            Some(Kind::Election) => "election",
            Some(Kind::Read) => "read",
            Some(Kind::Write) => "write",
            Some(Kind::Semaphore) => "semaphore",
            // etcdctl and Go put the proposal into a candidate's key, and nothing into a lock's.
            _ if self.value.is_some() => "election",
            _ => "mutex",
        }
    }

    /// Its kind, and of a semaphore how many of how many permits.
    pub(crate) fn wish(&self) -> String {
        let permits = self.waiter.permits().zip(self.waiter.capacity());
        let permits = permits.map(|(permits, of)| format!(" {permits}/{of}")).unwrap_or_default();
        format!("{}{permits}", self.kind())
    }
}

/// Whether a key's own value says who it is. A candidate's does not.
fn states(waiter: &Waiter) -> bool {
    !matches!(waiter.kind(), None | Some(Kind::Election))
}

/// A name, and who stands there in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) name: String,
    places: Vec<Place>,
    holding: usize,
    /// Counted, so that large directories of other keys cost nothing.
    standing: usize,
}

impl Queue {
    pub(crate) fn new(name: String, mut places: Vec<Place>) -> Self {
        places.sort_unstable_by_key(|place| place.waiter.token());
        let standing = places.iter().filter(|place| place.stands).count();
        let mut queue = Self { name, places, holding: 0, standing };
        queue.settle();
        queue
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.holds).take(self.holding)
    }

    pub(crate) fn holding(&self) -> usize {
        self.holding
    }

    pub(crate) fn waiting(&self) -> usize {
        if self.is_one() { self.places.len() - self.holding } else { 0 }
    }

    /// Of the first in it: all but readers and writers are of one kind.
    pub(crate) fn kind(&self) -> &'static str {
        self.places.first().map_or("-", Place::kind)
    }

    /// Whether it is one: in a directory of other keys nobody stands.
    pub(crate) fn is_one(&self) -> bool {
        self.standing > 0
    }

    /// Takes a key in that was written, until [`settle`](Self::settle) at the back.
    pub(crate) fn put(&mut self, mut place: Place) {
        let token = place.waiter.token();
        if let Some(at) = self.places.iter().position(|known| known.waiter.key() == place.waiter.key()) {
            if self.places[at].waiter.token() > token {
                // Written before it was read.
                return;
            }
            let known = self.take(at);
            place.holds = known.holds && known.waiter.token() == token;
        }
        self.standing += usize::from(place.stands);
        let at = self.places.partition_point(|known| known.waiter.token() <= token);
        self.places.insert(at, place);
    }

    /// Takes out a key that was deleted at this revision.
    pub(crate) fn remove(&mut self, key: &str, revision: i64) {
        let gone = |place: &Place| place.waiter.key() == key && i64::from(place.waiter.token()) < revision;
        if let Some(at) = self.places.iter().position(gone) {
            self.take(at);
        }
    }

    fn take(&mut self, at: usize) -> Place {
        let place = self.places.remove(at);
        self.standing -= usize::from(place.stands);
        place
    }

    /// Tells who holds now; returns how many of them did not before, keys that are nobody's aside.
    pub(crate) fn settle(&mut self) -> usize {
        if !self.is_one() {
            self.holding = 0;
            return 0;
        }
        let mut holders = Waiter::holders(self.places.iter().map(|place| &place.waiter)).into_iter().peekable();
        let is_next = |place: &Place| holders.next_if(|holder| ptr::eq(*holder, &place.waiter)).is_some();
        let holds: Vec<bool> = self.places.iter().map(is_next).collect();
        let (mut new, mut holding) = (0, 0);
        for (place, holds) in self.places.iter_mut().zip(holds) {
            new += usize::from(holds && !place.holds && place.stands);
            holding += usize::from(holds);
            place.holds = holds;
        }
        self.holding = holding;
        new
    }
}

/// Who owns which lease, by the sessions' own keys. Nothing is known to those who may not read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(BTreeMap<i64, String>);

impl Sessions {
    /// Where their keys lie.
    pub(crate) fn prefix(namespace: &str) -> String {
        format!("{namespace}{SESSION}/")
    }

    pub(crate) fn new(kvs: &[KeyValue]) -> Self {
        let mut sessions = Self::default();
        for kv in kvs {
            sessions.put(kv);
        }
        sessions
    }

    /// Takes in one of their keys; others, of requests and marks, say nothing of who owns a lease.
    pub(crate) fn put(&mut self, kv: &KeyValue) {
        let waiter = Waiter::from(kv);
        if let Some(lease) = session_of(waiter.key()) {
            self.0.insert(lease, waiter.identity().to_owned());
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(lease) = session_of(key) {
            self.0.remove(&lease);
        }
    }

    /// Who it is: by its own key, by its session's, or by the last part of its key.
    pub(crate) fn identity<'a>(&'a self, place: &'a Place) -> &'a str {
        let owner = self.0.get(&place.waiter.lease()).filter(|_| !states(&place.waiter));
        owner.map_or(place.waiter.identity(), String::as_str)
    }
}

/// The lease whose owner a key tells.
fn session_of(key: &str) -> Option<i64> {
    let (room, lease) = key.rsplit_once('/')?;
    let is_theirs = room.rsplit('/').next() == Some(SESSION);
    is_theirs.then(|| i64::from_str_radix(lease, 16).ok()).flatten()
}

/// All that there was at a revision, or later.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: i64,
    /// By name; also those where nobody stands.
    pub(crate) queues: Vec<Queue>,
    pub(crate) sessions: Sessions,
}

/// Where a key lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room<'a> {
    /// Below this name.
    Name(&'a str),
    Sessions,
}

impl<'a> Room<'a> {
    /// `None` for what lies outside of the namespace, and below no name.
    pub(crate) fn of(namespace: &str, key: &'a [u8]) -> Option<Self> {
        let (name, _) = str::from_utf8(key).ok()?.strip_prefix(namespace)?.rsplit_once('/')?;
        // Those of this namespace and of those below it.
        let sessions = name.split('/').any(|part| part == SESSION);
        Some(if sessions { Self::Sessions } else { Self::Name(name) })
    }
}

/// The lease in a key of a queue, in hex.
pub(crate) fn lease_of(key: &str) -> &str {
    let tail = key.rsplit('/').next().unwrap_or_default();
    let tail = tail.strip_prefix("r-").unwrap_or(tail);
    tail.split('-').next().unwrap_or_default()
}
