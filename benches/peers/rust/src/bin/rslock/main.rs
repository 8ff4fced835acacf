//! rslock: Redlock, with one Redis server that keeps what it has been told.
//!
//! It knows no queue, no session and no election. A waiter asks again after a random delay, as the crate has it by
//! default.

mod server;

use std::process::ExitCode;
use std::time::Duration;

use rslock::{LockGuard, LockManager};
use tenure_peers::{
    Command, Handoff, NotOffered, Peer, Report, Result, Session, Settings, Uncontended, handoff, uncontended,
};

use crate::server::Server;

const PEER: Peer = Peer { name: "rslock", package: "rslock" };

#[tokio::main]
async fn main() -> ExitCode {
    tenure_peers::main(PEER, async |command, report| match command {
        Command::Uncontended(flags) => {
            let (server, settings) = start(&flags.settings, command.sessions(), report).await?;
            let flags = Uncontended { settings, ..flags.clone() };
            uncontended::run(&flags, Redlock::open(&server, flags.settings.ttl).await?, report).await
        }
        Command::Handoff(flags) => {
            let (server, settings) = start(&flags.settings, command.sessions(), report).await?;
            let flags = Handoff { settings, ..flags.clone() };
            let mut sessions = Vec::new();
            for _ in 0..flags.waiters {
                sessions.push(Redlock::open(&server, flags.settings.ttl).await?);
            }
            handoff::run(&flags, sessions, handoff::Turns::Alternate, report).await
        }
        Command::Floor(_) | Command::Queue(_) | Command::Election(_) => Err(NotOffered.into()),
    })
    .await
}

async fn start(settings: &Settings, sessions: usize, report: &mut Report) -> Result<(Server, Settings)> {
    let server = Server::start().await?;
    server.describe(report).await?;
    report.set("ttl_s", settings.ttl);
    // Of a connection each there is no choice.
    report.set("clients", sessions);
    // There is no etcd to be watched, but there is a server.
    let settings = Settings { metrics: String::new(), etcd_pid: server.pid.to_string(), ..settings.clone() };
    Ok((server, settings))
}

/// With a connection of its own. Its locks are never extended.
struct Redlock {
    locks: LockManager,
    ttl: Duration,
}

impl Redlock {
    async fn open(server: &Server, ttl: u64) -> Result<Self> {
        let locks = LockManager::new(vec![server.url.as_str()]);
        // So that connecting is not part of what is measured.
        locks.query_redis_for_key_value(b"peers/connect").await?;
        Ok(Self { locks, ttl: Duration::from_secs(ttl) })
    }
}

impl Session for Redlock {
    type Held = LockGuard;

    async fn lock(&mut self, name: &str) -> Result<LockGuard> {
        Ok(self.locks.acquire(name, self.ttl).await?)
    }

    async fn unlock(&mut self, held: LockGuard) -> Result<()> {
        held.release().await;
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
