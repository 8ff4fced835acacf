//! At most one holds, and they hold in the order in which they came: per guard, not per session.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{LIMIT, TestResult, World, on_etcd, soon, until};
use tenure::etcd_client::Client;
use tenure::{FencingToken, Kind, Session};
use tokio::task::JoinSet;

/// What goes wrong when two are inside at once.
struct Room {
    client: Client,
    inside: AtomicBool,
    tokens: Mutex<Vec<FencingToken>>,
}

impl Room {
    fn new(world: &World) -> Arc<Self> {
        Arc::new(Self { client: world.client(), inside: AtomicBool::new(false), tokens: Mutex::default() })
    }

    /// Takes the lock and counts one up, in two steps.
    async fn visit(&self, session: &Session) {
        let guard = session.mutex("room").lock().await.unwrap();
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two are inside");
        self.tokens.lock().unwrap().push(guard.token());
        let mut client = self.client.clone();
        let count = self.count().await;
        client.put("count", (count + 1).to_string(), None).await.unwrap();
        assert!(guard.is_valid());
        self.inside.store(false, Ordering::SeqCst);
        guard.unlock().await.unwrap();
    }

    async fn count(&self) -> usize {
        let found = self.client.clone().get("count", None).await.unwrap();
        found.kvs().first().map_or(0, |kv| kv.value_str().unwrap().parse().unwrap())
    }

    /// Every visit has counted, and in the order of the queue.
    async fn check(&self, visits: usize) {
        assert_eq!(self.count().await, visits);
        let tokens = self.tokens.lock().unwrap().clone();
        assert_eq!(tokens.len(), visits);
        assert!(tokens.is_sorted_by(|a, b| a < b), "not in the order of the queue: {tokens:?}");
        self.client.clone().delete("count", None).await.unwrap();
    }
}

/// In etcd's own Go package both would hold (etcd #10756).
#[tokio::test]
async fn two_mutexes_on_one_session_exclude_each_other() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (one, other) = (session.mutex("name"), session.mutex("name"));
        let guard = one.lock().await?;
        assert!(other.try_lock().await?.is_none());
        let waiting = tokio::spawn(async move { other.lock().await });
        until("the other queues", async || one.queue().await.unwrap().len() == 2).await;
        assert!(!waiting.is_finished());
        let first = guard.token();
        guard.unlock().await?;
        let second = soon("the other holds", waiting).await??;
        assert!(second.token() > first);
        second.unlock().await?;
        Ok(())
    })
    .await
}

/// A service has one session and many tasks: the lease must not be what excludes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_on_one_session_exclude_each_other() -> TestResult {
    on_etcd(async |world: &World| {
        let (session, room) = (world.session().await?, Room::new(world));
        let mut visits = JoinSet::new();
        for _ in 0..1_000 {
            let (session, room) = (session.clone(), room.clone());
            visits.spawn(async move { room.visit(&session).await });
        }
        soon("all have been inside", visits.join_all()).await;
        room.check(1_000).await;
        Ok(())
    })
    .await
}

/// Where the queue is deep, places look by other means: by their elders' keys, by a mark, and by lists that they share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_queue_is_passed_through_in_order() -> TestResult {
    on_etcd(async |world: &World| {
        let (opener, room) = (world.session().await?, Room::new(world));
        let guard = opener.mutex("room").lock().await?;
        let sessions = [world.session().await?, world.session().await?, world.session().await?];
        let mut visits = JoinSet::new();
        for _ in 0..120 {
            for session in &sessions {
                let (session, room) = (session.clone(), room.clone());
                visits.spawn(async move { room.visit(&session).await });
            }
        }
        let mutex = opener.mutex("room");
        until("all are in the queue", async || mutex.queue().await.unwrap().len() == 361).await;
        guard.unlock().await?;
        soon("all have been inside", visits.join_all()).await;
        room.check(360).await;
        Ok(())
    })
    .await
}

/// The same across sessions, where a hold is handed on through etcd and in memory by turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_several_sessions_exclude_each_other() -> TestResult {
    on_etcd(async |world: &World| {
        let room = Room::new(world);
        let sessions = [world.session().await?, world.session().await?, world.session().await?];
        let mut visits = JoinSet::new();
        for _ in 0..100 {
            for session in &sessions {
                let (session, room) = (session.clone(), room.clone());
                visits.spawn(async move { room.visit(&session).await });
            }
        }
        soon("all have been inside", visits.join_all()).await;
        room.check(300).await;
        Ok(())
    })
    .await
}

/// Jobs run in the order in which they asked, whichever process asks.
#[tokio::test]
async fn holds_are_granted_in_the_order_of_the_queue() -> TestResult {
    on_etcd(async |world: &World| {
        let sessions = [world.session().await?, world.session().await?];
        let holder = sessions[0].mutex("name").lock().await?;
        let granted = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = JoinSet::new();
        for n in 0..20 {
            let mut ticket = sessions[n % 3 % 2].mutex("name").enqueue().await?;
            let granted = granted.clone();
            waiting.spawn(async move {
                let guard = ticket.granted().await.unwrap();
                granted.lock().unwrap().push((n, guard.token()));
                guard.unlock().await.unwrap();
            });
        }
        holder.unlock().await?;
        soon("all held", waiting.join_all()).await;
        let granted = granted.lock().unwrap();
        assert!(granted.is_sorted_by(|(n, token), (m, later)| n < m && token < later), "{granted:?}");
        assert_eq!(granted.len(), 20);
        Ok(())
    })
    .await
}

/// The queue tells an operator who holds and who waits, in order, and who they are.
#[tokio::test]
async fn the_queue_lists_the_holder_first() -> TestResult {
    on_etcd(async |world: &World| {
        let open = async |identity: &str| -> TestResult<Session> {
            Ok(Session::builder(world.etcd.client().await?).identity(identity).open().await?)
        };
        let (one, other) = (open("one").await?, open("other").await?);
        let mutex = one.mutex("name");
        assert!(mutex.queue().await?.is_empty());
        let guard = mutex.lock().await?;
        let ahead = other.mutex("name").enqueue().await?;
        let behind = mutex.enqueue().await?;
        assert_eq!((ahead.position().await?, behind.position().await?), (1, 2));

        let queue = other.mutex("name").queue().await?;
        let identities: Vec<_> = queue.iter().map(tenure::Waiter::identity).collect();
        assert_eq!(identities, ["one", "other", "one"]);
        assert_eq!(queue[0].key(), guard.key());
        assert_eq!(queue[0].token(), guard.token());
        assert_eq!(queue[0].lease(), one.lease_id());
        assert_eq!(queue[1].lease(), other.lease_id());
        assert!(queue.is_sorted_by_key(tenure::Waiter::token));

        guard.unlock().await?;
        assert_eq!((ahead.position().await?, behind.position().await?), (0, 1));
        Ok(())
    })
    .await
}

/// A key says whose it is and what it stands for, to people and to programs that read JSON.
#[tokio::test]
async fn a_key_tells_its_identity_and_kind() -> TestResult {
    on_etcd(async |world: &World| {
        let session = Session::builder(world.etcd.client().await?).identity("api-7").open().await?;
        let guard = session.mutex("jobs/reindex").lock().await?;
        assert!(guard.key().starts_with(&format!("jobs/reindex/{:x}-", session.lease_id())), "{}", guard.key());
        assert_eq!(guard.name(), "jobs/reindex");
        let found = world.client().get(guard.key(), None).await?;
        let value: serde_json::Value = serde_json::from_slice(found.kvs()[0].value())?;
        assert_eq!(value, serde_json::json!({ "identity": "api-7", "kind": "mutex", "since": value["since"] }));
        let waiter = &session.mutex("jobs/reindex").queue().await?[0];
        assert_eq!((waiter.identity(), waiter.kind(), waiter.token()), ("api-7", Some(Kind::Mutex), guard.token()));
        let since = waiter.since().expect("a lock's key says it");
        assert!(since.elapsed()? < LIMIT, "asked at {since:?}");
        assert_eq!(found.kvs()[0].lease(), session.lease_id());
        assert_eq!(found.kvs()[0].create_revision(), i64::from(guard.token()));
        Ok(())
    })
    .await
}
