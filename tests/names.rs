//! Only direct children of a name stand in its queue, whoever put them.

mod common;

use common::{TestResult, World, equals, on_etcd, soon, until};
use tenure::Session;
use tenure::etcd_client::PutOptions;

/// In Go's package whoever locks `a/b` blocks whoever locks `a`, for ever (etcd #6278, #6631).
#[tokio::test]
async fn a_name_and_a_name_below_it_never_meet() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let names = ["a", "a/b", "a/b/c"];
        for session in [&one, &other] {
            let mut guards = Vec::new();
            for name in names {
                guards.push(soon("nobody is in the way", session.mutex(name).lock()).await?);
            }
            for name in names {
                assert!(other.mutex(name).try_lock().await?.is_none());
                assert_eq!(one.mutex(name).queue().await?.len(), 1);
            }
            for guard in guards.into_iter().rev() {
                guard.unlock().await?;
            }
            for name in names.into_iter().rev() {
                let guard = session.mutex(name).try_lock().await?;
                guard.expect("nobody is in the way").unlock().await?;
            }
        }
        Ok(())
    })
    .await
}

/// A stray put must not stop a service. It must not hide anybody either.
#[tokio::test]
async fn a_foreign_key_deeper_down_blocks_nobody() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        // First and last in key order, and more than the few that a request reads.
        let nested: Vec<String> = (0..5).flat_map(|n| [format!("a/!/{n}"), format!("a/~/{n}")]).collect();
        for key in &nested {
            world.client().put(key.as_str(), "", None).await?;
        }
        for session in [&one, &other] {
            soon("it is free", session.mutex("a").lock()).await?.unlock().await?;
            session.mutex("a").try_lock().await?.expect("it is free").unlock().await?;
        }
        let guard = one.mutex("a").lock().await?;
        assert!(other.mutex("a").try_lock().await?.is_none());
        let mut ticket = other.mutex("a").enqueue().await?;
        // One that comes while somebody waits.
        world.client().put("a/b/c", "", None).await?;
        assert_eq!(ticket.position().await?, 1);
        assert!(other.mutex("a").try_lock_for(std::time::Duration::ZERO).await?.is_none());
        guard.unlock().await?;
        soon("it is its turn", ticket.granted()).await?.unlock().await?;
        for key in nested.iter().map(String::as_str).chain(["a/b/c"]) {
            world.client().delete(key, None).await?;
        }
        Ok(())
    })
    .await
}

/// Services in Go and in Rust take turns while one is rewritten into the other.
#[tokio::test]
async fn a_key_of_gos_layout_stands_in_the_same_queue() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let lease = world.client().lease_grant(60, None).await?.id();
        let gos = format!("a/{lease:x}");
        let put = async || world.client().put(gos.as_str(), "", Some(PutOptions::new().with_lease(lease))).await;

        put().await?;
        assert!(session.mutex("a").try_lock().await?.is_none());
        let mut ticket = session.mutex("a").enqueue().await?;
        let queue = session.mutex("a").queue().await?;
        assert_eq!((queue[0].key(), queue[0].lease()), (gos.as_str(), lease));
        assert_eq!(queue[0].identity(), format!("{lease:x}"));
        world.client().delete(gos.as_str(), None).await?;
        let guard = soon("it is its turn", ticket.granted()).await?;

        // Behind ours it waits; ahead of the next of ours it comes first.
        put().await?;
        let mut ticket = session.mutex("a").enqueue().await?;
        assert_eq!(session.mutex("a").queue().await?[1].key(), gos);
        guard.unlock().await?;
        until("ours is gone", async || world.keys("a/").await.len() == 2).await;
        assert_eq!(ticket.position().await?, 1);
        // A Go service that crashes.
        world.client().lease_revoke(lease).await?;
        soon("it is its turn", ticket.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

/// Tenants and stages share an etcd without meeting.
#[tokio::test]
async fn namespaces_keep_apart() -> TestResult {
    on_etcd(async |world: &World| {
        let open = async |namespace: &str| -> TestResult<Session> {
            Ok(Session::builder(world.etcd.client().await?).namespace(namespace).open().await?)
        };
        let (none, prod, test) = (open("").await?, open("prod/").await?, open("test/eu/").await?);
        let guards = [none.mutex("a").lock().await?, prod.mutex("a").lock().await?, test.mutex("a").lock().await?];
        assert!(guards[1].key().starts_with("prod/a/"), "{}", guards[1].key());
        assert!(guards[2].key().starts_with("test/eu/a/"), "{}", guards[2].key());
        assert_eq!(guards[2].name(), "a");
        assert!(none.mutex("prod/a").try_lock().await?.is_none(), "the same lock by its full name");
        assert_eq!(world.keys("prod/").await.len(), 2, "a place and a fence");
        for guard in guards {
            guard.unlock().await?;
        }
        drop((prod, test));
        equals("keys", Vec::new(), async || world.keys("prod/").await).await;
        Ok(())
    })
    .await
}
