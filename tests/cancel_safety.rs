//! Any future may be dropped at any await point: no key, no lease, no watch and no task is left behind, and the next in
//! the queue gets its turn. That nothing but keys is left is looked at when each test is over.
//!
//! Each future is polled by hand, zero times and more until it is done, and dropped: right after the last poll, when
//! its request is on its way, and when the reply is there and it has not seen it.

mod common;

use std::any::Any;
use std::pin::Pin;

use common::{ByHand, Drops, LIMIT, Progress, TestResult, World, equals, on_etcd, soon, until};
use tenure::{Guard, Semaphore, Session, Ticket};

type Doing = Pin<Box<dyn Future<Output = Box<dyn Any>>>>;
type Way = (&'static str, Kind, fn(Session) -> Doing);

/// What everybody of a test wants by one name.
#[derive(Clone, Copy)]
enum Kind {
    Mutex,
    RwLock,
    Semaphore,
}

impl Kind {
    /// Takes a place that is granted when everyone before it is gone.
    async fn enqueue(self, session: &Session) -> tenure::Result<Ticket> {
        match self {
            Self::Mutex => session.mutex("name").enqueue().await,
            Self::RwLock => session.rwlock("name").enqueue_write().await,
            Self::Semaphore => semaphore(session).enqueue_many(3).await,
        }
    }

    async fn lock(self, session: &Session) -> tenure::Result<Guard> {
        self.enqueue(session).await?.granted().await
    }
}

fn semaphore(session: &Session) -> Semaphore {
    session.semaphore("name", 3)
}

fn doing<T: Any>(acquisition: impl Future<Output = tenure::Result<T>> + 'static) -> Doing {
    Box::pin(async move { Box::new(acquisition.await.unwrap()) as Box<dyn Any> })
}

/// Everything that takes a place, and what it returns.
const WAYS: [Way; 16] = [
    ("lock", Kind::Mutex, |session| doing(async move { session.mutex("name").lock().await })),
    ("try_lock", Kind::Mutex, |session| doing(async move { session.mutex("name").try_lock().await })),
    ("try_lock_for", Kind::Mutex, |session| doing(async move { session.mutex("name").try_lock_for(LIMIT).await })),
    ("enqueue", Kind::Mutex, |session| doing(async move { session.mutex("name").enqueue().await?.granted().await })),
    ("reentrant lock", Kind::Mutex, |session| doing(async move { session.mutex("name").reentrant().lock().await })),
    ("try_reentrant lock", Kind::Mutex, |session| {
        doing(async move { session.mutex("name").reentrant().try_lock().await })
    }),
    ("try_reentrant lock_for", Kind::Mutex, |session| {
        doing(async move { session.mutex("name").reentrant().try_lock_for(LIMIT).await })
    }),
    ("read", Kind::RwLock, |session| doing(async move { session.rwlock("name").read().await })),
    ("try_read", Kind::RwLock, |session| doing(async move { session.rwlock("name").try_read().await })),
    ("try_read_for", Kind::RwLock, |session| doing(async move { session.rwlock("name").try_read_for(LIMIT).await })),
    ("enqueue_read", Kind::RwLock, |session| {
        doing(async move { session.rwlock("name").enqueue_read().await?.granted().await })
    }),
    ("acquire", Kind::Semaphore, |session| doing(async move { semaphore(&session).acquire().await })),
    ("try_acquire_many", Kind::Semaphore, |session| {
        doing(async move { semaphore(&session).try_acquire_many(2).await })
    }),
    ("try_acquire_for", Kind::Semaphore, |session| {
        doing(async move { semaphore(&session).try_acquire_for(LIMIT).await })
    }),
    ("enqueue_many", Kind::Semaphore, |session| {
        doing(async move { semaphore(&session).enqueue_many(2).await?.granted().await })
    }),
    ("write", Kind::RwLock, |session| doing(async move { session.rwlock("name").write().await })),
];

fn waits(way: &str) -> bool {
    !way.starts_with("try_") || way.ends_with("_for")
}

const DROPS: [Drops; 2] = [Drops::AtOnce, Drops::OnceWoken];

/// More polls than any of these takes: they would never end.
const MANY: usize = 100;

/// All on one session, where a hold is handed on in memory; and each on its own.
async fn sessions(world: &World) -> TestResult<[[Session; 3]; 2]> {
    let session = || world.session();
    let (one, two, three) = (session().await?, session().await?, session().await?);
    Ok([[one.clone(), one.clone(), one.clone()], [one, two, three]])
}

async fn is_free(kind: Kind, session: &Session, case: &str) -> TestResult<Guard> {
    Ok(soon(case, kind.lock(session)).await?)
}

#[tokio::test]
async fn a_dropped_acquisition_leaves_a_free_lock_free() -> TestResult {
    on_etcd(async |world: &World| {
        for [_, session, other] in sessions(world).await? {
            for (way, kind, acquire) in WAYS {
                for drops in DROPS {
                    for polls in 0.. {
                        let case = format!("{way} after {polls} polls, {drops:?}");
                        assert!(polls < MANY, "{case}");
                        let mut future = ByHand::new(acquire(session.clone()));
                        let progress = future.poll(polls, drops).await;
                        drop(future);
                        let done = matches!(progress, Progress::Ready(_));
                        // The guard, if there is one.
                        drop(progress);
                        is_free(kind, &other, &case).await?.unlock().await?;
                        equals(&case, Vec::new(), async || world.keys("name/").await).await;
                        if done {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dropped_acquisition_leaves_the_queue_to_the_next() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for (way, kind, acquire) in WAYS {
                for drops in DROPS {
                    for polls in 0.. {
                        let case = format!("{way} after {polls} polls, {drops:?}");
                        assert!(polls < MANY, "{case}");
                        let guard = kind.lock(&holding).await?;
                        let mut future = ByHand::new(acquire(session.clone()));
                        let progress = future.poll(polls, drops).await;
                        let mut next = kind.enqueue(&other).await?;
                        drop(future);
                        equals(&case, 2, async || world.keys("name/").await.len()).await;
                        assert_eq!(next.position().await?, 1, "{case}");
                        guard.unlock().await?;
                        soon(&case, next.granted()).await?.unlock().await?;
                        if !matches!(progress, Progress::Polled) {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// The last moment is the worst: the hold is granted, and nobody is there to take it.
#[tokio::test]
async fn an_acquisition_dropped_at_its_grant_leaves_the_hold_to_the_next() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for (way, kind, acquire) in WAYS.into_iter().filter(|(way, ..)| waits(way)) {
                for drops in DROPS {
                    for polls in 0.. {
                        let case = format!("{way} after {polls} polls since the release, {drops:?}");
                        assert!(polls < MANY, "{case}");
                        let guard = kind.lock(&holding).await?;
                        let mut future = ByHand::new(acquire(session.clone()));
                        assert!(matches!(future.poll_until_quiet().await, Progress::Quiet), "{case}");
                        let mut next = kind.enqueue(&other).await?;
                        assert_eq!(next.position().await?, 2, "{case}");
                        guard.unlock().await?;
                        let progress = future.poll(polls, drops).await;
                        drop(future);
                        let done = !matches!(progress, Progress::Polled);
                        drop(progress);
                        soon(&case, next.granted()).await?.unlock().await?;
                        equals(&case, Vec::new(), async || world.keys("name/").await).await;
                        if done {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// Where a place is kept across a `select!`, a lock in a loop would go to the back at every tick, and never win.
#[tokio::test]
async fn a_ticket_keeps_its_place_however_often_the_wait_is_dropped() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for drops in DROPS {
                for polls in 0.. {
                    let case = format!("{polls} polls, {drops:?}");
                    assert!(polls < MANY, "{case}");
                    let guard = holding.mutex("name").lock().await?;
                    let mut ticket = session.mutex("name").enqueue().await?;
                    let mut behind = other.mutex("name").enqueue().await?;
                    let place = session.mutex("name").queue().await?.swap_remove(1);

                    let waited = ByHand::new(ticket.granted()).poll(polls, drops).await;
                    assert!(!matches!(waited, Progress::Ready(_)), "{case}");
                    assert_eq!((ticket.position().await?, behind.position().await?), (1, 2), "{case}");
                    guard.unlock().await?;
                    let granted = ByHand::new(ticket.granted()).poll(polls, drops).await;
                    let guard = match granted {
                        Progress::Ready(guard) => guard?,
                        Progress::Polled | Progress::Quiet => soon(&case, ticket.granted()).await?,
                    };
                    assert_eq!(guard.token(), place.token(), "{case}");
                    assert_eq!(guard.key(), place.key(), "{case}");
                    guard.unlock().await?;
                    soon(&case, behind.granted()).await?.unlock().await?;
                    if matches!(waited, Progress::Quiet) {
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// Whether or not anybody waits for the confirmation, the hold is given back.
#[tokio::test]
async fn a_dropped_unlock_still_unlocks() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for drops in DROPS {
                for polls in 0.. {
                    let case = format!("{polls} polls, {drops:?}");
                    assert!(polls < MANY, "{case}");
                    let mut next = Vec::new();
                    let guard = holding.mutex("name").lock().await?;
                    if polls % 2 == 0 {
                        next.push(session.mutex("name").enqueue().await?);
                    }
                    next.push(other.mutex("name").enqueue().await?);
                    let mut unlocking = ByHand::new(guard.unlock());
                    let progress = unlocking.poll(polls, drops).await;
                    drop(unlocking);
                    for mut ticket in next {
                        soon(&case, ticket.granted()).await?.unlock().await?;
                    }
                    equals(&case, Vec::new(), async || world.keys("name/").await).await;
                    if let Progress::Ready(unlocked) = progress {
                        unlocked?;
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// Opening a session is no exception: what was granted meanwhile is revoked.
#[tokio::test]
async fn a_dropped_open_leaves_no_lease() -> TestResult {
    on_etcd(async |world: &World| {
        for drops in DROPS {
            for polls in 0.. {
                let case = format!("{polls} polls, {drops:?}");
                assert!(polls < MANY, "{case}");
                let mut opening = ByHand::new(Session::open(world.etcd.client().await?));
                let done = matches!(opening.poll(polls, drops).await, Progress::Ready(_));
                drop(opening);
                equals(&case, Vec::new(), async || world.leases().await).await;
                if done {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

/// The same by the clock, as a `tokio::time::timeout` does it: a thousand times, at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_timeouts_leave_nothing_in_the_queue() -> TestResult {
    on_etcd(async |world: &World| {
        let [_, [holding, session, other]] = sessions(world).await?;
        let guard = holding.mutex("name").lock().await?;
        let mut tries = tokio::task::JoinSet::new();
        for n in 0..1_000u64 {
            let mutex = if n % 2 == 0 { session.mutex("name") } else { other.mutex("name") };
            tries.spawn(async move {
                let limit = std::time::Duration::from_micros(n * 50);
                assert!(tokio::time::timeout(limit, mutex.lock()).await.is_err(), "two hold");
            });
        }
        soon("all time out", tries.join_all()).await;
        until("the holder is alone", async || world.keys("name/").await == [guard.key()]).await;
        assert!(guard.is_valid());
        guard.unlock().await?;
        is_free(Kind::Mutex, &other, "it is free").await?.unlock().await?;
        Ok(())
    })
    .await
}
