//! What cannot work is said at once, with the name of what is wrong, and nothing is written.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::proxy::Mode;
use common::{ByHand, Detour, Drops, LONG, Progress, TestResult, World, equals, on, on_etcd, soon, until};
use tenure::etcd_client::{
    self, AlarmAction, AlarmType, Client, ConnectOptions, GetOptions, Permission, PermissionType, Txn, TxnOp,
};
use tenure::testing::Etcd;
use tenure::{Error, Guard, Session};
use tokio::task::{JoinHandle, JoinSet};
use tracing_subscriber::fmt::MakeWriter;

/// gRPC's codes.
const PERMISSION_DENIED: i32 = 7;

#[tokio::test]
async fn a_bad_name_is_refused_and_nothing_is_sent() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let before = (world.revision().await, world.settled_requests(1.0).await);
        let bad = [
            ("", "empty"),
            ("/a", "begins with a slash"),
            ("a/", "ends with a slash"),
            ("a//b", "doubled slash"),
            ("a\0b", "NUL"),
            ("~a", "leading `~`"),
            ("~session/1f", "leading `~`"),
        ];
        let requests = world.requests().await;
        for (name, reason) in bad {
            let mutex = session.mutex(name);
            let errors = [
                mutex.lock().await.unwrap_err(),
                mutex.try_lock().await.unwrap_err(),
                mutex.try_lock_for(Duration::ZERO).await.unwrap_err(),
                mutex.enqueue().await.unwrap_err(),
                mutex.queue().await.unwrap_err(),
            ];
            for error in errors {
                let Error::InvalidName { name: told, .. } = &error else { panic!("{error:?}") };
                assert_eq!(told, name);
                let text = error.to_string();
                assert!(text.contains("name") && text.contains(reason), "{text}");
                assert!(text.contains(&format!("{name:?}")), "{text}");
            }
        }
        assert_eq!(world.requests().await, requests);
        assert_eq!(world.revision().await, before.0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_bad_option_is_refused_and_no_lease_is_granted() -> TestResult {
    on_etcd(async |world: &World| {
        let builder = || Session::builder(world.client());
        let revision = world.revision().await;
        let bad = [
            ("ttl", builder().ttl(Duration::ZERO)),
            ("ttl", builder().ttl(Duration::from_millis(2_500))),
            ("ttl", builder().ttl(Duration::from_nanos(1))),
            ("ttl", builder().ttl(Duration::from_secs(9_000_000_001))),
            ("ttl", builder().ttl(Duration::MAX)),
            ("namespace", builder().namespace("prod")),
            ("namespace", builder().namespace("/")),
            ("namespace", builder().namespace("/prod/")),
            ("namespace", builder().namespace("prod//")),
            ("namespace", builder().namespace("~session/")),
            ("namespace", builder().namespace("a\0/")),
        ];
        for (option, builder) in bad {
            let case = format!("{builder:?}");
            let error = builder.open().await.expect_err(&case);
            let Error::InvalidOption { option: told, .. } = &error else { panic!("{case}: {error:?}") };
            assert_eq!(*told, option, "{case}");
            assert!(error.to_string().contains(option), "{case}: {error}");
        }
        assert_eq!(world.revision().await, revision);
        assert!(world.leases().await.is_empty());
        Ok(())
    })
    .await
}

/// What is logged while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Whoever asks for less than the server allows gets its minimum, and can see so.
#[tokio::test]
async fn a_ttl_below_the_servers_minimum_is_raised_and_logged() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let session = world.etcd.session(Duration::from_secs(1)).await?;
        let granted = world.client().lease_time_to_live(session.lease_id(), None).await?.granted_ttl();
        assert!(granted > 1, "this etcd has no minimum");
        assert_eq!(session.ttl(), Duration::from_secs(u64::try_from(granted)?));
        let text = String::from_utf8(log.0.lock().unwrap().clone())?;
        let line = text.lines().find(|line| line.contains("raised the TTL"));
        let line = line.unwrap_or_else(|| panic!("nothing is said: {text}"));
        assert!(line.contains("asked=1s") && line.contains(&format!("granted={granted}s")), "{line}");

        let session = world.session().await?;
        assert_eq!(session.ttl(), LONG);
        Ok(())
    })
    .await
}

/// The largest that is allowed is no special case.
#[tokio::test]
async fn the_longest_ttl_works() -> TestResult {
    on_etcd(async |world: &World| {
        let ttl = Duration::from_secs(9_000_000_000);
        let session = Session::builder(world.etcd.client().await?).ttl(ttl).open().await?;
        assert_eq!(session.ttl(), ttl);
        assert!(session.deadline().remaining() > ttl / 2);
        let guard = session.mutex("name").lock().await?;
        let mut ticket = session.mutex("name").enqueue().await?;
        guard.unlock().await?;
        soon("it is its turn", ticket.granted()).await?.unlock().await?;
        soon("it is closed", session.close()).await?;
        Ok(())
    })
    .await
}

/// Enables authentication: `root` and `user` have their names as passwords, and `user` may write below `ours/`.
async fn enable_auth(world: &World) -> TestResult {
    let mut client = world.client();
    client.user_add("root", "root", None).await?;
    client.role_add("root").await?;
    client.user_grant_role("root", "root").await?;
    client.user_add("user", "user", None).await?;
    client.role_add("role").await?;
    for prefix in ["ours/", "~session/"] {
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        client.role_grant_permission("role", permission).await?;
    }
    client.user_grant_role("user", "role").await?;
    client.auth_enable().await?;
    Ok(())
}

async fn client_as(world: &World, user: &str, password: &str) -> Result<Client, etcd_client::Error> {
    let options = tenure::connect_options().with_user(user, password);
    Client::connect(world.etcd.endpoints(), Some(options)).await
}

async fn session_as(world: &World, user: &str) -> TestResult<Session> {
    Ok(Session::builder(client_as(world, user, user).await?).ttl(LONG).open().await?)
}

/// A session of `user` over a link that can be cut.
async fn session_over(detour: &Detour) -> TestResult<Session> {
    let options = tenure::connect_options().with_user("user", "user");
    let client = Client::connect([&detour.endpoint], Some(options)).await?;
    Ok(Session::builder(client).ttl(LONG).open().await?)
}

/// Leaves `role` with this permission below `prefix`.
async fn permit(world: &World, permission: PermissionType, prefix: &str) -> TestResult {
    let mut client = client_as(world, "root", "root").await?;
    let permission = Permission::new(permission, prefix).with_prefix();
    client.role_grant_permission("role", permission).await?;
    Ok(())
}

/// One who waits for what another holds.
async fn wait_behind(holding: &Session, waiting: &Session, name: &str) -> TestResult<(Guard, Waiting)> {
    let (guard, mutex) = (holding.mutex(name).lock().await?, waiting.mutex(name));
    let next = tokio::spawn(async move { mutex.lock().await });
    until("it queues", async || holding.mutex(name).queue().await.is_ok_and(|queue| queue.len() == 2)).await;
    Ok((guard, next))
}

type Waiting = JoinHandle<tenure::Result<Guard>>;

/// Ends it, so that the end of the test can look at everything.
async fn disable_auth(world: &World) -> TestResult {
    client_as(world, "root", "root").await?.auth_disable().await?;
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_an_error_at_once() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        for (user, password) in [("user", "wrong"), ("nobody", "nobody")] {
            let error = soon("an answer", client_as(world, user, password)).await.err().expect("it is refused");
            assert!(error.to_string().contains("authentication failed"), "{error}");
        }
        // Right when it connected, and then no more.
        let client = client_as(world, "user", "user").await?;
        client_as(world, "root", "root").await?.user_change_password("user", "new").await?;
        let error = soon("an answer", Session::open(client)).await.unwrap_err();
        assert!(matches!(error, Error::Etcd { .. }), "{error:?}");
        disable_auth(world).await
    })
    .await
}

#[tokio::test]
async fn a_session_without_credentials_is_refused_where_they_are_needed() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let error = soon("an answer", Session::connect(world.etcd.endpoints())).await.unwrap_err();
        assert!(matches!(error, Error::Etcd { .. }), "{error:?}");
        assert!(error.to_string().contains("user name is empty"), "{error}");
        disable_auth(world).await
    })
    .await
}

/// Waiting cannot mend a missing permission.
#[tokio::test]
async fn a_name_without_permission_is_an_error_at_once() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let session = Session::open(client_as(world, "user", "user").await?).await?;
        let ours = session.mutex("ours/name").lock().await?;
        let theirs = session.mutex("theirs/name");
        let errors = [
            soon("an answer", theirs.lock()).await.unwrap_err(),
            soon("an answer", theirs.try_lock()).await.unwrap_err(),
            soon("an answer", theirs.try_lock_for(LONG)).await.unwrap_err(),
            soon("an answer", theirs.enqueue()).await.unwrap_err(),
            soon("an answer", theirs.queue()).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::Etcd { code: PERMISSION_DENIED, .. }), "{error:?}");
        }
        assert!(ours.is_valid());
        ours.unlock().await?;
        disable_auth(world).await
    })
    .await
}

/// Tokens expire, on streams as well as between requests. Nobody who holds or waits should know.
#[tokio::test]
async fn an_expired_token_costs_neither_a_hold_nor_a_place() -> TestResult {
    on(Etcd::start_with(&["--auth-token-ttl=1"]), async |world: &World| {
        enable_auth(world).await?;
        let open = async || -> TestResult<Session> {
            let client = client_as(world, "user", "user").await?;
            Ok(Session::builder(client).ttl(Duration::from_secs(4)).open().await?)
        };
        let (one, other) = (open().await?, open().await?);
        let guard = one.mutex("ours/name").lock().await?;
        let mut ticket = other.mutex("ours/name").enqueue().await?;
        let lease = other.lease_id();
        for _ in 0..3 {
            let (first, second) = (one.deadline(), other.deadline());
            until("both are renewed", async || one.deadline() > first && other.deadline() > second).await;
        }
        assert!(guard.is_valid());
        assert_eq!(ticket.position().await?, 1);
        assert_eq!(other.lease_id(), lease);
        guard.unlock().await?;
        let guard = soon("it is its turn", ticket.granted()).await?;
        guard.unlock().await?;
        let guard = one.mutex("ours/other").try_lock().await?.expect("it is free");
        guard.unlock().await?;
        disable_auth(world).await
    })
    .await
}

/// A typo in an address must not look like a long wait.
#[tokio::test]
async fn without_an_etcd_the_error_comes_within_the_time_limit() -> TestResult {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let nobody = taken.local_addr()?.to_string();
    drop(taken);
    let begun = Instant::now();
    let error = soon("an answer", Session::connect([nobody])).await.unwrap_err();
    assert!(matches!(error, Error::Etcd { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    Ok(())
}

/// Nor something that listens there and is no etcd. Every call has a time limit of ours: the client may have none.
#[tokio::test]
async fn where_nobody_answers_the_error_comes_within_the_time_limit() -> TestResult {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?.to_string();
    for options in [None, Some(tenure::connect_options())] {
        let client = Client::connect([&address], options).await?;
        let begun = Instant::now();
        let error = soon("an answer", Session::open(client)).await.unwrap_err();
        assert!(matches!(error, Error::Etcd { .. }), "{error:?} after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }
    Ok(())
}

/// Takes every token of `user` away, as if all had expired.
async fn expire_tokens(world: &World) -> TestResult {
    client_as(world, "root", "root").await?.user_change_password("user", "user").await?;
    Ok(())
}

/// A stream lives longer than the token with which it was opened. (Some versions of etcd call what is asked on it
/// from then on a missing permission.)
#[tokio::test]
async fn a_wait_begun_on_a_stream_whose_token_has_expired_is_granted() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let (holding, waiting) = (session_as(world, "root").await?, session_as(world, "user").await?);
        until("the streams stand", async || world.watches().await == 2.0).await;
        expire_tokens(world).await?;
        let (guard, next) = wait_behind(&holding, &waiting, "ours/name").await?;
        guard.unlock().await?;
        soon("it is granted", next).await??.unlock().await?;
        drop((holding, waiting));
        disable_auth(world).await
    })
    .await
}

/// A client that does not renew its token by itself is served like any other.
#[tokio::test]
async fn a_hold_is_verified_and_used_with_an_expired_token() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let options = ConnectOptions::new().with_user("user", "user");
        let client = Client::connect(world.etcd.endpoints(), Some(options)).await?;
        let session = Session::builder(client).ttl(LONG).open().await?;
        let guard = session.mutex("ours/name").lock().await?;
        expire_tokens(world).await?;
        guard.verify().await?;
        expire_tokens(world).await?;
        guard.txn(Txn::new().and_then([TxnOp::put("ours/value", "value", None)])).await?;
        expire_tokens(world).await?;
        let found = client_as(world, "root", "root").await?.get("ours/value", None).await?;
        assert_eq!(found.kvs()[0].version(), 1, "it was applied more than once");
        guard.txn(Txn::new().and_then([TxnOp::delete("ours/value", None)])).await?;
        guard.unlock().await?;
        drop(session);
        disable_auth(world).await
    })
    .await
}

/// The session's own watch, of its fence key, is a convenience: those who wait do without it.
#[tokio::test]
async fn a_fence_key_that_may_not_be_read_any_more_costs_no_wait() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let (detour, holding) = (world.detour()?, session_as(world, "root").await?);
        let waiting = session_over(&detour).await?;
        let (guard, next) = wait_behind(&holding, &waiting, "ours/name").await?;
        permit(world, PermissionType::Write, "~session/").await?;
        // All watches are asked for again.
        detour.link.reset().await;
        guard.unlock().await?;
        soon("it is granted", next).await??.unlock().await?;
        drop((holding, waiting));
        disable_auth(world).await
    })
    .await
}

/// Whoever may not read a queue any more is told so, and nobody else of the session is.
#[tokio::test]
async fn a_wait_that_may_not_be_watched_any_more_costs_no_other() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        permit(world, PermissionType::Readwrite, "theirs/").await?;
        let (detour, holding) = (world.detour()?, session_as(world, "root").await?);
        let waiting = session_over(&detour).await?;
        let (ours, next_of_ours) = wait_behind(&holding, &waiting, "ours/name").await?;
        let (theirs, next_of_theirs) = wait_behind(&holding, &waiting, "theirs/name").await?;
        permit(world, PermissionType::Write, "theirs/").await?;
        detour.link.reset().await;
        let error = soon("an answer", next_of_theirs).await?.unwrap_err();
        assert!(matches!(error, Error::Etcd { code: PERMISSION_DENIED, .. }), "{error:?}");
        ours.unlock().await?;
        soon("it is granted", next_of_ours).await??.unlock().await?;
        theirs.unlock().await?;
        drop((holding, waiting));
        disable_auth(world).await
    })
    .await
}

/// etcd does not answer for a watch that it refused and that was given up meanwhile: nobody waits for that answer.
#[tokio::test]
async fn watches_given_up_before_they_are_refused_leave_room_for_others() -> TestResult {
    on_etcd(async |world: &World| {
        enable_auth(world).await?;
        let (holding, session) = (session_as(world, "root").await?, session_as(world, "user").await?);
        let root = client_as(world, "root", "root").await?;
        let permit = async |permission| {
            let permission = Permission::new(permission, "theirs/").with_prefix();
            root.auth_client().role_grant_permission("role", permission).await
        };
        // Fewer than may be unanswered at once, so that they are given up aloud, and more.
        for count in [16, 16, 16, 16, 16, 16, 48, 48] {
            permit(PermissionType::Readwrite).await?;
            let mut locking = JoinSet::new();
            for n in 0..count {
                let mutex = session.mutex(format!("theirs/{n}").as_str());
                locking.spawn(async move { mutex.lock().await });
            }
            let guards = locking.join_all().await;
            // Before the first of them is 100 ms old, and watched.
            permit(PermissionType::Write).await?;
            world.etcd.pause(0)?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(guards);
            // What this thread has to do is done: all that is asked for now waits for etcd.
            tokio::time::sleep(Duration::from_millis(10)).await;
            world.etcd.resume(0)?;
            let left = GetOptions::new().with_prefix().with_count_only();
            let count = async || root.kv_client().get("theirs/", Some(left.clone())).await.map(|found| found.count());
            until("all are released", async || count().await.is_ok_and(|count| count == 0)).await;
        }
        let (guard, next) = wait_behind(&holding, &session, "ours/name").await?;
        guard.unlock().await?;
        soon("it is granted", next).await??.unlock().await?;
        drop((holding, session));
        disable_auth(world).await
    })
    .await
}

/// Where there is no space the key goes at once. A request that may still be on its way is voided when there is some
/// again, though its place left together with others of its queue.
#[tokio::test]
async fn a_place_that_could_not_fence_fences_later() -> TestResult {
    on_etcd(async |world: &World| {
        let _ =
            tracing_subscriber::fmt().with_ansi(false).with_env_filter("tenure=debug").with_test_writer().try_init();
        let detour = world.detour()?;
        let session = detour.session().await?;
        let mutex = session.mutex("name");
        let fence_key = world.keys("~session/").await.remove(0);
        let fence = async || {
            let found = world.client().get(fence_key.as_str(), None).await.expect("etcd answers");
            found.kvs()[0].mod_revision()
        };
        let space = async |action| world.client().alarm(action, AlarmType::Nospace, None).await;
        for polls in 1.. {
            equals("watches", 1.0, async || world.watches().await).await;
            // An enter that is not heard of at first.
            detour.link.set(Mode::FreezeAnswers);
            let locking = mutex.clone();
            let locking = tokio::spawn(async move { locking.lock().await });
            until("the key", async || world.keys("name/").await.len() == 1).await;
            detour.link.reset().await;
            let guard = soon("the lock", locking).await??;
            let ticket = mutex.enqueue().await?;
            let before = fence().await;
            space(AlarmAction::Activate).await?;
            let mut unlocking = ByHand::new(guard.unlock());
            let progress = unlocking.poll(polls, Drops::AtOnce).await;
            drop((unlocking, ticket));
            equals("keys", 0, async || world.keys("name/").await.len()).await;
            assert_eq!(fence().await, before, "there was space");
            space(AlarmAction::Deactivate).await?;
            until("the fence", async || fence().await > before).await;
            if let Progress::Ready(unlocked) = progress {
                unlocked?;
                break;
            }
        }
        Ok(())
    })
    .await
}
