//! What all measurements begin with: connections, sessions, and names of their own.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value, json};
use tenure::Session;
use tenure::etcd_client::Client;

use crate::clock;
use crate::probe::Probe;

/// The flags that all contenders know.
#[derive(Args, Clone)]
pub struct Settings {
    /// etcd's endpoints, HOST:PORT, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// URLs of etcd's metrics, separated by commas; without, no counters of etcd.
    #[arg(long, value_delimiter = ',')]
    pub metrics: Vec<String>,
    /// Processes of etcd, separated by commas; without, neither its memory nor its CPU time.
    #[arg(long, value_delimiter = ',')]
    pub etcd_pid: Vec<u32>,
    /// A text that is copied into the output.
    #[arg(long, default_value = "")]
    pub label: String,
    /// Connections; session i uses number i mod CLIENTS.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// The sessions' TTL in seconds.
    #[arg(long, default_value_t = 60)]
    pub ttl: u64,
}

impl Settings {
    /// For a process of its own, which measures nothing of etcd's.
    pub fn flags(&self, clients: usize) -> Vec<String> {
        let (endpoints, ttl) = (self.endpoints.join(","), self.ttl.to_string());
        ["--endpoints", &endpoints, "--clients", &clients.to_string(), "--ttl", &ttl].map(String::from).into()
    }
}

pub struct Bench {
    pub settings: Settings,
    clients: Vec<Client>,
    prefix: String,
    result: Map<String, Value>,
}

impl Bench {
    pub async fn open(settings: Settings, name: &str) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..settings.clients.max(1) {
            clients.push(connect(&settings.endpoints).await?);
        }
        let mut result = Map::new();
        for (key, value) in [
            ("bench", json!(name)),
            ("impl", json!("tenure")),
            ("impl_version", json!(tenure_bench::version())),
            ("label", json!(settings.label)),
            ("endpoints", json!(settings.endpoints.join(","))),
            ("clients", json!(settings.clients)),
        ] {
            result.insert(key.into(), value);
        }
        let prefix = format!("bench/{}-{}/", std::process::id(), clock::now());
        Ok(Self { settings, clients, prefix, result })
    }

    pub fn client(&self, index: usize) -> Client {
        self.clients[index % self.clients.len()].clone()
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub async fn session(&self, index: usize) -> Result<Session> {
        session(self.client(index), self.settings.ttl).await
    }

    pub async fn sessions(&self, count: usize, parallel: usize) -> Result<Vec<Session>> {
        let ttl = self.settings.ttl;
        let mut sessions = Vec::with_capacity(count);
        while sessions.len() < count {
            let batch = sessions.len()..count.min(sessions.len() + parallel.max(1));
            let opening: Vec<_> = batch.map(|index| tokio::spawn(session(self.client(index), ttl))).collect();
            for session in opening {
                sessions.push(session.await??);
            }
        }
        Ok(sessions)
    }

    pub async fn probe(&self) -> Result<Probe> {
        Probe::take(&self.settings).await
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.result.insert(key.into(), value.into());
    }

    pub fn print(self) {
        println!("{}", Value::Object(self.result));
    }
}

/// Connected, so that connecting is no part of what is measured.
pub async fn connect(endpoints: &[String]) -> Result<Client> {
    let mut client = Client::connect(endpoints, Some(tenure::connect_options())).await?;
    client.get("bench", None).await.with_context(|| format!("cannot reach {}", endpoints.join(",")))?;
    Ok(client)
}

async fn session(client: Client, ttl: u64) -> Result<Session> {
    Ok(Session::builder(client).ttl(Duration::from_secs(ttl)).open().await?)
}

pub async fn close(sessions: Vec<Session>) -> Result<()> {
    for batch in sessions.chunks(64) {
        let closing: Vec<_> =
            batch.iter().cloned().map(|session| tokio::spawn(async move { session.close().await })).collect();
        for closed in closing {
            closed.await??;
        }
    }
    Ok(())
}
