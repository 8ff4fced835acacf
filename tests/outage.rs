//! Waiting is patient: an outage, a compaction, a moved leader are ridden out.

mod common;

use std::time::Duration;

use common::proxy::{self, Mode};
use common::{LONG, TestResult, World, equals, on, on_etcd, soon, until};
use tenure::etcd_client::Client;
use tenure::testing::Etcd;
use tenure::{Error, Guard, Loss, Result, Session};
use tokio::task::{JoinHandle, JoinSet};

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
            equals("watches", 2.0, async || world.watches().await).await;
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

/// A member that is cut off from its cluster keeps the streams that it has, and says nothing on them, unless the client
/// requires a leader. All else is answered by others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_goes_on_where_the_watches_are_at_a_member_that_is_cut_off() -> TestResult {
    let (etcd, links) = proxy::cluster(3).await?;
    let (endpoints, leader) = (etcd.endpoints(), etcd.leader().await?);
    let (alone, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = Client::connect([&endpoints[alone]], None).await?;
    let waiting = Session::builder(client.clone()).ttl(Duration::from_secs(10)).open().await?;
    let watches = async |count| {
        let there = async || etcd.metric(alone, "etcd_debugging_mvcc_watcher_total", "").await.unwrap_or(0.0);
        equals("watches", count, there).await;
    };
    watches(1.0).await;
    // The streams stay where they are.
    for member in [leader, third] {
        client.add_endpoint(&endpoints[member]).await?;
    }
    client.remove_endpoint(format!("http://{}", endpoints[alone])).await?;
    let holding = async {
        // An election may still be going on.
        loop {
            // Not where the waits are counted.
            let client = etcd.member_client(leader).await.expect("it connects when it is used");
            if let Ok(session) = Session::builder(client).ttl(LONG).open().await {
                return session;
            }
        }
    };
    let holding = soon("a session", holding).await;
    let (guard, mutex) = (holding.mutex("name").lock().await?, waiting.mutex("name"));
    let next = tokio::spawn(async move { mutex.lock().await });
    watches(3.0).await;
    for member in [leader, third] {
        // No connection breaks, or etcd makes new ones all the time.
        links[alone][member].set(Mode::Freeze);
        links[member][alone].set(Mode::Freeze);
    }
    let token = guard.token();
    guard.unlock().await?;
    let guard = soon("the next holds", next).await??;
    assert!(guard.token() > token);
    Ok(())
}

/// What was granted, and not heard of, is nobody's.
#[tokio::test]
async fn a_lease_whose_grant_is_not_heard_of_is_given_back() -> TestResult {
    on_etcd(async |world: &World| {
        let detour = world.detour()?;
        detour.link.set(Mode::FreezeAnswers);
        let opening = Session::builder(detour.client().await?).ttl(LONG).open();
        let opening = tokio::spawn(opening);
        until("a lease", async || world.leases().await.len() == 1).await;
        let opened = soon("an end", opening).await?;
        assert!(matches!(opened, Err(Error::Etcd { .. })), "{opened:?}");
        equals("leases", Vec::new(), async || world.leases().await).await;
        Ok(())
    })
    .await
}

/// Asked for again, a lease is granted once.
#[tokio::test]
async fn a_session_opens_with_a_lease_whose_grant_was_not_heard_of_at_first() -> TestResult {
    on_etcd(async |world: &World| {
        let detour = world.detour()?;
        detour.link.set(Mode::FreezeAnswers);
        let opening = Session::builder(detour.client().await?).ttl(LONG).open();
        let opening = tokio::spawn(opening);
        until("a lease", async || world.leases().await.len() == 1).await;
        let grants = async || world.metric("grpc_server_handled_total", "grpc_method=\"LeaseGrant\"").await;
        until("several tries", async || grants().await >= 3.0).await;
        detour.link.set(Mode::Pass);
        let session = soon("an end", opening).await??;
        assert_eq!(world.leases().await, [session.lease_id()]);
        assert_eq!(session.ttl(), LONG);
        session.mutex("name").lock().await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Services start beside a member that hangs, too.
#[tokio::test]
async fn sessions_open_with_one_of_three_members_frozen() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let frozen = (world.etcd.leader().await? + 1) % 3;
        world.etcd.pause(frozen)?;
        let mut opening = JoinSet::new();
        for _ in 0..30 {
            // What the frozen member does of what it was asked expires.
            opening.spawn(Session::builder(world.etcd.client().await?).ttl(Duration::from_secs(10)).open());
        }
        let opened = soon("all are answered", opening.join_all()).await;
        world.etcd.resume(frozen)?;
        let failed: Vec<_> = opened.iter().filter_map(|opened| opened.as_ref().err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        Ok(())
    })
    .await
}
