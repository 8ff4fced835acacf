//! What is known: names, who stands there, and how often holds begin. Plain data: changes and the time are arguments.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tenure::etcd_client::{Event, EventType, KeyValue};

use crate::queues::{Place, Queue, Room, Sessions, Snapshot};

/// Hand-offs are counted over so long, and a name whose last holder has gone is kept for as long.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);

/// What remains of a lease is asked for so often, and counted down meanwhile.
const LEASE_AGE: Duration = Duration::from_secs(1);

pub(crate) struct Model {
    namespace: String,
    names: BTreeMap<String, Name>,
    pub(crate) sessions: Sessions,
    leases: HashMap<i64, Lease>,
    pub(crate) revision: i64,
    /// When counting began.
    begun: Instant,
    now: Instant,
}

#[derive(Default)]
pub(crate) struct Name {
    pub(crate) queue: Queue,
    /// Also while nobody stands there.
    pub(crate) kind: &'static str,
    /// When holds began, of the last [`WINDOW`].
    handoffs: VecDeque<Instant>,
}

impl Name {
    /// How many in the last [`WINDOW`].
    pub(crate) fn handoffs(&self) -> usize {
        self.handoffs.len()
    }

    /// Those who stand there have changed; returns how many hold now who did not before.
    fn settle(&mut self) -> usize {
        self.kind = self.queue.places().first().map_or(self.kind, Place::kind);
        self.queue.settle()
    }
}

struct Lease {
    asked: Instant,
    answer: Option<(Duration, Duration)>,
}

impl Model {
    pub(crate) fn new(namespace: &str, now: Instant) -> Self {
        Self {
            namespace: namespace.to_owned(),
            names: BTreeMap::new(),
            sessions: Sessions::default(),
            leases: HashMap::new(),
            revision: 0,
            begun: now,
            now,
        }
    }

    /// Begins again with what was read. Holds that began meanwhile are not counted.
    pub(crate) fn read(&mut self, snapshot: Snapshot) {
        self.sessions = snapshot.sessions;
        self.revision = snapshot.revision;
        for name in self.names.values_mut() {
            name.queue = Queue::new(std::mem::take(&mut name.queue.name), Vec::new());
        }
        for queue in snapshot.queues {
            let name = self.names.entry(queue.name.clone()).or_default();
            name.queue = queue;
            name.settle();
        }
    }

    /// Takes changes in, in their order. What happens at one revision happens at once.
    pub(crate) fn apply(&mut self, events: &[Event]) {
        let revision = |event: &Event| event.kv().map(KeyValue::mod_revision);
        for events in events.chunk_by(|one, next| revision(one) == revision(next)) {
            let mut touched = BTreeSet::new();
            for event in events {
                touched.extend(self.take(event));
            }
            for name in touched {
                if let Some(name) = self.names.get_mut(&name) {
                    let new = name.settle();
                    name.handoffs.extend(std::iter::repeat_n(self.now, new));
                }
            }
        }
    }

    /// Returns the name whose queue has changed.
    fn take(&mut self, event: &Event) -> Option<String> {
        let kv = event.kv()?;
        self.revision = self.revision.max(kv.mod_revision());
        let key = kv.key_str().ok()?;
        match (Room::of(&self.namespace, kv.key())?, event.event_type()) {
            (Room::Sessions, EventType::Put) => self.sessions.put(kv),
            (Room::Sessions, EventType::Delete) => self.sessions.remove(key),
            (Room::Name(name), EventType::Put) => {
                let entry = self.names.entry(name.to_owned()).or_default();
                if entry.queue.name.is_empty() {
                    name.clone_into(&mut entry.queue.name);
                }
                entry.queue.put(Place::new(kv));
                return Some(name.to_owned());
            }
            (Room::Name(name), EventType::Delete) => {
                self.names.get_mut(name)?.queue.remove(key, kv.mod_revision());
                return Some(name.to_owned());
            }
        }
        None
    }

    /// The time goes on; what is over is forgotten.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.now = now;
        self.names.retain(|_, name| {
            while name.handoffs.front().is_some_and(|at| now.duration_since(*at) > WINDOW) {
                name.handoffs.pop_front();
            }
            !name.queue.places().is_empty() || !name.handoffs.is_empty()
        });
        self.leases.retain(|_, lease| now.duration_since(lease.asked) < 30 * LEASE_AGE);
    }

    /// Where somebody stands, or stood a moment ago.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.values().filter(|name| name.queue.is_one() || !name.handoffs.is_empty())
    }

    pub(crate) fn name(&self, name: &str) -> Option<&Name> {
        self.names.get(name)
    }

    /// So many hand-offs in the last [`WINDOW`], a second.
    pub(crate) fn rate(&self, handoffs: usize) -> f64 {
        // Of less than a second there is nothing to say.
        let counted = self.now.duration_since(self.begun).clamp(Duration::from_secs(1), WINDOW);
        handoffs as f64 / counted.as_secs_f64()
    }

    /// How long a lease was granted for, and what remains of it by now.
    pub(crate) fn lease(&self, lease: i64) -> Option<(Duration, Duration)> {
        let known = self.leases.get(&lease)?;
        let (granted, left) = known.answer?;
        Some((granted, left.saturating_sub(self.now.duration_since(known.asked))))
    }

    /// The lease to ask for next: the first one unknown, or else the one whose answer is the oldest, and old enough.
    pub(crate) fn due(&self, wanted: impl IntoIterator<Item = i64>) -> Option<i64> {
        let age =
            |lease: &i64| self.leases.get(lease).map_or(Duration::MAX, |known| self.now.duration_since(known.asked));
        let (mut due, mut oldest) = (None, LEASE_AGE);
        for lease in wanted.into_iter().filter(|lease| *lease != 0) {
            if age(&lease) > oldest {
                (due, oldest) = (Some(lease), age(&lease));
            }
        }
        due
    }

    pub(crate) fn learn(&mut self, lease: i64, answer: Option<(Duration, Duration)>) {
        self.leases.insert(lease, Lease { asked: self.now, answer });
    }
}

#[cfg(test)]
mod tests;
