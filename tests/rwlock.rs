//! Many readers or one writer, in the order in which they came.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use common::{LONG, TestResult, World, holds, on_etcd, sessions, shared, soon, until, waits};
use tenure::etcd_client::{DeleteOptions, PutOptions};
use tenure::{Error, Guard, Loss, RwLock, Session, Waiter};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// The shortest that etcd grants.
const SHORT: Duration = Duration::from_secs(2);

/// What a client of another make puts into the queue: Go's `concurrency` names a key by its lease alone.
async fn put_as_go_does(world: &World, name: &str) -> TestResult<i64> {
    let lease = world.client().lease_grant(60, None).await?.id();
    world.client().put(format!("{name}/{lease:x}"), "", Some(PutOptions::new().with_lease(lease))).await?;
    Ok(lease)
}

/// None of them could go on if one of them had to wait for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_hold_at_once() -> TestResult {
    on_etcd(async |world: &World| {
        let (sessions, all) = (sessions(world).await?, Arc::new(Barrier::new(100)));
        let mut readers = JoinSet::new();
        for n in 0..100 {
            let (lock, all) = (sessions[n % 3].rwlock("name"), all.clone());
            readers.spawn(async move {
                let guard = lock.read().await.unwrap();
                all.wait().await;
                assert!(guard.is_valid());
                guard.unlock().await.unwrap();
            });
        }
        soon("all have read", readers.join_all()).await;
        Ok(())
    })
    .await
}

/// For how long a lock is held, so that others could come.
const HOLD: Duration = Duration::from_millis(2);

/// What goes wrong when a writer is not alone.
#[derive(Default)]
struct Page {
    readers: AtomicI64,
    writers: AtomicI64,
    /// Written in two steps.
    text: AtomicI64,
    most_readers: AtomicI64,
    written: AtomicUsize,
}

impl Page {
    async fn read(&self, lock: &RwLock) {
        let guard = lock.read().await.unwrap();
        let readers = self.readers.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_readers.fetch_max(readers, Ordering::SeqCst);
        assert_eq!(self.writers.load(Ordering::SeqCst), 0, "a reader beside a writer");
        let before = self.text.load(Ordering::SeqCst);
        tokio::time::sleep(HOLD).await;
        assert!(guard.is_valid());
        assert_eq!(self.text.load(Ordering::SeqCst), before, "written under a reader's eyes");
        self.readers.fetch_sub(1, Ordering::SeqCst);
        guard.unlock().await.unwrap();
    }

    async fn write(&self, lock: &RwLock) {
        let guard = lock.write().await.unwrap();
        assert_eq!(self.writers.fetch_add(1, Ordering::SeqCst), 0, "two writers");
        assert_eq!(self.readers.load(Ordering::SeqCst), 0, "a writer beside a reader");
        let before = self.text.load(Ordering::SeqCst);
        tokio::time::sleep(HOLD).await;
        assert!(guard.is_valid());
        self.text.store(before + 1, Ordering::SeqCst);
        self.written.fetch_add(1, Ordering::SeqCst);
        self.writers.fetch_sub(1, Ordering::SeqCst);
        guard.unlock().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_is_alone() -> TestResult {
    on_etcd(async |world: &World| {
        let (sessions, page) = (sessions(world).await?, Arc::new(Page::default()));
        let mut tasks = JoinSet::new();
        for n in 0..300 {
            let (lock, page) = (sessions[n % 3].rwlock("name"), page.clone());
            tasks.spawn(async move { if n % 4 == 0 { page.write(&lock).await } else { page.read(&lock).await } });
        }
        soon("all have been there", tasks.join_all()).await;
        assert_eq!(page.written.load(Ordering::SeqCst), 75);
        assert_eq!(page.text.load(Ordering::SeqCst), 75, "a write was lost");
        assert!(page.most_readers.load(Ordering::SeqCst) > 1, "readers never met");
        Ok(())
    })
    .await
}

/// A stream of readers that never ends must not keep a writer out for ever.
#[tokio::test]
async fn a_reader_behind_a_waiting_writer_waits() -> TestResult {
    on_etcd(async |world: &World| {
        for [one, two, three] in [sessions(world).await?, shared(world).await?] {
            let reading = one.rwlock("name").read().await?;
            let mut writer = two.rwlock("name").enqueue_write().await?;
            let mut behind = three.rwlock("name").enqueue_read().await?;
            waits(&mut writer).await;
            waits(&mut behind).await;
            assert!(three.rwlock("name").try_read().await?.is_none());
            reading.unlock().await?;
            let writing = holds(&mut writer).await?;
            waits(&mut behind).await;
            writing.unlock().await?;
            holds(&mut behind).await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_writer_that_gives_up_lets_the_readers_behind_it_in() -> TestResult {
    on_etcd(async |world: &World| {
        for [one, two, three] in [sessions(world).await?, shared(world).await?] {
            let reading = one.rwlock("name").read().await?;
            let writer = two.rwlock("name").enqueue_write().await?;
            let mut behind = three.rwlock("name").enqueue_read().await?;
            waits(&mut behind).await;
            drop(writer);
            let beside = holds(&mut behind).await?;
            assert!(reading.is_valid() && beside.is_valid());
            reading.unlock().await?;
            beside.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// One release, and all of them hold, up to the next writer and not beyond.
#[tokio::test]
async fn a_writer_s_release_lets_all_readers_behind_it_in() -> TestResult {
    on_etcd(async |world: &World| {
        let sessions = sessions(world).await?;
        let first = sessions[0].rwlock("name").write().await?;
        let mut readers = Vec::new();
        for n in 0..21 {
            readers.push(sessions[n % 3].rwlock("name").enqueue_read().await?);
        }
        let mut second = sessions[1].rwlock("name").enqueue_write().await?;
        let mut beyond = sessions[2].rwlock("name").enqueue_read().await?;
        first.unlock().await?;
        let mut reading = Vec::new();
        for reader in &mut readers {
            reading.push(holds(reader).await?);
        }
        assert!(reading.iter().all(Guard::is_valid));
        waits(&mut second).await;
        waits(&mut beyond).await;
        // The last of them, whichever it is, makes room.
        let last = reading.swap_remove(7);
        for reader in reading {
            reader.unlock().await?;
        }
        waits(&mut second).await;
        last.unlock().await?;
        holds(&mut second).await?.unlock().await?;
        holds(&mut beyond).await?.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tokens_follow_the_order_of_the_queue() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let lock = session.rwlock("name");
        let mut places = Vec::new();
        for n in 0..6 {
            places.push(if n % 2 == 0 { lock.enqueue_write().await? } else { lock.enqueue_read().await? });
        }
        let queue = lock.queue().await?;
        assert!(queue.is_sorted_by_key(Waiter::token));
        for (place, waiter) in places.iter_mut().zip(queue) {
            assert_eq!(place.position().await?, 0);
            let guard = holds(place).await?;
            assert_eq!((guard.key(), guard.token()), (waiter.key(), waiter.token()));
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_try_succeeds_beside_readers_and_fails_beside_a_writer() -> TestResult {
    on_etcd(async |world: &World| {
        for [one, two, _] in [sessions(world).await?, shared(world).await?] {
            let (ours, theirs) = (one.rwlock("name"), two.rwlock("name"));
            let reading = theirs.try_read().await?.expect("nobody is there");
            // More than once: a handle that met somebody asks in another way.
            for _ in 0..3 {
                ours.try_read().await?.expect("readers alone are there").unlock().await?;
                let before = world.revision().await;
                assert!(ours.try_write().await?.is_none());
                assert_eq!(world.revision().await, before, "a failed try has written");
                assert!(ours.try_write_for(Duration::from_millis(1)).await?.is_none());
                until("the place is given up", async || ours.queue().await.unwrap().len() == 1).await;
                ours.try_read_for(Duration::ZERO).await?.expect("it is free for readers").unlock().await?;
            }
            reading.unlock().await?;

            let writing = theirs.try_write_for(Duration::ZERO).await?.expect("nobody is there");
            for _ in 0..3 {
                let before = world.revision().await;
                assert!(ours.try_read().await?.is_none());
                assert!(ours.try_write().await?.is_none());
                assert_eq!(world.revision().await, before, "a failed try has written");
                assert!(ours.try_read_for(Duration::from_millis(1)).await?.is_none());
                until("the place is given up", async || ours.queue().await.unwrap().len() == 1).await;
            }
            writing.unlock().await?;
            ours.try_write().await?.expect("nobody is there").unlock().await?;
        }
        Ok(())
    })
    .await
}

/// A limit is for the waiting: whoever gets its turn within it holds.
#[tokio::test]
async fn a_try_for_a_while_waits_for_its_turn() -> TestResult {
    on_etcd(async |world: &World| {
        let [one, two, _] = sessions(world).await?;
        let (ours, theirs) = (one.rwlock("name"), two.rwlock("name"));
        let writing = theirs.write().await?;
        let reader = tokio::spawn({
            let ours = ours.clone();
            async move { ours.try_read_for(LONG).await }
        });
        until("it queues", async || ours.queue().await.unwrap().len() == 2).await;
        writing.unlock().await?;
        let reading = soon("it reads", reader).await??.expect("its turn has come");
        let writer = tokio::spawn({
            let theirs = theirs.clone();
            async move { theirs.try_write_for(LONG).await }
        });
        until("it queues", async || ours.queue().await.unwrap().len() == 2).await;
        reading.unlock().await?;
        soon("it writes", writer).await??.expect("its turn has come").unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_key_tells_whether_it_reads_or_writes() -> TestResult {
    on_etcd(async |world: &World| {
        let session = Session::builder(world.etcd.client().await?).identity("api-7").open().await?;
        let (lock, lease) = (session.rwlock("jobs/config"), session.lease_id());
        assert_eq!(lock.name(), "jobs/config");
        let says = async |guard: &Guard, kind: &str| -> TestResult {
            let found = world.client().get(guard.key(), None).await?;
            let value: serde_json::Value = serde_json::from_slice(found.kvs()[0].value())?;
            assert_eq!(value, serde_json::json!({ "identity": "api-7", "kind": kind, "since": value["since"] }));
            assert_eq!((found.kvs()[0].lease(), guard.name()), (lease, "jobs/config"));
            assert_eq!(found.kvs()[0].create_revision(), i64::from(guard.token()));
            assert_eq!(lock.queue().await?[0].identity(), "api-7");
            Ok(())
        };
        let reading = lock.read().await?;
        assert!(reading.key().starts_with(&format!("jobs/config/r-{lease:x}-")), "{}", reading.key());
        says(&reading, "read").await?;
        reading.unlock().await?;
        let writing = lock.write().await?;
        assert!(writing.key().starts_with(&format!("jobs/config/{lease:x}-")), "{}", writing.key());
        says(&writing, "write").await?;
        writing.unlock().await?;
        Ok(())
    })
    .await
}

/// To readers a mutex is a writer, and so is a client of Go's.
#[tokio::test]
async fn mutexes_and_go_s_clients_count_as_writers() -> TestResult {
    on_etcd(async |world: &World| {
        for [one, two, three] in [sessions(world).await?, shared(world).await?] {
            let reading = one.rwlock("name").read().await?;
            let mut mutex = two.mutex("name").enqueue().await?;
            let go = put_as_go_does(world, "name").await?;
            let mut reader = three.rwlock("name").enqueue_read().await?;
            let mut writer = one.rwlock("name").enqueue_write().await?;
            assert!(two.mutex("name").try_lock().await?.is_none());
            assert!(two.rwlock("name").try_read().await?.is_none());
            assert_eq!(one.mutex("name").queue().await?.len(), 5);
            waits(&mut mutex).await;
            reading.unlock().await?;
            let guard = holds(&mut mutex).await?;
            waits(&mut reader).await;
            guard.unlock().await?;
            waits(&mut reader).await;
            world.client().lease_revoke(go).await?;
            let reading = holds(&mut reader).await?;
            waits(&mut writer).await;
            reading.unlock().await?;
            holds(&mut writer).await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// Locks `a` and `a/b` never meet, whoever reads or writes.
#[tokio::test]
async fn keys_deeper_down_block_nobody() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let nested = [session.rwlock("a/b").write().await?, session.rwlock("a/c").read().await?];
        // As many that more than one window is full of them, in both lanes.
        for n in 0..5 {
            world.client().put(format!("a/0{n}/x"), "", None).await?;
            world.client().put(format!("a/r-{n}/x"), "", None).await?;
        }
        let lock = session.rwlock("a");
        for _ in 0..2 {
            soon("it is free", lock.write()).await?.unlock().await?;
            lock.try_write().await?.expect("it is free").unlock().await?;
            let reading = soon("it is free", lock.read()).await?;
            lock.try_read().await?.expect("it is free for readers").unlock().await?;
            assert!(lock.try_write().await?.is_none());
            let mut writer = lock.enqueue_write().await?;
            let mut behind = lock.enqueue_read().await?;
            waits(&mut behind).await;
            reading.unlock().await?;
            holds(&mut writer).await?.unlock().await?;
            holds(&mut behind).await?.unlock().await?;
        }
        for guard in nested {
            guard.unlock().await?;
        }
        let prefix = DeleteOptions::new().with_prefix();
        world.client().delete("a/", Some(prefix)).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_refused_before_anything_is_sent() -> TestResult {
    on_etcd(async |world: &World| {
        let lock = world.session().await?.rwlock("a//b");
        let before = world.settled_requests(1.0).await;
        let refused = |error: Option<Error>| assert!(matches!(error, Some(Error::InvalidName { .. })), "{error:?}");
        refused(lock.read().await.err());
        refused(lock.write().await.err());
        refused(lock.try_read().await.err());
        refused(lock.try_write().await.err());
        refused(lock.try_read_for(LONG).await.err());
        refused(lock.try_write_for(LONG).await.err());
        refused(lock.enqueue_read().await.err());
        refused(lock.enqueue_write().await.err());
        refused(lock.queue().await.err());
        assert_eq!(world.requests().await, before);
        Ok(())
    })
    .await
}

/// An operator takes a read lock away, by its key or with its lease: one that had to wait, and one that had not.
#[tokio::test]
async fn a_reader_is_told_of_its_loss_and_the_writer_behind_it_holds() -> TestResult {
    on_etcd(async |world: &World| {
        for expected in [Loss::Revoked, Loss::Deleted] {
            let [one, two, three] = sessions(world).await?;
            let writing = one.rwlock("name").write().await?;
            let mut reader = two.rwlock("name").enqueue_read().await?;
            writing.unlock().await?;
            let (waited, at_once) = (holds(&mut reader).await?, two.rwlock("name").read().await?);
            let mut writer = three.rwlock("name").enqueue_write().await?;
            waits(&mut writer).await;
            if expected == Loss::Revoked {
                world.client().lease_revoke(two.lease_id()).await?;
            } else {
                world.client().delete(waited.key(), None).await?;
                world.client().delete(at_once.key(), None).await?;
            }
            for guard in [waited, at_once] {
                assert_eq!(soon("`lost` fires", guard.lost()).await, expected);
                assert!(!guard.is_valid());
                assert!(matches!(guard.unlock().await, Err(Error::Lost(loss)) if loss == expected));
            }
            holds(&mut writer).await?.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// Nobody waits longer for a reader that vanished than its lease lives.
#[tokio::test]
async fn a_reader_that_cannot_renew_loses_its_hold_in_time() -> TestResult {
    on_etcd(async |world: &World| {
        let (short, long) = (world.etcd.session(SHORT).await?, world.session().await?);
        let reading = short.rwlock("name").read().await?;
        let mut writer = long.rwlock("name").enqueue_write().await?;
        world.etcd.pause(0)?;
        assert_eq!(soon("the loss", reading.lost()).await, Loss::Expired);
        assert!(reading.deadline().has_passed());
        world.etcd.resume(0)?;
        drop(reading);
        holds(&mut writer).await?.unlock().await?;
        Ok(())
    })
    .await
}
