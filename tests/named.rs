//! Failures that others have reported, one test each, by the public issue that each stands for.
//!
//! Some have tests of their own elsewhere: a waiter whose lease is revoked (etcd #19597) and a held key that is
//! deleted (tidb #54689) in `loss.rs`, compaction during a wait (etcd #9715) in `outage.rs`.

mod common;

use std::time::Duration;

use common::{ByHand, Drops, LONG, Progress, TestResult, World, equals, on, on_etcd, soon, until};
use tenure::testing::Etcd;
use tenure::{Mutex, Observation};
use tokio_stream::StreamExt;

/// Short enough to be lost within a test.
const SHORT: Duration = Duration::from_secs(2);

/// Polls until it waits for an answer that does not come.
async fn send<F: Future>(future: F) -> ByHand<F> {
    let mut future = ByHand::new(future);
    let progress = future.poll_until_quiet().await;
    assert!(!matches!(progress, Progress::Ready(_)), "it is not to be answered");
    future
}

async fn is_free(world: &World, name: &str) {
    let prefix = format!("{name}/");
    equals("keys", 0, async || world.keys(&prefix).await.len()).await;
}

async fn stand(mutex: &Mutex, count: usize) {
    until("waiters", async || mutex.queue().await.is_ok_and(|queue| queue.len() == count)).await;
}

/// etcd #11007, #11051: after an outage longer than the TTL, Go's `Campaign` returns without an error and without a key.
#[tokio::test]
async fn an_election_won_after_a_long_outage_has_a_key() -> TestResult {
    on_etcd(async |world| {
        let (leader, other) = (world.etcd.session(SHORT).await?, world.etcd.session(SHORT).await?);
        let term = leader.election("e").campaign("one").await?;
        let mut ticket = other.election("e").enqueue("two").await?;
        let waiting = tokio::spawn(async move { ticket.granted().await });
        world.etcd.pause(0)?;
        soon("the loss", term.lost()).await;
        until("the other's loss", async || other.deadline().has_passed()).await;
        world.etcd.resume(0)?;
        drop(term);
        let term = soon("the term", waiting).await??;
        term.verify().await?;
        assert_eq!(other.election("e").leader().await?.expect("it leads").key(), term.key());
        term.resign().await?;
        Ok(())
    })
    .await
}

/// etcd #16221: a waiter of the read-write lock in etcd's recipes whose session has ended takes the end of its wait for
/// its turn.
#[tokio::test]
async fn a_waiter_of_a_read_write_lock_whose_lease_is_revoked_does_not_hold() -> TestResult {
    on_etcd(async |world| {
        let (holder, waiter, next) = (world.session().await?, world.session().await?, world.session().await?);
        let (lock, rival) = (waiter.rwlock("q"), next.rwlock("q"));
        for waits_to in ["read", "write"] {
            let (held, mut ticket) = match waits_to {
                "read" => (holder.rwlock("q").write().await?, lock.enqueue_read().await?),
                _ => (holder.rwlock("q").read().await?, lock.enqueue_write().await?),
            };
            let mut writer = rival.enqueue_write().await?;
            world.client().lease_revoke(waiter.lease_id()).await?;
            held.unlock().await?;
            let writing = soon("the next holds", writer.granted()).await?;
            let granted = ByHand::new(ticket.granted()).poll_until_quiet().await;
            assert!(matches!(granted, Progress::Quiet), "granted to {waits_to} beside a writer");
            writing.verify().await?;
            writing.unlock().await?;
            let guard = soon("it holds", ticket.granted()).await?;
            guard.verify().await?;
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// etcd #11777: the key of a candidate is deleted by an operator in mid-campaign.
#[tokio::test]
async fn a_candidate_whose_key_was_deleted_is_not_elected_without_one() -> TestResult {
    on_etcd(async |world| {
        let (leader, other) = (world.session().await?, world.session().await?);
        let term = leader.election("e").campaign("one").await?;
        let mut ticket = other.election("e").enqueue("two").await?;
        let key = leader.election("e").candidates().await?[1].key().to_owned();
        world.client().delete(key.as_str(), None).await?;
        term.resign().await?;
        let term = soon("the term", ticket.granted()).await?;
        assert_ne!(term.key(), key);
        term.verify().await?;
        term.resign().await?;
        Ok(())
    })
    .await
}

/// etcd #22082: Go deletes by a name that the same session uses again, so an unlock that is retried ends a later hold.
#[tokio::test]
async fn an_unlock_that_comes_late_does_not_end_a_later_hold() -> TestResult {
    on_etcd(async |world| {
        let mutex = world.session().await?.mutex("q");
        for polls in 1..8 {
            let mut unlock = ByHand::new(mutex.lock().await?.unlock());
            unlock.poll(polls, Drops::AtOnce).await;
            drop(unlock);
            let guard = soon("the lock", mutex.lock()).await?;
            // The late deletion has arrived when its key, the other one, is gone.
            equals("keys", vec![guard.key().to_owned()], async || world.keys("q/").await).await;
            guard.verify().await?;
            assert!(guard.is_valid());
            guard.unlock().await?;
        }
        Ok(())
    })
    .await
}

/// etcd #22123: a resign that fails leaves Go's candidate without the state to try again.
#[tokio::test]
async fn a_resign_that_is_given_up_in_an_outage_happens_after_it() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.session().await?, world.session().await?);
        let term = session.election("e").campaign("one").await?;
        let mut ticket = other.election("e").enqueue("two").await?;
        world.etcd.pause(0)?;
        drop(send(term.resign()).await);
        world.etcd.resume(0)?;
        soon("the term", ticket.granted()).await?.resign().await?;
        is_free(world, "e").await;
        Ok(())
    })
    .await
}

/// A request to queue up that nobody hears the answer of, and whose caller has given up, may still be applied: the key
/// would stay for as long as the session lives. Measured with etcd-client's `lock()`: 17 of 17 stayed.
#[tokio::test]
async fn a_place_asked_for_and_given_up_in_an_outage_does_not_stay() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.session().await?, world.session().await?);
        world.etcd.pause(0)?;
        for name in ["a", "b", "c", "d"] {
            drop(send(session.mutex(name).lock()).await);
        }
        world.etcd.resume(0)?;
        for name in ["a", "b", "c", "d"] {
            soon("the lock", other.mutex(name).lock()).await?.unlock().await?;
            is_free(world, name).await;
        }
        Ok(())
    })
    .await
}

/// etcd #18082: Go's `Lock` hangs when it is cancelled while etcd cannot be reached, since it cleans up first.
#[tokio::test]
async fn a_wait_that_ends_in_an_outage_returns_at_once_and_cleans_up_later() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.session().await?, world.session().await?);
        let guard = other.mutex("q").lock().await?;
        let mutex = session.mutex("q");
        let waiting = {
            let mutex = mutex.clone();
            tokio::spawn(async move { mutex.try_lock_for(Duration::from_secs(1)).await })
        };
        stand(&mutex, 2).await;
        world.etcd.pause(0)?;
        assert!(soon("an answer", waiting).await??.is_none(), "although etcd does not answer");
        world.etcd.resume(0)?;
        stand(&mutex, 1).await;
        guard.unlock().await?;
        is_free(world, "q").await;
        Ok(())
    })
    .await
}

/// cilium #9855: an unlock cut off by a partition that healed before the TTL kept a key alive for ever.
#[tokio::test]
async fn an_unlock_cut_off_by_an_outage_that_ends_before_the_ttl_still_unlocks() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.session().await?, world.session().await?);
        let guard = session.mutex("q").lock().await?;
        let mut ticket = other.mutex("q").enqueue().await?;
        world.etcd.pause(0)?;
        drop(guard);
        let unreachable = tokio::time::timeout(Duration::from_secs(1), ticket.granted()).await;
        assert!(unreachable.is_err(), "etcd does not answer");
        world.etcd.resume(0)?;
        let guard = soon("the lock", ticket.granted()).await?;
        assert!(!session.deadline().has_passed(), "the lease lives: it is not its end that released the lock");
        guard.unlock().await?;
        is_free(world, "q").await;
        Ok(())
    })
    .await
}

/// The recipe of old watches the predecessor alone: when that leaves the queue, its successor must not hold.
#[tokio::test]
async fn when_a_waiter_in_the_middle_leaves_nobody_jumps() -> TestResult {
    on_etcd(async |world| {
        let sessions = [world.session().await?, world.session().await?, world.session().await?];
        let mutex = |number: usize| sessions[number % 3].mutex("q");
        let guard = mutex(0).lock().await?;
        let mut tickets = Vec::new();
        for number in 1..8 {
            tickets.push(mutex(number).enqueue().await?);
        }
        let mut last = tickets.pop().expect("there are some");
        for (gone, ticket) in tickets.drain(..).enumerate() {
            drop(ticket);
            stand(&mutex(0), 7 - gone).await;
            let granted = tokio::time::timeout(Duration::from_millis(20), last.granted()).await;
            assert!(granted.is_err(), "granted beside a holder");
        }
        guard.verify().await?;
        guard.unlock().await?;
        soon("the lock", last.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// etcd #14641: a member that is stopped while a candidate campaigns through it.
#[tokio::test]
async fn a_campaign_goes_on_while_any_member_is_stopped() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let (one, other) = (world.session().await?.election("e"), world.session().await?.election("e"));
        for member in 0..3 {
            let term = soon("a term", one.campaign("one")).await?;
            let mut ticket = other.enqueue("two").await?;
            world.etcd.pause(member)?;
            soon("the resignation", term.resign()).await?;
            let term = soon("a term", ticket.granted()).await?;
            world.etcd.resume(member)?;
            soon("the resignation", term.resign()).await?;
        }
        Ok(())
    })
    .await
}

/// etcd #18163: an observer that reports a leader who is none any more. One that keeps up misses no vacancy either.
#[tokio::test]
async fn an_observer_never_goes_back_and_misses_no_vacancy() -> TestResult {
    on(Etcd::cluster(3), async |world: &World| {
        let session = world.session().await?;
        let mut seen = world.session().await?.election("e").observe().await?;
        // The present comes first, and is to be the vacancy before all terms.
        let mut observed = vec![soon("an observation", seen.next()).await.expect("it goes on")?];
        let terms = tokio::spawn(async move {
            let mut tokens = Vec::new();
            for round in 0..40 {
                let term = session.election("e").campaign(format!("{round}")).await?;
                tokens.push(term.token());
                term.resign().await?;
            }
            Ok::<_, tenure::Error>(tokens)
        });
        let mut member = 0;
        while observed.len() < 2 * 40 + 1 {
            if observed.len() % 20 == 0 {
                world.etcd.kill(member)?;
                world.etcd.restart(member).await?;
                member = (member + 1) % 3;
            }
            observed.push(soon("an observation", seen.next()).await.expect("it goes on")?);
        }
        let mut expected = vec![Observation::Vacant];
        let tokens = soon("all terms", terms).await??;
        let tokens_seen: Vec<_> = observed
            .iter()
            .filter_map(|seen| if let Observation::Leader(leader) = seen { Some(leader.token()) } else { None })
            .collect();
        assert_eq!(tokens_seen, tokens);
        for pair in observed[1..].chunks(2) {
            assert!(matches!(pair[0], Observation::Leader(_)), "{observed:?}");
            expected.push(pair[0].clone());
            expected.push(Observation::Vacant);
        }
        assert_eq!(observed, expected);
        drop(seen);
        Ok(())
    })
    .await
}

/// A session that lives for long must not fill up with what it once waited for.
#[tokio::test]
async fn a_session_that_waited_often_watches_nothing_but_its_fence() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.etcd.session(LONG).await?, world.session().await?);
        for round in 0..50 {
            let name = format!("q{round}");
            let guard = other.mutex(&name).lock().await?;
            assert!(session.mutex(&name).try_lock_for(Duration::from_millis(1)).await?.is_none());
            guard.unlock().await?;
        }
        equals("watches", 2.0, async || world.watches().await).await;
        Ok(())
    })
    .await
}
