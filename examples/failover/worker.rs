//! A worker: a process that needs a lock for a while.

use std::time::Duration;

use super::role::{self, Role};

/// What the worker does while it holds.
const WORK: Duration = Duration::from_millis(100);

/// How long the one waits that has no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Waits for its turn, however long that takes.
pub(crate) async fn patient(role: &Role) -> anyhow::Result<()> {
    let session = role.session().await?;
    let guard = session.mutex(role::MUTEX).lock().await?;
    role.say("holds", Some(guard.token()));
    guard.run(tokio::time::sleep(WORK)).await?;
    role.say("passes it on", Some(guard.token()));
    guard.unlock().await?;
    session.close().await?;
    Ok(())
}

/// Waits three seconds at most.
pub(crate) async fn hurried(role: &Role) -> anyhow::Result<()> {
    let session = role.session().await?;
    let mutex = session.mutex(role::MUTEX);
    role.say("waits, for three seconds at most", None);
    match mutex.try_lock_for(PATIENCE).await? {
        None => role.say("goes without", None),
        Some(guard) => role.say("holds", Some(guard.token())),
    }
    session.close().await?;
    Ok(())
}
