//! Several locks at once: all or none, whoever asks in whatever order.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{ByHand, DropFlag, Drops, LONG, Progress, TestResult, World, endless, equals, on_etcd, soon, until};
use tenure::etcd_client::{Compare, CompareOp, Txn, TxnOp};
use tenure::{Error, Guard, Loss, MultiGuard, Session};
use tokio::task::JoinSet;

fn names(guards: &MultiGuard) -> Vec<&str> {
    guards.guards().iter().map(Guard::name).collect()
}

fn put(value: &str) -> Txn {
    Txn::new().and_then([TxnOp::put("written", value, None)])
}

async fn written(world: &World) -> Option<String> {
    let found = world.client().get("written", None).await.unwrap();
    found.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
}

#[tokio::test]
async fn all_are_locked_once_in_the_order_of_their_names() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guards = session.lock_all(["b", "a", "c/d", "a", "b"]).await?;
        assert_eq!(names(&guards), ["a", "b", "c/d"]);
        assert!(guards.is_valid());
        assert_eq!(guards.deadline(), guards.guards()[0].deadline());
        guards.verify().await?;
        for name in ["a", "b", "c/d"] {
            assert!(session.mutex(name).try_lock().await?.is_none(), "{name} is free");
        }
        let lost = guards.lost();
        guards.unlock().await?;
        assert_eq!(soon("`lost` fires", lost).await, Loss::Released);
        for name in ["a", "b", "c/d"] {
            session.mutex(name).try_lock().await?.expect("it is free").unlock().await?;
        }
        Ok(())
    })
    .await
}

/// Locked one after the other as they are given, the first two tasks would wait for each other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_order_in_which_they_are_given_nobody_waits_in_a_circle() -> TestResult {
    on_etcd(async |world: &World| {
        let sessions = [world.session().await?, world.session().await?, world.session().await?];
        let taken: Arc<[AtomicBool; 3]> = Arc::default();
        let mut tasks = JoinSet::new();
        let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 2], [1, 0, 1]];
        for n in 0..150 {
            let (session, taken, order) = (sessions[n % 3].clone(), taken.clone(), orders[n % 5]);
            tasks.spawn(async move {
                let guards = session.lock_all(order.map(|name| format!("name/{name}"))).await.unwrap();
                let mine: Vec<usize> = (0..3).filter(|name| order.contains(name)).collect();
                for name in &mine {
                    assert!(!taken[*name].swap(true, Ordering::SeqCst), "two hold {name}");
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                assert!(guards.is_valid());
                for name in mine {
                    taken[name].store(false, Ordering::SeqCst);
                }
                guards.unlock().await.unwrap();
            });
        }
        soon("all have held", tasks.join_all()).await;
        Ok(())
    })
    .await
}

/// Half of what was asked for is nothing that anybody could use, and would keep others out.
#[tokio::test]
async fn a_try_that_fails_gives_all_back() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let guard = other.mutex("b").lock().await?;
        for _ in 0..3 {
            assert!(one.try_lock_all(["a", "b", "c"]).await?.is_none());
            equals("keys", 0, async || world.keys("a/").await.len()).await;
            assert!(world.keys("c/").await.is_empty());
            assert!(one.try_lock_all_for(["a", "b", "c"], Duration::from_millis(20)).await?.is_none());
            equals("keys", 0, async || world.keys("a/").await.len()).await;
            equals("keys", 1, async || world.keys("b/").await.len()).await;
        }
        guard.unlock().await?;
        let guards = one.try_lock_all(["c", "b", "a"]).await?.expect("all are free");
        assert_eq!(names(&guards), ["a", "b", "c"]);
        guards.unlock().await?;
        // Nothing to wait for is no waiting.
        one.try_lock_all_for(["a", "b"], Duration::ZERO).await?.expect("all are free").unlock().await?;
        Ok(())
    })
    .await
}

/// Each wait of its own limit would make three of them out of one.
#[tokio::test]
async fn the_limit_is_one_for_all() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let limit = Duration::from_secs(2);
        let (first, last) = (other.mutex("a").lock().await?, other.mutex("b").lock().await?);
        let begun = Instant::now();
        let waiting = {
            let one = one.clone();
            tokio::spawn(async move { (one.try_lock_all_for(["a", "b"], limit).await, Instant::now()) })
        };
        until("it queues", async || other.mutex("a").queue().await.unwrap().len() == 2).await;
        // Most of the limit goes by at the first.
        tokio::time::sleep_until((begun + limit * 3 / 4).into()).await;
        first.unlock().await?;
        let (guards, ended) = soon("it gives up", waiting).await?;
        assert!(guards?.is_none());
        assert!(ended - begun >= limit, "it gave up early");
        assert!(ended - begun < limit * 7 / 4, "as late as with a limit for each: {:?}", ended - begun);
        equals("keys", 0, async || world.keys("a/").await.len()).await;
        // And in time it gets all.
        let waiting = tokio::spawn(async move { one.try_lock_all_for(["a", "b"], LONG).await });
        until("it queues", async || other.mutex("b").queue().await.unwrap().len() == 2).await;
        last.unlock().await?;
        soon("it holds", waiting).await??.expect("their turn has come").unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_loss_of_one_is_the_loss_of_all() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guards = Arc::new(session.lock_all(["a", "b", "c"]).await?);
        let (flag, dropped) = DropFlag::new();
        let running = {
            let guards = guards.clone();
            tokio::spawn(async move { guards.run(endless(flag)).await })
        };
        assert_eq!(guards.run(async { 42 }).await?, 42);
        guards.txn(put("while they hold")).await?;
        let compares = guards.compares();
        assert_eq!(compares.len(), 3);

        world.client().delete(guards.guards()[1].key(), None).await?;
        // Before the event arrives, etcd knows.
        assert!(matches!(guards.txn(put("too late")).await, Err(Error::Lost(Loss::Deleted))));
        assert!(matches!(guards.verify().await, Err(Error::Lost(Loss::Deleted))));
        assert_eq!(soon("`lost` fires", guards.lost()).await, Loss::Deleted);
        assert_eq!(soon("`run` ends", running).await?, Err(Loss::Deleted));
        assert!(dropped.load(Ordering::SeqCst), "`run` has not dropped its work");
        assert!(!guards.is_valid() && guards.deadline().has_passed());
        let valid: Vec<bool> = guards.guards().iter().map(Guard::is_valid).collect();
        assert_eq!(valid, [true, false, true]);
        let own = Txn::new().when(compares).and_then([TxnOp::put("written", "too late", None)]);
        assert!(!world.client().txn(own).await?.succeeded());
        assert_eq!(written(world).await.as_deref(), Some("while they hold"));

        // The others are given back all the same.
        let guards = Arc::into_inner(guards).expect("its work is dropped");
        assert!(matches!(guards.unlock().await, Err(Error::Lost(Loss::Deleted))));
        for name in ["a/", "b/", "c/"] {
            assert!(world.keys(name).await.is_empty(), "{name}");
        }
        world.client().delete("written", None).await?;
        Ok(())
    })
    .await
}

/// Whichever of them it is, and whatever the transaction says itself.
#[tokio::test]
async fn a_transaction_is_applied_only_while_all_of_them_stand() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for lost in 0..3 {
            let guards = session.lock_all(["a", "b", "c"]).await?;
            let when = |value| [Compare::value("written", CompareOp::Equal, value)];
            guards.txn(put("one")).await?;
            let absent = [TxnOp::put("written", "absent", None)];
            let reply = guards.txn(Txn::new().when(when("one")).and_then([]).or_else(absent.clone())).await?;
            assert!(reply.succeeded());
            let reply = guards.txn(Txn::new().when(when("two")).and_then([]).or_else(absent)).await?;
            assert!(!reply.succeeded(), "its own conditions decide on its branch");
            assert_eq!(written(world).await.as_deref(), Some("absent"));
            world.client().delete(guards.guards()[lost].key(), None).await?;
            assert!(matches!(guards.txn(put("late")).await, Err(Error::Lost(Loss::Deleted))));
            assert_eq!(written(world).await.as_deref(), Some("absent"));
            drop(guards);
            for name in ["a/", "b/", "c/"] {
                equals("keys", 0, async || world.keys(name).await.len()).await;
            }
        }
        world.client().delete("written", None).await?;
        Ok(())
    })
    .await
}

/// Each hold is a condition of the transaction that wraps the user's, and etcd counts both together.
#[tokio::test]
async fn a_transaction_may_be_as_long_as_is_said() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guards = session.lock_all((0..5).map(|n| format!("name/{n}"))).await?;
        let puts = |count: usize| -> Vec<TxnOp> { (0..count).map(|n| TxnOp::put(format!("n{n}"), "", None)).collect() };
        let absent = |count: usize| -> Vec<Compare> {
            (0..count).map(|n| Compare::create_revision(format!("n{n}"), CompareOp::Equal, 0)).collect()
        };
        assert!(guards.txn(Txn::new().when(absent(123)).and_then(puts(123))).await?.succeeded());
        let too_long = guards.txn(Txn::new().and_then(puts(124))).await;
        assert!(matches!(too_long, Err(Error::Etcd { code: 3, .. })), "{too_long:?}");
        guards.unlock().await?;
        for n in 0..123 {
            world.client().delete(format!("n{n}"), None).await?;
        }
        Ok(())
    })
    .await
}

/// While it waits for the last, an operator takes the first: whoever gets it must not find two inside.
#[tokio::test]
async fn one_that_is_lost_while_another_is_waited_for_is_locked_anew() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let held = other.mutex("b").lock().await?;
        let waiting = {
            let one = one.clone();
            tokio::spawn(async move { one.lock_all(["a", "b"]).await })
        };
        until("it queues", async || other.mutex("b").queue().await.unwrap().len() == 2).await;
        let trying = tokio::spawn(async move { one.try_lock_all_for(["aa", "b"], LONG).await });
        until("it queues", async || other.mutex("b").queue().await.unwrap().len() == 3).await;
        let before = other.mutex("a").queue().await?;
        for name in ["a/", "aa/"] {
            world.client().delete(world.keys(name).await.remove(0), None).await?;
        }
        assert!(matches!(soon("it fails", trying).await?, Err(Error::Lost(Loss::Deleted))));
        until("it begins again", async || {
            let (first, last) = (other.mutex("a").queue().await.unwrap(), other.mutex("b").queue().await.unwrap());
            first.len() == 1 && first != before && last.len() == 2
        })
        .await;
        held.unlock().await?;
        let guards = soon("it holds", waiting).await??;
        guards.verify().await?;
        assert_eq!(names(&guards), ["a", "b"]);
        guards.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn names_that_cannot_be_are_refused_before_anything_is_sent() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let before = world.settled_requests(1.0).await;
        for names in [["a", "b//c"], ["", "a"]] {
            assert!(matches!(session.lock_all(names).await, Err(Error::InvalidName { .. })));
            assert!(matches!(session.try_lock_all(names).await, Err(Error::InvalidName { .. })));
            assert!(matches!(session.try_lock_all_for(names, LONG).await, Err(Error::InvalidName { .. })));
        }
        let none = session.lock_all([""; 0]).await;
        assert!(matches!(none, Err(Error::InvalidOption { option: "names", .. })), "{none:?}");
        assert_eq!(world.requests().await, before);
        Ok(())
    })
    .await
}

/// Dropped at any moment it leaves nothing, not even of those that it held already.
#[tokio::test]
async fn dropped_at_any_moment_it_leaves_nothing() -> TestResult {
    on_etcd(async |world: &World| {
        let one = world.session().await?;
        for other in [one.clone(), world.session().await?] {
            let acquire = async |session: &Session, way: usize| -> tenure::Result<Option<MultiGuard>> {
                match way {
                    0 => session.lock_all(["a", "b"]).await.map(Some),
                    1 => session.try_lock_all(["a", "b"]).await,
                    _ => session.try_lock_all_for(["a", "b"], LONG).await,
                }
            };
            for (way, drops) in [0, 1, 2].into_iter().flat_map(|way| [(way, Drops::AtOnce), (way, Drops::OnceWoken)]) {
                for polls in 0.. {
                    let case = format!("{way} after {polls} polls, {drops:?}");
                    assert!(polls < 100, "{case}");
                    let mut future = ByHand::new(acquire(&one, way));
                    let progress = future.poll(polls, drops).await;
                    drop(future);
                    let done = matches!(progress, Progress::Ready(_));
                    drop(progress);
                    let guards = soon(&case, other.lock_all(["b", "a"])).await?;
                    let mut unlock = ByHand::new(guards.unlock());
                    drop(unlock.poll(polls, drops).await);
                    drop(unlock);
                    equals(&case, 0, async || world.keys("a/").await.len() + world.keys("b/").await.len()).await;
                    if done {
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// `lost` fires, `run` drops its work, and only then do the keys go.
#[tokio::test]
async fn closing_the_session_ends_all_of_them() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guards = Arc::new(session.lock_all(["a", "b"]).await?);
        let (flag, dropped) = DropFlag::new();
        let running = {
            let guards = guards.clone();
            tokio::spawn(async move { guards.run(endless(flag)).await })
        };
        let waiting = {
            let session = session.clone();
            tokio::spawn(async move { session.lock_all(["b", "c"]).await.map(drop) })
        };
        until("it queues", async || session.mutex("b").queue().await.unwrap().len() == 2).await;
        session.close().await?;
        assert!(dropped.load(Ordering::SeqCst));
        assert_eq!(running.await?, Err(Loss::Closed));
        assert!(matches!(waiting.await?, Err(Error::Closed)));
        assert_eq!(guards.lost().await, Loss::Closed);
        assert!(world.keys("").await.is_empty());
        Ok(())
    })
    .await
}
