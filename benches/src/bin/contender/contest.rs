//! Tasks that pass one lock, or one office, round.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tenure::{Election, Guard, Leadership, Mutex, Session, Ticket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::clock::{Nanos, now};
use crate::ring;

/// One hold.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub struct Turn {
    pub token: i64,
    /// When it was asked for.
    pub asked: Nanos,
    pub granted: Nanos,
    /// When giving it up was asked for.
    pub released: Nanos,
    /// When that was confirmed.
    pub gone: Nanos,
}

/// What is contested.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Mutex,
    Election,
    /// By bare requests.
    Ring,
}

#[derive(Clone)]
pub struct Contest {
    pub kind: Kind,
    pub name: String,
    /// How many tasks, spread over the sessions.
    pub tasks: usize,
    /// How many there are in all processes, and in those before this one.
    pub all: usize,
    pub before: usize,
    /// How often each holds.
    pub turns: usize,
    /// For how long.
    pub hold: Duration,
}

impl Contest {
    pub fn new(kind: Kind, name: String, tasks: usize, turns: usize, hold: Duration) -> Self {
        Self { kind, name, tasks, all: tasks, before: 0, turns, hold }
    }

    /// Those that take part, one for each connection at most.
    pub async fn sessions(&self, bench: &Bench, count: usize) -> Result<Vec<Session>> {
        let none = self.kind == Kind::Ring;
        bench.sessions(if none { 0 } else { count }, 64).await
    }

    /// Puts every task into the queue, says so, and runs until each has had its turns.
    pub async fn run(&self, bench: &Bench, sessions: &[Session], queued: impl FnOnce()) -> Result<Vec<Turn>> {
        let standing = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        for index in 0..self.tasks {
            let (turns, hold, standing) = (self.turns, self.hold, standing.clone());
            let session = || &sessions[index % sessions.len()];
            match self.kind {
                Kind::Mutex => tasks.spawn(locks(session().mutex(&self.name), turns, hold, standing)),
                Kind::Election => tasks.spawn(leads(session().election(&self.name), turns, hold, standing)),
                Kind::Ring => {
                    tasks.spawn(ring::stand(bench.client(index), self.clone(), self.before + index, standing))
                }
            };
        }
        let all = standing.acquire_many(u32::try_from(self.tasks)?).await?;
        all.forget();
        queued();
        let mut turns = Vec::with_capacity(self.tasks * self.turns);
        while let Some(taken) = tasks.join_next().await {
            turns.extend(taken??);
        }
        Ok(turns)
    }
}

async fn locks(mutex: Mutex, turns: usize, hold: Duration, standing: Arc<Semaphore>) -> Result<Vec<Turn>> {
    let mut taken = Vec::with_capacity(turns);
    let mut asked = now();
    let mut ticket: Ticket = mutex.enqueue().await?;
    standing.add_permits(1);
    let mut guard: Guard = ticket.granted().await?;
    loop {
        let granted = now();
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let (token, released) = (guard.token().into(), now());
        guard.unlock().await?;
        taken.push(Turn { token, asked, granted, released, gone: now() });
        if taken.len() == turns {
            return Ok(taken);
        }
        asked = now();
        guard = mutex.lock().await?;
    }
}

async fn leads(election: Election, turns: usize, hold: Duration, standing: Arc<Semaphore>) -> Result<Vec<Turn>> {
    let mut taken = Vec::with_capacity(turns);
    let mut asked = now();
    let mut ticket: Ticket<Leadership> = election.enqueue("candidate").await?;
    standing.add_permits(1);
    let mut term = ticket.granted().await?;
    loop {
        let granted = now();
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let (token, released) = (term.token().into(), now());
        term.resign().await?;
        taken.push(Turn { token, asked, granted, released, gone: now() });
        if taken.len() == turns {
            return Ok(taken);
        }
        asked = now();
        term = election.campaign("candidate").await?;
    }
}
