//! What every process of the demo knows: its part, its name, where etcd is, and how to say what happens.

use std::env;
use std::time::Duration;

use anyhow::{Context, bail};
use tenure::etcd_client::Client;
use tenure::{FencingToken, Session, connect_options};

use super::{common, replica, worker};

/// The lease of every process: how long a crash keeps the others waiting.
pub(crate) const TTL: Duration = Duration::from_secs(3);

pub(crate) const ELECTION: &str = "service";
pub(crate) const MUTEX: &str = "press";

/// A process that the demo has started.
pub(crate) struct Role {
    part: String,
    pub(crate) name: String,
    namespace: String,
}

impl Role {
    /// The role in which this process was started: `None` for the demo itself.
    pub(crate) fn of_this_process() -> anyhow::Result<Option<Self>> {
        let mut args = env::args().skip(1);
        let Some(part) = args.next() else { return Ok(None) };
        let (name, namespace) = args.next().zip(args.next()).context("the demo takes no arguments")?;
        Ok(Some(Self { part, name, namespace }))
    }

    pub(crate) async fn play(&self) -> anyhow::Result<()> {
        common::end_with_parent()?;
        match self.part.as_str() {
            "replica" => replica::run(self).await,
            "worker" => worker::patient(self).await,
            "hurried-worker" => worker::hurried(self).await,
            part => bail!("there is no part called {part}"),
        }
    }

    pub(crate) async fn session(&self) -> anyhow::Result<Session> {
        session(&common::etcd().await?.endpoints, &self.name, &self.namespace).await
    }

    /// Tells the demo: one line, written at once.
    pub(crate) fn say(&self, event: &str, token: Option<FencingToken>) {
        println!("{}\t{event}\t{}", self.name, token.map_or(String::new(), |token| token.to_string()));
    }
}

pub(crate) async fn session(endpoints: &[String], name: &str, namespace: &str) -> anyhow::Result<Session> {
    let client = Client::connect(endpoints, Some(connect_options())).await?;
    Ok(Session::builder(client).ttl(TTL).identity(name).namespace(namespace).open().await?)
}
