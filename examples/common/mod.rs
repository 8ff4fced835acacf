//! What the examples share: an etcd to talk to, signals, and children that do not outlive their parent.

// Each example uses a part.
#![allow(dead_code)]

use std::env;

use tenure::testing::Etcd;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An etcd: those that `ETCD_ENDPOINTS` names, separated by commas, or one of our own.
pub(crate) struct Cluster {
    pub(crate) endpoints: Vec<String>,
    /// Ends when it is dropped.
    own: Option<Etcd>,
}

pub(crate) async fn etcd() -> anyhow::Result<Cluster> {
    let given = env::var("ETCD_ENDPOINTS").unwrap_or_default();
    let endpoints: Vec<_> = given.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if !endpoints.is_empty() {
        return Ok(Cluster { endpoints, own: None });
    }
    let own = Etcd::start().await?;
    Ok(Cluster { endpoints: own.endpoints(), own: Some(own) })
}

/// Fires when this process is asked to stop: by Ctrl-C (SIGINT), or by its supervisor (SIGTERM).
pub(crate) fn shutdown() -> anyhow::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shutdown = CancellationToken::new();
    let fired = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        fired.cancel();
    });
    Ok(shutdown)
}

/// Ends this process with the one that started it, which keeps the other end of its standard input.
pub(crate) fn end_with_parent() -> anyhow::Result<()> {
    // Ends one that is stopped too; only Linux can do that.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    Ok(())
}
