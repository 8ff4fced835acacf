//! etcd's own tool and this crate take turns.

mod common;

use std::time::Duration;

use common::etcdctl::Etcdctl;
use common::{ByHand, Progress, TestResult, World, equals, on_etcd, soon};

/// What it leaves behind when it ends: it does not revoke its lease.
const TTL: &str = "--ttl=2";

#[tokio::test]
async fn etcdctl_lock_and_a_mutex_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(60)).await?;
        let mutex = session.mutex("name");

        // Theirs first: ours waits for it, ...
        let mut theirs = Etcdctl::run(world, &["lock", TTL, "name"])?;
        let key = theirs.line().await?;
        assert_eq!(mutex.queue().await?[0].key(), key);
        assert!(mutex.try_lock().await?.is_none());
        let mut ticket = mutex.enqueue().await?;
        assert_eq!(ticket.position().await?, 1);
        // ... and another of theirs for ours.
        let mut next = Etcdctl::run(world, &["lock", TTL, "name"])?;
        equals("they queue", 3, async || world.keys("name/").await.len()).await;
        theirs.interrupt().await?;
        let guard = soon("it is our turn", ticket.granted()).await?;
        guard.verify().await?;

        // Ours is released: theirs holds, and ours waits again.
        let mut ticket = mutex.enqueue().await?;
        assert_eq!(world.keys("name/").await.len(), 3, "they still wait");
        guard.unlock().await?;
        let key = next.line().await?;
        assert_eq!(mutex.queue().await?[0].key(), key);
        assert_eq!(ticket.position().await?, 1);
        next.interrupt().await?;
        soon("it is our turn", ticket.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// A script's critical section, `etcdctl lock NAME COMMAND`, is one for us too.
#[tokio::test]
async fn a_command_under_etcdctl_lock_excludes_a_mutex() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(60)).await?;
        let guard = session.mutex("name").lock().await?;
        let mut theirs = Etcdctl::run(world, &["lock", TTL, "name", "--", "echo", "inside"])?;
        equals("they queue", 2, async || world.keys("name/").await.len()).await;
        let mut ticket = session.mutex("name").enqueue().await?;
        guard.unlock().await?;
        assert_eq!(theirs.line().await?, "inside");
        soon("it is our turn", ticket.granted()).await?.unlock().await?;
        assert!(soon("etcdctl ends", theirs.child.wait()).await?.success());
        Ok(())
    })
    .await
}

/// A lock of theirs is a writer to our readers, and takes all permits.
#[tokio::test]
async fn etcdctl_lock_waits_for_readers_and_permits_and_they_for_it() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.etcd.session(Duration::from_secs(60)).await?;
        let (lock, semaphore) = (session.rwlock("name"), session.semaphore("gpu", 3));
        let ours = [lock.read().await?, lock.read().await?, semaphore.acquire().await?, semaphore.acquire().await?];
        let (mut reader, mut permit) =
            (Etcdctl::run(world, &["lock", TTL, "name"])?, Etcdctl::run(world, &["lock", TTL, "gpu"])?);
        for name in ["name/", "gpu/"] {
            equals("they queue", 3, async || world.keys(name).await.len()).await;
        }
        let mut behind = (lock.enqueue_read().await?, semaphore.enqueue().await?);
        assert!(lock.try_read().await?.is_none());
        assert!(semaphore.try_acquire().await?.is_none());
        for guard in ours {
            guard.unlock().await?;
        }
        assert_eq!(lock.queue().await?[0].key(), reader.line().await?);
        assert_eq!(semaphore.queue().await?[0].key(), permit.line().await?);
        assert_eq!((behind.0.position().await?, behind.1.position().await?), (1, 1));
        reader.interrupt().await?;
        permit.interrupt().await?;
        soon("it is our turn", behind.0.granted()).await?.unlock().await?;
        soon("it is our turn", behind.1.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// While theirs holds `name`, ours waits for it, and another of theirs for ours, which prints the oldest key in the
/// queue as soon as it holds: its own, unless ours was still there.
async fn ours_between<G>(
    world: &World,
    name: &str,
    ours: impl Future<Output = tenure::Result<G>>,
) -> TestResult<(G, Etcdctl)> {
    let queue = format!("{name}/");
    let mut theirs = Etcdctl::run(world, &["lock", TTL, name])?;
    theirs.line().await?;
    let mut locking = ByHand::new(ours);
    assert!(matches!(locking.poll_until_quiet().await, Progress::Quiet), "granted beside theirs");
    assert_eq!(world.keys(&queue).await.len(), 2);
    let endpoints = format!("--endpoints={}", world.etcd.endpoints()[0]);
    let oldest = ["etcdctl", &endpoints, "get", &queue, "--prefix", "--keys-only", "--sort-by=CREATE", "--limit=1"];
    let next = Etcdctl::run(world, &[["lock", TTL, name, "--"].as_slice(), &oldest].concat())?;
    equals("they queue", 3, async || world.keys(&queue).await.len()).await;
    theirs.interrupt().await?;
    let guard = locking.end().await?;
    assert_eq!(world.keys(&queue).await.len(), 2, "theirs waits for ours");
    Ok((guard, next))
}

/// It has held by now, and ended.
async fn held_after(mut theirs: Etcdctl, ours: &[String]) -> TestResult {
    let oldest = theirs.line().await?;
    assert!(!ours.contains(&oldest), "theirs held beside ours");
    assert!(soon("etcdctl ends", theirs.child.wait()).await?.success());
    Ok(())
}

#[tokio::test]
async fn etcdctl_lock_and_a_writer_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (guard, theirs) = ours_between(world, "name", session.rwlock("name").write()).await?;
        let key = guard.key().to_owned();
        guard.unlock().await?;
        held_after(theirs, &[key]).await
    })
    .await
}

/// However often it has locked, theirs waits for the last of its guards.
#[tokio::test]
async fn etcdctl_lock_and_an_owner_that_locks_again_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let owner = session.mutex("name").reentrant();
        let (guard, theirs) = ours_between(world, "name", owner.lock()).await?;
        let again = soon("it holds already", owner.lock()).await?;
        let key = again.key().to_owned();
        guard.unlock().await?;
        again.verify().await?;
        let last = soon("it holds still", owner.lock()).await?;
        again.unlock().await?;
        assert_eq!(owner.queue().await?[0].key(), key);
        last.unlock().await?;
        held_after(theirs, &[key]).await
    })
    .await
}

/// Be it the first, one in the middle or the last that theirs has.
#[tokio::test]
async fn etcdctl_lock_and_locks_taken_together_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for name in ["a", "b", "c"] {
            let (guards, theirs) = ours_between(world, name, session.lock_all(["c", "a", "b"])).await?;
            guards.verify().await?;
            let keys: Vec<_> = guards.guards().iter().map(|guard| guard.key().to_owned()).collect();
            assert_eq!(keys.len(), 3);
            guards.unlock().await?;
            held_after(theirs, &keys).await?;
        }
        Ok(())
    })
    .await
}

/// `etcdctl elect` has a lease of 60 s, which it does not revoke either.
async fn revoke_what_etcdctl_left(world: &World, ours: i64) -> TestResult {
    for lease in world.leases().await.into_iter().filter(|lease| *lease != ours) {
        world.client().lease_revoke(lease).await?;
    }
    Ok(())
}

#[tokio::test]
async fn etcdctl_elect_and_an_election_take_turns() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let election = session.election("name");

        // Theirs first: ours waits for it, ...
        let mut theirs = Etcdctl::run(world, &["elect", "name", "theirs"])?;
        let (key, value) = (theirs.line().await?, theirs.line().await?);
        let leader = election.leader().await?.expect("there is one");
        assert_eq!((leader.key(), leader.value()), (key.as_str(), value.as_bytes()));
        assert!(election.try_campaign("ours").await?.is_none());
        let mut ticket = election.enqueue("ours").await?;
        // ... and another of theirs for ours.
        let mut next = Etcdctl::run(world, &["elect", "name", "next"])?;
        equals("they stand", 3, async || election.candidates().await.unwrap().len()).await;
        theirs.interrupt().await?;
        let term = soon("it is our turn", ticket.granted()).await?;
        term.verify().await?;

        // An observer of theirs sees ours, and what we proclaim.
        let mut observer = Etcdctl::run(world, &["elect", "--listen", "name"])?;
        assert_eq!((observer.line().await?.as_str(), observer.line().await?.as_str()), (term.key(), "ours"));
        term.proclaim("still ours").await?;
        assert_eq!((observer.line().await?.as_str(), observer.line().await?.as_str()), (term.key(), "still ours"));

        term.resign().await?;
        let (key, value) = (next.line().await?, next.line().await?);
        assert_eq!(value, "next");
        assert_eq!((observer.line().await?, observer.line().await?), (key, value));
        drop(observer);
        next.interrupt().await?;
        soon("it is our turn", election.campaign("ours")).await?.resign().await?;
        revoke_what_etcdctl_left(world, session.lease_id()).await
    })
    .await
}
