//! A session ends when it is closed, or when its last handle is dropped, and takes with it all that stood on it.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{DropFlag, TestResult, World, endless, equals, on_etcd, soon, until};
use tenure::{Error, Health, Loss};

/// First those who hold are told, then the work is dropped, and only then does the next one get its turn.
#[tokio::test]
async fn closing_tells_those_who_hold_and_takes_everything_along() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = Arc::new(session.mutex("name").lock().await?);
        let lost = tokio::spawn(guard.lost());
        let (flag, dropped) = DropFlag::new();
        let held = guard.clone();
        let running = tokio::spawn(async move { held.run(endless(flag)).await });
        let mutex = session.mutex("name");
        let waiting = tokio::spawn(async move { mutex.lock().await });
        let mut ticket = session.mutex("name").enqueue().await?;
        until("both queue", async || world.keys("name/").await.len() == 3).await;
        assert_eq!(world.leases().await, [session.lease_id()]);

        soon("it is closed", session.close()).await?;
        assert!(world.keys("").await.is_empty(), "keys are left");
        assert!(world.leases().await.is_empty(), "the lease is left");
        assert!(dropped.load(Ordering::SeqCst), "`run` has not dropped its work");
        assert_eq!(soon("`lost` fires", lost).await?, Loss::Closed);
        assert_eq!(soon("`run` ends", running).await?, Err(Loss::Closed));
        assert!(matches!(soon("the wait ends", waiting).await?, Err(Error::Closed)));
        assert!(matches!(soon("the wait ends", ticket.granted()).await, Err(Error::Closed)));
        assert!(!guard.is_valid() && guard.deadline().has_passed() && session.deadline().has_passed());
        assert_eq!(*session.health().borrow(), Health::Lost(Loss::Closed));
        let guard = Arc::into_inner(guard).expect("its work is dropped");
        assert!(matches!(guard.unlock().await, Err(Error::Lost(Loss::Closed))));
        Ok(())
    })
    .await
}

/// Two at once, even for the moment of a shutdown, would be two leaders.
#[tokio::test]
async fn the_work_is_dropped_before_the_key_goes() -> TestResult {
    /// Work that takes a while to let go.
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    on_etcd(async |world: &World| {
        for _ in 0..10 {
            let (session, other) = (world.session().await?, world.session().await?);
            let guard = session.mutex("name").lock().await?;
            let over = Arc::new(AtomicBool::new(false));
            let seen = over.clone();
            let mutex = other.mutex("name");
            let next = tokio::spawn(async move {
                let guard = mutex.lock().await.unwrap();
                assert!(seen.load(Ordering::SeqCst), "the work was still there");
                guard.unlock().await.unwrap();
            });
            until("the next queues", async || world.keys("name/").await.len() == 2).await;
            let (slow, (begun, begins)) = (Slow(over), tokio::sync::oneshot::channel());
            // On a thread of its own, as in a runtime with many.
            let running = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(guard.run(async move {
                    let _slow = slow;
                    begun.send(()).expect("it is waited for");
                    std::future::pending::<()>().await;
                }))
            });
            soon("the work begins", begins).await?;
            soon("it is closed", session.close()).await?;
            soon("the next has held", next).await?;
            assert_eq!(running.join().expect("it does not panic"), Err(Loss::Closed));
        }
        Ok(())
    })
    .await
}

/// Whoever shuts down twice, or on several clones, has made no mistake.
#[tokio::test]
async fn a_closed_session_stays_closed_for_all_clones() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (clone, mutex) = (session.clone(), session.mutex("name"));
        let health = clone.health();
        let lease = session.lease_id();
        let (one, two) = tokio::join!(session.close(), clone.close());
        one?;
        two?;
        soon("it is closed", session.close()).await?;
        let before = world.revision().await;
        for mutex in [&mutex, &clone.mutex("other")] {
            assert!(matches!(soon("an answer", mutex.lock()).await, Err(Error::Closed)));
            assert!(matches!(soon("an answer", mutex.try_lock()).await, Err(Error::Closed)));
            assert!(matches!(soon("an answer", mutex.try_lock_for(common::LIMIT)).await, Err(Error::Closed)));
            assert!(matches!(soon("an answer", mutex.enqueue()).await, Err(Error::Closed)));
        }
        assert_eq!(*health.borrow(), Health::Lost(Loss::Closed));
        assert_eq!(clone.lease_id(), lease, "a closed session asks for no lease");
        assert_eq!(world.revision().await, before);
        Ok(())
    })
    .await
}

/// A lease that is granted when nobody waits for it any more would be kept by etcd for its whole TTL.
#[tokio::test]
async fn a_session_closed_while_it_asks_for_a_lease_leaves_none() -> TestResult {
    on_etcd(async |world: &World| {
        for n in 0..40 {
            let session = world.session().await?;
            let mut health = session.health();
            health.borrow_and_update();
            world.client().lease_revoke(session.lease_id()).await?;
            soon("the loss", health.changed()).await?;
            // Now it asks for the next. Closed, or dropped, somewhere on the way.
            tokio::time::sleep(std::time::Duration::from_micros(n / 2 * 100)).await;
            if n % 2 == 0 {
                soon("it is closed", session.close()).await?;
            }
            drop(session);
        }
        equals("leases", Vec::new(), async || world.leases().await).await;
        Ok(())
    })
    .await
}

/// Whoever shuts down while etcd is away must get to an end.
#[tokio::test]
async fn closing_ends_at_the_deadline_where_etcd_does_not_answer() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(std::time::Duration::from_secs(2)).await?;
        let guard = session.mutex("name").lock().await?;
        let (flag, dropped) = DropFlag::new();
        let mutex = session.mutex("name");
        let waiting = tokio::spawn(async move { mutex.lock().await });
        until("it queues", async || world.keys("name/").await.len() == 2).await;
        world.etcd.pause(0)?;
        let closing = session.clone();
        let closing = tokio::spawn(async move { closing.close().await });
        assert_eq!(soon("`run` ends", guard.run(endless(flag))).await, Err(Loss::Closed));
        assert!(dropped.load(Ordering::SeqCst));
        assert!(matches!(soon("the wait ends", waiting).await?, Err(Error::Closed)));
        soon("it is closed", closing).await??;
        world.etcd.resume(0)?;
        Ok(())
    })
    .await
}

/// By then the lease has expired by itself, whatever hangs: a member, or work that nobody polls.
#[tokio::test]
async fn closing_takes_no_longer_than_the_ttl() -> TestResult {
    on_etcd(async |world: &World| {
        let ttl = std::time::Duration::from_secs(3);
        for frozen in [true, false] {
            let session = world.etcd.session(ttl).await?;
            let guard = session.mutex("name").lock().await?;
            let dropped = session.mutex("dropped").lock().await?;
            let mut running = common::ByHand::new(guard.run(std::future::pending::<()>()));
            if frozen {
                world.etcd.pause(0)?;
            } else {
                assert!(matches!(running.poll_until_quiet().await, common::Progress::Quiet));
            }
            drop(dropped);
            let begun = std::time::Instant::now();
            soon("it is closed", session.close()).await?;
            // Time to wake up on a loaded machine.
            assert!(begun.elapsed() < ttl + ttl / 3, "{:?}", begun.elapsed());
            if frozen {
                world.etcd.resume(0)?;
            }
            drop(running);
            drop(guard);
            equals("leases", Vec::new(), async || world.leases().await).await;
        }
        Ok(())
    })
    .await
}

/// What was dropped a moment ago is released in the background, unless that is over.
#[tokio::test]
async fn closing_waits_for_what_was_dropped() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let mut guards = Vec::new();
        let mut tickets = Vec::new();
        for n in 0..150 {
            guards.push(session.mutex(format!("names/{n}")).lock().await?);
            tickets.push(session.mutex("name").enqueue().await?);
        }
        let mut next = other.mutex("name").enqueue().await?;
        drop((guards, tickets));
        soon("it is closed", session.close()).await?;
        assert!(world.keys("names/").await.is_empty(), "keys are left");
        assert_eq!(world.keys("name/").await.len(), 1);
        assert_eq!(world.leases().await, [other.lease_id()]);
        soon("it is its turn", next.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Guards get dropped wherever their owners are: in a thread without a runtime, too.
#[tokio::test]
async fn a_guard_dropped_on_a_thread_without_a_runtime_is_released() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let guard = session.mutex("name").lock().await?;
        let ticket = session.mutex("name").enqueue().await?;
        let mut next = other.mutex("name").enqueue().await?;
        std::thread::spawn(move || drop((session, ticket, guard))).join().expect("it does not panic");
        soon("it is its turn", next.granted()).await?.unlock().await?;
        equals("leases", vec![other.lease_id()], async || world.leases().await).await;
        Ok(())
    })
    .await
}

/// Nobody renews the lease any more: everything says so at once, and nobody hangs or panics. A session in a static that
/// several tests share, each with a runtime of its own, meets this.
#[test]
fn a_session_that_outlives_its_runtime_is_closed() -> TestResult {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (outer, inner) = (runtime()?, runtime()?);
    let etcd = outer.block_on(tenure::testing::Etcd::start())?;
    let (session, guard, ticket) = inner.block_on(async {
        let session = etcd.session(std::time::Duration::from_secs(2)).await?;
        let guard = session.mutex("name").lock().await?;
        let ticket = session.mutex("name").enqueue().await?;
        let term = session.election("name/office").campaign("value").await?;
        TestResult::Ok((session, guard, (ticket, term)))
    })?;
    inner.shutdown_background();
    outer.block_on(async {
        until("it is not valid any more", async || !guard.is_valid()).await;
        assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Closed);
        let (mut ticket, term) = ticket;
        soon("the term ends", term.ending().cancelled_owned()).await;
        assert!(matches!(soon("an answer", ticket.granted()).await, Err(Error::Closed)));
        assert!(matches!(soon("an answer", session.mutex("other").lock()).await, Err(Error::Closed)));
        assert!(matches!(soon("an answer", session.mutex("other").try_lock()).await, Err(Error::Closed)));
        assert_eq!(*session.health().borrow(), Health::Lost(Loss::Closed));
        soon("it is closed", session.close()).await?;
        drop((guard, ticket, term, session));
        let session = etcd.session(std::time::Duration::from_secs(2)).await?;
        soon("the lock is free", session.mutex("name").lock()).await?.unlock().await?;
        Ok(())
    })
}

/// Dropping the future of `close` makes no difference: what has begun is done.
#[tokio::test]
async fn a_dropped_close_still_closes() -> TestResult {
    on_etcd(async |world: &World| {
        for drops in [common::Drops::AtOnce, common::Drops::OnceWoken] {
            for polls in 1.. {
                let session = world.session().await?;
                let guard = session.mutex("name").lock().await?;
                let done = common::ByHand::new(session.close()).poll(polls, drops).await;
                assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Closed);
                equals("leases", Vec::new(), async || world.leases().await).await;
                if let common::Progress::Ready(closed) = done {
                    closed?;
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

/// A service that simply ends its last task leaves nothing for the TTL to clear away.
#[tokio::test]
async fn dropping_the_last_handle_revokes_the_lease() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let lease = session.lease_id();
        let (clone, mutex, health) = (session.clone(), session.mutex("name"), session.health());
        drop(session);
        drop(clone);
        assert_eq!(world.leases().await, [lease]);
        mutex.lock().await?.unlock().await?;
        drop(mutex);
        equals("leases", Vec::new(), async || world.leases().await).await;
        equals("keys", Vec::<String>::new(), async || world.keys("").await).await;
        until("it is closed", async || *health.borrow() == Health::Lost(Loss::Closed)).await;
        Ok(())
    })
    .await
}

/// Nobody need keep a session in a variable for fear of losing what they hold.
#[tokio::test]
async fn a_guard_a_ticket_and_a_run_keep_the_session() -> TestResult {
    on_etcd(async |world: &World| {
        let guard = world.etcd.session(std::time::Duration::from_secs(2)).await?.mutex("name").lock().await?;
        let mut ticket = world.session().await?.mutex("name").enqueue().await?;
        // Renewed twice over, and still there.
        let first = guard.deadline();
        until("it was renewed", async || guard.deadline() > first && first.has_passed()).await;
        guard.verify().await?;
        guard.unlock().await?;
        let guard = soon("it is its turn", ticket.granted()).await?;
        drop(ticket);
        assert!(guard.is_valid());
        equals("leases", 1, async || world.leases().await.len()).await;
        drop(guard);
        equals("leases", Vec::new(), async || world.leases().await).await;
        Ok(())
    })
    .await
}

/// `run` is for work that may finish, too.
#[tokio::test]
async fn a_run_returns_what_its_work_returns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let local = Mutex::new(0);
        let output = guard.run(async { std::mem::replace(&mut *local.lock().unwrap(), 1) }).await?;
        assert_eq!((output, local.into_inner()?), (0, 1));
        assert!(guard.is_valid());
        // Dropped half-way, it drops its work, and the hold goes on.
        let (flag, dropped) = DropFlag::new();
        let mut running = common::ByHand::new(guard.run(endless(flag)));
        assert!(matches!(running.poll_until_quiet().await, common::Progress::Quiet));
        drop(running);
        assert!(dropped.load(Ordering::SeqCst));
        guard.verify().await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}
