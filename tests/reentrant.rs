//! An owner may lock again what it holds; everyone else waits for its last guard.

mod common;

use std::time::Duration;

use common::{ByHand, Drops, LIMIT, Progress, TestResult, World, equals, on_etcd, soon, waits};
use tenure::etcd_client::{Compare, Txn, TxnOp};
use tenure::{Error, Guard, Loss, ReentrantMutex, Session};
use tokio::task::JoinSet;

fn owner(session: &Session) -> ReentrantMutex {
    session.mutex("name").reentrant()
}

async fn is_quiet<F: Future<Output = tenure::Result<Guard>>>(lock: &mut ByHand<F>) {
    assert!(matches!(lock.poll_until_quiet().await, Progress::Quiet), "it does not wait");
}

/// One task that locked twice would wait for itself for ever.
#[tokio::test]
async fn an_owner_locks_again_at_once_and_its_last_guard_releases() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let owner = owner(&session);
        let first = owner.lock().await?;
        let mut next = other.mutex("name").enqueue().await?;
        let (keys, revision) = (world.keys("name/").await, world.revision().await);

        let second = soon("it is granted at once", owner.clone().lock()).await?;
        let third = owner.try_lock().await?.expect("this owner holds");
        let fourth = owner.try_lock_for(Duration::ZERO).await?.expect("this owner holds");
        for guard in [&second, &third, &fourth] {
            assert_eq!((guard.token(), guard.key()), (first.token(), first.key()));
        }
        assert_eq!((world.keys("name/").await, world.revision().await), (keys, revision), "it was asked for");

        let lost = first.lost();
        first.unlock().await?;
        drop(third);
        fourth.unlock().await?;
        assert!(second.is_valid());
        second.verify().await?;
        second.txn(Txn::new().and_then([TxnOp::delete("no such key", None)])).await?;
        waits(&mut next).await;
        second.unlock().await?;
        assert_eq!(soon("it was released", lost).await, Loss::Released);
        soon("it is its turn", next.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Whose value it is decides, and neither the session nor the task.
#[tokio::test]
async fn two_owners_exclude_each_other_and_everyone_else() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, far) = (world.session().await?, world.session().await?);
        for far in [&session, &far] {
            let (holding, other, plain) = (owner(&session), owner(far), far.mutex("name"));
            let guards = [holding.lock().await?, holding.lock().await?];
            assert!(other.try_lock().await?.is_none() && plain.try_lock().await?.is_none());
            assert!(other.try_lock_for(Duration::ZERO).await?.is_none());
            equals("the try has left", 1, async || world.keys("name/").await.len()).await;
            let mut locking = ByHand::new(other.lock());
            is_quiet(&mut locking).await;
            let mut ticket = plain.enqueue().await?;

            drop(guards);
            let guard = locking.end().await;
            let guards = [guard?, soon("it holds", other.lock()).await?];
            assert!(holding.try_lock().await?.is_none());
            waits(&mut ticket).await;
            drop(guards);
            let guard = soon("it is its turn", ticket.granted()).await?;
            assert!(holding.try_lock().await?.is_none() && other.try_lock().await?.is_none());
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// A guard that is handed out after the loss would be believed in by whoever asks for it last.
#[tokio::test]
async fn a_lost_hold_is_not_handed_out_again() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let owner = owner(&session);
        for loss in [Loss::Deleted, Loss::Revoked] {
            let [first, second] = [owner.lock().await?, owner.lock().await?];
            if loss == Loss::Deleted {
                world.client().delete(first.key(), None).await?;
            } else {
                world.client().lease_revoke(session.lease_id()).await?;
            }
            assert_eq!(soon("it is lost", first.lost()).await, loss);
            let fresh = soon("it queues again", owner.lock()).await?;
            assert!(fresh.token() > first.token() && !first.is_valid() && !second.is_valid());
            assert!(matches!(first.unlock().await, Err(Error::Lost(reason)) if reason == loss));
            let again = owner.lock().await?;
            drop(second);
            assert!(fresh.is_valid(), "an old guard has released a new hold");
            assert_eq!(again.token(), fresh.token());
            fresh.unlock().await?;
            again.verify().await?;
            again.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// A condition that was given out by one guard counts for the hold, and ends with it.
#[tokio::test]
async fn conditions_and_transactions_are_those_of_the_hold() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let owner = owner(&session);
        let [first, second] = [owner.lock().await?, owner.lock().await?];
        let condition = second.compare();
        second.unlock().await?;
        let write = async |condition: Compare| -> TestResult<bool> {
            let put = Txn::new().when([condition]).and_then([TxnOp::put("written", "", None)]);
            Ok(world.client().txn(put).await?.succeeded())
        };
        assert!(write(condition.clone()).await?, "the hold stands");
        first.unlock().await?;
        assert!(!write(condition).await?, "the hold has ended");
        world.client().delete("written", None).await?;
        Ok(())
    })
    .await
}

/// One owner, one place: whoever waits gets it, however many others give up.
#[tokio::test]
async fn clones_that_wait_share_a_place_which_goes_with_the_last() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        for other in [&session, &other] {
            let owner = owner(&session);
            let guard = other.mutex("name").lock().await?;
            let [mut first, mut second, mut third] = [(); 3].map(|()| ByHand::new(owner.lock()));
            for locking in [&mut first, &mut second, &mut third] {
                is_quiet(locking).await;
            }
            let mut next = other.mutex("name").enqueue().await?;
            assert_eq!((owner.queue().await?.len(), next.position().await?), (3, 2));
            drop((first, third));
            guard.unlock().await?;
            let guard = second.end().await;
            waits(&mut next).await;
            guard?.unlock().await?;
            let guard = soon("it is its turn", next.granted()).await?;

            let [mut first, mut second] = [(); 2].map(|()| ByHand::new(owner.lock()));
            is_quiet(&mut first).await;
            is_quiet(&mut second).await;
            drop((second, first));
            equals("the place is given up", 1, async || world.keys("name/").await.len()).await;
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// Those who asked together are granted together, and nobody of them goes to the back because another was faster.
#[tokio::test]
async fn a_grant_is_shared_with_everyone_who_waits() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let owner = owner(&session);
        let guard = other.mutex("name").lock().await?;
        let [mut first, mut second] = [(); 2].map(|()| ByHand::new(owner.lock()));
        is_quiet(&mut first).await;
        is_quiet(&mut second).await;
        let mut next = other.mutex("name").enqueue().await?;
        guard.unlock().await?;
        let guard = first.end().await;
        let token = guard?.token();
        waits(&mut next).await;
        let guard = second.end().await;
        assert_eq!(guard?.token(), token);
        soon("both are gone", next.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Whatever the one that is dropped has polled last, and has heard, the other goes on from there.
#[tokio::test]
async fn a_clone_dropped_at_any_poll_leaves_the_other_its_place() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        for other in [&session, &other] {
            for drops in [Drops::AtOnce, Drops::OnceWoken] {
                // More than any acquisition takes.
                for polls in 0..8 {
                    let case = format!("{polls} polls, {drops:?}");
                    let owner = owner(&session);
                    // On a lock that is free, and since the release of one that is not.
                    for waits in [false, true] {
                        let mut held = None;
                        let (mut first, mut second) = (ByHand::new(owner.lock()), ByHand::new(owner.lock()));
                        if waits {
                            held = Some(other.mutex("name").lock().await?);
                            is_quiet(&mut first).await;
                        }
                        assert!(matches!(second.poll(1, Drops::AtOnce).await, Progress::Polled), "{case}");
                        let mut next = None;
                        if let Some(held) = held {
                            next = Some(other.mutex("name").enqueue().await?);
                            held.unlock().await?;
                        }
                        let progress = first.poll(polls, drops).await;
                        drop((first, progress));
                        let guard = second.end().await;
                        guard?.unlock().await?;
                        if let Some(mut next) = next {
                            soon(&case, next.granted()).await?.unlock().await?;
                        }
                        equals(&case, Vec::new(), async || world.keys("name/").await).await;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

/// A `lock()` that is kept in a `select!`, and not polled by the branch that locks too, must not stand in its way.
#[tokio::test]
async fn a_lock_that_nobody_polls_keeps_no_clone_waiting() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let owner = owner(&session);
        let guard = other.mutex("name").lock().await?;
        let mut kept = ByHand::new(owner.lock());
        is_quiet(&mut kept).await;
        let (guard, unlocked) = soon("it is its turn", async { tokio::join!(owner.lock(), guard.unlock()) }).await;
        unlocked?;
        let guard = guard?;
        let kept = kept.end().await;
        assert_eq!(kept?.token(), guard.token());
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// A try asks for itself, and what it gets is its owner's.
#[tokio::test]
async fn a_try_shares_what_it_gets_with_a_clone_that_waits() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let owner = owner(&session);
        for round in 0..40 {
            // On a lock that is free both ask at once, either first.
            let (tried, locked) = match round % 2 {
                0 => soon("both end", async { tokio::join!(owner.try_lock(), owner.lock()) }).await,
                _ => {
                    let both = async { tokio::join!(owner.lock(), owner.try_lock()) };
                    let (locked, tried) = soon("both end", both).await;
                    (tried, locked)
                }
            };
            let (tried, locked) = (tried?, locked?);
            assert!(tried.as_ref().is_none_or(|tried| tried.token() == locked.token()));
            locked.unlock().await?;
            drop(tried);
            equals("nothing is left", Vec::<String>::new(), async || world.keys("name/").await).await;
        }
        let guard = other.mutex("name").lock().await?;
        let mut locking = ByHand::new(owner.lock());
        is_quiet(&mut locking).await;
        assert!(soon("it does not wait", owner.try_lock()).await?.is_none());
        assert!(soon("it does not wait", owner.try_lock_for(Duration::ZERO)).await?.is_none());
        assert_eq!(owner.queue().await?.len(), 2, "the clone's place is gone");
        guard.unlock().await?;
        let guard = locking.end().await;
        guard?.unlock().await?;
        Ok(())
    })
    .await
}

/// Tasks of several owners, each of many clones, on several threads: two owners never hold at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_race_and_owners_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let held = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
        let mut tasks = JoinSet::new();
        for (number, session) in [&session, &session, &other].into_iter().enumerate() {
            let owner = owner(session);
            for task in 0..8 {
                let (owner, held) = (owner.clone(), held.clone());
                tasks.spawn(async move {
                    for round in 0..10 {
                        let limit = Duration::from_micros(300 * (round + task));
                        let guard = match round % 4 {
                            0 => tokio::time::timeout(limit, owner.lock()).await.ok().transpose().unwrap(),
                            1 => owner.try_lock_for(limit).await.unwrap(),
                            2 => owner.try_lock().await.unwrap(),
                            _ => Some(owner.lock().await.unwrap()),
                        };
                        let Some(guard) = guard else { continue };
                        {
                            let mut held = held.lock().unwrap();
                            assert!(held.1 == 0 || held.0 == number, "two owners hold");
                            *held = (number, held.1 + 1);
                        }
                        let again = owner.lock().await.unwrap();
                        assert_eq!(again.token(), guard.token());
                        held.lock().unwrap().1 -= 1;
                        match round % 2 {
                            0 => guard.unlock().await.unwrap(),
                            _ => drop(guard),
                        }
                    }
                });
            }
        }
        soon("all had their turns", async {
            while let Some(done) = tasks.join_next().await {
                done.expect("no task fails");
            }
        })
        .await;
        Ok(())
    })
    .await
}

/// Whoever waits hears it, and not only the one whose place it was.
#[tokio::test]
async fn every_clone_hears_why_it_cannot_be_granted() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let permit = other.semaphore("permits", 2).acquire().await?;
        let owner = session.mutex("permits").reentrant();
        let (one, two, three) = tokio::join!(owner.lock(), owner.lock(), owner.lock());
        for refused in [one, two, three] {
            assert!(matches!(refused, Err(Error::KindMismatch { .. })), "{refused:?}");
        }
        permit.unlock().await?;
        let owner = session.mutex("not/a/name/").reentrant();
        assert!(matches!(owner.lock().await, Err(Error::InvalidName { .. })));
        assert!(matches!(owner.try_lock().await, Err(Error::InvalidName { .. })));

        let owner = self::owner(&session);
        let guard = other.mutex("name").lock().await?;
        let closing = async {
            while world.keys("name/").await.len() < 2 {
                tokio::task::yield_now().await;
            }
            session.close().await
        };
        let waiting = async { tokio::join!(owner.lock(), owner.lock(), owner.try_lock_for(LIMIT), closing) };
        let (one, two, three, closed) = soon("the wait ends", waiting).await;
        closed?;
        for refused in [one.map(drop), two.map(drop), three.map(drop)] {
            assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        }
        guard.unlock().await?;
        Ok(())
    })
    .await
}
