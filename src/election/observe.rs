//! Following who leads.
//!
//! 1. An observer knows the candidates of one revision, and moves on by whole revisions: what dies together goes
//!    together, and nobody leads in between.
//! 2. It never goes back. After a break it goes on where it was; only where etcd has compacted that, or the consumer
//!    does not keep up, it skips to the present.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::Stream;

use super::Leader;
use crate::error::{Error, Result, Verdict, code, is_stale_token, verdict};
use crate::etcd_client::{self, EventType, GetOptions, GetResponse, WatchOptions, WatchResponse, WatchStream};
use crate::name::{Key, Name};
use crate::retry;
use crate::session::{Core, Session};

/// How many observations wait for a consumer, before it is told of the present instead.
const BACKLOG: usize = 1_024;

/// What an observer sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// There is a leader, or it has proclaimed another value.
    Leader(Leader),
    /// Nobody leads.
    Vacant,
}

/// The candidates as of one revision, and what was last said of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    revision: i64,
    candidates: BTreeMap<Key, Leader>,
    told: Option<Observation>,
}

/// What happened to the candidates at one revision, or up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    revision: i64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// All candidates, as a read showed them.
    Everyone(BTreeMap<Key, Leader>),
    /// Those that changed: `None` is gone.
    Changed(Vec<(Key, Option<Leader>)>),
}

/// What is to be said of an event, and the state after it. An event that is not news changes nothing.
fn step(mut state: State, event: Event) -> (Option<Observation>, State) {
    if event.revision <= state.revision && state.told.is_some() {
        return (None, state);
    }
    state.revision = event.revision;
    match event.what {
        What::Everyone(candidates) => state.candidates = candidates,
        What::Changed(changes) => {
            for (key, change) in changes {
                match change {
                    Some(candidate) => state.candidates.insert(key, candidate),
                    None => state.candidates.remove(&key),
                };
            }
        }
    }
    let present = state.present();
    if state.told.as_ref() == Some(&present) {
        return (None, state);
    }
    state.told = Some(present.clone());
    (Some(present), state)
}

impl State {
    /// The revision from which a watch goes on, once anything is known.
    fn resume(&self) -> Option<i64> {
        self.told.is_some().then_some(self.revision + 1)
    }

    fn present(&self) -> Observation {
        let leader = self.candidates.values().min_by_key(|candidate| candidate.token);
        leader.cloned().map_or(Observation::Vacant, Observation::Leader)
    }
}

/// The stream of what an observer sees. See [`Election::observe`](super::Election::observe).
#[must_use = "a stream does nothing unless it is polled"]
pub struct Observations {
    seen: mpsc::Receiver<Result<Observation>>,
    /// Whoever observes keeps the session.
    _session: Session,
}

impl Observations {
    pub(super) fn new(session: &Session, name: Arc<Name>) -> Self {
        let (consumer, seen) = mpsc::channel(BACKLOG);
        let observer =
            Observer { core: session.core().clone(), name, consumer, state: State::default(), behind: false };
        session.core().spawn(observer.run());
        Self { seen, _session: session.clone() }
    }
}

impl Stream for Observations {
    type Item = Result<Observation>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.seen.poll_recv(context)
    }
}

impl fmt::Debug for Observations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observations").finish_non_exhaustive()
    }
}

struct Observer {
    core: Arc<Core>,
    name: Arc<Name>,
    consumer: mpsc::Sender<Result<Observation>>,
    state: State,
    /// The consumer missed something, and is told of the present when it has room.
    behind: bool,
}

/// Why a watch ended.
enum Break {
    /// To be opened again, where it was.
    Broken(String),
    /// What happened since is compacted: to be opened from now, and looked at.
    Compacted,
    /// It cannot go on.
    Failed(Error),
}

impl Break {
    /// Etcd has cancelled the watch; `compacted` is zero if it was not for that.
    fn cancelled(reason: &str, compacted: i64) -> Self {
        if compacted > 0 {
            Self::Compacted
        } else if reason.to_lowercase().contains("permission") {
            Self::Failed(Error::told(code::PERMISSION_DENIED, reason))
        } else {
            Self::Broken(reason.to_owned())
        }
    }
}

impl From<Option<etcd_client::Error>> for Break {
    fn from(error: Option<etcd_client::Error>) -> Self {
        match error {
            Some(error) if verdict(&error) == Verdict::Never => Self::Failed(Error::etcd(error)),
            Some(error) => Self::Broken(error.to_string()),
            None => Self::Broken("no answer in time".to_owned()),
        }
    }
}

impl Observer {
    async fn run(mut self) {
        let (core, consumer) = (self.core.clone(), self.consumer.clone());
        let failed = tokio::select! {
            () = consumer.closed() => return,
            () = core.closing() => Error::Closed,
            error = self.observe() => error,
        };
        // The last word, for which the consumer has to make room.
        let _ = consumer.send(Err(failed)).await;
    }

    async fn observe(&mut self) -> Error {
        let mut delays = retry::delays();
        let mut compacted = false;
        loop {
            let opened = Instant::now();
            let why = match self.follow(compacted).await {
                Break::Failed(error) => return error,
                Break::Compacted => {
                    compacted = true;
                    "compacted".to_owned()
                }
                Break::Broken(why) => {
                    compacted = false;
                    why
                }
            };
            tracing::debug!(name = self.name.as_str(), why, "an observer's watch broke");
            if is_stale_token(&why) {
                self.core.reauthenticate().await;
            }
            if opened.elapsed() > self.core.ttl() {
                delays.reset();
            }
            sleep(delays.next()).await;
        }
    }

    /// Follows one watch until it breaks.
    async fn follow(&mut self, afresh: bool) -> Break {
        let resume = if afresh { None } else { self.state.resume() };
        let mut stream = match self.open(resume).await {
            Ok(stream) => stream,
            Err(why) => return why,
        };
        let (mut heard, consumer) = (Instant::now(), self.consumer.clone());
        loop {
            tokio::select! {
                biased;
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        heard = Instant::now();
                        if let Err(why) = self.hear(&response, resume).await {
                            return why;
                        }
                    }
                    Ok(None) => return Break::Broken("the stream ended".to_owned()),
                    Err(error) => return Break::from(Some(error)),
                },
                permit = consumer.reserve(), if self.behind => {
                    if let (Ok(permit), Some(present)) = (permit, self.state.told.clone()) {
                        permit.send(Ok(present));
                    }
                    self.behind = false;
                }
                () = sleep_until(heard + self.core.ttl()) => {
                    heard = Instant::now();
                    if let Err(why) = self.doubt().await {
                        return why;
                    }
                }
            }
        }
    }

    async fn open(&self, resume: Option<i64>) -> Result<WatchStream, Break> {
        let mut options = WatchOptions::new().with_prefix();
        if let Some(revision) = resume {
            options = options.with_start_revision(revision);
        }
        let mut client = self.core.watch_client();
        Ok(self.core.call(client.watch(self.name.prefix(), Some(options))).await?)
    }

    async fn hear(&mut self, response: &WatchResponse, resume: Option<i64>) -> Result<(), Break> {
        if response.canceled() {
            return Err(Break::cancelled(response.cancel_reason(), response.compact_revision()));
        }
        if response.created() {
            // From now on everything is reported; what is there already is looked at.
            return if resume.is_none() { self.look().await } else { Ok(()) };
        }
        for event in changes(&self.name, response) {
            self.advance(event);
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Break> {
        let reply = self.read().await?;
        self.advance(everyone(&self.name, &reply));
        Ok(())
    }

    /// Nothing was heard for a TTL: a member that is cut off from its cluster may keep silent.
    async fn doubt(&mut self) -> Result<(), Break> {
        let What::Everyone(candidates) = everyone(&self.name, &self.read().await?).what else { return Ok(()) };
        if candidates == self.state.candidates {
            return Ok(());
        }
        Err(Break::Broken("a silent watch missed a change".to_owned()))
    }

    async fn read(&self) -> Result<GetResponse, Break> {
        let mut kv = self.core.kv.clone();
        let options = GetOptions::new().with_prefix();
        Ok(self.core.call(kv.get(self.name.prefix(), Some(options))).await?)
    }

    fn advance(&mut self, event: Event) {
        let (observation, state) = step(std::mem::take(&mut self.state), event);
        self.state = state;
        if let Some(observation) = observation
            && !self.behind
        {
            self.behind = self.consumer.try_send(Ok(observation)).is_err();
        }
    }
}

fn everyone(name: &Name, reply: &GetResponse) -> Event {
    let direct = reply.kvs().iter().filter(|kv| name.is_direct(kv.key()));
    let candidates = direct.map(|kv| (Key::from(kv.key()), Leader::of(kv))).collect();
    Event { revision: reply.header().map_or(0, |header| header.revision()), what: What::Everyone(candidates) }
}

/// One event for each revision in a response.
fn changes(name: &Name, response: &WatchResponse) -> Vec<Event> {
    let mut revisions: BTreeMap<i64, Vec<(Key, Option<Leader>)>> = BTreeMap::new();
    for event in response.events() {
        let Some(kv) = event.kv().filter(|kv| name.is_direct(kv.key())) else { continue };
        let leader = (event.event_type() == EventType::Put).then(|| Leader::of(kv));
        revisions.entry(kv.mod_revision()).or_default().push((Key::from(kv.key()), leader));
    }
    revisions.into_iter().map(|(revision, changes)| Event { revision, what: What::Changed(changes) }).collect()
}

#[cfg(test)]
mod tests;
