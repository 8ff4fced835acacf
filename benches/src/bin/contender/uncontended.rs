//! A lock that nobody else wants, alternately with the bare requests that it is made of.

use anyhow::Result;
use clap::Args;
use tenure::Mutex;
use tenure::etcd_client::Client;

use crate::bench::{self, Bench, Settings};
use crate::clock::{Nanos, now};
use crate::distribution::Distribution;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Cycles.
    #[arg(long, default_value_t = 2000)]
    n: usize,
    /// Cycles before measuring.
    #[arg(long, default_value_t = 200)]
    warmup: usize,
}

pub async fn run(Options { settings, n, warmup }: Options) -> Result<()> {
    let mut bench = Bench::open(settings, "uncontended").await?;
    let session = bench.session(0).await?;
    let mutex = session.mutex(bench.name("uncontended"));
    let mut client = bench.client(0);
    let key = bench.name("bare");

    for _ in 0..warmup {
        cycle(&mutex).await?;
    }
    let before = bench.probe().await?;
    let mut alone = Cycles::default();
    for _ in 0..n {
        alone.add(cycle(&mutex).await?);
    }
    let after = bench.probe().await?;

    // One of each in turn, so that both meet the machine at the same speed.
    let (mut beside, mut floor) = (Cycles::default(), Cycles::default());
    for _ in 0..n {
        floor.add(bare(&mut client, &key).await?);
        beside.add(cycle(&mutex).await?);
    }

    bench.set("n", n);
    bench.set("lock", Distribution::of(alone.first.iter().copied()).summary());
    bench.set("unlock", Distribution::of(alone.second.iter().copied()).summary());
    bench.set("cycle", alone.both().summary());
    bench.set("cycles_s", n as f64 / (alone.first.iter().chain(&alone.second).sum::<Nanos>() as f64 / 1e9));
    bench.set("beside_lock", Distribution::of(beside.first.iter().copied()).summary());
    bench.set("beside_unlock", Distribution::of(beside.second.iter().copied()).summary());
    bench.set("beside_cycle", beside.both().summary());
    bench.set("floor_put", Distribution::of(floor.first.iter().copied()).summary());
    bench.set("floor_delete", Distribution::of(floor.second.iter().copied()).summary());
    bench.set("floor_cycle", floor.both().summary());
    bench.set("cost", after.cost(&before, n));
    bench.print();
    bench::close(vec![session]).await
}

/// Two requests, one after the other.
#[derive(Default)]
struct Cycles {
    first: Vec<Nanos>,
    second: Vec<Nanos>,
}

impl Cycles {
    fn add(&mut self, (first, second): (Nanos, Nanos)) {
        self.first.push(first);
        self.second.push(second);
    }

    fn both(&self) -> Distribution {
        Distribution::of(self.first.iter().zip(&self.second).map(|(first, second)| first + second))
    }
}

async fn cycle(mutex: &Mutex) -> Result<(Nanos, Nanos)> {
    let begun = now();
    let guard = mutex.lock().await?;
    let locked = now();
    guard.unlock().await?;
    Ok((locked - begun, now() - locked))
}

async fn bare(client: &mut Client, key: &str) -> Result<(Nanos, Nanos)> {
    let begun = now();
    client.put(key, "", None).await?;
    let stored = now();
    client.delete(key, None).await?;
    Ok((stored - begun, now() - stored))
}
