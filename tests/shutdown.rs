//! What is dropped when its runtime has shut down cannot be released: it is said so, of every key, and nothing panics.

mod common;

use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use common::{TestResult, World, equals, on_etcd, soon};
use tenure::testing::Etcd;
use tenure::{Session, connect_options};
use tokio::runtime::{Builder, Runtime};

const TTL: Duration = Duration::from_secs(6);

/// Everything that this process warns of, from whichever thread.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_env_filter("tenure=warn").with_ansi(false);
    subscriber.with_writer(move || writer.clone()).init();
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics here").write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The warnings that name a key.
fn warnings(key: &str) -> Vec<String> {
    let log = String::from_utf8_lossy(&LOG.0.lock().expect("nobody panics here")).into_owned();
    log.lines().filter(|line| line.contains(&format!("key={key} "))).map(str::to_owned).collect()
}

fn runtimes() -> [Runtime; 2] {
    LazyLock::force(&LOG);
    let [mut one, mut many] = [Builder::new_current_thread(), Builder::new_multi_thread()];
    [&mut one, many.worker_threads(2)].map(|builder| builder.enable_all().build().expect("a runtime"))
}

/// Each key has one warning, and it is true: etcd keeps them for so long.
fn is_told(outer: &Runtime, etcd: &Etcd, keys: &[String], since: Instant) -> TestResult {
    let mut longest = Duration::ZERO;
    for key in keys {
        let [warning] = &warnings(key)[..] else { panic!("{key}: {:?}", warnings(key)) };
        assert!(warning.contains(" WARN "), "{warning}");
        let expires_in = warning.split_once("expires_in=").expect("it says until when").1;
        longest = longest.max(seconds(expires_in.split(' ').next().expect("it has an end"))?);
    }
    outer.block_on(async {
        let mut client = etcd.client().await?;
        equals("the lease expires", 0, async || client.leases().await.expect("an answer").leases().len()).await;
        assert!(since.elapsed() >= longest && longest > Duration::ZERO, "kept for less than {longest:?}");
        Ok(())
    })
}

/// Of a duration as it is printed.
fn seconds(printed: &str) -> TestResult<Duration> {
    let (figure, unit) = match printed.strip_suffix("ms") {
        Some(figure) => (figure, 0.001),
        None => (printed.strip_suffix('s').ok_or("neither seconds nor milliseconds")?, 1.0),
    };
    Ok(Duration::from_secs_f64(figure.parse::<f64>()? * unit))
}

/// As by a guard in a static.
#[test]
fn what_is_dropped_after_its_runtime_is_told_of() -> TestResult {
    let [_, outer] = runtimes();
    for inner in runtimes() {
        let etcd = outer.block_on(Etcd::start())?;
        let (session, guard, ticket, owner) = inner.block_on(async {
            let session = etcd.session(TTL).await?;
            let guard = session.mutex("after").lock().await?;
            let ticket = session.mutex("after").enqueue().await?;
            let owner = session.mutex("after/owner").reentrant();
            let owned = [owner.lock().await?, owner.lock().await?];
            let waiting = session.mutex("after").queue().await?.swap_remove(1);
            TestResult::Ok((session, guard, (ticket, waiting), owned))
        })?;
        let (ticket, waiting) = ticket;
        let keys = [guard.key().to_owned(), waiting.key().to_owned(), owner[0].key().to_owned()];
        let since = Instant::now();
        drop(inner);
        let [first, last] = owner;
        drop((guard, ticket, first));
        assert!(warnings(&keys[2]).is_empty(), "it is shared");
        drop((last, session));
        is_told(&outer, &etcd, &keys, since)?;
    }
    Ok(())
}

/// As by a `main` that returns: tasks are dropped with what they own, in whatever order.
#[test]
fn what_is_dropped_with_its_runtime_is_told_of() -> TestResult {
    let [_, outer] = runtimes();
    for (kind, inner) in ["one", "many"].into_iter().zip(runtimes()) {
        let etcd = outer.block_on(Etcd::start())?;
        let mut keys = Vec::new();
        inner.block_on(async {
            // Tasks before and after those of the session.
            let (give, given) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let _guard: tenure::Guard = given.await.expect("it is given");
                std::future::pending::<()>().await;
            });
            let session = etcd.session(TTL).await?;
            let guard = session.mutex(format!("with/{kind}/before")).lock().await?;
            keys.push(guard.key().to_owned());
            give.send(guard).expect("it is waited for");
            for n in 0..20 {
                let guard = session.mutex(format!("with/{kind}/{n}")).lock().await?;
                keys.push(guard.key().to_owned());
                match n % 2 {
                    0 => drop(tokio::spawn(async move { guard.run(std::future::pending::<()>()).await })),
                    _ => drop(tokio::spawn(async move {
                        let _guard = guard;
                        std::future::pending::<()>().await;
                    })),
                }
            }
            TestResult::Ok(())
        })?;
        let since = Instant::now();
        drop(inner);
        is_told(&outer, &etcd, &keys, since)?;
    }
    Ok(())
}

/// What was dropped in time, and not seen to in time.
#[test]
fn what_its_runtime_had_no_time_to_release_is_told_of() -> TestResult {
    let [_, outer] = runtimes();
    let [inner, _] = runtimes();
    let etcd = outer.block_on(Etcd::start())?;
    let (key, session, guard) = inner.block_on(async {
        let session = etcd.session(TTL).await?;
        let guard = session.mutex("late").lock().await?;
        TestResult::Ok((guard.key().to_owned(), session, guard))
    })?;
    drop(guard);
    assert!(warnings(&key).is_empty(), "it may be released yet");
    // Closed, and not to the end.
    let since = Instant::now();
    drop(session);
    drop(inner);
    is_told(&outer, &etcd, &[key], since)
}

/// A warning that is not true would not be read when it is.
#[tokio::test]
async fn what_is_released_is_not_told_of() -> TestResult {
    LazyLock::force(&LOG);
    on_etcd(async |world: &World| {
        let (session, other) = (world.session().await?, world.session().await?);
        let [first, second, third] = ["released/1", "released/2", "released/3"].map(|name| session.mutex(name));
        let (dropped, kept, elsewhere) = (first.lock().await?, second.lock().await?, third.lock().await?);
        let ticket = first.enqueue().await?;
        let keys = [dropped.key().to_owned(), kept.key().to_owned(), elsewhere.key().to_owned()];
        std::thread::spawn(move || drop(elsewhere)).join().expect("it does not panic");
        soon("it is its turn", other.mutex("released/3").lock()).await?.unlock().await?;
        drop((dropped, ticket));
        soon("it is closed", session.close()).await?;
        drop(kept);
        soon("it is its turn", other.mutex("released/1").lock()).await?.unlock().await?;
        for key in keys {
            assert_eq!(warnings(&key), Vec::<String>::new());
        }
        Ok(())
    })
    .await
}

/// Its thread outlives the runtime, and revokes the lease.
#[test]
fn an_isolated_session_releases_what_its_runtime_cannot() -> TestResult {
    let [_, outer] = runtimes();
    for inner in runtimes() {
        let etcd = outer.block_on(Etcd::start())?;
        let (key, guard) = inner.block_on(async {
            let builder = Session::builder(etcd.client().await?).ttl(common::LONG);
            let session = builder.isolated(etcd.endpoints(), connect_options()).open().await?;
            let guard = session.mutex("isolated").lock().await?;
            let task = session.mutex("isolated/task").lock().await?;
            tokio::spawn(async move { task.run(std::future::pending::<()>()).await });
            TestResult::Ok((guard.key().to_owned(), guard))
        })?;
        drop(inner);
        drop(guard);
        outer.block_on(async {
            let other = etcd.session(common::LONG).await?;
            soon("it is free", other.mutex("isolated").lock()).await?.unlock().await?;
            soon("it is free", other.mutex("isolated/task").lock()).await?.unlock().await?;
            TestResult::Ok(())
        })?;
        assert_eq!(warnings(&key), Vec::<String>::new());
    }
    Ok(())
}
