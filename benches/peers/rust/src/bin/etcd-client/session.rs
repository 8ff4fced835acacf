//! A lease that a task keeps alive, and what is locked with it.

use std::time::Duration;

use anyhow::Context;
use etcd_client::{Client, LockOptions};
use tenure_peers::queue::Queued;
use tenure_peers::{Result, Settings};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

pub struct Connections {
    clients: Vec<Client>,
    ttl: u64,
}

impl Connections {
    /// As many as the flags ask for, or else one for each session.
    pub async fn open(settings: &Settings, sessions: usize) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..settings.connections(sessions) {
            let mut client = Client::connect(settings.endpoints(), None).await?;
            // So that connecting is not part of what is measured.
            client.get("peers/connect", None).await.context("connect")?;
            clients.push(client);
        }
        Ok(Self { clients, ttl: settings.ttl })
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn client(&self, session: usize) -> Client {
        self.clients[session % self.clients.len()].clone()
    }

    pub fn session(&self, i: usize) -> impl Future<Output = Result<EtcdSession>> + Send + use<> {
        EtcdSession::open(self.client(i), self.ttl)
    }
}

pub struct EtcdSession {
    pub client: Client,
    pub lease: i64,
    keep_alive: JoinHandle<Result<()>>,
}

impl EtcdSession {
    pub async fn open(mut client: Client, ttl: u64) -> Result<Self> {
        let lease = client.lease_grant(i64::try_from(ttl)?, None).await?.id();
        let keep_alive = tokio::spawn(keep_alive(client.clone(), lease, Duration::from_secs(ttl) / 3));
        Ok(Self { client, lease, keep_alive })
    }

    /// No longer keeps the lease alive.
    pub fn orphan(&self) {
        self.keep_alive.abort();
    }
}

async fn keep_alive(mut client: Client, lease: i64, every: Duration) -> Result<()> {
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        keeper.keep_alive().await?;
        let answer = answers.message().await?.context("the stream has ended")?;
        anyhow::ensure!(answer.ttl() > 0, "the lease has expired");
    }
}

impl tenure_peers::Session for EtcdSession {
    type Held = Vec<u8>;

    async fn lock(&mut self, name: &str) -> Result<Vec<u8>> {
        let options = LockOptions::new().with_lease(self.lease);
        Ok(self.client.lock(name, Some(options)).await?.key().to_vec())
    }

    async fn unlock(&mut self, key: Vec<u8>) -> Result<()> {
        self.client.unlock(key).await?;
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        self.orphan();
        self.client.lease_revoke(self.lease).await?;
        Ok(())
    }
}

impl Queued for EtcdSession {
    fn key(held: &Vec<u8>) -> Vec<u8> {
        held.clone()
    }
}
