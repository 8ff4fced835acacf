//! How fast a hand-off is: the one measurement of time among the tests, in a file of its own so that nothing runs beside
//! it.

mod common;

use std::time::{Duration, Instant};

use common::{TestResult, World, on_etcd, soon, until};

/// A watch from a past revision is served by a loop of etcd's that runs every 100 ms. Whoever waits must not pay for
/// that, not even having queued a moment before the release.
#[tokio::test]
async fn the_median_hand_off_takes_less_than_ten_milliseconds() -> TestResult {
    on_etcd(async |world: &World| {
        let mutexes = [world.session().await?.mutex("name"), world.session().await?.mutex("name")];
        let mut guard = mutexes[1].lock().await?;
        let mut taken = Vec::new();
        for n in 0..50 {
            let next = mutexes[n % 2].clone();
            let waiting = tokio::spawn(async move { next.lock().await.map(|guard| (guard, Instant::now())) });
            until("the next queues", async || world.keys("name/").await.len() == 2).await;
            let released = Instant::now();
            let unlocked = tokio::spawn(guard.unlock());
            let (granted, at) = soon("the next holds", waiting).await??;
            taken.push(at - released);
            unlocked.await??;
            guard = granted;
        }
        guard.unlock().await?;
        taken.sort();
        assert!(taken[25] < Duration::from_millis(10), "{taken:?}");
        Ok(())
    })
    .await
}
