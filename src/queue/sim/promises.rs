//! What must never happen, looked for at every step. The numbers are those of the module header.

use super::client::{Client, Intent, Told, Turn};
use super::etcd::{Kv, Lease};
use super::world::World;
use crate::name::Key;
use crate::queue::place::{Action, End, Patience, Revision};
use crate::queue::rule::{Kind, Rule};

/// What the promises need to know of the past.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Keys that an operator deleted, as they were created.
    pub(super) touched: Vec<(Key, Revision)>,
    /// Leases that an operator revoked.
    pub(super) revoked: Vec<Lease>,
    /// Keys of guards that were handed over in memory.
    pub(super) given: Vec<(Key, Revision)>,
    /// Keys that are gone for good.
    retired: Vec<Key>,
    /// Keys that are gone until another place has them.
    free: Vec<Key>,
    last_token: Revision,
    pub(super) tally: Tally,
}

/// What a grant rests on: on what etcd said alone, or on a hand-over too, whose giver may have got its turn later than
/// an operator took the key of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    ByEtcd,
    InMemory,
}

/// How often the interesting things happened: a run that never sees them proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) grants: u64,
    /// Grants whose key an operator had taken already.
    pub(super) void: u64,
    pub(super) not_free: u64,
    pub(super) key_gone: u64,
    pub(super) lease_lost: u64,
    pub(super) left: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.grants += other.grants;
        self.void += other.void;
        self.not_free += other.not_free;
        self.key_gone += other.key_gone;
        self.lease_lost += other.lease_lost;
        self.left += other.left;
    }
}

impl World {
    /// Promises 1 to 3, at the moment of a grant.
    pub(super) fn check_grant(&mut self, c: usize) -> Result<(), String> {
        self.ledger.tally.grants += 1;
        self.clients[c].turn = Turn::Had;
        let client = &self.clients[c];
        let created = client.place.held().expect("it was granted");
        let is_own = |kv: &Kv| kv.key == *client.place.key() && kv.created == created;
        let died = self.etcd.past.iter().find(|(kv, _)| is_own(kv)).map(|(_, at)| *at);
        if died.is_some() {
            self.ledger.tally.void += 1;
            if !self.was_operated_on(c) {
                return Err(format!("client {c} was granted a hold without a key"));
            }
        }
        let rule = self.clients[c].task.rule;
        let when = died.map_or(self.etcd.revision, |died| died - 1);
        let is_given =
            |kv: &Kv| rule.kind != Kind::Election && self.ledger.given.contains(&(kv.key.clone(), kv.created));
        let ahead = self.weight_ahead(rule, when, |kv| kv.created < created && !is_given(kv));
        // Events of one stream that keep their order tell of the own key first, and a void grant was true once.
        if !has_room(rule, ahead) && (died.is_none() || self.plan.ordered && self.clients[c].by == Grant::ByEtcd) {
            return Err(format!("client {c} holds with {ahead} ahead of it"));
        }
        if died.is_some() {
            return Ok(());
        }
        if self.plan.is_exclusive() {
            if created <= self.ledger.last_token {
                return Err(format!("the token went from {} to {created}", self.ledger.last_token));
            }
            self.ledger.last_token = created;
        }
        self.check_exclusion()
    }

    /// The weight of all direct children that a rule waits for and that stood at a revision.
    fn weight_ahead(&self, rule: Rule, when: Revision, counts: impl Fn(&Kv) -> bool) -> u32 {
        let behind = self.etcd.is_behind(rule);
        let past = self.etcd.past.iter().filter(|(_, died)| *died > when).map(|(kv, _)| kv);
        let stood = self.etcd.live.iter().chain(past).filter(|kv| kv.created <= when);
        let ahead = stood.filter(|kv| counts(kv) && behind(&kv.key) && self.etcd.is_direct(&kv.key));
        ahead.map(|kv| kv.weight.unwrap_or(rule.permits)).sum()
    }

    /// Every guard fits beside the guards that are older.
    fn check_exclusion(&self) -> Result<(), String> {
        let holds = |c: &usize| self.is_holding(*c) && self.owns_its_key(*c);
        let holders: Vec<usize> = (0..self.clients.len()).filter(holds).collect();
        let is_guard = |kv: &Kv| holders.iter().any(|c| *self.clients[*c].place.key() == kv.key);
        for &c in &holders {
            let (rule, created) = (self.clients[c].task.rule, self.clients[c].place.held());
            let beside = self.weight_ahead(rule, self.etcd.revision, |kv| Some(kv.created) < created && is_guard(kv));
            if !has_room(rule, beside) {
                return Err(format!("client {c} is not alone among {holders:?}"));
            }
        }
        Ok(())
    }

    fn owns_its_key(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let created = self.etcd.created(client.place.key());
        created.is_some() && client.place.created().is_some() && created == Some(client.created)
    }

    fn was_operated_on(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let own = (client.place.key().clone(), client.created);
        self.ledger.revoked.contains(&client.seated_under) || self.ledger.touched.contains(&own)
    }

    /// Promises 1 and 5, after every step.
    pub(super) fn check_step(&self) -> Result<(), String> {
        for c in 0..self.clients.len() {
            if self.is_holding(c) && !self.owns_its_key(c) && !self.was_operated_on(c) {
                return Err(format!("client {c} holds without a key"));
            }
            let Client { place, turn, task, .. } = &self.clients[c];
            let stands_by = place.created().is_some() && place.held().is_none() && place.next() == Action::Wait;
            if task.patience != Patience::Wait && stands_by {
                return Err(format!("client {c} tries and waits"));
            }
            let is_over = || matches!(place.next(), Action::Leave { .. } | Action::Stop(_));
            if *turn == Turn::Had && place.held().is_none() && !is_over() {
                return Err(format!("client {c} held and is back in the queue"));
            }
        }
        match self.etcd.live.last() {
            Some(kv) if self.ledger.retired.contains(&kv.key) || self.ledger.free.contains(&kv.key) => {
                Err(format!("a ghost of {}", spell(&kv.key)))
            }
            _ => Ok(()),
        }
    }

    /// Promise 4: nothing but releases can happen.
    pub(super) fn check_quiet(&self) -> Result<(), String> {
        for (c, client) in self.clients.iter().enumerate() {
            let rule = client.task.rule;
            if client.intent == Intent::Done {
                continue;
            } else if client.place.created().is_none() {
                return Err(format!("client {c} is stuck"));
            } else if !self.owns_its_key(c) {
                return Err(format!("client {c} stands there without a key"));
            } else if client.place.held().is_none() {
                let ahead = self.weight_ahead(rule, self.etcd.revision, |kv| kv.created < client.created);
                if has_room(rule, ahead) {
                    return Err(format!("client {c} waits with {ahead} ahead of it"));
                }
            }
        }
        Ok(())
    }

    /// Promise 7. One look more is right, where nested keys fill the window.
    pub(super) fn check_look(&mut self, c: usize) -> Result<(), String> {
        let client = &mut self.clients[c];
        client.idle_looks = if client.told == Told::Nothing { client.idle_looks + 1 } else { 0 };
        client.told = Told::Nothing;
        if client.idle_looks > 1 {
            return Err(format!("client {c} looks again and again"));
        }
        Ok(())
    }

    /// Promise 5: nothing at all can happen.
    pub(super) fn check_end(&self) -> Result<(), String> {
        if let Some(c) = self.clients.iter().position(|client| client.intent != Intent::Done) {
            return Err(format!("client {c} is stuck"));
        }
        if let Some(kv) = self.etcd.live.first() {
            return Err(format!("{} is left behind", spell(&kv.key)));
        }
        if let Some(watch) = self.sessions.iter().flat_map(|session| &session.watches).next() {
            return Err(format!("a watch of {} is left behind", spell(&watch.key)));
        }
        Ok(())
    }

    /// Promises 5 and 6, as a place stops.
    pub(super) fn finish(&mut self, c: usize, end: End) -> Result<(), String> {
        let client = &self.clients[c];
        let tally = &mut self.ledger.tally;
        *match end {
            End::Left => &mut tally.left,
            End::NotFree => &mut tally.not_free,
            End::KeyGone => &mut tally.key_gone,
            End::LeaseLost => &mut tally.lease_lost,
        } += 1;
        let is_just = match end {
            End::Left => client.intent == Intent::Left,
            End::NotFree => client.task.patience != Patience::Wait && self.was_occupied(c),
            End::KeyGone => client.turn == Turn::Had && self.was_operated_on(c),
            End::LeaseLost => client.turn == Turn::Had && client.lease.is_none(),
        };
        if !is_just {
            return Err(format!("client {c} ended without a reason: {end:?}"));
        }
        if client.lease.is_some() {
            self.retire_key(c)?;
        }
        self.next_round(c);
        Ok(())
    }

    /// Whether there was no room at some moment since the client took its key.
    fn was_occupied(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let rule = client.task.rule;
        let all = self.etcd.live.iter().chain(self.etcd.past.iter().map(|(kv, _)| kv));
        let moments = all.map(|kv| kv.created).filter(|created| *created > client.began).chain([client.began]);
        moments
            .into_iter()
            .any(|when| !has_room(rule, self.weight_ahead(rule, when, |kv| kv.key != *client.place.key())))
    }

    /// The key of a living lease is gone: for good, or until another place has it.
    pub(super) fn retire_key(&mut self, c: usize) -> Result<(), String> {
        let key = self.clients[c].place.key().clone();
        if self.etcd.created(&key).is_some() {
            return Err(format!("client {c} left {} behind", spell(&key)));
        }
        let Ledger { retired, free, .. } = &mut self.ledger;
        if self.clients[c].place.is_clean() { free } else { retired }.push(key);
        Ok(())
    }

    /// A key below `prefix` that another place is through with.
    pub(super) fn free_key(&mut self, prefix: &str) -> Option<Key> {
        let free = &mut self.ledger.free;
        free.iter().position(|key| key.starts_with(prefix.as_bytes())).map(|found| free.swap_remove(found))
    }
}

/// In words of its own, so that a bug in the rule cannot hide.
fn has_room(rule: Rule, ahead: u32) -> bool {
    ahead + rule.weight <= rule.permits
}

fn spell(key: &Key) -> String {
    String::from_utf8_lossy(key).into_owned()
}
