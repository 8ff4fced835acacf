//! Any future may be dropped at any await point: no key, no lease, no watch and no task is left behind, and the next in
//! the queue gets its turn. That nothing but keys is left is looked at when each test is over.
//!
//! Each future is polled by hand, zero times and more until it is done, and dropped: right after the last poll, when
//! its request is on its way, and when the reply is there and it has not seen it.

mod common;

use std::any::Any;
use std::pin::Pin;

use common::{ByHand, Drops, LIMIT, LONG, Progress, TestResult, World, equals, on_etcd, soon, until};
use tenure::{Error, Guard, Loss, Semaphore, Session, Ticket};

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

type Together = (&'static str, fn(Session) -> Doing);

const NAMES: [&str; 3] = ["a", "b", "c"];

const TOGETHER: [Together; 3] = [
    ("try_lock_all", |session| doing(async move { session.try_lock_all(NAMES).await })),
    ("try_lock_all_for", |session| doing(async move { session.try_lock_all_for(NAMES, LIMIT).await })),
    ("lock_all", |session| doing(async move { session.lock_all(NAMES).await })),
];

/// How many stand in the queues of all three.
async fn standing(world: &World) -> [usize; 3] {
    [world.keys("a/").await.len(), world.keys("b/").await.len(), world.keys("c/").await.len()]
}

/// Where they are free: see `dropped_at_any_moment_it_leaves_nothing` in `multi`.
#[tokio::test]
async fn several_locks_dropped_while_one_is_waited_for_give_back_the_others() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for ((way, acquire), drops) in TOGETHER.into_iter().flat_map(|way| DROPS.map(|drops| (way, drops))) {
                for polls in 0.. {
                    let case = format!("{way} after {polls} polls, {drops:?}");
                    assert!(polls < MANY, "{case}");
                    let guard = holding.mutex("b").lock().await?;
                    let mut future = ByHand::new(acquire(session.clone()));
                    let progress = future.poll(polls, drops).await;
                    let mut next = other.mutex("b").enqueue().await?;
                    drop(future);
                    equals(&case, [0, 2, 0], async || standing(world).await).await;
                    guard.unlock().await?;
                    soon(&case, next.granted()).await?.unlock().await?;
                    equals(&case, [0, 0, 0], async || standing(world).await).await;
                    if !matches!(progress, Progress::Polled) {
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn several_locks_dropped_when_the_one_is_free_give_back_all() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for ((way, acquire), drops) in TOGETHER[1..].iter().flat_map(|way| DROPS.map(|drops| (way, drops))) {
                for polls in 0.. {
                    let case = format!("{way} after {polls} polls since the release, {drops:?}");
                    assert!(polls < MANY, "{case}");
                    let guard = holding.mutex("b").lock().await?;
                    let mut future = ByHand::new(acquire(session.clone()));
                    assert!(matches!(future.poll_until_quiet().await, Progress::Quiet), "{case}");
                    assert_eq!(standing(world).await, [1, 2, 0], "{case}");
                    let mut next = other.mutex("b").enqueue().await?;
                    guard.unlock().await?;
                    let progress = future.poll(polls, drops).await;
                    drop(future);
                    let done = !matches!(progress, Progress::Polled);
                    drop(progress);
                    soon(&case, next.granted()).await?.unlock().await?;
                    equals(&case, [0, 0, 0], async || standing(world).await).await;
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

/// For `lock` beside a clone's: see `a_clone_dropped_at_any_poll_leaves_the_other_its_place` in `reentrant`.
#[tokio::test]
async fn an_owner_s_dropped_try_leaves_its_clone_the_place() -> TestResult {
    on_etcd(async |world: &World| {
        for [holding, session, other] in sessions(world).await? {
            for (limited, drops) in [false, true].into_iter().flat_map(|limited| DROPS.map(|drops| (limited, drops))) {
                let owner = session.mutex("name").reentrant();
                let attempt = async || match limited {
                    true => owner.try_lock_for(LIMIT).await,
                    false => owner.try_lock().await,
                };
                // While another holds, and since it has let go.
                for (released, polls) in (0..MANY).flat_map(|polls| [(false, polls), (true, polls)]) {
                    let case = format!("limited: {limited}, {polls} polls, {drops:?}, released: {released}");
                    let guard = holding.mutex("name").lock().await?;
                    let mut waiting = ByHand::new(owner.lock());
                    assert!(matches!(waiting.poll_until_quiet().await, Progress::Quiet), "{case}");
                    let mut next = other.mutex("name").enqueue().await?;
                    let mut trying = ByHand::new(attempt());
                    let mut progress = trying.poll(polls, drops).await;
                    if released {
                        guard.unlock().await?;
                        if matches!(progress, Progress::Polled | Progress::Quiet) {
                            progress = trying.poll(polls, drops).await;
                        }
                        drop((trying, progress));
                    } else {
                        drop((trying, progress));
                        assert_eq!(next.position().await?, 2, "{case}");
                        guard.unlock().await?;
                    }
                    let locked = waiting.end().await;
                    locked?.unlock().await?;
                    soon(&case, next.granted()).await?.unlock().await?;
                    equals(&case, Vec::new(), async || world.keys("name/").await).await;
                    // More than any of these takes beside a clone that waits.
                    if polls == 8 && released {
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// For the leader's side: see `dropping_a_transfer_after_any_number_of_polls_leaves_nothing_behind` in `transfer`.
#[tokio::test]
async fn a_candidate_dropped_while_it_gives_way_is_not_waited_for() -> TestResult {
    on_etcd(async |world: &World| {
        let named = async |identity: &str| -> TestResult<Session> {
            Ok(Session::builder(world.etcd.client().await?).ttl(LONG).identity(identity).open().await?)
        };
        let [leader, between, heir] = [named("leader").await?, named("between").await?, named("heir").await?];
        for drops in DROPS {
            for polls in 0.. {
                let case = format!("{polls} polls since it was asked, {drops:?}");
                assert!(polls < MANY, "{case}");
                let term = leader.election("name").campaign("").await?;
                let election = between.election("name");
                let mut giving_way = ByHand::new(election.campaign(""));
                assert!(matches!(giving_way.poll_until_quiet().await, Progress::Quiet), "{case}");
                let mut next = heir.election("name").enqueue("").await?;
                let next = tokio::spawn(async move { next.granted().await });
                let transfer = tokio::spawn(async move { term.transfer_to("heir").await });
                let progress = giving_way.poll(polls, drops).await;
                drop(giving_way);
                assert!(!matches!(progress, Progress::Ready(_)), "{case}");
                soon(&case, transfer).await??;
                soon(&case, next).await??.resign().await?;
                equals(&case, Vec::new(), async || world.keys("name/").await).await;
                if matches!(progress, Progress::Quiet) {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

/// For who asks: see `dropping_a_request_after_any_number_of_polls_leaves_none_or_one` in `revocation`.
#[tokio::test]
async fn a_dropped_wait_for_a_request_leaves_it_to_the_others() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, operator) = (world.session().await?, world.session().await?);
        for drops in DROPS {
            for polls in 0.. {
                let case = format!("{polls} polls, {drops:?}");
                assert!(polls < MANY, "{case}");
                let guard = session.mutex("name").lock().await?;
                let requested = guard.revocation_requested();
                let mut waiting = ByHand::new(requested.clone());
                // Half of the polls while nobody asks.
                let quiet = waiting.poll(polls / 2, drops).await;
                assert!(!matches!(quiet, Progress::Ready(_)), "{case}");
                operator.mutex("name").request_revocation(case.as_str()).await?;
                let progress = waiting.poll(polls - polls / 2, drops).await;
                drop(waiting);
                assert_eq!(soon(&case, requested).await.reason(), case);
                guard.unlock().await?;
                // But for those of the sessions.
                equals(&case, 2.0, async || world.watches().await).await;
                if matches!(progress, Progress::Ready(_)) {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dropped_force_release_ends_the_hold_or_leaves_it() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other, operator) = (world.session().await?, world.session().await?, world.session().await?);
        for drops in DROPS {
            for polls in 0.. {
                let case = format!("{polls} polls, {drops:?}");
                assert!(polls < MANY, "{case}");
                let guard = session.mutex("name").lock().await?;
                let mut next = other.mutex("name").enqueue().await?;
                let (mutex, token) = (operator.mutex("name"), guard.token());
                let mut ending = ByHand::new(mutex.force_release(token));
                let progress = ending.poll(polls, drops).await;
                drop(ending);
                if let Progress::Ready(ended) = &progress {
                    assert!(matches!(ended, Ok(true)), "{case}: {ended:?}");
                    assert_eq!(soon(&case, guard.lost()).await, Loss::Deleted, "{case}");
                }
                match guard.unlock().await {
                    Ok(()) | Err(Error::Lost(Loss::Deleted)) => {}
                    Err(error) => panic!("{case}: {error}"),
                }
                soon(&case, next.granted()).await?.unlock().await?;
                equals(&case, Vec::new(), async || world.keys("name/").await).await;
                if matches!(progress, Progress::Ready(_)) {
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
