//! rust-etcd-utils' `LockManager`: etcd's own Lock call with a lease that is managed, a new one for every lock.
//!
//! A lock is released by dropping it; its key is deleted and its lease revoked in the background. So the time of
//! "unlock" is that of a drop, and only the cycle and the hand-off compare.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use etcd_client_018::Client;
use rust_etcd_utils::lock::{LockManager, LockManagerHandle, ManagedLock, spawn_lock_manager};
use tenure_peers::queue::Queued;
use tenure_peers::{Command, NotOffered, Peer, Result, Session, Settings, handoff, queue, uncontended};

const PEER: Peer = Peer { name: "rust-etcd-utils", package: "rust-etcd-utils" };

#[tokio::main]
async fn main() -> ExitCode {
    tenure_peers::main(PEER, async |command, report| {
        report.set("unlock_is", "a drop; the key is deleted in the background");
        let settings = command.settings();
        let clients = connect(settings, command.sessions()).await?;
        report.set("clients", clients.len());
        let ttl = Duration::from_secs(settings.ttl);
        let session = |i: usize| Manager::open(clients[i % clients.len()].clone(), ttl);
        match command {
            Command::Uncontended(flags) => uncontended::run(flags, session(0).await?, report).await,
            Command::Handoff(flags) => {
                let sessions = queue::open(flags.waiters, 64, session).await?;
                handoff::run(flags, sessions, handoff::Turns::Any, report).await
            }
            Command::Queue(flags) => queue::run(flags, session, report).await,
            Command::Floor(_) | Command::Election(_) => Err(NotOffered.into()),
        }
    })
    .await
}

async fn connect(settings: &Settings, sessions: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..settings.connections(sessions) {
        let mut client = Client::connect(settings.endpoints(), None).await?;
        // So that connecting is not part of what is measured.
        client.get("peers/connect", None).await.context("connect")?;
        clients.push(client);
    }
    Ok(clients)
}

struct Manager {
    locks: LockManager,
    running: LockManagerHandle,
    ttl: Duration,
}

impl Manager {
    async fn open(client: Client, ttl: Duration) -> Result<Self> {
        let (running, locks) = spawn_lock_manager(client);
        Ok(Self { locks, running, ttl })
    }
}

impl Session for Manager {
    type Held = ManagedLock;

    async fn lock(&mut self, name: &str) -> Result<ManagedLock> {
        Ok(self.locks.lock(name, self.ttl).await?)
    }

    async fn unlock(&mut self, held: ManagedLock) -> Result<()> {
        drop(held);
        Ok(())
    }

    async fn close(self) -> Result<()> {
        drop(self.locks);
        Ok(self.running.await?)
    }
}

impl Queued for Manager {
    fn key(held: &ManagedLock) -> Vec<u8> {
        held.get_key()
    }
}
