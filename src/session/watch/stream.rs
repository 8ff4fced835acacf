//! The stream itself.
//!
//! 1. It is drained by one task that waits for nobody, and at most 32 requests are unanswered on it.
//! 2. One that is silent for a TTL is asked whether it keeps up with the cluster, and given up if it does not.
//! 3. A watch that etcd refuses costs nobody but those who asked for it. A missing permission is believed with a
//!    fresh token alone: etcd before 3.5.5 and 3.4.20 says the same of a token that has expired.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Audience, Hub, Notice, Request, Scope, Sending, State};
use crate::error::{Verdict, is_stale_token, verdict};
use crate::etcd_client::{
    EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use crate::name::Revision;
use crate::session::Core;
use crate::session::core::Vital;
use crate::{retry, telemetry};

/// How many requests may be unanswered on the stream. The client's channel takes 100, and the connection some
/// 12,000 small unread frames.
const UNANSWERED: usize = 32;

/// How long a token that was just fetched is sure to be valid.
const FRESH: Duration = Duration::from_secs(1);

/// Keeps the stream until the session closes.
pub(crate) async fn run(core: Arc<Core>) {
    let _vital = Vital(&core);
    tokio::select! {
        () = core.closing.cancelled() => {}
        () = keep(&core) => {}
    }
}

async fn keep(core: &Core) {
    let mut delays = retry::delays();
    let mut fresh_until = Instant::now();
    loop {
        core.hub.broken();
        match open(core, fresh_until).await {
            Ok(mut stream) => {
                let opened = Instant::now();
                let why = stream.serve(core).await;
                telemetry::watches_restarted();
                tracing::debug!(why, "the watch stream broke");
                if opened.elapsed() > core.ttl {
                    delays.reset();
                }
                sleep(delays.next()).await;
                if is_stale_token(&why) || is_denial(&why) {
                    core.reauthenticate().await;
                    fresh_until = Instant::now() + FRESH;
                }
            }
            Err(why) => {
                tracing::debug!(why, "no watch stream");
                sleep(delays.next()).await;
            }
        }
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
    /// Until then its token is sure to be valid.
    fresh_until: Instant,
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

async fn open(core: &Core, fresh_until: Instant) -> Result<Stream, String> {
    // A stream opens with a first watch: the pulse, which every session has.
    let (id, key) = {
        let mut state = core.hub.lock();
        let State { pulse, watches, .. } = &mut *state;
        let (key, _) = pulse.as_ref().expect("a session has a lease before a stream");
        let watch = watches.get_mut(key).expect("the pulse is kept though it be refused");
        watch.sent = true;
        (watch.id, key.clone())
    };
    let mut client = core.client.watch_client();
    match core.call(client.watch(key.to_vec(), Some(options(id, Scope::Key, None)))).await {
        Ok(stream) => {
            let (sender, responses) = stream.split();
            Ok(Stream {
                sender,
                responses,
                creating: VecDeque::from([id]),
                cancelling: HashSet::new(),
                heard: Instant::now(),
                probe: Probe::Idle,
                fresh_until,
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

/// In the words of etcd, which has no code for it here.
fn is_denial(reason: &str) -> bool {
    reason.to_lowercase().contains("permission")
}

fn options(id: i64, scope: Scope, start: Option<Revision>) -> WatchOptions {
    let options = WatchOptions::new().with_watch_id(id);
    let options = match scope {
        Scope::Key => options.with_filters([WatchFilterType::NoPut]),
        Scope::Prefix => options.with_prefix(),
    };
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
                Sending::Create { key, id, scope, start } => {
                    self.creating.push_back(id);
                    self.sender.watch(key.to_vec(), Some(options(id, scope, start))).await
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
            if let Probe::Sent { id: probe, floor } = self.probe
                && probe == id
            {
                self.probe = Probe::Idle;
                if !response.canceled() {
                    core.hub.lock().surplus.push(id);
                }
                return if revision < floor { Err("a silent stream lags".to_owned()) } else { Ok(()) };
            }
            if response.canceled() {
                return self.refused(core, id, response.cancel_reason());
            }
            if let Some(Audience { key, from, watchers }) = core.hub.tells(id, revision, false) {
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
        for event in response.events() {
            let Some(at) = event.kv().map(|kv| kv.mod_revision()) else { continue };
            let deletion = event.event_type() == EventType::Delete;
            if let Some(Audience { key, watchers, .. }) = core.hub.tells(response.watch_id(), at, deletion) {
                let notice = if deletion { Notice::Deleted { key, at } } else { Notice::Written };
                watchers.into_iter().for_each(|w| w.tell(notice.clone()));
            }
        }
        Ok(())
    }

    /// etcd did not make a watch. Without the permission it never will; anything else may pass on a new stream.
    fn refused(&mut self, core: &Core, id: i64, reason: &str) -> Result<(), String> {
        let mut state = core.hub.lock();
        let State { ids, pulse, watches, surplus, .. } = &mut *state;
        // A watch that does not exist is not answered for when it is cancelled.
        if !self.cancelling.remove(&id) {
            surplus.retain(|other| *other != id);
        }
        let Some(key) = ids.get(&id).cloned() else { return Ok(()) };
        if !is_denial(reason) || Instant::now() > self.fresh_until {
            return Err(reason.to_owned());
        }
        if pulse.as_ref().is_some_and(|(pulse, _)| *pulse == key) {
            // The end of the lease shows elsewhere, if later. On the next stream it is asked for again.
            watches.get_mut(&key).expect("it has an id").sent = false;
            tracing::warn!(reason, "the session's fence key cannot be watched");
            return Ok(());
        }
        ids.remove(&id);
        let watchers = watches.remove(&key).map_or_else(Vec::new, |watch| watch.watchers);
        drop(state);
        let reason: Arc<str> = reason.into();
        watchers.into_iter().for_each(|watcher| watcher.tell(Notice::Denied { reason: reason.clone() }));
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
