//! Holders who are asked to let go, and holds that are taken from them.

mod common;

use std::time::Duration;

use common::etcdctl::Etcdctl;
use common::{ByHand, Drops, LONG, Progress, TestResult, World, equals, holds, on_etcd, soon, until};
use tenure::etcd_client::{CompactionOptions, PutOptions};
use tenure::{Error, FencingToken, Guard, Loss, RevocationRequested, Session, Waiter};

async fn named(world: &World, identity: &str) -> TestResult<Session> {
    Ok(Session::builder(world.etcd.client().await?).ttl(LONG).identity(identity).open().await?)
}

/// It is not asked, although everything that etcd has to say to it has been said.
async fn is_not_asked(requested: RevocationRequested) {
    assert!(matches!(ByHand::new(requested).poll_until_quiet().await, Progress::Quiet), "asked");
}

async fn is_asked(guard: &Guard, by: &str, reason: &str) {
    let asked = soon("it is asked", guard.revocation_requested()).await;
    assert_eq!((asked.identity(), asked.reason()), (by, reason));
}

async fn nothing_is_asked(world: &World) {
    equals("requests", Vec::<String>::new(), async || world.keys("~session/revoke/").await).await;
}

fn tokens(waiters: &[Waiter]) -> Vec<FencingToken> {
    waiters.iter().map(Waiter::token).collect()
}

#[tokio::test]
async fn the_holder_is_told_who_asks_and_why() -> TestResult {
    on_etcd(async |world| {
        let (holder, operator) = (named(world, "holder").await?, named(world, "operator").await?);
        let guard = holder.mutex("name").lock().await?;
        let waiting = tokio::spawn(guard.revocation_requested());
        let asked = operator.mutex("name").request_revocation("the disk is full").await?;
        assert_eq!((asked[0].identity(), asked[0].key(), asked[0].token()), ("holder", guard.key(), guard.token()));
        let revocation = soon("it is asked", waiting).await?;
        assert_eq!((revocation.identity(), revocation.reason()), ("operator", "the disk is full"));
        guard.verify().await?;
        // Nothing is left of it once it is heeded.
        guard.unlock().await?;
        nothing_is_asked(world).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_stands_for_those_who_look_later() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, named(world, "operator").await?);
        let guard = session.mutex("name").lock().await?;
        operator.mutex("name").request_revocation("early").await?;
        is_asked(&guard, "operator", "early").await;
        let requested = guard.revocation_requested();
        assert_eq!(soon("the clone", requested.clone()).await, soon("the original", requested).await);
        // From a session that watches that name already.
        is_asked(&guard, "operator", "early").await;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn everyone_who_holds_is_asked_and_nobody_who_waits() -> TestResult {
    on_etcd(async |world| {
        let (one, other, operator) = (world.session().await?, world.session().await?, named(world, "operator").await?);

        let readers = [one.rwlock("name").read().await?, other.rwlock("name").read().await?];
        let mut writer = other.rwlock("name").enqueue_write().await?;
        let mut late = one.rwlock("name").enqueue_read().await?;
        let asked = operator.rwlock("name").request_revocation("readers").await?;
        assert_eq!(tokens(&asked), readers.each_ref().map(Guard::token));
        for reader in readers {
            is_asked(&reader, "operator", "readers").await;
            reader.unlock().await?;
        }
        let writer = holds(&mut writer).await?;
        is_not_asked(writer.revocation_requested()).await;
        let asked = operator.rwlock("name").request_revocation("writer").await?;
        assert_eq!(tokens(&asked), [writer.token()]);
        is_asked(&writer, "operator", "writer").await;
        writer.unlock().await?;
        holds(&mut late).await?.unlock().await?;

        let permits = [one.semaphore("gpu", 3).acquire().await?, other.semaphore("gpu", 3).acquire_many(2).await?];
        let mut waiting = one.semaphore("gpu", 3).enqueue().await?;
        let asked = operator.semaphore("gpu", 3).request_revocation("permits").await?;
        assert_eq!(tokens(&asked), permits.each_ref().map(Guard::token));
        for permit in permits {
            is_asked(&permit, "operator", "permits").await;
            permit.unlock().await?;
        }
        holds(&mut waiting).await?.unlock().await?;

        let term = named(world, "leader").await?.election("e").campaign("value").await?;
        let _candidate = other.election("e").enqueue("value").await?;
        let asked = operator.election("e").request_revocation("leader").await?;
        assert_eq!(tokens(&asked), [term.token()]);
        assert_eq!(asked[0].identity(), "leader");
        is_asked(&term, "operator", "leader").await;
        term.resign().await?;
        nothing_is_asked(world).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn where_nobody_holds_nothing_is_written() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        world.client().put("name/nested/key", "", None).await?;
        let before = world.revision().await;
        assert!(session.mutex("name").request_revocation("nobody").await?.is_empty());
        assert!(session.election("name").request_revocation("nobody").await?.is_empty());
        let refused = session.mutex("/name").request_revocation("nobody").await;
        assert!(matches!(refused, Err(Error::InvalidName { .. })), "{refused:?}");
        assert_eq!(world.revision().await, before);
        world.client().delete("name/nested/key", None).await?;
        Ok(())
    })
    .await
}

/// A request that outlived its holder must not drive out whoever comes next, nor a name that begins alike.
#[tokio::test]
async fn a_request_reaches_nobody_but_those_it_names() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let below = session.mutex("name/below").lock().await?;
        session.mutex("name").request_revocation("once").await?;
        is_not_asked(below.revocation_requested()).await;
        let stale = format!(r#"{{"identity":"x","reason":"y","tokens":[{}]}}"#, guard.token());
        world.client().put("~session/revoke/name/0-0", stale, None).await?;
        world.client().put("~session/revoke/name/0-1", "not JSON", None).await?;
        guard.unlock().await?;
        // It has the same key.
        let guard = session.mutex("name").lock().await?;
        let mine = format!(r#"{{"identity":"x","reason":"y","tokens":[{}]}}"#, guard.token());
        world.client().put("~session/revoke/name/0/nested", mine, None).await?;
        is_not_asked(guard.revocation_requested()).await;
        for key in ["0-0", "0-1", "0/nested"] {
            world.client().delete(format!("~session/revoke/name/{key}"), None).await?;
        }
        guard.unlock().await?;
        below.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_goes_with_whoever_asked() -> TestResult {
    on_etcd(async |world| {
        let (session, asking, dropped) = (world.session().await?, world.session().await?, world.session().await?);
        let guard = session.mutex("name").lock().await?;
        asking.mutex("name").request_revocation("closed").await?;
        dropped.mutex("name").request_revocation("dropped").await?;
        assert_eq!(world.keys("~session/revoke/").await.len(), 2);
        asking.close().await?;
        drop(dropped);
        nothing_is_asked(world).await;
        is_not_asked(guard.revocation_requested()).await;
        let refused = asking.mutex("name").request_revocation("late").await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        guard.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_request_of_a_session_replaces_its_first() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, named(world, "operator").await?);
        let guard = session.mutex("name").lock().await?;
        for reason in 0..20 {
            operator.mutex("name").request_revocation(reason.to_string()).await?;
        }
        equals("requests", 1, async || world.keys("~session/revoke/").await.len()).await;
        is_asked(&guard, "operator", "19").await;
        // Those of others stand beside it; the oldest is told.
        named(world, "another").await?.mutex("name").request_revocation("too").await?;
        is_asked(&guard, "operator", "19").await;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// However the holder leaves.
#[tokio::test]
async fn a_request_is_taken_back_when_none_of_those_asked_holds() -> TestResult {
    on_etcd(async |world| {
        let operator = world.session().await?;
        let ways: [fn(Guard) -> Ending; 2] = [
            |guard| Box::pin(async move { Ok(guard.unlock().await?) }),
            |guard| {
                drop(guard);
                Box::pin(async { Ok(()) })
            },
        ];
        for end in ways {
            let [one, other] = [world.session().await?, world.session().await?];
            let readers = [one.rwlock("name").read().await?, other.rwlock("name").read().await?];
            operator.rwlock("name").request_revocation("both").await?;
            let [first, last] = readers;
            end(last).await?;
            until("one is left", async || world.keys("name/").await.len() == 1).await;
            is_asked(&first, operator.identity(), "both").await;
            end(first).await?;
            nothing_is_asked(world).await;
        }
        let doomed = world.session().await?;
        let guard = doomed.mutex("name").lock().await?;
        operator.mutex("name").request_revocation("doomed").await?;
        world.client().lease_revoke(doomed.lease_id()).await?;
        nothing_is_asked(world).await;
        drop(guard);
        Ok(())
    })
    .await
}

type Ending = std::pin::Pin<Box<dyn Future<Output = TestResult>>>;

#[tokio::test]
async fn a_hold_that_ends_first_is_never_asked_and_watches_no_more() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, world.session().await?);
        let guard = session.mutex("name").lock().await?;
        // Two fence keys, and the hold once it is of age: no watch for a request that nobody waits for.
        equals("watches", 3.0, async || world.watches().await).await;
        let requested = guard.revocation_requested();
        let (dropped, mut waiting) = (ByHand::new(requested.clone()), ByHand::new(requested.clone()));
        assert!(matches!(waiting.poll_until_quiet().await, Progress::Quiet));
        equals("watches", 4.0, async || world.watches().await).await;
        drop(dropped);
        guard.unlock().await?;
        assert!(matches!(waiting.poll_until_quiet().await, Progress::Quiet));
        equals("watches", 2.0, async || world.watches().await).await;
        let guard = session.mutex("name").lock().await?;
        operator.mutex("name").request_revocation("the next").await?;
        assert!(matches!(waiting.poll(1, Drops::AtOnce).await, Progress::Polled | Progress::Quiet));
        is_not_asked(requested).await;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_is_heard_over_a_restart_and_a_compaction() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, named(world, "operator").await?);
        let guard = session.mutex("name").lock().await?;
        let waiting = tokio::spawn(guard.revocation_requested());
        equals("watches", 4.0, async || world.watches().await).await;
        let newest = world.revision().await;
        world.client().compact(newest, Some(CompactionOptions::new().with_physical())).await?;
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        // Perhaps while the watch is down.
        operator.mutex("name").request_revocation("still there").await?;
        assert_eq!(soon("it is asked", waiting).await?.reason(), "still there");
        // Whoever waits for the holder to go rides it out as well.
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        guard.unlock().await?;
        nothing_is_asked(world).await;
        Ok(())
    })
    .await
}

/// A request that is dropped while it is on its way must not stay.
#[tokio::test]
async fn dropping_a_request_after_any_number_of_polls_leaves_none_or_one() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, world.session().await?);
        for drops in [Drops::AtOnce, Drops::OnceWoken] {
            for polls in 0..100 {
                let guard = session.mutex("name").lock().await?;
                let mutex = operator.mutex("name");
                let mut asking = ByHand::new(mutex.request_revocation("dropped"));
                let progress = asking.poll(polls, drops).await;
                drop(asking);
                match progress {
                    Progress::Ready(asked) => {
                        assert_eq!(asked?.len(), 1);
                        is_asked(&guard, operator.identity(), "dropped").await;
                        guard.unlock().await?;
                        nothing_is_asked(world).await;
                        break;
                    }
                    Progress::Polled | Progress::Quiet => nothing_is_asked(world).await,
                }
                guard.unlock().await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hold_is_ended_by_force_and_the_next_one_holds() -> TestResult {
    on_etcd(async |world| {
        let (session, other, operator) = (world.session().await?, world.session().await?, world.session().await?);

        let guard = session.mutex("name").lock().await?;
        let mut next = other.mutex("name").enqueue().await?;
        assert!(operator.mutex("name").force_release(guard.token()).await?);
        assert_eq!(soon("it is told", guard.lost()).await, Loss::Deleted);
        holds(&mut next).await?.unlock().await?;
        assert!(!operator.mutex("name").force_release(guard.token()).await?, "it is gone");

        let readers = [session.rwlock("name").read().await?, other.rwlock("name").read().await?];
        assert!(operator.rwlock("name").force_release(readers[1].token()).await?);
        assert_eq!(soon("it is told", readers[1].lost()).await, Loss::Deleted);
        readers[0].verify().await?;
        drop(readers);

        let permits = [session.semaphore("gpu", 2).acquire().await?, other.semaphore("gpu", 2).acquire().await?];
        assert!(operator.semaphore("gpu", 2).force_release(permits[1].token()).await?);
        assert_eq!(soon("it is told", permits[1].lost()).await, Loss::Deleted);
        permits[0].verify().await?;
        drop(permits);

        let term = session.election("e").campaign("value").await?;
        assert!(operator.election("e").force_release(term.token()).await?);
        assert_eq!(soon("it is told", term.lost()).await, Loss::Deleted);
        Ok(())
    })
    .await
}

/// The operator looked, and meanwhile the lock went on: the key may be the same by now, the token is not.
#[tokio::test]
async fn a_stale_token_and_a_waiter_s_end_nothing() -> TestResult {
    on_etcd(async |world| {
        let (session, operator) = (world.session().await?, world.session().await?);
        let mutex = session.mutex("name");
        let guard = mutex.lock().await?;
        let (stale, key) = (guard.token(), guard.key().to_owned());
        guard.unlock().await?;
        let guard = mutex.lock().await?;
        assert_eq!(guard.key(), key);
        let mut waiter = world.session().await?.mutex("name").enqueue().await?;
        let waiting = mutex.queue().await?[1].token();
        let before = world.revision().await;
        assert!(!operator.mutex("name").force_release(stale).await?);
        assert!(!operator.mutex("name").force_release(waiting).await?);
        assert_eq!(world.revision().await, before);
        guard.verify().await?;
        guard.unlock().await?;
        holds(&mut waiter).await?.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn etcdctl_s_hold_can_be_ended_by_force_and_is_asked_in_vain() -> TestResult {
    on_etcd(async |world| {
        let session = world.etcd.session(Duration::from_secs(60)).await?;
        let mutex = session.mutex("name");
        let mut theirs = Etcdctl::run(world, &["lock", "--ttl=2", "name"])?;
        let key = theirs.line().await?;
        let mut ours = mutex.enqueue().await?;
        let asked = mutex.request_revocation("please").await?;
        assert_eq!(asked.iter().map(Waiter::key).collect::<Vec<_>>(), [&key]);
        assert!(mutex.force_release(asked[0].token()).await?);
        holds(&mut ours).await?.unlock().await?;
        nothing_is_asked(world).await;
        drop(theirs);

        // As Go writes it: a key without a word on whose it is.
        let lease = world.client().lease_grant(600, None).await?.id();
        let options = PutOptions::new().with_lease(lease);
        world.client().put(format!("e/{lease:x}"), "value", Some(options)).await?;
        let election = session.election("e");
        let leader = election.leader().await?.expect("there is one");
        let asked = election.request_revocation("please").await?;
        assert_eq!((asked[0].identity(), asked[0].token()), (&*format!("{lease:x}"), leader.token()));
        assert!(election.force_release(leader.token()).await?);
        election.try_campaign("ours").await?.expect("it is free").resign().await?;
        world.client().lease_revoke(lease).await?;
        Ok(())
    })
    .await
}
