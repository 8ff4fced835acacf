//! A replica of a service: a process that leads when it is its turn.

use super::common;
use super::role::{self, Role};

/// Stands, leads, and stands again, until it is asked to stop.
pub(crate) async fn run(role: &Role) -> anyhow::Result<()> {
    let shutdown = common::shutdown()?;
    let session = role.session().await?;
    let election = session.election(role::ELECTION).grace(role::TTL / 3);
    let ran = election
        .run(role.name.as_str(), shutdown, |term| async move {
            role.say("leads", Some(term.token()));
            term.ending().cancelled().await;
            role.say("stops its work, and resigns", Some(term.token()));
        })
        .await;
    session.close().await?;
    Ok(ran?)
}
