//! A worker: a process with one session, which locks, stands for election and observes until it is told to finish.
//!
//! What it does goes to its standard output, an event a line. Its standard input is its lifeline: at its end the
//! worker ends at once, and a line asks it to finish what it waits for and to close.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenure::etcd_client::{Client, KvClient};
use tenure::{Guard, Session};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::check::NAMESPACE;
use crate::history::{Event, Hold, Nanos, Process, What, now};
use crate::together::SHELVES;
use crate::{office, requests, together, work};

/// The environment variable that makes a process a worker.
pub(crate) const VARIABLE: &str = "TENURE_CHAOS_WORKER";

/// How long a question of the worker's own to etcd may take.
pub(crate) const ASK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) process: Process,
    pub(crate) seed: u64,
    pub(crate) endpoints: Vec<String>,
    pub(crate) ttl: Duration,
    /// The set in a file.
    pub(crate) file: PathBuf,
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Log {
    process: Process,
}

impl Log {
    pub(crate) fn say(&self, what: What) {
        self.say_at(now(), what);
    }

    pub(crate) fn say_at(&self, at: Nanos, what: What) {
        let event = Event { at, by: self.process, what };
        let mut line = serde_json::to_vec(&event).expect("events are plain data");
        line.push(b'\n');
        // One write: a line is in the pipe as a whole or not at all.
        if std::io::stdout().lock().write_all(&line).is_err() {
            std::process::exit(0);
        }
    }
}

/// What the workloads share.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) log: Log,
    pub(crate) session: Session,
    pub(crate) kv: KvClient,
    pub(crate) finish: CancellationToken,
    asks: AtomicU64,
    elements: AtomicU64,
}

impl Worker {
    pub(crate) fn next_ask(&self) -> u64 {
        self.asks.fetch_add(1, Ordering::Relaxed)
    }

    /// Never the same in any process.
    pub(crate) fn next_element(&self) -> u64 {
        u64::from(self.config.process) << 32 | self.elements.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn hold(guard: &Guard) -> Hold {
        Hold { name: guard.name().to_owned(), token: guard.token().into() }
    }

    /// Says that the guard is valid, if it is, and until when. The instant is one before it is asked.
    pub(crate) fn say_validity(&self, guard: &Guard) -> Option<Nanos> {
        let at = now();
        let deadline = deadline(guard);
        if !guard.is_valid() {
            return None;
        }
        self.log.say_at(at, What::Valid { hold: Self::hold(guard), deadline });
        Some(deadline)
    }
}

/// The guard's deadline on the common clock, or a little less.
pub(crate) fn deadline(guard: &Guard) -> Nanos {
    let at = now();
    at + u64::try_from(guard.deadline().remaining().as_nanos()).expect("a TTL is seconds")
}

pub(crate) fn main(config: &str) {
    let config: Config = serde_json::from_str(config).expect("the director knows what a worker needs");
    let finish = CancellationToken::new();
    let told = finish.clone();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            told.cancel();
        }
        std::process::exit(0);
    });
    // Both flavors, since tasks meet otherwise in them.
    let mut runtime = if config.process.is_multiple_of(2) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(config, finish));
    std::process::exit(0);
}

async fn run(config: Config, finish: CancellationToken) {
    let log = Log { process: config.process };
    let Some((client, session)) = finish.run_until_cancelled(open(&config)).await else {
        return log.say(What::Finished);
    };
    let kv = client.kv_client();
    let (asks, elements) = (AtomicU64::new(0), AtomicU64::new(0));
    let worker = Arc::new(Worker { config, log, session, kv, finish, asks, elements });
    let mut seeds = fastrand::Rng::with_seed(worker.config.seed);
    let mut tasks = JoinSet::new();
    for name in ["jobs", "jobs", "queue", "queue", "pages", "pages", "permits", "permits", SHELVES[0]] {
        tasks.spawn(work::locks(worker.clone(), name, seeds.fork()));
    }
    tasks.spawn(work::file(worker.clone(), seeds.fork()));
    tasks.spawn(work::fenced(worker.clone(), seeds.fork()));
    tasks.spawn(work::lead(worker.clone(), seeds.fork()));
    for _ in 0..2 {
        tasks.spawn(together::together(worker.clone(), seeds.fork()));
        tasks.spawn(office::office(worker.clone(), seeds.fork()));
    }
    tasks.spawn(requests::desk(worker.clone(), seeds.fork()));
    tasks.spawn(requests::requests(worker.clone(), seeds.fork()));
    for election in ["leader", office::OFFICE] {
        tasks.spawn(work::observe(worker.clone(), election));
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no workload panics");
    }
    let _ = worker.session.close().await;
    worker.log.say(What::Finished);
}

async fn open(config: &Config) -> (Client, Session) {
    loop {
        let client = Client::connect(&config.endpoints, Some(tenure::connect_options())).await;
        let client = client.expect("the endpoints are well formed");
        let mut builder = Session::builder(client.clone()).ttl(config.ttl).namespace(NAMESPACE);
        if config.process.is_multiple_of(3) {
            builder = builder.isolated(&config.endpoints, tenure::connect_options());
        }
        if let Ok(session) = builder.identity(format!("worker-{}", config.process)).open().await {
            return (client, session);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
