//! Everything that exists in a run, what can happen to it, and what then does.

use super::QUEUE;
use super::client::{Client, Handing, Intent};
use super::etcd::{Etcd, Lease, Message};
use super::event::Event;
use super::plan::{Plan, go_key};
use super::promises::Ledger;
use super::session::{Fence, Session, Stage, Watch};
use crate::name::Key;
use crate::queue::place::{Action, Input, Revision};

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: &'static Plan,
    pub(super) etcd: Etcd,
    pub(super) sessions: Vec<Session>,
    pub(super) clients: Vec<Client>,
    pub(super) go: Vec<GoClient>,
    /// Requests whose senders gave up.
    pub(super) stragglers: Vec<Message>,
    /// Leases that their sessions lost, whether or not they live on in etcd.
    pub(super) lost: Vec<Lease>,
    pub(super) ledger: Ledger,
    leases: Lease,
    keys: u32,
}

/// A client of Go's `concurrency`: it waits until nothing under the prefix is older than its key.
#[derive(Debug)]
pub(super) struct GoClient {
    pub(super) key: Key,
    pub(super) stage: GoStage,
    pub(super) rounds_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoStage {
    Idle,
    Waiting(Revision),
    Holding,
}

/// Leases of nobody that is simulated; they never expire.
const GO_LEASE: Lease = 0x60;
const NESTED_LEASE: Lease = 0x61;

impl World {
    pub(super) fn new(plan: &'static Plan) -> Self {
        let mut etcd = Etcd::new(plan.deep);
        let sessions: Vec<_> = (0..plan.sessions()).map(|n| Session::open(&mut etcd, 0x100 + n as Lease)).collect();
        let clients = plan.tasks.iter().enumerate();
        let go = |n| GoClient { key: go_key(n).into_bytes().into(), stage: GoStage::Idle, rounds_left: 2 };
        Self {
            plan,
            etcd,
            leases: 0x100 + sessions.len() as Lease,
            sessions,
            clients: clients.map(|(n, task)| Client::new(*task, n / plan.shared_by, plan.rounds)).collect(),
            go: (0..plan.go_clients).map(go).collect(),
            stragglers: Vec::new(),
            lost: Vec::new(),
            ledger: Ledger::default(),
            keys: 0,
        }
    }

    /// Whether this can happen now.
    pub(super) fn can(&self, event: Event) -> bool {
        let lease_of = |session: usize| self.sessions[session].lease;
        let dead = |session| lease_of(session).is_some_and(|lease| self.etcd.is_dead(lease));
        match event {
            Event::Act(c) => self.can_act(c),
            Event::Commit(c) | Event::LoseRequest(c) | Event::TimeOut(c) => {
                self.clients[c].request.as_ref().is_some_and(|flight| flight.reply.is_none())
            }
            Event::Answer(c) | Event::LoseReply(c) => {
                self.clients[c].request.as_ref().is_some_and(|flight| flight.reply.is_some())
            }
            Event::Watch(c) => !self.is_bereft(c) && self.clients[c].unwatched().is_some(),
            Event::WatchOwn(c) => self.can_watch_own(c),
            Event::Hear(c) => !self.clients[c].inbox.is_empty(),
            Event::LoseLease(c) => self.is_bereft(c),
            Event::Release(c, _) => self.is_holding(c),
            Event::Cancel(c) => self.clients[c].intent == Intent::Have && self.clients[c].place.held().is_none(),
            Event::Batch(s) => self.batch(s).len() > 1,
            Event::Open { session, watch, .. } => {
                self.sessions[session].watches.get(watch).is_some_and(|watch| matches!(watch.stage, Stage::Opening(_)))
            }
            Event::Deliver { session, watch } => self.sessions[session].has_event(watch, self.plan.ordered),
            Event::Grant(s) => lease_of(s).is_none(),
            Event::Learn(s) => dead(s),
            Event::WriteFence(s) => {
                let session = &self.sessions[s];
                session.fence == Fence::Missing && session.lease.is_some() && !self.etcd.refuses_fences && !dead(s)
            }
            Event::Tidy(s) => (0..self.sessions[s].watches.len()).any(|watch| !self.is_needed(s, watch)),
            Event::Expire(n) => self.lost.get(n).is_some_and(|lease| !self.etcd.is_dead(*lease)),
            Event::Straggle(n) | Event::LoseStraggler(n) => n < self.stragglers.len(),
            Event::Go(n) => self.can_go(n),
            Event::RemoveNested => self.nested_key().is_some(),
            Event::AllowFences => self.etcd.refuses_fences,
            Event::RefuseFences => !self.etcd.refuses_fences,
            Event::BreakWatches(s) => !self.sessions[s].watches.is_empty(),
            Event::PassDeadline(s) => lease_of(s).is_some(),
            Event::MoveFence(s) | Event::DeleteFence(s) => {
                lease_of(s).is_some_and(|lease| self.etcd.fence(lease).is_some())
            }
            Event::PutNested(_) => true,
            Event::DeleteKey(c) => self.etcd.created(self.clients[c].place.key()).is_some(),
            Event::RevokeLease(s) => lease_of(s).is_some() && !dead(s),
        }
    }

    fn can_act(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let session = &self.sessions[client.session];
        !self.is_bereft(c)
            && match client.place.next() {
                Action::Seat => session.lease.is_some(),
                Action::Enter | Action::Try { .. } => client.is_idle() && session.fence != Fence::Missing,
                Action::Probe { .. } | Action::Look { .. } | Action::Glance | Action::Leave { .. } => client.is_idle(),
                Action::Wait => false,
                Action::Stop(_) => client.intent != Intent::Done,
            }
    }

    fn can_watch_own(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let key = client.place.key();
        self.is_holding(c) && client.joined.is_empty() && client.unwatched() == Some(key)
    }

    fn can_go(&self, n: usize) -> bool {
        match self.go[n].stage {
            GoStage::Idle => self.go[n].rounds_left > 0,
            GoStage::Waiting(created) => self.etcd.live.iter().all(|kv| kv.created >= created),
            GoStage::Holding => true,
        }
    }

    /// Whether the next step of a Go client gives its hold back.
    pub(super) fn is_go_release(&self, n: usize) -> bool {
        self.go[n].stage == GoStage::Holding
    }

    fn nested_key(&self) -> Option<&Key> {
        self.etcd.live.iter().map(|kv| &kv.key).find(|key| !self.etcd.is_direct(key))
    }

    /// Whether the caller of a place has a guard, by all that it knows.
    pub(super) fn is_holding(&self, c: usize) -> bool {
        let client = &self.clients[c];
        client.intent == Intent::Have && client.place.held().is_some() && !self.is_bereft(c)
    }

    /// Whether the lease of its key is lost and it has not been told.
    pub(super) fn is_bereft(&self, c: usize) -> bool {
        self.clients[c].lease.is_some_and(|lease| self.lost.contains(&lease))
    }

    /// Lets it happen.
    pub(super) fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Act(c) => self.act(c)?,
            Event::Commit(c) => self.commit(c),
            Event::Answer(c) => self.answer(c)?,
            Event::LoseRequest(c) | Event::LoseReply(c) | Event::TimeOut(c) => {
                self.lose_request(c, event == Event::TimeOut(c))?;
            }
            Event::Watch(c) => self.join(c, None),
            Event::WatchOwn(c) => self.join(c, self.clients[c].place.held()),
            Event::Hear(c) => {
                let input = self.clients[c].inbox.pop_front().expect("something to hear");
                self.deliver(c, input)?;
            }
            Event::LoseLease(c) => self.lose_lease_of(c)?,
            Event::Release(c, handing) => self.quit(c, handing)?,
            Event::Cancel(c) => self.quit(c, Handing::AtOnce)?,
            Event::Batch(s) => self.send_batch(s),
            Event::Open { session, watch, lag } => self.open(session, watch, lag),
            Event::Deliver { session, watch } => self.distribute(session, watch),
            Event::Grant(s) => {
                let watches = std::mem::take(&mut self.sessions[s].watches);
                self.sessions[s] = Session { watches, ..Session::open(&mut self.etcd, self.leases) };
                self.leases += 1;
            }
            Event::Learn(s) | Event::PassDeadline(s) => self.lose_lease(self.sessions[s].lease.expect("a lease")),
            Event::WriteFence(s) | Event::MoveFence(s) => {
                let lease = self.sessions[s].lease.expect("a lease");
                let moved = self.etcd.move_fence(lease);
                if event == Event::WriteFence(s) {
                    self.sessions[s].learn_fence(lease, Some(moved));
                }
            }
            Event::Tidy(s) => self.tidy(s),
            Event::Expire(n) => self.etcd.expire(self.lost[n]),
            Event::Straggle(n) => {
                let message = self.stragglers.remove(n);
                self.etcd.commit(&message);
            }
            Event::LoseStraggler(n) => drop(self.stragglers.remove(n)),
            Event::Go(n) => self.step_go(n),
            Event::RemoveNested => {
                let key = self.nested_key().expect("a nested key").clone();
                self.etcd.delete(|kv| kv.key == key);
            }
            Event::AllowFences | Event::RefuseFences => self.etcd.refuses_fences = event == Event::RefuseFences,
            Event::BreakWatches(s) => self.break_watches(s),
            Event::PutNested(n) => {
                let key = format!("{QUEUE}/{n:x}/{:x}", self.etcd.revision);
                self.etcd.put(key.into_bytes().into(), NESTED_LEASE, None);
            }
            Event::DeleteKey(c) => {
                let key = self.clients[c].place.key().clone();
                let created = self.etcd.created(&key).expect("a key to delete");
                self.etcd.delete(|kv| kv.key == key);
                self.ledger.touched.push((key, created));
            }
            Event::DeleteFence(s) => {
                self.etcd.revision += 1;
                let lease = self.sessions[s].lease;
                self.etcd.fences.retain(|(owner, _)| Some(*owner) != lease);
            }
            Event::RevokeLease(s) => {
                let lease = self.sessions[s].lease.expect("a lease");
                self.etcd.expire(lease);
                self.ledger.revoked.push(lease);
            }
        }
        self.announce();
        self.check_step()
    }

    fn step_go(&mut self, n: usize) {
        let Self { go, etcd, .. } = self;
        let client = &mut go[n];
        client.stage = match client.stage {
            GoStage::Idle => {
                client.rounds_left -= 1;
                GoStage::Waiting(etcd.put(client.key.clone(), GO_LEASE, None))
            }
            GoStage::Waiting(_) => GoStage::Holding,
            GoStage::Holding => {
                etcd.delete(|kv| kv.key == client.key);
                GoStage::Idle
            }
        };
    }

    /// Tells the watches of what was deleted since the last step.
    fn announce(&mut self) {
        for (kv, at) in &self.etcd.past[self.etcd.announced..] {
            for session in &mut self.sessions {
                session.announce(&kv.key, *at);
            }
        }
        self.etcd.announced = self.etcd.past.len();
    }

    /// A session gives a lease up, for whatever reason.
    pub(super) fn lose_lease(&mut self, lease: Lease) {
        if self.lost.contains(&lease) {
            return;
        }
        self.lost.push(lease);
        for session in &mut self.sessions {
            session.lease = session.lease.filter(|current| *current != lease);
        }
    }

    // The watches.

    /// A client begins to hear of one more key: on a watch of its session that stands, or on a new one.
    fn join(&mut self, c: usize, from: Option<Revision>) {
        let client = &mut self.clients[c];
        let key = client.unwatched().expect("a key to watch").clone();
        client.joined.push(key.clone());
        let session = &mut self.sessions[client.session];
        match session.watch(&key).map(|watch| watch.stage) {
            Some(Stage::Open(from)) => {
                let told = session.watch(&key).and_then(|watch| watch.told);
                client.inbox.push_back(Input::Covered { key: key.clone(), from });
                client.inbox.extend(told.map(|at| Input::Deleted { key, at }));
            }
            Some(Stage::Opening(_)) => {}
            None => session.watches.push(Watch::new(key, from)),
        }
    }

    fn open(&mut self, session: usize, watch: usize, lag: Revision) {
        let watch = &mut self.sessions[session].watches[watch];
        let from = watch.open(&self.etcd, lag);
        let key = watch.key.clone();
        self.tell(session, &key, &Input::Covered { key: key.clone(), from });
    }

    fn distribute(&mut self, session: usize, watch: usize) {
        let watch = &mut self.sessions[session].watches[watch];
        let at = watch.pending.pop_front().expect("an event");
        watch.told = Some(at);
        let key = watch.key.clone();
        self.tell(session, &key, &Input::Deleted { key: key.clone(), at });
    }

    fn tell(&mut self, session: usize, key: &Key, input: &Input) {
        for client in self.clients.iter_mut().filter(|client| client.session == session) {
            if client.joined.contains(key) {
                client.inbox.push_back(input.clone());
            }
        }
    }

    fn break_watches(&mut self, session: usize) {
        self.sessions[session].break_watches();
        for client in self.clients.iter_mut().filter(|client| client.session == session) {
            if !client.joined.is_empty() {
                client.inbox.push_back(Input::Broken);
            }
        }
    }

    /// Closes the watches of a session that nobody needs any more.
    fn tidy(&mut self, session: usize) {
        let needed: Vec<bool> = (0..self.sessions[session].watches.len()).map(|n| self.is_needed(session, n)).collect();
        let mut needed = needed.into_iter();
        self.sessions[session].watches.retain(|_| needed.next().expect("one for each"));
    }

    fn is_needed(&self, session: usize, watch: usize) -> bool {
        let key = &self.sessions[session].watches[watch].key;
        self.clients.iter().any(|client| client.session == session && client.joined.contains(key))
    }

    /// A key to sit on, a used one rather than a new one.
    pub(super) fn key_under(&mut self, lane: &str, lease: Lease) -> Key {
        let prefix = format!("{QUEUE}/{lane}{lease:x}-");
        self.free_key(&prefix).unwrap_or_else(|| {
            self.keys += 1;
            format!("{prefix}{:x}", self.keys).into_bytes().into()
        })
    }
}
