//! Waiting is patient: an outage, a compaction, a moved leader are ridden out.

mod common;

use std::time::Duration;

use common::{LONG, TestResult, World, on, on_etcd, soon, until};
use tenure::etcd_client::Client;
use tenure::testing::Etcd;
use tenure::{Guard, Loss, Result, Session};
use tokio::task::JoinHandle;

/// One who holds, and one who waits for it.
struct Queue {
    holder: Guard,
    next: JoinHandle<Result<Guard>>,
}

impl Queue {
    async fn of(world: &World, holding: &Session, waiting: &Session) -> TestResult<Self> {
        let holder = holding.mutex("name").lock().await?;
        let mutex = waiting.mutex("name");
        let next = tokio::spawn(async move { mutex.lock().await });
        until("it queues", async || world.keys("name/").await.len() == 2).await;
        Ok(Self { holder, next })
    }

    /// The wait goes on, and is granted after the release.
    async fn goes_on(self) -> TestResult {
        let Self { holder, next } = self;
        assert!(!next.is_finished());
        assert!(holder.is_valid());
        soon("the release", holder.unlock()).await?;
        let guard = soon("the next holds", next).await??;
        soon("it holds in etcd", async { while guard.verify().await.is_err() {} }).await;
        soon("the release", guard.unlock()).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_wait_goes_on_over_a_restart() -> TestResult {
    on_etcd(async |world: &World| {
        let queue = Queue::of(world, &world.session().await?, &world.session().await?).await?;
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        queue.goes_on().await
    })
    .await
}

/// A stream of renewals that breaks is no lost lease: it is opened again.
#[tokio::test]
async fn a_holder_keeps_its_lease_over_a_restart() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(8)).await?;
        let (guard, lease) = (session.mutex("name").lock().await?, session.lease_id());
        for _ in 0..2 {
            let before = guard.deadline();
            world.etcd.kill(0)?;
            world.etcd.restart(0).await?;
            until("it was renewed, or lost", async || guard.deadline() != before).await;
            assert!(guard.is_valid(), "{}", guard.lost().await);
        }
        assert_eq!(session.lease_id(), lease);
        guard.verify().await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// What is asked for during the outage is done after it.
#[tokio::test]
async fn a_lock_asked_for_and_a_release_made_during_an_outage_happen_after_it() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let Queue { holder, next } = Queue::of(world, &one, &other).await?;
        world.etcd.kill(0)?;
        let unlocking = tokio::spawn(holder.unlock());
        let mutex = one.mutex("name");
        let last = tokio::spawn(async move { mutex.lock().await });
        assert!(one.mutex("name").try_lock().await.is_err(), "no answer is no `None`");
        world.etcd.restart(0).await?;
        soon("the release", unlocking).await??;
        for next in [next, last] {
            soon("it holds", next).await??.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// History goes, and watches that would need it with it: that is no error.
#[tokio::test]
async fn a_wait_goes_on_over_compactions() -> TestResult {
    on_etcd(async |world: &World| {
        let queue = Queue::of(world, &world.session().await?, &world.session().await?).await?;
        let compact = async || -> TestResult {
            for n in 0..100 {
                world.client().put("other", n.to_string(), None).await?;
            }
            world.client().compact(world.revision().await, None).await?;
            Ok(())
        };
        compact().await?;
        // The streams break, and where they stood is history.
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        compact().await?;
        world.client().delete("other", None).await?;
        queue.goes_on().await
    })
    .await
}

/// A holder's watch starts in the past, which may have been compacted meanwhile.
#[tokio::test]
async fn a_fresh_hold_survives_a_compaction_and_still_hears_of_its_end() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for _ in 0..5 {
            let guard = session.mutex("name").lock().await?;
            world.client().put("other", "", None).await?;
            world.client().delete("other", None).await?;
            world.client().compact(world.revision().await, None).await?;
            common::equals("watches", 2.0, async || world.watches().await).await;
            assert!(guard.is_valid());
            guard.verify().await?;
            world.client().delete(guard.key(), None).await?;
            assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Deleted);
        }
        Ok(())
    })
    .await
}

/// One in three calls goes to the dead member and fails.
#[tokio::test]
async fn a_wait_goes_on_with_one_of_three_members_dead() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let queue = Queue::of(world, &one, &other).await?;
        let victim = world.etcd.leader().await?;
        world.etcd.kill(victim)?;
        queue.goes_on().await?;
        for session in [&one, &other] {
            for _ in 0..10 {
                soon("a lock", session.mutex("name").lock()).await?.unlock().await?;
            }
        }
        world.etcd.restart(victim).await?;
        Ok(())
    })
    .await
}

/// A frozen member keeps its connections and says nothing: whatever was asked of it is asked of another.
#[tokio::test]
async fn a_wait_goes_on_with_one_of_three_members_frozen() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let queue = Queue::of(world, &one, &other).await?;
        let victim = world.etcd.leader().await?;
        world.etcd.pause(victim)?;
        queue.goes_on().await?;
        world.etcd.resume(victim)?;
        Ok(())
    })
    .await
}

/// A client of the user's own may have no time limit, no keep-alive and require no leader: then a stream to a frozen
/// member breaks by nothing but our own doubt.
#[tokio::test]
async fn a_wait_goes_on_where_the_users_client_has_no_time_limits() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let leader = world.etcd.leader().await?;
        let victim = (leader + 1) % 3;
        // The watch stream may stand at any member: take it there.
        let open = async |ttl| -> TestResult<Session> {
            let client = Client::connect(world.etcd.endpoints(), None).await?;
            Ok(Session::builder(client).ttl(ttl).open().await?)
        };
        let holding = Session::builder(world.etcd.member_client(leader).await?).ttl(LONG).open().await?;
        let mut queues = Vec::new();
        let mut waiting = Vec::new();
        for n in 0..4 {
            let session = open(Duration::from_secs(6)).await?;
            let name = format!("name/{n}");
            let guard = holding.mutex(&name).lock().await?;
            let mutex = session.mutex(&name);
            queues.push((guard, tokio::spawn(async move { mutex.lock().await })));
            let prefix = format!("{name}/");
            until("it queues", async || world.keys(&prefix).await.len() == 2).await;
            waiting.push(session);
        }
        world.etcd.pause(victim)?;
        for (guard, next) in queues {
            soon("the release", guard.unlock()).await?;
            let guard = soon("the next holds", next).await??;
            let _ = soon("the release", guard.unlock()).await;
        }
        world.etcd.resume(victim)?;
        Ok(())
    })
    .await
}
