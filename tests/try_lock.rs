//! A try gets the lock now or not at all, and one that fails writes nothing: those who try in a loop cost the
//! cluster no commit, and nobody ever sees them in the queue.

mod common;

use std::time::{Duration, Instant};

use common::{TestResult, World, equals, on_etcd};
use tenure::Error;

#[tokio::test]
async fn a_failed_try_writes_nothing() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, trying) = (world.session().await?, world.session().await?);
        let guard = holding.mutex("name").lock().await?;
        let before = world.revision().await;
        let mutex = trying.mutex("name");
        for attempt in ["a fresh handle", "one that has seen others", "again"] {
            assert!(mutex.try_lock().await?.is_none());
            assert_eq!(world.revision().await, before, "{attempt} wrote something");
        }
        assert!(holding.mutex("name").try_lock().await?.is_none(), "on the holder's session");
        assert_eq!(world.revision().await, before);
        guard.unlock().await?;
        let guard = mutex.try_lock().await?.expect("it is free");
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// Nested keys fill the little that a try reads, and still neither hide the holder nor count as one.
#[tokio::test]
async fn a_failed_try_among_nested_keys_writes_nothing() -> TestResult {
    on_etcd(async |world: &World| {
        let (holding, trying) = (world.session().await?, world.session().await?);
        let nested: Vec<String> = (0..5).map(|n| format!("name/!/{n}")).collect();
        for key in &nested {
            world.client().put(key.as_str(), "", None).await?;
        }
        let mutex = trying.mutex("name");
        let guard = mutex.try_lock().await?.expect("nested keys block nobody");
        guard.unlock().await?;

        let guard = holding.mutex("name").lock().await?;
        let before = world.revision().await;
        for _ in 0..3 {
            assert!(mutex.try_lock().await?.is_none());
            assert!(trying.mutex("name").try_lock().await?.is_none());
            assert_eq!(world.revision().await, before);
        }
        guard.unlock().await?;
        let guard = mutex.try_lock().await?.expect("nested keys block nobody");
        guard.unlock().await?;
        for key in nested {
            world.client().delete(key, None).await?;
        }
        Ok(())
    })
    .await
}

/// The limit is for the waiting: a free lock is got with none, and one that is not free leaves no place behind.
#[tokio::test]
async fn a_try_for_a_while_gives_its_place_up() -> TestResult {
    on_etcd(async |world: &World| {
        let (one, other) = (world.session().await?, world.session().await?);
        let guard = one.mutex("name").try_lock_for(Duration::ZERO).await?.expect("it is free");
        assert!(other.mutex("name").try_lock_for(Duration::ZERO).await?.is_none());
        assert!(other.mutex("name").try_lock_for(Duration::from_millis(50)).await?.is_none());
        equals("keys", vec![guard.key().to_owned()], async || world.keys("name/").await).await;

        let mutex = other.mutex("name");
        let waiting = tokio::spawn(async move { mutex.try_lock_for(common::LIMIT).await });
        common::until("it queues", async || one.mutex("name").queue().await.unwrap().len() == 2).await;
        guard.unlock().await?;
        let guard = waiting.await??.expect("its turn came in time");
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// Nested keys cut the first list short, so that a look has to follow; the limit bounds the waiting alone.
#[tokio::test]
async fn a_free_lock_is_got_within_no_time_beside_nested_keys() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let nested = (session.mutex("a/b").enqueue().await?, session.mutex("a/b").enqueue().await?);
        for _ in 0..5 {
            let guard = session.mutex("a").try_lock_for(Duration::ZERO).await?.expect("it is free");
            guard.unlock().await?;
        }
        drop(nested);
        Ok(())
    })
    .await
}

/// `None` would say that etcd answered, and the time that it may take is documented.
#[tokio::test]
async fn a_try_that_is_not_answered_is_an_error_within_its_time_limit() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        world.etcd.pause(0)?;
        let begun = Instant::now();
        let (mutex, other) = (session.mutex("a"), session.mutex("b"));
        let (now, soon) = tokio::join!(mutex.try_lock(), other.try_lock_for(Duration::ZERO));
        assert!(matches!(now, Err(Error::Unknown)), "{now:?}");
        assert!(matches!(soon, Err(Error::Unknown)), "{soon:?}");
        assert!(begun.elapsed() < Duration::from_secs(6), "it took {:?}", begun.elapsed());
        world.etcd.resume(0)?;
        for name in ["a/", "b/"] {
            equals("keys", 0, async || world.keys(name).await.len()).await;
        }
        Ok(())
    })
    .await
}
