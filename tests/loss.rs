//! No hold outlives its end unnoticed: whoever holds is told why it is over, its work is dropped, and the session goes on
//! under a new lease.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::proxy::Mode;
use common::{Detour, DropFlag, TestResult, World, endless, equals, on, on_etcd, soon, until};
use tenure::etcd_client::Txn;
use tenure::testing::Etcd;
use tenure::{Error, Guard, Health, Loss, Session};
use tokio::task::JoinHandle;

/// The shortest that etcd grants.
const SHORT: Duration = Duration::from_secs(2);

/// A guard whose work runs, and all who ask after it.
struct Held {
    guard: Arc<Guard>,
    running: JoinHandle<Result<(), Loss>>,
    dropped: Arc<AtomicBool>,
    lost: JoinHandle<Loss>,
}

impl Held {
    async fn of(session: &Session) -> TestResult<Self> {
        let guard = Arc::new(session.mutex("name").lock().await?);
        let (flag, dropped) = DropFlag::new();
        let held = guard.clone();
        let running = tokio::spawn(async move { held.run(endless(flag)).await });
        let lost = tokio::spawn(guard.lost());
        assert!(guard.is_valid());
        assert!(!guard.deadline().has_passed());
        Ok(Self { guard, running, dropped, lost })
    }

    /// Everybody is told, and told the same.
    async fn ends(self, expected: Loss) -> TestResult {
        let Self { guard, running, dropped, lost } = self;
        assert_eq!(soon("`lost` fires", lost).await?, expected);
        assert!(!guard.is_valid());
        assert!(guard.deadline().has_passed());
        assert_eq!(soon("`run` ends", running).await?, Err(expected));
        assert!(dropped.load(Ordering::SeqCst), "`run` has not dropped its work");
        assert_eq!(guard.lost().await, expected);
        assert_eq!(guard.run(async { unreachable!("it is not started any more") }).await, Err::<(), _>(expected));
        let guard = Arc::into_inner(guard).expect("its work is dropped");
        assert!(matches!(guard.unlock().await, Err(Error::Lost(loss)) if loss == expected));
        Ok(())
    }
}

/// The session has a lease again, by itself, and can lock.
async fn recovers(session: &Session, lost: i64) -> TestResult {
    until("a new lease", async || session.lease_id() != lost && *session.health().borrow() == Health::Safe).await;
    assert!(!session.deadline().has_passed());
    let guard = soon("the lock is free", session.mutex("name").lock()).await?;
    assert!(guard.key().contains(&format!("{:x}-", session.lease_id())));
    guard.unlock().await?;
    Ok(())
}

/// An operator who revokes a lease means that what it holds should end.
#[tokio::test]
async fn a_holder_whose_lease_is_revoked_is_told() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (held, lease) = (Held::of(&session).await?, session.lease_id());
        world.client().lease_revoke(lease).await?;
        held.ends(Loss::Revoked).await?;
        recovers(&session, lease).await
    })
    .await
}

/// The same for one who had to wait, whose watch is of another kind.
#[tokio::test]
async fn a_holder_that_had_waited_and_whose_lease_is_revoked_is_told() -> TestResult {
    on_etcd(async |world: &World| {
        let (before, session) = (world.session().await?, world.session().await?);
        let guard = before.mutex("name").lock().await?;
        let ticket = session.mutex("name").enqueue().await?;
        guard.unlock().await?;
        let mut ticket = ticket;
        let guard = ticket.granted().await?;
        let lease = session.lease_id();
        world.client().lease_revoke(lease).await?;
        assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Revoked);
        recovers(&session, lease).await
    })
    .await
}

/// `etcdctl del` is how operators take a lock away. Nothing in Go's package notices.
#[tokio::test]
async fn a_holder_whose_key_is_deleted_is_told() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (held, lease) = (Held::of(&session).await?, session.lease_id());
        world.client().delete(held.guard.key(), None).await?;
        held.ends(Loss::Deleted).await?;
        assert_eq!(session.lease_id(), lease, "the lease was not at fault");
        session.mutex("name").lock().await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Who comes again finds its watches standing: one that has told of the deletion ahead before the reply to the enter is
/// there lets it in at once. It hears of its own key all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whom_a_standing_watch_let_in_is_told() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let contender = tokio::spawn(async move {
            loop {
                let guard = other.mutex("name").lock().await.expect("it waits for as long as it takes");
                guard.unlock().await.expect("nobody deletes its key");
            }
        });
        for round in 0..60 {
            let guard = session.mutex("name").lock().await?;
            if round % 3 < 2 {
                guard.unlock().await?;
                continue;
            }
            world.client().delete(guard.key(), None).await?;
            assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Deleted);
        }
        contender.abort();
        Ok(())
    })
    .await
}

/// Whoever unlocks learns from etcd's answer that there was nothing left to unlock, before any watch has told.
#[tokio::test]
async fn an_unlock_that_finds_no_key_says_why() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for _ in 0..10 {
            let guard = session.mutex("name").lock().await?;
            world.client().delete(guard.key(), None).await?;
            let unlocked = soon("an answer", guard.unlock()).await;
            assert!(matches!(unlocked, Err(Error::Lost(Loss::Deleted))), "{unlocked:?}");

            let guard = session.mutex("name").lock().await?;
            world.client().lease_revoke(session.lease_id()).await?;
            let unlocked = soon("an answer", guard.unlock()).await;
            assert!(matches!(unlocked, Err(Error::Lost(Loss::Revoked))), "{unlocked:?}");
        }
        Ok(())
    })
    .await
}

/// A place that is gone is nowhere, until its owner waits for it again.
#[tokio::test]
async fn a_ticket_whose_key_was_deleted_has_no_position_until_it_is_waited_for() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, waiting) = (world.session().await?, world.session().await?);
        let guard = holding.mutex("name").lock().await?;
        let mut ticket = waiting.mutex("name").enqueue().await?;
        let key = waiting.mutex("name").queue().await?[1].key().to_owned();
        world.client().delete(key, None).await?;
        assert!(matches!(ticket.position().await, Err(Error::Lost(Loss::Deleted))));
        let next = tokio::spawn(async move { ticket.granted().await });
        until("it queues again", async || world.keys("name/").await.len() == 2).await;
        guard.unlock().await?;
        soon("it holds", next).await??.unlock().await?;
        Ok(())
    })
    .await
}

/// A hold that ends where it began is no loss.
#[tokio::test]
async fn a_holder_that_unlocks_is_released() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let (lost, early) = (guard.lost(), tokio::spawn(guard.lost()));
        guard.unlock().await?;
        assert_eq!(soon("`lost` fires", early).await?, Loss::Released);
        assert_eq!(soon("`lost` fires", lost.clone()).await, Loss::Released);

        let guard = session.mutex("name").lock().await?;
        let lost = guard.lost();
        drop(guard);
        assert_eq!(soon("`lost` fires", lost).await, Loss::Released);
        Ok(())
    })
    .await
}

/// A server that says nothing must not keep anybody in the belief that they hold.
#[tokio::test]
async fn a_holder_whose_server_is_frozen_ends_at_its_deadline() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(SHORT).await?;
        let (held, lease) = (Held::of(&session).await?, session.lease_id());
        world.etcd.pause(0)?;
        let mut deadline = held.guard.deadline();
        while !held.guard.deadline().has_passed() {
            // A renewal that was on its way may still count.
            deadline = deadline.max(held.guard.deadline());
            let (passed, valid) = (deadline.has_passed(), held.guard.is_valid());
            assert!(!(passed && valid), "valid after its deadline");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!held.guard.is_valid());
        assert!(session.deadline().has_passed());
        held.ends(Loss::Expired).await?;
        // All that without a word from etcd.
        world.etcd.resume(0)?;
        recovers(&session, lease).await
    })
    .await
}

/// Timers that did not run must not make a hold last longer. There is one thread here, and it is busy.
#[tokio::test]
async fn a_holder_whose_runtime_was_blocked_is_not_valid_after_its_deadline() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(SHORT).await?;
        let (held, lease) = (Held::of(&session).await?, session.lease_id());
        let deadline = held.guard.deadline();
        while !deadline.has_passed() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!held.guard.is_valid());
        assert!(held.guard.deadline().has_passed());
        assert!(session.deadline().has_passed());
        // The work is not polled once more, nor is any other begun.
        assert!(!held.dropped.load(Ordering::SeqCst));
        held.ends(Loss::Expired).await?;
        recovers(&session, lease).await
    })
    .await
}

/// A member without a quorum answers, and knows nothing.
#[tokio::test]
async fn a_holder_whose_cluster_has_no_quorum_ends_at_its_deadline() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(5)).await?;
        let (held, lease) = (Held::of(&session).await?, session.lease_id());
        world.etcd.kill(0)?;
        world.etcd.kill(1)?;
        held.ends(Loss::Expired).await?;
        world.etcd.restart(0).await?;
        world.etcd.restart(1).await?;
        recovers(&session, lease).await
    })
    .await
}

/// A new hold must not be confused with the old one, which ended under the lease before.
#[tokio::test]
async fn a_lost_guard_stays_lost_under_the_next_lease() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (old, lease) = (session.mutex("name").lock().await?, session.lease_id());
        world.client().lease_revoke(lease).await?;
        let new = soon("the lock is free", async {
            until("a new lease", async || session.lease_id() != lease).await;
            session.mutex("name").lock().await
        })
        .await?;
        assert!(new.token() > old.token());
        assert!(new.is_valid() && !old.is_valid());
        assert!(matches!(old.verify().await, Err(Error::Lost(Loss::Revoked))));
        drop(old);
        new.verify().await?;
        new.unlock().await?;
        Ok(())
    })
    .await
}

/// Nobody need restart because a lease was lost in the queue.
#[tokio::test]
async fn a_waiter_whose_lease_is_revoked_queues_again() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, waiting) = (world.session().await?, world.session().await?);
        let guard = holding.mutex("name").lock().await?;
        let mutex = waiting.mutex("name");
        let next = tokio::spawn(async move { mutex.lock().await });
        until("it queues", async || world.keys("name/").await.len() == 2).await;
        let lease = waiting.lease_id();
        world.client().lease_revoke(lease).await?;
        let queue = async || holding.mutex("name").queue().await.unwrap();
        until("it queues again", async || queue().await.get(1).is_some_and(|waiter| waiter.lease() != lease)).await;
        assert!(!next.is_finished());
        assert!(guard.is_valid());
        guard.unlock().await?;
        let guard = soon("it holds", next).await??;
        assert!(guard.key().contains(&format!("{:x}-", waiting.lease_id())), "{}", guard.key());
        guard.verify().await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// A waiter has no right to what its predecessor leaves once its own key is gone (etcd #16221).
#[tokio::test]
async fn a_waiter_whose_key_is_deleted_queues_again_at_the_back() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, waiting) = (world.session().await?, world.session().await?);
        let guard = holding.mutex("name").lock().await?;
        let mut ticket = waiting.mutex("name").enqueue().await?;
        let key = holding.mutex("name").queue().await?[1].key().to_owned();
        let next = tokio::spawn(async move { ticket.granted().await });
        let mut last = holding.mutex("name").enqueue().await?;
        world.client().delete(key.as_str(), None).await?;
        until("it queues again", async || {
            let keys = world.keys("name/").await;
            keys.len() == 3 && !keys.contains(&key)
        })
        .await;
        guard.unlock().await?;
        let guard = soon("the other is first now", last.granted()).await?;
        assert!(!next.is_finished());
        guard.unlock().await?;
        soon("it holds", next).await??.unlock().await?;
        Ok(())
    })
    .await
}

/// Readiness probes and metrics look here: every change shows, and in this order.
#[tokio::test]
async fn health_goes_from_safe_to_jeopardy_to_lost_and_back() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(5)).await?;
        let mut health = session.health();
        assert_eq!(*health.borrow_and_update(), Health::Safe);
        world.etcd.pause(0)?;
        soon("jeopardy", health.changed()).await?;
        let Health::Jeopardy(deadline) = *health.borrow_and_update() else { panic!("{:?}", *health.borrow()) };
        assert_eq!(deadline, session.deadline());
        assert!(!deadline.has_passed());
        soon("the loss", health.changed()).await?;
        assert_eq!(*health.borrow_and_update(), Health::Lost(Loss::Expired));
        assert!(deadline.has_passed());
        world.etcd.resume(0)?;
        soon("a new lease", health.changed()).await?;
        assert_eq!(*health.borrow_and_update(), Health::Safe);
        Ok(())
    })
    .await
}

/// Trouble that passes in time costs nothing.
#[tokio::test]
async fn jeopardy_that_passes_before_the_deadline_costs_no_hold() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(9)).await?;
        let guard = session.mutex("name").lock().await?;
        let mut health = session.health();
        world.etcd.pause(0)?;
        soon("jeopardy", health.wait_for(|health| matches!(health, Health::Jeopardy(_)))).await?;
        world.etcd.resume(0)?;
        soon("safe again", health.wait_for(|health| *health == Health::Safe)).await?;
        assert!(guard.is_valid());
        guard.verify().await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// Within the first moments a hold has no watch of its own: what etcd answers to the holder ends it all the same.
#[tokio::test]
async fn a_hold_ends_with_the_answer_that_it_is_gone() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for ask in ["verify", "txn"] {
            let guard = session.mutex("name").lock().await?;
            world.client().delete(guard.key(), None).await?;
            let answer = match ask {
                "verify" => guard.verify().await,
                _ => guard.txn(Txn::new()).await.map(drop),
            };
            assert!(matches!(answer, Err(Error::Lost(Loss::Deleted))), "{ask}: {answer:?}");
            assert!(!guard.is_valid());
            assert_eq!(guard.lost().await, Loss::Deleted);
        }
        Ok(())
    })
    .await
}

/// A ticket that holds, though nobody has asked it yet, hears of its end as a guard does.
#[tokio::test]
async fn a_ticket_that_holds_and_loses_its_key_queues_again() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let mut ticket = session.mutex("name").enqueue().await?;
        let key = world.keys("name/").await.remove(0);
        until("its watch", async || world.watches().await == 3.0).await;
        world.client().delete(key.as_str(), None).await?;
        let guard = soon("the lock", other.mutex("name").lock()).await?;
        let waiting = tokio::spawn(async move { ticket.granted().await });
        until("the ticket behind", async || other.mutex("name").queue().await.is_ok_and(|all| all.len() == 2)).await;
        guard.unlock().await?;
        let guard = soon("the lock", waiting).await??;
        assert_ne!(guard.key(), key);
        guard.verify().await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// Deletes a key where the session cannot hear of it. Afterwards its stream stands again, with so many watches in all.
async fn delete_unheard(world: &World, detour: &Detour, key: &str, watches: f64) -> TestResult {
    equals("watches", watches, async || world.watches().await).await;
    detour.link.set(Mode::Cut);
    until("the stream is broken", async || world.watches().await < watches).await;
    world.client().delete(key, None).await?;
    detour.link.set(Mode::Pass);
    equals("watches", watches, async || world.watches().await).await;
    Ok(())
}

/// What was said on the stream of `session` has been heard: a wait begun later has been granted over it.
async fn hears(session: &Session, other: &Session) -> TestResult {
    let guard = other.mutex("another").lock().await?;
    let mutex = session.mutex("another");
    let next = tokio::spawn(async move { mutex.lock().await });
    until("it queues", async || other.mutex("another").queue().await.is_ok_and(|queue| queue.len() == 2)).await;
    guard.unlock().await?;
    soon("it is granted", next).await??.unlock().await?;
    Ok(())
}

/// While nobody polls a ticket nobody looks for it either: what may have been missed is looked for once it is claimed.
#[tokio::test]
async fn a_ticket_whose_key_went_unheard_is_told_once_it_is_a_guards() -> TestResult {
    on_etcd(async |world: &World| {
        let (detour, other) = (world.detour()?, world.session().await?);
        let session = detour.session().await?;
        let mut ticket = session.mutex("name").enqueue().await?;
        delete_unheard(world, &detour, &world.keys("name/").await[0], 3.0).await?;
        hears(&session, &other).await?;
        let guard = soon("the guard", ticket.granted()).await?;
        assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Deleted);
        Ok(())
    })
    .await
}

/// The same for a hold that was handed over in memory, its key gone before.
#[tokio::test]
async fn a_ticket_handed_a_hold_after_its_key_went_unheard_is_told_once_it_is_a_guards() -> TestResult {
    on_etcd(async |world: &World| {
        let (detour, other) = (world.detour()?, world.session().await?);
        let session = detour.session().await?;
        let before = session.mutex("name").lock().await?;
        let mut ticket = session.mutex("name").enqueue().await?;
        let keys = world.keys("name/").await;
        let key = keys.iter().find(|key| *key != before.key()).expect("both queue");
        delete_unheard(world, &detour, key, 4.0).await?;
        hears(&session, &other).await?;
        before.unlock().await?;
        let guard = soon("the guard", ticket.granted()).await?;
        assert_eq!(guard.key(), key, "it was not handed over");
        assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Deleted);
        Ok(())
    })
    .await
}
