//! What the driver of a place does: sends its requests, passes on the replies, and makes it leave.

use super::client::{Client, Flight, Handing, Intent, Told};
use super::etcd::{Message, Reply, Request};
use super::promises::Grant;
use super::session::Fence;
use super::world::World;
use crate::queue::place::{Action, Input};

impl World {
    /// Does what the place says.
    pub(super) fn act(&mut self, c: usize) -> Result<(), String> {
        let client = &self.clients[c];
        let fence = match self.sessions[client.session].fence {
            Fence::At(known) => known,
            Fence::Missing => 0,
        };
        let request = match client.place.next() {
            Action::Seat => return self.seat(c),
            Action::Stop(end) => return self.finish(c, end),
            Action::Wait => unreachable!("not an act"),
            Action::Enter => Request::Enter { fence, list: self.believed_length() },
            Action::Try { known } => Request::Try { fence, known },
            Action::Probe { limit } => Request::Probe { limit },
            Action::Look { limit } => Request::Look { created: client.created, limit },
            Action::Glance => Request::Glance { view: client.place.view() },
            Action::Leave { fence } => {
                let mark = client.place.mark();
                Request::Leave { keys: vec![client.place.key().clone()], fence, mark }
            }
        };
        let message = self.message(c, request);
        if let Request::Look { .. } = message.request {
            self.check_look(c)?;
        }
        self.clients[c].request = Some(Flight { message, reply: None, riders: Vec::new() });
        Ok(())
    }

    /// How many an enter lists: none where the queue was deep when the client last heard of it, right or wrong.
    fn believed_length(&self) -> Option<usize> {
        (self.etcd.revision % 4 != 0).then_some(self.plan.deep)
    }

    pub(super) fn message(&self, c: usize, request: Request) -> Message {
        let client = &self.clients[c];
        let lease = client.lease.expect("requests are made under a lease");
        Message { key: client.place.key().clone(), lease, rule: client.task.rule, request }
    }

    /// The clients whose leaves fit into one transaction.
    pub(super) fn batch(&self, session: usize) -> Vec<usize> {
        let leaving =
            |c: &usize| self.clients[*c].session == session && self.clients[*c].is_leaving() && !self.is_bereft(*c);
        let mut batch: Vec<_> = (0..self.clients.len()).filter(leaving).collect();
        if let Some(first) = batch.first().map(|first| self.clients[*first].lease) {
            batch.retain(|c| self.clients[*c].lease == first);
        }
        batch
    }

    pub(super) fn send_batch(&mut self, session: usize) {
        let batch = self.batch(session);
        let keys = batch.iter().map(|c| self.clients[*c].place.key().clone()).collect();
        let fence = batch.iter().any(|c| self.clients[*c].place.next() == Action::Leave { fence: true });
        let (leader, riders) = batch.split_first().expect("a batch");
        for rider in riders {
            self.clients[*rider].riding = Some(*leader);
        }
        let message = self.message(*leader, Request::Leave { keys, fence, mark: None });
        self.clients[*leader].request = Some(Flight { message, reply: None, riders: riders.to_vec() });
    }

    fn seat(&mut self, c: usize) -> Result<(), String> {
        self.abandon(c);
        if self.clients[c].lease.is_some() {
            self.retire_key(c)?;
        }
        let (session, rule) = (self.clients[c].session, self.clients[c].task.rule);
        let lease = self.sessions[session].lease.expect("a lease to sit under");
        let key = self.key_under(rule.lane, lease);
        let client = &mut self.clients[c];
        client.lease = Some(lease);
        client.seated_under = lease;
        client.by = Grant::ByEtcd;
        client.began = self.etcd.revision;
        client.place.seat(key, lease);
        Ok(())
    }

    /// The round is over; begins the next.
    pub(super) fn next_round(&mut self, c: usize) {
        let client = &mut self.clients[c];
        client.inbox.clear();
        client.intent = Intent::Done;
        if let Some(left) = client.rounds_left.checked_sub(1) {
            *client = Client::new(client.task, client.session, left + 1);
        }
    }

    pub(super) fn commit(&mut self, c: usize) {
        let Self { clients, etcd, .. } = self;
        let flight = clients[c].request.as_mut().expect("a request");
        flight.reply = Some(etcd.commit(&flight.message));
    }

    /// The reply reaches the place, and those whose keys left with it.
    pub(super) fn answer(&mut self, c: usize) -> Result<(), String> {
        let (flight, senders) = self.land(c);
        let (session, lease) = (self.clients[c].session, flight.message.lease);
        let input = match flight.reply.expect("a reply") {
            Reply::Seen(input) => {
                if let Input::Entered { created, .. } = input {
                    self.clients[c].created = created;
                }
                input
            }
            Reply::Fenced(moved) => {
                self.sessions[session].learn_fence(lease, moved);
                Input::Fenced
            }
            Reply::Left { fence } => {
                if fence.is_some() {
                    self.sessions[session].learn_fence(lease, fence);
                }
                Input::Left
            }
            Reply::Refused => Input::Refused,
            Reply::NoLease => {
                self.lose_lease(lease);
                Input::LeaseLost
            }
        };
        senders.into_iter().try_for_each(|sender| self.deliver(sender, input.clone()))
    }

    /// The sender gives up on a request, which may travel on.
    pub(super) fn lose_request(&mut self, c: usize, travels_on: bool) -> Result<(), String> {
        let (flight, senders) = self.land(c);
        if travels_on {
            self.stragglers.push(flight.message);
        }
        senders.into_iter().try_for_each(|sender| self.deliver(sender, Input::Unknown))
    }

    /// Takes a request off its way, with everybody who waits for its reply.
    fn land(&mut self, c: usize) -> (Flight, Vec<usize>) {
        let flight = self.clients[c].request.take().expect("a request");
        let mut senders = vec![c];
        for rider in &flight.riders {
            if self.clients[*rider].riding.take_if(|leader| *leader == c).is_some() {
                senders.push(*rider);
            }
        }
        (flight, senders)
    }

    /// The place has another key now, or none: nobody waits for the reply any more.
    fn abandon(&mut self, c: usize) {
        self.clients[c].riding = None;
        if self.clients[c].request.is_some() {
            let (flight, _) = self.land(c);
            if flight.reply.is_none() {
                self.stragglers.push(flight.message);
            }
        }
    }

    /// Tells a place what was seen, unless its lease is over first.
    pub(super) fn deliver(&mut self, c: usize, input: Input) -> Result<(), String> {
        if self.is_bereft(c) {
            return self.lose_lease_of(c);
        }
        if !matches!(input, Input::Looked { .. } | Input::Glanced { .. }) {
            self.clients[c].told = Told::Something;
        }
        let held = self.clients[c].place.held();
        if matches!(input, Input::Handed { .. }) {
            self.clients[c].by = Grant::InMemory;
        }
        let place = &mut self.clients[c].place;
        place.handle(input);
        if held.is_none() && place.held().is_some() {
            self.check_grant(c)?;
        }
        self.settle(c)
    }

    pub(super) fn lose_lease_of(&mut self, c: usize) -> Result<(), String> {
        self.abandon(c);
        self.clients[c].lease = None;
        self.clients[c].place.handle(Input::LeaseLost);
        self.settle(c)
    }

    /// The caller wants no more of it.
    pub(super) fn quit(&mut self, c: usize, handing: Handing) -> Result<(), String> {
        self.clients[c].intent = Intent::Quit(handing);
        self.settle(c)
    }

    fn settle(&mut self, c: usize) -> Result<(), String> {
        if let Intent::Quit(handing) = self.clients[c].intent
            && self.clients[c].is_idle()
        {
            self.leave(c, handing)?;
        }
        self.clients[c].drop_watches();
        Ok(())
    }

    fn leave(&mut self, c: usize, handing: Handing) -> Result<(), String> {
        let client = &mut self.clients[c];
        let held = client.place.held();
        client.intent = Intent::Left;
        client.place.leave();
        let (Some(created), Some(lease)) = (held, client.lease) else { return Ok(()) };
        let (key, rule) = (client.place.key().clone(), client.task.rule);
        if handing == Handing::Nobody || !rule.hands_over() || self.lost.contains(&lease) {
            return Ok(());
        }
        self.ledger.given.push((key.clone(), created));
        let session = client.session;
        let handed = Input::Handed { key: key.clone(), created, lease, exclusive: rule.is_exclusive() };
        for neighbour in 0..self.clients.len() {
            let other = &mut self.clients[neighbour];
            if other.session != session || !other.joined.contains(&key) {
                continue;
            }
            match handing {
                Handing::Queued => other.inbox.push_back(handed.clone()),
                _ => self.deliver(neighbour, handed.clone())?,
            }
        }
        Ok(())
    }
}
