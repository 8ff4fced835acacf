//! The one watch stream of a session, and who waits for what on it.
//!
//! 1. A watch starts from now: one at a past or present revision is served by a loop of etcd's that runs every
//!    100 ms. Whoever asked for it hears from which revision on it is covered, and looks at what came before.
//! 2. The stream is drained by one task that waits for nobody, and at most 32 requests are unanswered on it.
//! 3. A watch that breaks is said to be broken before anything else is said of it, and then made anew from now.
//! 4. Those who watch one key share its watch. Nobody is told anything under the lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Core;
use crate::error::{Verdict, is_stale_token, verdict};
use crate::etcd_client::{
    EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use crate::name::Key;
use crate::queue::place::Revision;
use crate::retry;

/// How many requests may be unanswered on the stream. The client's channel takes 100, and the connection some
/// 12,000 small unread frames.
const UNANSWERED: usize = 32;

/// The age at which a hold that did not wait gets a watch of its own key: a shorter critical section pays nothing.
const OWN_WATCH_AGE: Duration = Duration::from_millis(100);

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
    /// Holds that did not wait, in order of age.
    young: VecDeque<(Instant, Weak<dyn Watcher>)>,
    /// Watches the fence key of the session's lease, and keeps the stream open.
    pulse: Option<(Key, Arc<dyn Watcher>)>,
}

struct Watch {
    id: i64,
    watchers: Vec<Arc<dyn Watcher>>,
    /// Where it starts, if not now.
    after: Option<Revision>,
    /// etcd was asked for it.
    sent: bool,
    /// The revision after which its deletions will be reported from here on, once it stands.
    covered: Option<Revision>,
}

enum Request {
    Create(Key, i64),
    /// A second watch on the pulse's key, known to nobody but the probe.
    Probe(Key, i64),
    Cancel(i64),
}

/// A watch that is told of up to a revision, and whom to tell.
struct Covered {
    key: Key,
    from: Revision,
    watchers: Vec<Arc<dyn Watcher>>,
}

/// A request as it goes out.
enum Sending {
    Create { key: Key, id: i64, start: Option<Revision> },
    Cancel(i64),
}

impl Hub {
    /// Watches `key` for `watcher`, from now or from `after` on. The revision after which it is covered, if the
    /// key is under watch already.
    pub(crate) fn watch(&self, key: &Key, after: Option<Revision>, watcher: Arc<dyn Watcher>) -> Option<Revision> {
        let mut state = self.lock();
        if let Some(watch) = state.watches.get_mut(key) {
            watch.watchers.push(watcher);
            return watch.covered;
        }
        let id = state.fresh_id(key);
        state.watches.insert(key.clone(), Watch { id, watchers: vec![watcher], after, sent: false, covered: None });
        state.requests.push_back(Request::Create(key.clone(), id));
        drop(state);
        self.wake.notify_one();
        None
    }

    pub(crate) fn unwatch(&self, key: &Key, watcher: &Arc<dyn Watcher>) {
        let mut state = self.lock();
        let Some(watch) = state.watches.get_mut(key) else { return };
        watch.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        if watch.watchers.is_empty() {
            let (id, sent) = (watch.id, watch.sent);
            state.watches.remove(key);
            state.ids.remove(&id);
            if sent {
                state.requests.push_back(Request::Cancel(id));
                drop(state);
                self.wake.notify_one();
            }
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
            match requests.pop_front()? {
                Request::Cancel(id) => return Some(Sending::Cancel(id)),
                Request::Probe(key, id) => return Some(Sending::Create { key, id, start: None }),
                Request::Create(key, id) => match watches.get_mut(&key) {
                    Some(watch) if watch.id == id && !watch.sent => {
                        watch.sent = true;
                        let start = watch.after.map(|after| after + 1);
                        return Some(Sending::Create { key, id, start });
                    }
                    _ => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everyone who has come of age, and when the next one does.
    fn aged(&self) -> (Vec<Weak<dyn Watcher>>, Option<Instant>) {
        let mut state = self.lock();
        let now = Instant::now();
        let count = state.young.iter().take_while(|(at, _)| *at <= now).count();
        (state.young.drain(..count).map(|(_, watcher)| watcher).collect(), state.young.front().map(|(at, _)| *at))
    }

    /// Says that every watch is broken, and asks for each anew. Those that nobody asked for yet are among them.
    fn broken(&self) {
        let mut state = self.lock();
        let State { watches, ids, last_id, requests, .. } = &mut *state;
        requests.clear();
        ids.clear();
        let mut told = Vec::new();
        for (key, watch) in watches {
            *last_id += 1;
            (watch.id, watch.after, watch.sent, watch.covered) = (*last_id, None, false, None);
            ids.insert(watch.id, key.clone());
            requests.push_back(Request::Create(key.clone(), watch.id));
            told.extend(watch.watchers.iter().cloned());
        }
        drop(state);
        told.into_iter().for_each(|watcher| watcher.tell(Notice::Broken));
    }

    /// Notes that what happened to a watch up to `from` is told or will not be, and returns whom to tell.
    fn cover(&self, id: i64, from: Revision) -> Option<Covered> {
        let mut state = self.lock();
        let key = state.ids.get(&id)?.clone();
        let watch = state.watches.get_mut(&key)?;
        let from = watch.after.take().unwrap_or(from).max(watch.covered.unwrap_or(0));
        watch.covered = Some(from);
        Some(Covered { key, from, watchers: watch.watchers.clone() })
    }
}

impl State {
    fn fresh_id(&mut self, key: &Key) -> i64 {
        self.last_id += 1;
        self.ids.insert(self.last_id, key.clone());
        self.last_id
    }
}

/// The session's own interest in its fence key.
struct Pulse(Weak<Core>);

impl Watcher for Pulse {
    fn tell(self: Arc<Self>, notice: Notice) {
        if let (Notice::Deleted { .. }, Some(core)) = (notice, self.0.upgrade()) {
            core.doubt_lease();
        }
    }
}

/// Keeps the stream until the session closes.
pub(crate) async fn run(core: Arc<Core>) {
    tokio::select! {
        () = core.closing.cancelled() => {}
        () = keep(&core) => {}
    }
}

async fn keep(core: &Core) {
    let mut delays = retry::delays();
    loop {
        core.hub.broken();
        match open(core).await {
            Ok(mut stream) => {
                let opened = Instant::now();
                let why = stream.serve(core).await;
                tracing::debug!(why, "the watch stream broke");
                if opened.elapsed() > core.ttl {
                    delays.reset();
                }
                if is_stale_token(&why) {
                    core.reauthenticate().await;
                }
            }
            Err(why) => tracing::debug!(why, "no watch stream"),
        }
        sleep(delays.next()).await;
    }
}

struct Stream {
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    /// The watches that etcd has not answered for yet, in order.
    creating: VecDeque<i64>,
    cancelling: HashSet<i64>,
    heard: Instant,
    probe: Probe,
}

/// Whether a silent stream can be trusted: a member that is cut off from its cluster keeps silent if the client
/// requires no leader.
#[derive(Clone, Copy)]
enum Probe {
    Idle,
    /// A new watch on this stream must stand at this revision, which the cluster has reached, or a later one.
    Sent {
        id: i64,
        floor: Revision,
    },
}

async fn open(core: &Core) -> Result<Stream, String> {
    // A stream opens with a first watch: the pulse, which every session has.
    let (id, key) = {
        let mut state = core.hub.lock();
        let State { pulse, watches, .. } = &mut *state;
        let (key, _) = pulse.as_ref().expect("a session has a lease before a stream");
        let watch = watches.get_mut(key).ok_or("the fence key cannot be watched")?;
        watch.sent = true;
        (watch.id, key.clone())
    };
    let mut client = core.client.watch_client();
    match core.call(client.watch(key.to_vec(), Some(options(id, None)))).await {
        Ok(stream) => {
            let (sender, responses) = stream.split();
            Ok(Stream {
                sender,
                responses,
                creating: VecDeque::from([id]),
                cancelling: HashSet::new(),
                heard: Instant::now(),
                probe: Probe::Idle,
            })
        }
        Err(error) => {
            if error.as_ref().is_some_and(|error| verdict(error) == Verdict::Reauthenticate) {
                core.reauthenticate().await;
            }
            Err(error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string()))
        }
    }
}

fn options(id: i64, start: Option<Revision>) -> WatchOptions {
    let options = WatchOptions::new().with_watch_id(id).with_filters([WatchFilterType::NoPut]);
    start.map_or(options.clone(), |start| options.with_start_revision(start))
}

impl Stream {
    /// Serves the stream until it breaks; returns why it did.
    async fn serve(&mut self, core: &Core) -> String {
        let mut floor = pin!(None);
        loop {
            if let Err(why) = self.send_requests(&core.hub).await {
                return why;
            }
            let (aged, next) = core.hub.aged();
            aged.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.tell(Notice::Aged));
            let silent = self.heard + core.ttl;
            tokio::select! {
                biased;
                message = self.responses.message() => match message {
                    Ok(Some(response)) => {
                        self.heard = Instant::now();
                        if let Err(why) = self.hear(core, &response) {
                            return why;
                        }
                    }
                    Ok(None) => return "the stream ended".to_owned(),
                    Err(error) => return error.to_string(),
                },
                () = core.hub.wake.notified() => {}
                () = sleep_until(next.unwrap_or(silent)), if next.is_some() => {}
                () = sleep_until(silent), if floor.is_none() => match self.probe {
                    Probe::Idle => floor.set(Some(timeout(core.call_limit, core.revision()))),
                    Probe::Sent { .. } => return "a silent stream did not answer".to_owned(),
                },
                revision = async { floor.as_mut().as_pin_mut().expect("guarded").await }, if floor.is_some() => {
                    floor.set(None);
                    self.heard = Instant::now();
                    if let Ok(Some(revision)) = revision {
                        self.send_probe(&core.hub, revision);
                    }
                }
            }
        }
    }

    /// Sends what is asked for, as far as few enough are unanswered.
    async fn send_requests(&mut self, hub: &Hub) -> Result<(), String> {
        while self.creating.len() + self.cancelling.len() < UNANSWERED {
            let Some(request) = hub.next_request() else { break };
            let sent = match request {
                Sending::Create { key, id, start } => {
                    self.creating.push_back(id);
                    self.sender.watch(key.to_vec(), Some(options(id, start))).await
                }
                Sending::Cancel(id) => {
                    self.cancelling.insert(id);
                    self.sender.cancel(id).await
                }
            };
            sent.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn hear(&mut self, core: &Core, response: &WatchResponse) -> Result<(), String> {
        let revision = response.header().map_or(0, |header| header.revision());
        if response.created() {
            let id = self.creating.pop_front().ok_or("a watch that nobody asked for")?;
            if response.canceled() {
                return self.refused(core, id, response.cancel_reason());
            }
            if let Probe::Sent { id: probe, floor } = self.probe
                && probe == id
            {
                self.probe = Probe::Idle;
                core.hub.lock().requests.push_back(Request::Cancel(id));
                return if revision < floor { Err("a silent stream lags".to_owned()) } else { Ok(()) };
            }
            if let Some(Covered { key, from, watchers }) = core.hub.cover(id, revision) {
                watchers.into_iter().for_each(|w| w.tell(Notice::Covered { key: key.clone(), from }));
            }
            return Ok(());
        }
        if response.canceled() {
            if self.cancelling.remove(&response.watch_id()) {
                return Ok(());
            }
            return Err(format!("etcd cancelled a watch: {}", response.cancel_reason()));
        }
        for event in response.events().iter().filter(|event| event.event_type() == EventType::Delete) {
            let Some(at) = event.kv().map(|kv| kv.mod_revision()) else { continue };
            if let Some(Covered { key, watchers, .. }) = core.hub.cover(response.watch_id(), at) {
                watchers.into_iter().for_each(|w| w.tell(Notice::Deleted { key: key.clone(), at }));
            }
        }
        Ok(())
    }

    /// etcd did not make a watch. Without the permission it never will; anything else may pass on a new stream.
    fn refused(&self, core: &Core, id: i64, reason: &str) -> Result<(), String> {
        if !reason.to_lowercase().contains("permission") {
            return Err(reason.to_owned());
        }
        let mut state = core.hub.lock();
        let Some(watch) = state.ids.remove(&id).and_then(|key| state.watches.remove(&key)) else { return Ok(()) };
        drop(state);
        let reason: Arc<str> = reason.into();
        watch.watchers.into_iter().for_each(|w| w.tell(Notice::Denied { reason: reason.clone() }));
        Ok(())
    }

    fn send_probe(&mut self, hub: &Hub, floor: Revision) {
        let mut state = hub.lock();
        let Some((key, _)) = state.pulse.clone() else { return };
        state.last_id += 1;
        let id = state.last_id;
        self.probe = Probe::Sent { id, floor };
        state.requests.push_back(Request::Probe(key, id));
    }
}

impl Core {
    /// The revision that the cluster has reached at least.
    async fn revision(&self) -> Option<Revision> {
        let key = self.fence_key(0);
        let mut kv = self.kv.clone();
        let reply = kv.get(key, None).await.ok()?;
        reply.header().map(|header| header.revision())
    }
}
