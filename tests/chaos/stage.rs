//! The stage: a cluster whose members reach each other through proxies, workers that reach it through others, and the
//! history of all of them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tenure::testing::Etcd;

use crate::history::{DIRECTOR, Event, Process, What, now};
use crate::proxy::{self, Link};
use crate::worker::{Config, VARIABLE};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) const MEMBERS: usize = 3;

/// How many workers there are at a time.
pub(crate) const SLOTS: usize = 4;

pub(crate) struct Stage {
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) ttl: Duration,
    /// From a member to a member.
    pub(crate) between: Vec<Vec<Link>>,
    /// From the workers of a slot to a member.
    pub(crate) clients: Vec<Vec<Link>>,
    endpoints: Vec<Vec<String>>,
    workers: Mutex<Vec<Worker>>,
    history: Arc<Mutex<Vec<Event>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    dir: tempfile::TempDir,
    seeds: Mutex<fastrand::Rng>,
}

struct Worker {
    process: Process,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Stage {
    pub(crate) async fn build(seed: u64, ttl: Duration) -> Result<Self> {
        let (etcd, between) = proxy::cluster(MEMBERS).await?;
        let mut clients = Vec::new();
        let mut endpoints = Vec::new();
        for _ in 0..SLOTS {
            let (mut links, mut addresses) = (Vec::new(), Vec::new());
            for member in etcd.endpoints() {
                let (link, (listener, address)) = (Link::new(), proxy::listen()?);
                links.push(link.clone());
                addresses.push(address.to_string());
                tokio::spawn(proxy::serve(listener, member.parse()?, move |_| std::future::ready(link.clone())));
            }
            clients.push(links);
            endpoints.push(addresses);
        }
        let dir = tempfile::Builder::new().prefix("tenure-chaos-").tempdir()?;
        Ok(Self {
            etcd,
            ttl,
            between,
            clients,
            endpoints,
            workers: Mutex::default(),
            history: Arc::default(),
            readers: Mutex::default(),
            dir,
            seeds: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    pub(crate) fn note(&self, what: What) {
        self.add(Event { at: now(), by: DIRECTOR, what });
    }

    pub(crate) fn add(&self, event: Event) {
        lock(&self.history).push(event);
    }

    /// What happened so far, in order of hearing.
    pub(crate) fn history(&self) -> MutexGuard<'_, Vec<Event>> {
        lock(&self.history)
    }

    /// The set in a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    /// The processes that there are, by slot.
    pub(crate) fn processes(&self) -> Vec<Process> {
        lock(&self.workers).iter().map(|worker| worker.process).collect()
    }

    /// Starts a worker in a slot, the first one or the next one after the last was killed.
    pub(crate) fn start(&self, slot: usize) -> Result {
        let mut workers = lock(&self.workers);
        let newest = workers.iter().map(|worker| worker.process).max().unwrap_or(DIRECTOR);
        let config = Config {
            process: newest + 1,
            seed: lock(&self.seeds).u64(..),
            endpoints: self.endpoints[slot].clone(),
            ttl: self.ttl,
            file: self.file(),
        };
        let (worker, reader) = Worker::spawn(&config, self.history.clone())?;
        lock(&self.readers).push(reader);
        match workers.get_mut(slot) {
            Some(last) => *last = worker,
            None => workers.push(worker),
        }
        Ok(())
    }

    pub(crate) fn stop(&self, slot: usize) -> Result {
        let workers = lock(&self.workers);
        self.note(What::Stopping { process: workers[slot].process });
        let pid = Pid::from_child(&workers[slot].child);
        rustix::process::kill_process(pid, Signal::STOP)?;
        rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )?;
        Ok(())
    }

    pub(crate) fn wake(&self, slot: usize) -> Result {
        let workers = lock(&self.workers);
        rustix::process::kill_process(Pid::from_child(&workers[slot].child), Signal::CONT)?;
        self.note(What::Woken { process: workers[slot].process });
        Ok(())
    }

    /// Kills the worker of a slot, whose place the next takes.
    pub(crate) fn kill(&self, slot: usize) -> Result {
        let mut workers = lock(&self.workers);
        let Worker { process, child, .. } = &mut workers[slot];
        child.kill()?;
        child.wait()?;
        self.note(What::Killed { process: *process });
        Ok(())
    }

    /// Asks all workers to finish what they wait for.
    pub(crate) fn finish(&self) {
        for worker in lock(&self.workers).iter_mut() {
            if let Some(lifeline) = &mut worker.lifeline {
                let _ = lifeline.write_all(b"finish\n").and_then(|()| lifeline.flush());
            }
        }
    }

    pub(crate) fn all_ended(&self) -> bool {
        lock(&self.workers).iter_mut().all(|worker| matches!(worker.child.try_wait(), Ok(Some(_))))
    }

    /// Ends all workers, and takes all that they have said.
    pub(crate) fn close(&self) -> Vec<Event> {
        lock(&self.workers).clear();
        for reader in std::mem::take(&mut *lock(&self.readers)) {
            reader.join().expect("workers write events");
        }
        std::mem::take(&mut self.history())
    }

    /// A worker that ended by itself before it was asked to.
    pub(crate) fn deserter(&self) -> Option<String> {
        let mut workers = lock(&self.workers);
        let ended = workers.iter_mut().find_map(|worker| Some((worker.process, worker.child.try_wait().ok()??)));
        ended.map(|(process, status)| format!("worker {process} ended by itself: {status}"))
    }

    /// The logs of the members, and the workers' complaints.
    pub(crate) fn copy_logs(&self, into: &Path) -> Result {
        for dir in [self.etcd.dir(), self.dir.path()] {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_file() {
                    std::fs::copy(&path, into.join(path.file_name().expect("it is in a directory")))?;
                }
            }
        }
        Ok(())
    }
}

impl Worker {
    fn spawn(config: &Config, history: Arc<Mutex<Vec<Event>>>) -> Result<(Self, JoinHandle<()>)> {
        let complaints = config.file.with_file_name(format!("worker-{}.log", config.process));
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, serde_json::to_string(config)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(complaints)?);
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // A Ctrl-C at the terminal is the director's alone to hear: a stopped worker would not.
            command.process_group(0);
        }
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(std::result::Result::ok) {
                let event = serde_json::from_str(&line).expect("workers write events");
                lock(&history).push(event);
            }
        });
        let lifeline = child.stdin.take();
        Ok((Self { process: config.process, child, lifeline }, reader))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
