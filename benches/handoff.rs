//! What a lock costs, beside the bare requests that it is made of, measured alternately in one run against one etcd.
//!
//! `cargo bench --bench handoff`, with `-- --rounds N` (default 20) of 100 samples each. The machine's speed cancels
//! out in the ratios alone: compare those.

use std::error::Error;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tenure::etcd_client::{Client, EventType, WatchStream};
use tenure::testing::Etcd;
use tenure::{Guard, Session};
use tokio::sync::mpsc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SAMPLES: usize = 100;
const TTL: Duration = Duration::from_secs(60);
/// How long a waiter has been queued when the lock is released to it "after a wait".
const SETTLED: Duration = Duration::from_millis(3);

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = rounds()?;
    let etcd = Etcd::start().await?;
    let version = etcd.client().await?.status().await?.version().to_owned();
    let mut rows = Rows::default();
    let mut bench = Bench {
        client: etcd.client().await?,
        watcher: Deletions::open(etcd.client().await?).await?,
        one: etcd.session(TTL).await?,
        other: etcd.session(TTL).await?,
    };
    for round in 0..=rounds {
        // The first round warms up.
        let mut sample = Rows::default();
        bench.requests(&mut sample).await?;
        bench.uncontended(&mut sample).await?;
        bench.hand_off(&mut sample).await?;
        if round > 0 {
            rows.add(&sample)?;
        }
        eprint!("\rround {round} of {rounds}");
    }
    eprintln!();
    bench.one.close().await?;
    bench.other.close().await?;
    rows.print(&version);
    Ok(())
}

fn rounds() -> Result<usize> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(20),
        (Some("--rounds"), Some(rounds)) => Ok(rounds.parse()?),
        _ => Err("usage: cargo bench --bench handoff [-- --rounds N]".into()),
    }
}

struct Bench {
    client: Client,
    watcher: Deletions,
    one: Session,
    other: Session,
}

impl Bench {
    /// The floor: what etcd takes for the requests alone.
    async fn requests(&mut self, rows: &mut Rows) -> Result<()> {
        for _ in 0..SAMPLES {
            timed(&mut rows.put, self.client.put(KEY, "", None)).await?;
            timed(&mut rows.delete, self.client.delete(KEY, None)).await?;
            self.watcher.next().await?;
            self.client.put(KEY, "", None).await?;
            let start = Instant::now();
            let mut client = self.client.clone();
            let deleted = tokio::spawn(async move { client.delete(KEY, None).await.map(drop) });
            let heard = self.watcher.next().await?;
            rows.event.record(micros(heard - start))?;
            deleted.await??;
        }
        Ok(())
    }

    async fn uncontended(&mut self, rows: &mut Rows) -> Result<()> {
        let mutex = self.one.mutex("bench/uncontended");
        for _ in 0..SAMPLES {
            let guard = timed(&mut rows.lock, mutex.lock()).await?;
            timed(&mut rows.unlock, guard.unlock()).await?;
        }
        Ok(())
    }

    /// From the call of `unlock` on one session to the guard on the other.
    async fn hand_off(&mut self, rows: &mut Rows) -> Result<()> {
        let (mut holder, mut waiter) = (self.one.mutex("bench/hand-off"), self.other.mutex("bench/hand-off"));
        let mut guard = holder.lock().await?;
        for sample in 0..2 * SAMPLES {
            let mut ticket = waiter.enqueue().await?;
            let granted = tokio::spawn(async move { ticket.granted().await.map(|guard| (guard, Instant::now())) });
            let histogram = if sample % 2 == 0 {
                &mut rows.back_to_back
            } else {
                tokio::time::sleep(SETTLED).await;
                &mut rows.after_a_wait
            };
            let (next, took) = handed(guard, granted).await?;
            histogram.record(micros(took))?;
            guard = next;
            std::mem::swap(&mut holder, &mut waiter);
        }
        Ok(guard.unlock().await?)
    }
}

async fn handed(
    guard: Guard,
    granted: tokio::task::JoinHandle<tenure::Result<(Guard, Instant)>>,
) -> Result<(Guard, Duration)> {
    let start = Instant::now();
    let unlocked = tokio::spawn(guard.unlock());
    let (next, at) = granted.await??;
    unlocked.await??;
    Ok((next, at - start))
}

const KEY: &str = "bench/key";

/// Deletions of one key, as an open watch hears of them.
struct Deletions {
    heard: mpsc::UnboundedReceiver<Instant>,
}

impl Deletions {
    async fn open(mut client: Client) -> Result<Self> {
        let stream = client.watch(KEY, None).await?;
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(Self::listen(stream, sender));
        Ok(Self { heard })
    }

    async fn listen(mut stream: WatchStream, sender: mpsc::UnboundedSender<Instant>) {
        while let Ok(Some(response)) = stream.message().await {
            let now = Instant::now();
            for event in response.events() {
                if event.event_type() == EventType::Delete && sender.send(now).is_err() {
                    return;
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Instant> {
        Ok(self.heard.recv().await.ok_or("the watch ended")?)
    }
}

async fn timed<T, E: Error + Send + Sync + 'static>(
    histogram: &mut Histogram<u64>,
    call: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T> {
    let start = Instant::now();
    let reply = call.await?;
    histogram.record(micros(start.elapsed()))?;
    Ok(reply)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Latencies in microseconds.
struct Rows {
    put: Histogram<u64>,
    delete: Histogram<u64>,
    event: Histogram<u64>,
    lock: Histogram<u64>,
    unlock: Histogram<u64>,
    back_to_back: Histogram<u64>,
    after_a_wait: Histogram<u64>,
}

impl Default for Rows {
    fn default() -> Self {
        let new = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
        Self {
            put: new(),
            delete: new(),
            event: new(),
            lock: new(),
            unlock: new(),
            back_to_back: new(),
            after_a_wait: new(),
        }
    }
}

impl Rows {
    fn add(&mut self, other: &Self) -> Result<()> {
        self.put.add(&other.put)?;
        self.delete.add(&other.delete)?;
        self.event.add(&other.event)?;
        self.lock.add(&other.lock)?;
        self.unlock.add(&other.unlock)?;
        self.back_to_back.add(&other.back_to_back)?;
        self.after_a_wait.add(&other.after_a_wait)?;
        Ok(())
    }

    fn print(&self, version: &str) {
        let p50 = |row: &Histogram<u64>| row.value_at_quantile(0.5) as f64;
        println!("etcd {version}, one member, loopback, {} samples a row", self.put.len());
        println!("| | p50 µs | p99 µs | against the floor, p50 |\n|---|---|---|---|");
        let floor = |name: &str, row: &Histogram<u64>| {
            println!("| {name} | {} | {} | |", row.value_at_quantile(0.5), row.value_at_quantile(0.99));
        };
        let ours = |name: &str, row: &Histogram<u64>, against: &str, ratio: f64| {
            let (p50, p99) = (row.value_at_quantile(0.5), row.value_at_quantile(0.99));
            println!("| {name} | {p50} | {p99} | {ratio:.2} × {against} |");
        };
        floor("bare put", &self.put);
        floor("bare delete", &self.delete);
        floor("bare delete to its watch event", &self.event);
        ours("lock, uncontended", &self.lock, "put", p50(&self.lock) / p50(&self.put));
        ours("unlock", &self.unlock, "delete", p50(&self.unlock) / p50(&self.delete));
        let event = |row: &Histogram<u64>| p50(row) / p50(&self.event);
        ours("hand-off, the waiter came just before", &self.back_to_back, "event", event(&self.back_to_back));
        ours("hand-off, the waiter had waited 3 ms", &self.after_a_wait, "event", event(&self.after_a_wait));
        let cycle = (p50(&self.lock) + p50(&self.unlock)) / (p50(&self.put) + p50(&self.delete));
        println!("\nuncontended cycle: {cycle:.2} × (put + delete)");
    }
}
