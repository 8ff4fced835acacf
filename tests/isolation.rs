//! An isolated session renews its lease though its runtime is blocked, and ends with it all the same.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::sleep;
use std::time::Duration;

use common::proxy::Mode;
use common::{LONG, TestResult, World, equals, on_etcd, soon};
use tenure::etcd_client::ConnectOptions;
use tenure::testing::Etcd;
use tenure::{Error, Health, Loss, Session, connect_options};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::RwLock;

const TTL: Duration = Duration::from_secs(2);

/// Whoever counts threads is alone.
static THREADS: RwLock<()> = RwLock::const_new(());

fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

async fn isolated(etcd: &Etcd, ttl: Duration) -> TestResult<Session> {
    let builder = Session::builder(etcd.client().await?).ttl(ttl);
    Ok(builder.isolated(etcd.endpoints(), connect_options()).open().await?)
}

/// The threads of isolated sessions in this process.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    use std::fs;
    let tasks = fs::read_dir("/proc/self/task").expect("it is there");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "tenure-renewal").count()
}

/// Every worker is blocked for three times the TTL, beside a session as it is by default.
#[test]
fn a_blocked_runtime_costs_an_isolated_session_nothing() -> TestResult {
    const WORKERS: usize = 2;
    let (outer, inner) = (runtime(1), runtime(WORKERS));
    let _counted = outer.block_on(THREADS.read());
    let etcd = Arc::new(outer.block_on(Etcd::start())?);
    let theirs = etcd.clone();
    let opened = inner.block_on(inner.spawn(async move {
        let sessions = (isolated(&theirs, TTL).await.unwrap(), theirs.session(TTL).await.unwrap());
        let held = sessions.0.mutex("isolated").lock().await.unwrap();
        let starved = sessions.1.mutex("starved").lock().await.unwrap();
        (sessions, Arc::new(held), Arc::new(starved))
    }));
    let (sessions, held, starved) = opened?;
    let (lease, health) = (sessions.0.lease_id(), sessions.0.health());

    let (blocked, woken) = (Arc::new(Barrier::new(WORKERS + 1)), Arc::new(AtomicUsize::new(0)));
    let blocking: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (held, starved, blocked, woken) = (held.clone(), starved.clone(), blocked.clone(), woken.clone());
            inner.spawn(async move {
                blocked.wait();
                sleep(3 * TTL);
                // At once, before anything else has run.
                let valid = (held.is_valid(), starved.is_valid());
                woken.fetch_add(1, Ordering::SeqCst);
                valid
            })
        })
        .collect();
    blocked.wait();

    outer.block_on(async {
        let other = etcd.session(LONG).await?;
        let mut client = etcd.client().await?;
        let mut starved_is_gone = false;
        while woken.load(Ordering::SeqCst) == 0 {
            let found = client.get(held.key(), None).await?;
            assert_eq!(found.kvs().first().map(|kv| kv.create_revision()), Some(held.token().into()));
            assert!(other.mutex("isolated").try_lock().await?.is_none(), "two hold");
            assert_eq!((*health.borrow(), held.is_valid()), (Health::Safe, true));
            assert!(!held.deadline().has_passed());
            // A deadline that lies would leave it valid when its key is gone.
            starved_is_gone = client.get(starved.key(), None).await?.kvs().is_empty();
            assert!(!starved_is_gone || !starved.is_valid(), "it believes in a hold that is gone");
        }
        assert!(starved_is_gone, "the other session was not starved");
        assert!(client.leases().await?.leases().iter().any(|known| known.id() == lease));
        TestResult::Ok(())
    })?;

    for valid in blocking {
        assert_eq!(inner.block_on(valid)?, (true, false));
    }
    inner.block_on(async {
        assert_eq!(sessions.0.lease_id(), lease);
        held.verify().await?;
        assert_eq!(soon("it is lost", starved.lost()).await, Loss::Expired);
        soon("it queues again", sessions.1.mutex("starved").lock()).await?.unlock().await?;
        Arc::into_inner(held).expect("nobody else has it").unlock().await?;
        sessions.0.close().await?;
        sessions.1.close().await?;
        TestResult::Ok(())
    })
}

/// The deadline is a matter of the clock, and of nobody who runs: without renewals it passes on a blocked runtime too.
#[test]
fn the_deadline_passes_though_the_runtime_is_blocked() -> TestResult {
    let (outer, inner) = (runtime(1), runtime(1));
    let _counted = outer.block_on(THREADS.read());
    let etcd = Arc::new(outer.block_on(Etcd::start())?);
    let theirs = etcd.clone();
    let (session, guard) = inner.block_on(inner.spawn(async move {
        let session = isolated(&theirs, TTL).await.unwrap();
        let guard = session.mutex("name").lock().await.unwrap();
        (session, Arc::new(guard))
    }))?;
    let (blocked, seen) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let blocking = inner.spawn({
        let (guard, blocked, seen) = (guard.clone(), blocked.clone(), seen.clone());
        async move {
            blocked.wait();
            seen.wait();
            guard.is_valid()
        }
    });
    blocked.wait();
    etcd.pause(0)?;
    outer.block_on(async {
        let mut health = session.health();
        let jeopardy = soon("jeopardy", health.wait_for(|health| matches!(health, Health::Jeopardy(_)))).await?;
        assert!(guard.is_valid() || guard.deadline().has_passed());
        drop(jeopardy);
        let lost = soon("the loss", health.wait_for(|health| matches!(health, Health::Lost(_)))).await?;
        assert_eq!((*lost, guard.is_valid()), (Health::Lost(Loss::Expired), false));
        TestResult::Ok(())
    })?;
    etcd.resume(0)?;
    outer.block_on(async {
        // A new lease, which nobody on the runtime had to ask for.
        let mut health = session.health();
        soon("a new lease", health.wait_for(|health| *health == Health::Safe)).await.map(drop)
    })?;
    seen.wait();
    assert!(!inner.block_on(blocking)?, "valid again");
    inner.block_on(async {
        assert_eq!(soon("it is lost", guard.lost()).await, Loss::Expired);
        soon("it is free", session.mutex("name").lock()).await?.unlock().await?;
        Ok(session.close().await?)
    })
}

/// A session that nobody serves must not keep its lease for ever: whoever waits would wait for a process that is gone.
#[test]
fn an_isolated_session_ends_with_its_runtime() -> TestResult {
    for shuts_down in [Runtime::shutdown_background, drop] {
        let (outer, inner) = (runtime(1), runtime(1));
        let _counted = outer.block_on(THREADS.read());
        let etcd = outer.block_on(Etcd::start())?;
        let (session, guard) = inner.block_on(async {
            let session = isolated(&etcd, LONG).await?;
            let guard = session.mutex("name").lock().await?;
            TestResult::Ok((session, guard))
        })?;
        shuts_down(inner);
        outer.block_on(async {
            assert_eq!(soon("it is lost", guard.lost()).await, Loss::Closed);
            soon("it is closed", session.close()).await?;
            let mut client = etcd.client().await?;
            assert!(client.leases().await?.leases().is_empty(), "the lease was not revoked");
            assert!(matches!(session.mutex("name").lock().await, Err(Error::Closed)));
            TestResult::Ok(())
        })?;
    }
    Ok(())
}

/// As every session: closed, dropped, or never taken.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn thread_and_connection_end_with_the_session() -> TestResult {
    let _alone = THREADS.write().await;
    on_etcd(async |world: &World| {
        let session = isolated(&world.etcd, LONG).await?;
        assert_eq!(threads(), 1);
        let guard = session.mutex("name").lock().await?;
        soon("it is closed", session.close()).await?;
        equals("threads", 0, async || threads()).await;
        drop((guard, session));

        drop(isolated(&world.etcd, LONG).await?);
        equals("threads", 0, async || threads()).await;

        for polls in 0.. {
            let builder = Session::builder(world.etcd.client().await?).ttl(LONG);
            let builder = builder.isolated(world.etcd.endpoints(), connect_options());
            let mut opening = common::ByHand::new(builder.open());
            let progress = opening.poll(polls, common::Drops::AtOnce).await;
            drop(opening);
            let done = matches!(progress, common::Progress::Ready(_));
            drop(progress);
            equals("leases", Vec::new(), async || world.leases().await).await;
            equals("threads", 0, async || threads()).await;
            if done {
                break;
            }
        }
        Ok(())
    })
    .await
}

/// Losses are survived as by any session, over the connection that is its own.
#[tokio::test]
async fn an_isolated_session_outlives_the_loss_of_its_lease() -> TestResult {
    let _counted = THREADS.read().await;
    on_etcd(async |world: &World| {
        let detour = world.detour()?;
        let builder = Session::builder(world.etcd.client().await?).ttl(TTL);
        let session = builder.isolated([&detour.endpoint], connect_options()).open().await?;
        let mut health = session.health();

        let guard = session.mutex("name").lock().await?;
        world.client().lease_revoke(session.lease_id()).await?;
        assert_eq!(soon("it is lost", guard.lost()).await, Loss::Revoked);
        let guard = soon("it queues again", session.mutex("name").lock()).await?;

        // Its own connection is cut, and the client's is not.
        detour.link.set(Mode::Cut);
        soon("jeopardy", health.wait_for(|health| matches!(health, Health::Jeopardy(_)))).await?;
        assert_eq!(soon("it is lost", guard.lost()).await, Loss::Expired);
        detour.link.set(Mode::Pass);
        let guard = soon("it queues again", session.mutex("name").lock()).await?;
        guard.verify().await?;
        session.close().await?;
        Ok(())
    })
    .await
}

/// Nobody should learn of a typing error by a lease that is lost for ever.
#[tokio::test]
async fn bad_endpoints_are_an_error_when_the_session_is_opened() -> TestResult {
    let _counted = THREADS.read().await;
    on_etcd(async |world: &World| {
        let open = async |endpoints: &[String]| {
            let builder = Session::builder(world.client()).ttl(LONG);
            let opened = soon("an answer", builder.isolated(endpoints, ConnectOptions::new()).open()).await;
            opened.expect_err("it cannot be opened")
        };
        for (endpoints, says) in [(&[][..], "empty"), (&["http://[".to_owned()], "")] {
            let error = open(endpoints).await;
            let Error::InvalidOption { option: "isolated", reason } = &error else { panic!("{error:?}") };
            assert!(reason.contains(says), "{reason}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let error = open(&[closed.to_string()]).await;
        assert!(matches!(error, Error::Etcd { code: 14, .. }), "{error:?}");

        let other = Etcd::start().await?;
        let error = open(&other.endpoints()).await;
        assert!(matches!(&error, Error::InvalidOption { reason, .. } if reason.contains("another cluster")), "{error}");
        let mut client = other.client().await?;
        equals("leases", 0, async || client.leases().await.expect("an answer").leases().len()).await;
        Ok(())
    })
    .await
}
