//! The one watch stream of a session, and who waits for what on it.
//!
//! 1. A watch starts from now: one at a past or present revision is served by a loop of etcd's that runs every
//!    100 ms. Whoever asked for it hears from which revision on it is covered, and looks at what came before.
//! 2. A watch that breaks is said to be broken before anything else is said of it, and then made anew from now.
//! 3. Those who watch one key share its watch, and it outlives them for a while: who comes again finds it standing,
//!    covered from before, hears of the last deletion, and has nothing to look for. Nobody is told anything under the
//!    lock.

mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Core;
use crate::name::{Key, Revision};
pub(crate) use stream::run;

/// The age at which a hold that did not wait gets a watch of its own key: a shorter critical section pays nothing.
const OWN_WATCH_AGE: Duration = Duration::from_millis(100);

/// How long a watch may outlive the need for it, and how many may at once. A session that wants a lock again and again
/// waits for the same few keys, its own among them, and a second is longer than a turn takes.
const LINGER: Duration = Duration::from_secs(1);
const LINGERING: usize = 64;

/// What a watcher hears.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// Deletions after `from` will be reported.
    Covered {
        key: Key,
        from: Revision,
    },
    Deleted {
        key: Key,
        at: Revision,
    },
    /// A key with the watched prefix was written.
    Written,
    /// Deletions may have been missed; `Covered` follows.
    Broken,
    /// etcd does not let this client watch the key.
    Denied {
        reason: Arc<str>,
    },
    /// A guard of this session is handed over in memory, its deletion following behind.
    Handed {
        key: Key,
        created: Revision,
        lease: i64,
        exclusive: bool,
    },
    /// A hold has come of age: see [`Hub::remind`].
    Aged,
}

/// Who waits for a key. Told in the stream's own task: it must not wait for anything.
pub(crate) trait Watcher: Send + Sync {
    fn tell(self: Arc<Self>, notice: Notice);
}

#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    watches: HashMap<Key, Watch>,
    ids: HashMap<i64, Key>,
    last_id: i64,
    requests: VecDeque<Request>,
    /// Watches to close.
    surplus: Vec<i64>,
    /// Keys whose watches nobody needed any more, and since when: they may be needed again by now.
    idle: VecDeque<(Instant, Key)>,
    /// Holds that did not wait, in order of age.
    young: VecDeque<(Instant, Weak<dyn Watcher>)>,
    /// Watches the fence key of the session's lease, and keeps the stream open.
    pulse: Option<(Key, Arc<dyn Watcher>)>,
}

/// What a watch is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The deletions of one key.
    Key,
    /// Whatever happens to the keys with a prefix.
    Prefix,
}

struct Watch {
    id: i64,
    scope: Scope,
    watchers: Vec<Arc<dyn Watcher>>,
    /// Where it starts, if not now.
    after: Option<Revision>,
    /// etcd was asked for it.
    sent: bool,
    /// Once it stands.
    told: Option<Told>,
    /// Nobody needs it.
    idle_since: Option<Instant>,
}

/// What a watch has told so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// All deletions after this revision.
    pub(crate) from: Revision,
    /// The last of them.
    pub(crate) deleted: Option<Revision>,
}

enum Request {
    Create(Key, i64),
    /// A second watch on the pulse's key, known to nobody but the probe.
    Probe(Key, i64),
}

/// Whom to tell of a key.
struct Audience {
    key: Key,
    from: Revision,
    watchers: Vec<Arc<dyn Watcher>>,
}

/// A request as it goes out.
enum Sending {
    Create { key: Key, id: i64, scope: Scope, start: Option<Revision> },
    Cancel(i64),
}

impl Hub {
    /// Watches `key` for `watcher`, from now or from `after` on. What was told before, if the key is under watch
    /// already.
    pub(crate) fn watch(&self, key: &Key, after: Option<Revision>, watcher: Arc<dyn Watcher>) -> Option<Told> {
        self.watch_all(key, Scope::Key, after, watcher)
    }

    /// The same for all that `scope` says. No key under watch is a prefix under watch.
    pub(crate) fn watch_all(
        &self,
        key: &Key,
        scope: Scope,
        after: Option<Revision>,
        watcher: Arc<dyn Watcher>,
    ) -> Option<Told> {
        let mut state = self.lock();
        if let Some(watch) = state.watches.get_mut(key) {
            watch.watchers.push(watcher);
            watch.idle_since = None;
            return watch.told;
        }
        let id = state.fresh_id(key);
        let watch = Watch { id, scope, watchers: vec![watcher], after, sent: false, told: None, idle_since: None };
        state.watches.insert(key.clone(), watch);
        state.requests.push_back(Request::Create(key.clone(), id));
        drop(state);
        self.wake.notify_one();
        None
    }

    pub(crate) fn unwatch(&self, key: &Key, watcher: &Arc<dyn Watcher>) {
        let mut state = self.lock();
        let Some(watch) = state.watches.get_mut(key) else { return };
        watch.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        if !watch.watchers.is_empty() {
            return;
        }
        if !watch.sent {
            return state.forget(key);
        }
        let since = Instant::now();
        watch.idle_since = Some(since);
        state.idle.push_back((since, key.clone()));
        // The stream has to know when to close it.
        if state.idle.len() == 1 || state.idle.len() > LINGERING {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Tells everyone of this session who waits for `key`.
    pub(crate) fn announce(&self, key: &Key, notice: &Notice) {
        let watchers = self.lock().watches.get(key).map_or_else(Vec::new, |watch| watch.watchers.clone());
        watchers.into_iter().for_each(|watcher| watcher.tell(notice.clone()));
    }

    /// Tells `watcher` when the hold that begins now has come of age.
    pub(crate) fn remind(&self, watcher: Weak<dyn Watcher>) {
        let mut state = self.lock();
        state.young.push_back((Instant::now() + OWN_WATCH_AGE, watcher));
        if state.young.len() == 1 {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keeps a watch on the fence key of the session's lease: its deletion is how a revoked lease shows first.
    pub(crate) fn keep_pulse(&self, core: &Arc<Core>, lease: i64) {
        let key = Key::from(core.fence_key(lease).into_bytes());
        let pulse: Arc<dyn Watcher> = Arc::new(Pulse(Arc::downgrade(core)));
        self.watch(&key, None, pulse.clone());
        let last = self.lock().pulse.replace((key, pulse));
        if let Some((key, pulse)) = last {
            self.unwatch(&key, &pulse);
        }
    }

    /// The next request worth sending: a watch that was given up before it was asked for is not.
    fn next_request(&self) -> Option<Sending> {
        let mut state = self.lock();
        let State { watches, requests, .. } = &mut *state;
        loop {
            let Some(request) = requests.pop_front() else { return state.tidy().map(Sending::Cancel) };
            match request {
                Request::Probe(key, id) => return Some(Sending::Create { key, id, scope: Scope::Key, start: None }),
                Request::Create(key, id) => match watches.get_mut(&key) {
                    Some(watch) if watch.id == id && !watch.sent => {
                        watch.sent = true;
                        let (scope, start) = (watch.scope, watch.after.map(|after| after + 1));
                        return Some(Sending::Create { key, id, scope, start });
                    }
                    _ => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everyone who has come of age, and when there is something to do again.
    fn aged(&self) -> (Vec<Weak<dyn Watcher>>, Option<Instant>) {
        let mut state = self.lock();
        let now = Instant::now();
        let count = state.young.iter().take_while(|(at, _)| *at <= now).count();
        let aged = state.young.drain(..count).map(|(_, watcher)| watcher).collect();
        // What is due and was not done waits for an answer.
        let tidy_at = state.idle.front().map(|(since, _)| *since + LINGER).filter(|at| *at > now);
        let next = state.young.front().map(|(at, _)| *at).into_iter().chain(tidy_at).min();
        (aged, next)
    }

    /// Says that every watch is broken, and asks for each anew that is needed. Those that nobody asked for yet are among
    /// them.
    fn broken(&self) {
        let mut state = self.lock();
        let State { watches, ids, last_id, requests, surplus, idle, .. } = &mut *state;
        surplus.clear();
        idle.clear();
        watches.retain(|_, watch| !watch.watchers.is_empty());
        requests.clear();
        ids.clear();
        let mut told = Vec::new();
        for (key, watch) in watches {
            *last_id += 1;
            (watch.id, watch.after, watch.sent, watch.told) = (*last_id, None, false, None);
            ids.insert(watch.id, key.clone());
            requests.push_back(Request::Create(key.clone(), watch.id));
            told.extend(watch.watchers.iter().cloned());
        }
        drop(state);
        told.into_iter().for_each(|watcher| watcher.tell(Notice::Broken));
    }

    /// Notes that a watch stands, and that it told of a deletion, if it did. Whom to tell.
    fn tells(&self, id: i64, at: Revision, deletion: bool) -> Option<Audience> {
        let mut state = self.lock();
        let key = state.ids.get(&id)?.clone();
        let watch = state.watches.get_mut(&key)?;
        let from = watch.after.take().unwrap_or(at);
        let told = watch.told.get_or_insert(Told { from, deleted: None });
        if deletion {
            told.deleted = Some(at);
        }
        Some(Audience { key, from: told.from, watchers: watch.watchers.clone() })
    }
}

impl State {
    fn fresh_id(&mut self, key: &Key) -> i64 {
        self.last_id += 1;
        self.ids.insert(self.last_id, key.clone());
        self.last_id
    }

    fn forget(&mut self, key: &Key) {
        if let Some(watch) = self.watches.remove(key) {
            self.ids.remove(&watch.id);
        }
    }

    /// The next watch to close, if there is one that nobody needs, for long or beside many others.
    fn tidy(&mut self) -> Option<i64> {
        while self.surplus.is_empty() {
            let (since, _) = self.idle.front()?;
            if since.elapsed() < LINGER && self.idle.len() <= LINGERING {
                return None;
            }
            let (since, key) = self.idle.pop_front()?;
            if let Some(watch) = self.watches.get(&key)
                && watch.idle_since == Some(since)
            {
                self.surplus.push(watch.id);
                self.forget(&key);
            }
        }
        self.surplus.pop()
    }
}

/// The session's own interest in its fence key.
struct Pulse(Weak<Core>);

impl Watcher for Pulse {
    fn tell(self: Arc<Self>, notice: Notice) {
        // A watch that begins may have missed the deletion.
        if let (Notice::Deleted { .. } | Notice::Covered { .. }, Some(core)) = (notice, self.0.upgrade()) {
            core.doubt_lease();
        }
    }
}
