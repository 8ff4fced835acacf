//! So many at once and no more, in the order in which they came.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{LONG, TestResult, World, equals, holds, on_etcd, sessions, shared, soon, until, waits};
use tenure::etcd_client::{DeleteOptions, PutOptions};
use tenure::{Error, Guard, Kind, Loss, Semaphore, Session, Waiter};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// For how long a permit is held, so that others could come.
const HOLD: Duration = Duration::from_millis(2);

/// What goes wrong when there are too many.
#[derive(Default)]
struct Room {
    inside: AtomicU32,
    most: AtomicU32,
}

impl Room {
    async fn visit(&self, semaphore: &Semaphore, n: u32) {
        let guard = semaphore.acquire_many(n).await.unwrap();
        let inside = self.inside.fetch_add(n, Ordering::SeqCst) + n;
        assert!(inside <= semaphore.permits(), "{inside} are inside");
        self.most.fetch_max(inside, Ordering::SeqCst);
        tokio::time::sleep(HOLD).await;
        assert!(guard.is_valid());
        self.inside.fetch_sub(n, Ordering::SeqCst);
        guard.unlock().await.unwrap();
    }
}

/// A service has one session and many tasks: permits are counted by guards, not by leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_on_one_session_never_hold_more_than_there_is() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, room) = (world.session().await?, Arc::new(Room::default()));
        let mut visits = JoinSet::new();
        for _ in 0..1_000 {
            let (semaphore, room) = (session.semaphore("room", 8), room.clone());
            visits.spawn(async move { room.visit(&semaphore, 1).await });
        }
        soon("all have been inside", visits.join_all()).await;
        assert!(room.most.load(Ordering::SeqCst) > 1, "permits stayed unused");
        Ok(())
    })
    .await
}

/// The same across sessions, with requests of all sizes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_all_sizes_never_hold_more_than_there_is() -> TestResult {
    on_etcd(async |world: &World| {
        let (sessions, room) = (sessions(world).await?, Arc::new(Room::default()));
        let mut visits = JoinSet::new();
        for n in 0..300 {
            let (semaphore, room) = (sessions[n % 3].semaphore("room", 5), room.clone());
            visits.spawn(async move { room.visit(&semaphore, [1, 3, 2, 1, 5, 2, 1][n % 7]).await });
        }
        soon("all have been inside", visits.join_all()).await;
        Ok(())
    })
    .await
}

/// None of them could go on if one of them had to wait for another.
#[tokio::test]
async fn as_many_as_there_are_permits_hold_at_once() -> TestResult {
    on_etcd(async |world: &World| {
        let (sessions, all) = (sessions(world).await?, Arc::new(Barrier::new(12)));
        let mut workers = JoinSet::new();
        for n in 0..36 {
            let (semaphore, all) = (sessions[n % 3].semaphore("name", 12), all.clone());
            workers.spawn(async move {
                let guard = semaphore.acquire().await.unwrap();
                all.wait().await;
                guard.unlock().await.unwrap();
            });
        }
        soon("all have worked", workers.join_all()).await;
        Ok(())
    })
    .await
}

/// Whoever asks for much would wait for ever if those who ask for little could pass.
#[tokio::test]
async fn a_big_request_is_not_passed_by_small_ones() -> TestResult {
    on_etcd(async |world: &World| {
        for [one, two, three] in [sessions(world).await?, shared(world).await?] {
            let semaphore = |session: &Session| session.semaphore("name", 4);
            let (first, second) = (semaphore(&one).acquire_many(2).await?, semaphore(&two).acquire().await?);
            let mut big = semaphore(&two).enqueue_many(4).await?;
            let mut small = semaphore(&three).enqueue().await?;
            // One is free, and it is not theirs.
            waits(&mut big).await;
            waits(&mut small).await;
            assert!(semaphore(&one).try_acquire().await?.is_none());
            first.unlock().await?;
            waits(&mut big).await;
            waits(&mut small).await;
            second.unlock().await?;
            let big = holds(&mut big).await?;
            waits(&mut small).await;
            big.unlock().await?;
            holds(&mut small).await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// What a big one gives back, several small ones may take, and no more than fit.
#[tokio::test]
async fn a_release_lets_as_many_in_as_there_is_room_for() -> TestResult {
    on_etcd(async |world: &World| {
        for sessions in [sessions(world).await?, shared(world).await?] {
            let semaphore = |n: usize| sessions[n % 3].semaphore("name", 4);
            let all = semaphore(0).acquire_many(4).await?;
            let mut queue = Vec::new();
            for (place, n) in [1, 2, 1, 1, 3].into_iter().enumerate() {
                queue.push(semaphore(place).enqueue_many(n).await?);
            }
            let places = semaphore(0).queue().await?;
            assert!(places.is_sorted_by_key(Waiter::token) && places.len() == 6);
            all.unlock().await?;
            let mut last = queue.split_off(3);
            let mut held = Vec::new();
            for (ticket, waiter) in queue.iter_mut().zip(&places[1..]) {
                let guard = holds(ticket).await?;
                assert_eq!((guard.key(), guard.token()), (waiter.key(), waiter.token()));
                held.push(guard);
            }
            waits(&mut last[0]).await;
            // One that gives up makes room for those behind it, and is not in their way.
            let given_up = last.remove(0);
            drop(given_up);
            waits(&mut last[0]).await;
            held.pop().expect("three hold").unlock().await?;
            waits(&mut last[0]).await;
            held.pop().expect("two hold").unlock().await?;
            holds(&mut last[0]).await?.unlock().await?;
            held.pop().expect("one holds").unlock().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_try_takes_what_is_there_or_nothing() -> TestResult {
    on_etcd(async |world: &World| {
        let [one, two, _] = sessions(world).await?;
        let (ours, theirs) = (one.semaphore("name", 3), two.semaphore("name", 3));
        let guard = theirs.try_acquire_many(2).await?.expect("nobody is there");
        // More than once: a handle that met somebody asks in another way.
        for _ in 0..3 {
            ours.try_acquire().await?.expect("one is left").unlock().await?;
            let before = world.revision().await;
            assert!(ours.try_acquire_many(2).await?.is_none());
            assert_eq!(world.revision().await, before, "a failed try has written");
            assert!(ours.try_acquire_many_for(3, Duration::from_millis(1)).await?.is_none());
            until("the place is given up", async || ours.queue().await.unwrap().len() == 1).await;
            ours.try_acquire_for(Duration::ZERO).await?.expect("one is left").unlock().await?;
        }
        let waiting = tokio::spawn({
            let ours = ours.clone();
            async move { ours.try_acquire_many_for(3, LONG).await }
        });
        until("it queues", async || ours.queue().await.unwrap().len() == 2).await;
        assert!(theirs.try_acquire().await?.is_none(), "it has passed one who waits");
        guard.unlock().await?;
        soon("it holds", waiting).await??.expect("its turn has come").unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_key_tells_its_weight_and_the_capacity() -> TestResult {
    on_etcd(async |world: &World| {
        let session = Session::builder(world.etcd.client().await?).identity("api-7").open().await?;
        for (permits, n) in [(4, 3), (1, 1)] {
            let semaphore = session.semaphore("jobs/gpu", permits);
            assert_eq!((semaphore.name(), semaphore.permits()), ("jobs/gpu", permits));
            let guard = semaphore.acquire_many(n).await?;
            assert!(guard.key().starts_with(&format!("jobs/gpu/{:x}-", session.lease_id())), "{}", guard.key());
            let found = world.client().get(guard.key(), None).await?;
            let value: serde_json::Value = serde_json::from_slice(found.kvs()[0].value())?;
            assert_eq!(
                value,
                serde_json::json!({
                    "identity": "api-7", "kind": "semaphore", "weight": n, "capacity": permits, "since": value["since"]
                })
            );
            let waiter = &semaphore.queue().await?[0];
            let stated = (waiter.kind(), waiter.permits(), waiter.capacity());
            assert_eq!(stated, (Some(Kind::Semaphore), Some(n), Some(permits)));
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// Two versions of a service that disagree would hold more than either allows.
#[tokio::test]
async fn another_number_of_permits_is_refused_while_the_name_is_in_use() -> TestResult {
    on_etcd(async |world: &World| {
        let [one, two, _] = sessions(world).await?;
        for (first, other) in [(4, 8), (4, 2), (1, 2), (2, 1)] {
            let (stands, comes) = (one.semaphore("name", first), two.semaphore("name", other));
            // Once what was turned away is gone, nothing but those before it is there.
            let refused = async |before: usize, error: Option<Error>| {
                let error = error.expect("it is refused");
                let Error::CapacityMismatch { stored, asked } = error else { panic!("{error:?}") };
                assert_eq!((stored, asked), (first, other));
                equals("keys", before, async || world.keys("name/").await.len()).await;
            };
            let guard = stands.acquire().await?;
            refused(1, comes.acquire().await.err()).await;
            refused(1, comes.acquire_many(other).await.err()).await;
            refused(1, comes.try_acquire().await.err()).await;
            refused(1, comes.try_acquire_for(LONG).await.err()).await;
            refused(1, comes.enqueue().await.err()).await;
            // Behind more keys than it lists, too.
            let mut waiting = Vec::new();
            for _ in 0..12 {
                waiting.push(stands.enqueue_many(first).await?);
            }
            refused(13, comes.acquire().await.err()).await;
            refused(13, comes.try_acquire().await.err()).await;
            drop(waiting);
            guard.unlock().await?;
            // Nobody uses it: the number is free to change.
            comes.acquire().await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// A lock that is exclusive to some and shared by others protects nobody.
#[tokio::test]
async fn a_name_in_use_by_another_kind_is_refused() -> TestResult {
    on_etcd(async |world: &World| {
        let [one, two, _] = sessions(world).await?;
        // Once what was turned away is gone, nothing but the holder is there.
        let refused = async |guard: &Guard, error: Option<Error>, expected: [&str; 2]| {
            let error = error.expect("it is refused");
            let Error::KindMismatch { stored, asked } = error else { panic!("{error:?}") };
            assert_eq!([stored, asked], expected);
            assert!(error.to_string().contains(stored), "{error}");
            let prefix = format!("{}/", guard.name());
            equals("keys", vec![guard.key().to_owned()], async || world.keys(&prefix).await).await;
        };
        let (mutex, rwlock, semaphore) = (two.mutex("name"), two.rwlock("name"), two.semaphore("name", 2));

        let guard = one.semaphore("name", 2).acquire().await?;
        refused(&guard, mutex.lock().await.err(), ["semaphore", "mutex"]).await;
        refused(&guard, mutex.try_lock().await.err(), ["semaphore", "mutex"]).await;
        refused(&guard, mutex.try_lock_for(LONG).await.err(), ["semaphore", "mutex"]).await;
        refused(&guard, mutex.enqueue().await.err(), ["semaphore", "mutex"]).await;
        refused(&guard, rwlock.read().await.err(), ["semaphore", "read-write lock"]).await;
        refused(&guard, rwlock.try_read().await.err(), ["semaphore", "read-write lock"]).await;
        refused(&guard, rwlock.write().await.err(), ["semaphore", "read-write lock"]).await;
        refused(&guard, rwlock.try_write().await.err(), ["semaphore", "read-write lock"]).await;
        guard.unlock().await?;

        let others = [
            (one.mutex("name").lock().await?, "mutex"),
            (one.rwlock("other").read().await?, "read-write lock"),
            (one.rwlock("third").write().await?, "read-write lock"),
        ];
        for (guard, kind) in others {
            let semaphore = two.semaphore(guard.name(), 2);
            refused(&guard, semaphore.acquire().await.err(), [kind, "semaphore"]).await;
            refused(&guard, semaphore.try_acquire().await.err(), [kind, "semaphore"]).await;
            refused(&guard, semaphore.enqueue_many(2).await.err(), [kind, "semaphore"]).await;
            guard.unlock().await?;
        }
        // Nobody uses it: it is free for any kind.
        semaphore.acquire().await?.unlock().await?;
        mutex.try_lock().await?.expect("it is free").unlock().await?;
        Ok(())
    })
    .await
}

/// Whoever is turned away has a key in the queue for a moment: it must not turn others away who are in the right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_is_turned_away_is_in_nobody_s_way() -> TestResult {
    on_etcd(async |world: &World| {
        let [one, two, three] = sessions(world).await?;
        let guard = one.semaphore("name", 3).acquire().await?;
        let mut intruders = JoinSet::new();
        for n in 0..100 {
            let (mutex, semaphore) = (three.mutex("name"), three.semaphore("name", 9));
            intruders.spawn(async move {
                match if n % 2 == 0 { mutex.lock().await } else { semaphore.acquire().await } {
                    Err(Error::KindMismatch { .. } | Error::CapacityMismatch { .. }) => {}
                    other => panic!("{other:?}"),
                }
            });
        }
        let mut workers = JoinSet::new();
        for n in 0..100 {
            let semaphore = if n % 2 == 0 { one.semaphore("name", 3) } else { two.semaphore("name", 3) };
            workers.spawn(async move { semaphore.acquire().await.unwrap().unlock().await.unwrap() });
        }
        soon("all have worked", workers.join_all()).await;
        soon("all were turned away", intruders.join_all()).await;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// A key of another make states nothing: whoever has it might need everything.
#[tokio::test]
async fn a_key_of_another_make_counts_as_all_permits() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let semaphore = session.semaphore("name", 4);
        let zero = r#"{"identity":"x","kind":"semaphore","weight":0,"capacity":4}"#;
        for value in ["", "somebody", "{}", r#"{"identity":"x","kind":"of its own","weight":1}"#, zero] {
            let before = semaphore.acquire().await?;
            let lease = world.client().lease_grant(60, None).await?.id();
            // As Go's `concurrency` does.
            let options = PutOptions::new().with_lease(lease);
            world.client().put(format!("name/{lease:x}"), value, Some(options)).await?;
            let mut behind = semaphore.enqueue().await?;
            waits(&mut behind).await;
            assert!(semaphore.try_acquire().await?.is_none());
            before.unlock().await?;
            waits(&mut behind).await;
            world.client().lease_revoke(lease).await?;
            holds(&mut behind).await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn keys_deeper_down_block_nobody() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let nested = session.semaphore("a/b", 9).acquire().await?;
        for n in 0..5 {
            world.client().put(format!("a/0{n}/x"), "", None).await?;
        }
        let semaphore = session.semaphore("a", 2);
        let one = soon("it is free", semaphore.acquire()).await?;
        let other = semaphore.try_acquire().await?.expect("one is left");
        assert!(semaphore.try_acquire().await?.is_none());
        let mut behind = semaphore.enqueue_many(2).await?;
        waits(&mut behind).await;
        one.unlock().await?;
        waits(&mut behind).await;
        other.unlock().await?;
        holds(&mut behind).await?.unlock().await?;
        nested.unlock().await?;
        world.client().delete("a/", Some(DeleteOptions::new().with_prefix())).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_sent() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let before = world.settled_requests(1.0).await;
        let refused = |error: Option<Error>, expected: &str| match error {
            Some(Error::InvalidOption { option, .. }) => assert_eq!(option, expected),
            error => panic!("{error:?}"),
        };
        let semaphore = session.semaphore("name", 4);
        for n in [0, 5, u32::MAX] {
            refused(semaphore.acquire_many(n).await.err(), "n");
            refused(semaphore.try_acquire_many(n).await.err(), "n");
            refused(semaphore.try_acquire_many_for(n, LONG).await.err(), "n");
            refused(semaphore.enqueue_many(n).await.err(), "n");
        }
        let none = session.semaphore("name", 0);
        refused(none.acquire().await.err(), "permits");
        refused(none.acquire_many(0).await.err(), "permits");
        refused(none.try_acquire().await.err(), "permits");
        refused(none.try_acquire_for(LONG).await.err(), "permits");
        refused(none.enqueue().await.err(), "permits");
        let unnamed = session.semaphore("", 4);
        assert!(matches!(unnamed.acquire().await, Err(Error::InvalidName { .. })));
        assert!(matches!(unnamed.try_acquire().await, Err(Error::InvalidName { .. })));
        assert!(matches!(unnamed.queue().await, Err(Error::InvalidName { .. })));
        assert_eq!(world.requests().await, before);
        // The most that there can be is as good as any.
        session.semaphore("name", u32::MAX).acquire_many(u32::MAX).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// A permit that is lost is free, and its holder knows.
#[tokio::test]
async fn a_holder_is_told_of_its_loss_and_the_next_holds() -> TestResult {
    on_etcd(async |world: &World| {
        for expected in [Loss::Revoked, Loss::Deleted] {
            let [one, two, three] = sessions(world).await?;
            let semaphore = |session: &Session| session.semaphore("name", 3);
            let (stays, lost) = (semaphore(&one).acquire().await?, semaphore(&two).acquire_many(2).await?);
            let mut next = semaphore(&three).enqueue_many(2).await?;
            waits(&mut next).await;
            if expected == Loss::Revoked {
                world.client().lease_revoke(two.lease_id()).await?;
            } else {
                world.client().delete(lost.key(), None).await?;
            }
            assert_eq!(soon("`lost` fires", lost.lost()).await, expected);
            assert!(!lost.is_valid());
            assert!(matches!(lost.unlock().await, Err(Error::Lost(loss)) if loss == expected));
            let next = holds(&mut next).await?;
            next.verify().await?;
            assert!(stays.is_valid());
            stays.unlock().await?;
            next.unlock().await?;
        }
        Ok(())
    })
    .await
}
