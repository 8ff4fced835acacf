//! etcd-client's own `lock` and `campaign`: the recipes that etcd runs on the server.

mod election;
mod floor;
mod session;

use std::process::ExitCode;

use tenure_peers::{Command, Peer, handoff, queue, uncontended};

use crate::session::Connections;

const PEER: Peer = Peer { name: "etcd-client", package: "etcd-client" };

#[tokio::main]
async fn main() -> ExitCode {
    tenure_peers::main(PEER, async |command, report| {
        let connections = Connections::open(command.settings(), command.sessions()).await?;
        report.set("clients", connections.len());
        match command {
            Command::Uncontended(flags) => uncontended::run(flags, connections.session(0).await?, report).await,
            Command::Handoff(flags) => {
                let sessions = queue::open(flags.waiters, 64, |i| connections.session(i)).await?;
                handoff::run(flags, sessions, handoff::Turns::Any, report).await
            }
            Command::Queue(flags) => queue::run(flags, |i| connections.session(i), report).await,
            Command::Floor(flags) => floor::run(flags, connections.client(0), report).await,
            Command::Election(flags) => election::run(flags, &connections, report).await,
        }
    })
    .await
}
