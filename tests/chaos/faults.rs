//! What goes wrong, by seed: each kind once before any comes again, alone or while others last.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::history::What;
use crate::proxy::Mode;
use crate::stage::{MEMBERS, Result, SLOTS, Stage};
use crate::store::{Standing, Store};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    KillMember,
    KillLeader,
    StopMemberBriefly,
    StopMemberForLong,
    StopLeaderForLong,
    LoseQuorum,
    MoveLeader,
    IsolateMember,
    CutMembers,
    SlowMember,
    CutWorkerFromMember,
    CutWorkerFromAll,
    FreezeWorkerFromAll,
    StopWorkerBriefly,
    StopHolderForLong,
    KillHolder,
    KillWaiter,
    RevokeLease,
    DeleteHeldKey,
    DeleteWaitingKey,
}

const ALL: [Fault; 20] = [
    Fault::KillMember,
    Fault::KillLeader,
    Fault::StopMemberBriefly,
    Fault::StopMemberForLong,
    Fault::StopLeaderForLong,
    Fault::LoseQuorum,
    Fault::MoveLeader,
    Fault::IsolateMember,
    Fault::CutMembers,
    Fault::SlowMember,
    Fault::CutWorkerFromMember,
    Fault::CutWorkerFromAll,
    Fault::FreezeWorkerFromAll,
    Fault::StopWorkerBriefly,
    Fault::StopHolderForLong,
    Fault::KillHolder,
    Fault::KillWaiter,
    Fault::RevokeLease,
    Fault::DeleteHeldKey,
    Fault::DeleteWaitingKey,
];

/// The names of the workers' locks and of their elections.
const NAMES: [&str; 11] =
    ["jobs", "queue", "pages", "permits", "file", "fenced", "leader", "office", "desk", "shelf-0", "shelf-1"];

/// Causes faults. One process suffers one at a time.
pub(crate) struct Injector {
    stage: Arc<Stage>,
    store: Store,
    members: [Mutex<()>; MEMBERS],
    /// Mostly one member at a time is killed or stopped: the loss of the quorum is a fault of its own.
    minority: Mutex<()>,
    slots: [Mutex<()>; SLOTS],
}

impl Injector {
    pub(crate) fn new(stage: Arc<Stage>, store: Store) -> Self {
        Self { stage, store, members: Default::default(), minority: Mutex::default(), slots: Default::default() }
    }

    /// Causes faults until `over`, and returns when the last is.
    pub(crate) async fn run(self: Arc<Self>, mut rng: Rng, over: CancellationToken) -> Result {
        let mut going: JoinSet<Result> = JoinSet::new();
        let mut deck = Vec::new();
        while !over.is_cancelled() {
            if deck.is_empty() {
                deck = ALL.to_vec();
                rng.shuffle(&mut deck);
            }
            let fault = deck.pop().expect("it was just filled");
            let (injector, dice) = (self.clone(), rng.fork());
            going.spawn(async move { injector.inject(fault, dice).await });
            // Alone, or on top of one another.
            while going.len() > 2 || (rng.bool() && !going.is_empty()) {
                going.join_next().await.expect("it is not empty")??;
            }
            let pause = Duration::from_millis(rng.u64(100..1_500));
            let _ = timeout(pause, over.cancelled()).await;
        }
        while let Some(done) = going.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn inject(&self, fault: Fault, mut rng: Rng) -> Result {
        let (brief, long) = (self.brief(&mut rng), self.long(&mut rng));
        match fault {
            Fault::KillMember | Fault::StopMemberBriefly | Fault::StopMemberForLong | Fault::SlowMember => {
                self.on_member(
                    fault,
                    rng.usize(..MEMBERS),
                    if fault == Fault::StopMemberForLong { long } else { brief },
                )
                .await
            }
            Fault::KillLeader | Fault::StopLeaderForLong => {
                let _only = if rng.u32(..4) > 0 { Some(self.minority.lock().await) } else { None };
                let Ok(leader) = timeout(Duration::from_secs(3), self.stage.etcd.leader()).await else { return Ok(()) };
                self.on_member(fault, leader?, if fault == Fault::KillLeader { brief } else { long }).await
            }
            Fault::LoseQuorum => self.lose_quorum(rng, long).await,
            Fault::MoveLeader => {
                // Refused while there is no leader or the other one is behind.
                let _ = timeout(Duration::from_secs(5), self.move_leader(rng)).await;
                Ok(())
            }
            Fault::IsolateMember => {
                let member = rng.usize(..MEMBERS);
                self.cut(fault, |from, to| (from == member) != (to == member), member.to_string(), long).await
            }
            Fault::CutMembers => {
                let from = rng.usize(..MEMBERS);
                let to = (from + rng.usize(1..MEMBERS)) % MEMBERS;
                let both = rng.bool();
                let is_cut = |a, b| a != b && ((a, b) == (from, to) || both && (b, a) == (from, to));
                self.cut(fault, is_cut, format!("{from}-{to}"), long).await
            }
            Fault::CutWorkerFromMember | Fault::CutWorkerFromAll | Fault::FreezeWorkerFromAll => {
                self.cut_worker(fault, rng, long).await
            }
            Fault::StopWorkerBriefly | Fault::StopHolderForLong | Fault::KillHolder | Fault::KillWaiter => {
                self.on_worker(fault, rng, brief, long).await
            }
            Fault::RevokeLease | Fault::DeleteHeldKey | Fault::DeleteWaitingKey => {
                let _ = self.operate(fault, rng).await;
                Ok(())
            }
        }
    }

    /// Shorter than the TTL.
    fn brief(&self, rng: &mut Rng) -> Duration {
        self.stage.ttl.mul_f64(0.1 + 0.7 * rng.f64())
    }

    /// Longer than the TTL.
    fn long(&self, rng: &mut Rng) -> Duration {
        self.stage.ttl.mul_f64(1.1 + 0.9 * rng.f64())
    }

    /// Says that a fault begins; that it is over says its end.
    fn begin(&self, fault: Fault, on: impl ToString) -> Lasting<'_> {
        self.stage.note(What::Fault { kind: format!("{fault:?}"), on: on.to_string() });
        Lasting { stage: &self.stage, fault }
    }

    async fn on_member(&self, fault: Fault, member: usize, length: Duration) -> Result {
        let _alone = self.members[member].lock().await;
        let etcd = &self.stage.etcd;
        let _lasting = self.begin(fault, member);
        match fault {
            Fault::KillMember | Fault::KillLeader => {
                etcd.kill(member)?;
                sleep(length).await;
                etcd.restart(member).await?;
            }
            Fault::SlowMember => {
                let links = || {
                    let (from, to) =
                        (&self.stage.between[member], self.stage.between.iter().map(|links| &links[member]));
                    from.iter().chain(to).chain(self.stage.clients.iter().map(|links| &links[member]))
                };
                links().for_each(|link| link.set(Mode::Slow(length / 40)));
                sleep(2 * length).await;
                links().for_each(|link| link.set(Mode::Pass));
            }
            _ => {
                etcd.pause(member)?;
                sleep(length).await;
                etcd.resume(member)?;
            }
        }
        Ok(())
    }

    async fn lose_quorum(&self, mut rng: Rng, length: Duration) -> Result {
        let _only = self.minority.lock().await;
        let spared = rng.usize(..MEMBERS);
        let mut locks: Vec<MutexGuard<'_, ()>> = Vec::new();
        for member in (0..MEMBERS).filter(|member| *member != spared) {
            locks.push(self.members[member].lock().await);
        }
        let lost = || (0..MEMBERS).filter(|member| *member != spared);
        let (etcd, kills) = (&self.stage.etcd, rng.bool());
        let _lasting =
            self.begin(Fault::LoseQuorum, format!("all but {spared}, {}", if kills { "killed" } else { "stopped" }));
        lost().try_for_each(|member| if kills { etcd.kill(member) } else { etcd.pause(member) })?;
        sleep(length).await;
        for member in lost() {
            if kills {
                etcd.restart(member).await?;
            } else {
                etcd.resume(member)?;
            }
        }
        Ok(())
    }

    async fn move_leader(&self, mut rng: Rng) -> Result {
        let etcd = &self.stage.etcd;
        let leader = etcd.leader().await?;
        let target = (leader + rng.usize(1..MEMBERS)) % MEMBERS;
        let status = etcd.member_client(target).await?.status().await?;
        let target_id = status.header().map_or(0, |header| header.member_id());
        let _lasting = self.begin(Fault::MoveLeader, format!("{leader} to {target}"));
        etcd.member_client(leader).await?.move_leader(target_id).await?;
        Ok(())
    }

    async fn cut(&self, fault: Fault, is_cut: impl Fn(usize, usize) -> bool, on: String, length: Duration) -> Result {
        let _lasting = self.begin(fault, on);
        let each = |mode| {
            for (from, links) in self.stage.between.iter().enumerate() {
                links.iter().enumerate().filter(|(to, _)| is_cut(from, *to)).for_each(|(_, link)| link.set(mode));
            }
        };
        each(Mode::Cut);
        sleep(length).await;
        each(Mode::Pass);
        Ok(())
    }

    async fn cut_worker(&self, fault: Fault, mut rng: Rng, length: Duration) -> Result {
        // A leader works for long enough to meet its deadline.
        let (slot, member) = (self.slot_of(&mut rng, Rank::Holder, "leader").await, rng.usize(..MEMBERS));
        let _lasting = self.begin(fault, format!("slot {slot}, member {member}"));
        let mode = if fault == Fault::FreezeWorkerFromAll { Mode::Freeze } else { Mode::Cut };
        let links = self.stage.clients[slot].iter().enumerate();
        let links: Vec<_> = links.filter(|(to, _)| fault != Fault::CutWorkerFromMember || *to == member).collect();
        links.iter().for_each(|(_, link)| link.set(mode));
        sleep(length).await;
        links.iter().for_each(|(_, link)| link.set(Mode::Pass));
        Ok(())
    }

    async fn on_worker(&self, fault: Fault, mut rng: Rng, brief: Duration, long: Duration) -> Result {
        let slot = match fault {
            Fault::StopWorkerBriefly => rng.usize(..SLOTS),
            Fault::KillWaiter => self.slot_of(&mut rng, Rank::Waiter, "leader").await,
            // Where it does most harm: amidst a write.
            _ => self.slot_of(&mut rng, Rank::Holder, "fenced").await,
        };
        let _alone = self.slots[slot].lock().await;
        let _lasting = self.begin(fault, format!("slot {slot}"));
        if matches!(fault, Fault::KillHolder | Fault::KillWaiter) {
            self.stage.kill(slot)?;
            sleep(Duration::from_millis(rng.u64(..500))).await;
            return self.stage.start(slot);
        }
        self.stage.stop(slot)?;
        sleep(if fault == Fault::StopWorkerBriefly { brief } else { long }).await;
        self.stage.wake(slot)
    }

    async fn operate(&self, fault: Fault, mut rng: Rng) -> Result {
        let rank = if fault == Fault::DeleteWaitingKey { Rank::Waiter } else { Rank::Holder };
        let mut names = NAMES;
        rng.shuffle(&mut names);
        let Some(standing) = self.standing(&mut rng, rank, names).await else { return Ok(()) };
        let _lasting = self.begin(fault, &standing.key);
        if fault == Fault::RevokeLease {
            self.store.revoke(standing.lease).await
        } else {
            self.store.delete(&standing.key).await
        }
    }

    /// The slot of somebody who holds or waits, rather here than elsewhere, or any slot if the store does not say.
    async fn slot_of(&self, rng: &mut Rng, rank: Rank, preferred: &str) -> usize {
        let mut names = NAMES;
        rng.shuffle(&mut names);
        if let Some(found) = names.iter().position(|name| *name == preferred).filter(|_| rng.bool()) {
            names.swap(0, found);
        }
        let (chosen, processes) = (self.standing(rng, rank, names).await, self.stage.processes());
        let found = chosen.and_then(|standing| processes.iter().position(|process| standing.is_of(*process)));
        found.unwrap_or_else(|| rng.usize(..SLOTS))
    }

    /// Somebody who holds or waits somewhere.
    async fn standing(&self, rng: &mut Rng, rank: Rank, names: [&str; NAMES.len()]) -> Option<Standing> {
        for name in names {
            let mut queue = self.store.queue(name).await.ok()?;
            match rank {
                Rank::Holder if !queue.is_empty() => return Some(queue.swap_remove(0)),
                Rank::Waiter if queue.len() > 1 => return Some(queue.swap_remove(rng.usize(1..queue.len()))),
                _ => {}
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug)]
enum Rank {
    Holder,
    Waiter,
}

struct Lasting<'a> {
    stage: &'a Stage,
    fault: Fault,
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.stage.note(What::FaultOver { kind: format!("{:?}", self.fault) });
    }
}
