//! What a hold costs, in requests that etcd has counted.

mod common;

use std::time::{Duration, Instant};

use common::{Requests, TestResult, World, on_etcd, soon};

/// As cheap as a bare put and delete: no look, no read, no second commit.
#[tokio::test]
async fn an_uncontended_lock_is_one_request_and_an_unlock_is_one() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let mutex = session.mutex("name");
        let begun = world.settled_requests(1.0).await;
        for _ in 0..10 {
            let before = world.requests().await;
            let guard = mutex.lock().await?;
            let held = world.requests().await;
            assert_eq!(held.since(before), Requests { txns: 1, reads: 0, writes: 0 });
            guard.unlock().await?;
            assert_eq!(world.requests().await.since(held).all(), 1);
            let guard = mutex.try_lock().await?.expect("it is free");
            guard.unlock().await?;
        }
        // Nothing follows later either.
        assert_eq!(world.settled_requests(1.0).await.since(begun).all(), 40);
        Ok(())
    })
    .await
}

/// Readers pay no more than a mutex does, beside other readers too.
#[tokio::test]
async fn an_uncontended_read_lock_is_one_request_and_its_release_is_one() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let lock = session.rwlock("name");
        let beside = other.rwlock("name").read().await?;
        // Its hold is watched once it is not short any more.
        let begun = world.settled_requests(3.0).await;
        for round in 1..=10 {
            let before = world.requests().await;
            let guard = lock.read().await?;
            let held = world.requests().await;
            assert_eq!(held.since(before), Requests { txns: 1, reads: 0, writes: 0 });
            guard.unlock().await?;
            assert_eq!(world.requests().await.since(held), Requests { txns: 0, reads: 0, writes: 1 });
            lock.try_read().await?.expect("readers alone are there").unlock().await?;
            assert_eq!(world.requests().await.since(begun).all(), 4 * round);
        }
        // Nothing follows later either.
        assert_eq!(world.settled_requests(3.0).await.since(begun).all(), 40);
        beside.unlock().await?;
        let before = world.requests().await;
        lock.write().await?.unlock().await?;
        assert_eq!(world.requests().await.since(before).all(), 2);
        Ok(())
    })
    .await
}

/// A permit that is there costs what a free lock does, whoever holds the others.
#[tokio::test]
async fn an_uncontended_permit_is_one_request_and_its_release_is_one() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let semaphore = session.semaphore("name", 4);
        let beside = other.semaphore("name", 4).acquire_many(2).await?;
        // Its hold is watched once it is not short any more.
        let begun = world.settled_requests(3.0).await;
        for _ in 0..10 {
            let before = world.requests().await;
            let guard = semaphore.acquire_many(2).await?;
            let held = world.requests().await;
            assert_eq!(held.since(before), Requests { txns: 1, reads: 0, writes: 0 });
            guard.unlock().await?;
            assert_eq!(world.requests().await.since(held), Requests { txns: 0, reads: 0, writes: 1 });
        }
        // Nothing follows later either.
        assert_eq!(world.settled_requests(3.0).await.since(begun).all(), 20);
        beside.unlock().await?;
        Ok(())
    })
    .await
}

/// However many wait.
#[tokio::test]
async fn a_release_wakes_as_many_as_there_are_permits_at_most() -> TestResult {
    on_etcd(async |world: &World| {
        let mut holding = Vec::new();
        for _ in 0..2 {
            holding.push(world.session().await?.semaphore("name", 2).acquire().await?);
        }
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let mut ticket = world.session().await?.semaphore("name", 2).enqueue().await?;
            waiting.push(tokio::spawn(async move { ticket.granted().await }));
        }
        // Each session watches its fence key and its own place, and those who wait the two before them.
        let mut watches = 10.0 + 10.0 + 8.0 * 2.0;
        for next in waiting {
            let before = world.settled_requests(watches).await;
            holding.remove(0).unlock().await?;
            holding.push(soon("the next holds", next).await??);
            // The session of the hold is gone with it, and the next watches nobody but itself.
            watches -= 2.0 + 2.0;
            let spent = world.settled_requests(watches).await.since(before);
            assert!(spent.writes == 1 && spent.reads + spent.txns <= 2, "{spent:?}");
        }
        for guard in holding {
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// All of them have to hear of it, and none has to ask more than once.
#[tokio::test]
async fn a_writer_s_release_costs_each_reader_one_read_at_most() -> TestResult {
    on_etcd(async |world: &World| {
        let guard = world.session().await?.rwlock("name").write().await?;
        let mut reading = Vec::new();
        for _ in 0..5 {
            let mut ticket = world.session().await?.rwlock("name").enqueue_read().await?;
            reading.push(tokio::spawn(async move { ticket.granted().await }));
        }
        // Each session watches its fence key and its own place, and those who wait the writer.
        let before = world.settled_requests(6.0 + 6.0 + 5.0).await;
        guard.unlock().await?;
        let mut guards = Vec::new();
        for reader in reading {
            guards.push(soon("it reads", reader).await??);
        }
        // The writer's session is gone with its guard.
        let spent = world.settled_requests(5.0 + 5.0).await.since(before);
        assert!(spent.reads + spent.txns <= 5 && spent.writes == 1, "{spent:?}");
        Ok(())
    })
    .await
}

/// A hold that is handed over in memory is still looked after when it is given back: the one must not take the other's
/// part, or one of two deletions finds no key, and a release that went well is called a loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_hand_overs_deletes_its_key_once() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let before = world.settled_requests(1.0).await;
        let mut visits = tokio::task::JoinSet::new();
        for n in 0..50 {
            let mutex = session.mutex(format!("name/{}", n / 2));
            visits.spawn(async move {
                for moment in 0..20 {
                    let guard = mutex.lock().await.unwrap();
                    // About as long as a look takes.
                    let released = Instant::now() + Duration::from_micros(100 * moment);
                    while Instant::now() < released {
                        tokio::task::yield_now().await;
                    }
                    guard.unlock().await.unwrap();
                }
            });
        }
        soon("all are done", visits.join_all()).await;
        let spent = world.settled_requests(1.0).await.since(before);
        assert_eq!(spent.writes, 1_000, "{spent:?}");
        Ok(())
    })
    .await
}

/// Those who try in a loop cost one read each.
#[tokio::test]
async fn a_failed_try_is_one_request() -> TestResult {
    on_etcd(async |world: &World| {
        let guard = world.session().await?.mutex("name").lock().await?;
        let session = world.session().await?;
        let mutex = session.mutex("name");
        let before = world.settled_requests(3.0).await;
        assert!(mutex.try_lock().await?.is_none());
        assert_eq!(world.requests().await.since(before), Requests { txns: 1, reads: 0, writes: 0 });
        for n in 1..10 {
            assert!(mutex.try_lock().await?.is_none());
            assert_eq!(world.requests().await.since(before), Requests { txns: 1, reads: n, writes: 0 });
        }
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// A watch for every critical section would double what etcd has to do.
#[tokio::test]
async fn a_short_hold_makes_no_watch() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let mutex = session.mutex("name");
        let asked = async || world.metric("grpc_server_msg_received_total", "grpc_method=\"Watch\"").await;
        common::equals("watches", 1.0, async || world.watches().await).await;
        let mut short = 0;
        while short < 20 {
            let (before, begun) = (asked().await, Instant::now());
            mutex.lock().await?.unlock().await?;
            // On a machine that stood still meanwhile it was no short one.
            if begun.elapsed() < Duration::from_millis(90) {
                assert_eq!(asked().await, before);
                short += 1;
            }
        }
        Ok(())
    })
    .await
}

/// A hand-off needs no read: whoever is behind the next looks once, and knows by that when its own turn comes.
#[tokio::test]
async fn a_hand_off_adds_one_read_at_most() -> TestResult {
    on_etcd(async |world: &World| {
        let mut guard = world.session().await?.mutex("name").lock().await?;
        let mut waiting = Vec::new();
        for _ in 0..6 {
            let mut ticket = world.session().await?.mutex("name").enqueue().await?;
            waiting.push(tokio::spawn(async move { ticket.granted().await }));
        }
        // Each session watches its fence key and its own place, and those who wait the two before them.
        let watches = |sessions: u32| f64::from(2 * sessions + sessions.saturating_sub(1) + sessions.saturating_sub(2));
        for (left, next) in (1..=6).rev().zip(waiting) {
            let before = world.settled_requests(watches(left + 1)).await;
            guard.unlock().await?;
            guard = soon("the next holds", next).await??;
            let spent = world.settled_requests(watches(left)).await.since(before);
            assert!(spent.all() <= 2, "an unlock and {spent:?}");
            assert_eq!(spent.txns, 0);
        }
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// A queue is waited in for nothing: after it has settled, nobody asks until somebody goes.
#[tokio::test]
async fn a_hundred_waiters_cost_one_watch_each() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, waiting) = (world.session().await?, world.session().await?);
        let guard = holding.mutex("name").lock().await?;
        let mut tickets = Vec::new();
        for _ in 0..100 {
            tickets.push(waiting.mutex("name").enqueue().await?);
        }
        // Two fence keys, the holder's key on either session, and a hundred places: neighbours share.
        world.settled_requests(2.0 + 2.0 + 100.0).await;
        drop(tickets);
        guard.unlock().await?;
        Ok(())
    })
    .await
}
