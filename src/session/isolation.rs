//! Renewal that a blocked runtime cannot starve: on a thread, a runtime and a connection of its own.
//!
//! 1. The thread ends with the session, and the session with the thread, however that ends.
//! 2. The session ends with the runtime in which it was opened, as any: nobody there would hear of its holds, or leave.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::builder::first_grant;
use super::core::Core;
use super::keepalive::{self, Keeper};
use super::lease::Lease;
use crate::error::{Error, Result};
use crate::etcd_client::{self, Client, ConnectOptions};

/// As the operating system lists it, in the 15 letters that Linux has for it.
const THREAD: &str = "tenure-renewal";

/// Whom to connect to, and how.
pub(super) struct Isolation {
    pub(super) endpoints: Vec<String>,
    pub(super) options: ConnectOptions,
}

impl Isolation {
    /// Begins to keep the session's lease, once it has one.
    pub(super) async fn begin(self, core: &Arc<Core>, patience: Option<Duration>) -> Result<()> {
        let (opened, opening) = oneshot::channel();
        let keeping = core.clone();
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || self.keep(keeping, opened, patience));
        let thread = thread.map_err(unusable)?;
        let Ok(opened) = opening.await else {
            return thread.join().map_or_else(|panic| resume_unwind(panic), |()| Err(Error::Closed));
        };
        opened?;
        let (here, ends) = (core.clone(), core.closing.clone().drop_guard());
        tokio::spawn(async move {
            here.closing().await;
            drop(ends);
        });
        same_cluster(core).await
    }

    fn keep(self, core: Arc<Core>, opened: oneshot::Sender<Result<()>>, patience: Option<Duration>) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(unusable(error)))),
        };
        let keeper = runtime.block_on(async {
            match self.open(core.clone(), patience).await {
                Ok((keeper, lease)) => {
                    core.begin(&lease);
                    if opened.send(Ok(())).is_err() {
                        // Whoever asked for the session is gone.
                        core.closing.cancel();
                    }
                    keepalive::run(&keeper, lease).await;
                    Some(keeper)
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                    None
                }
            }
        });
        // Whoever waits for the session to be closed finds the connection gone. The look-up of a name that hangs is not
        // waited for.
        runtime.shutdown_background();
        drop(keeper);
    }

    async fn open(self, core: Arc<Core>, patience: Option<Duration>) -> Result<(Keeper, Arc<Lease>)> {
        let client = Client::connect(self.endpoints, Some(self.options)).await.map_err(|error| match error {
            etcd_client::Error::GRpcStatus(_) => Error::etcd(error),
            other => unusable(other),
        })?;
        let keeper = Keeper { core, client };
        let lease = first_grant(&keeper, patience).await?;
        Ok((keeper, lease))
    }
}

/// A lease that the client's cluster does not know would be lost with the first key that is put under it.
async fn same_cluster(core: &Core) -> Result<()> {
    let lease = core.lease().await?;
    let fence = &core.fence_key(lease.id);
    let found = core.read(|mut kv| async move { kv.get(fence.as_str(), None).await }).await?;
    if found.kvs().is_empty() && lease.loss().is_none() {
        return Err(unusable("the endpoints are of another cluster than the client's"));
    }
    Ok(())
}

fn unusable(reason: impl ToString) -> Error {
    Error::InvalidOption { option: "isolated", reason: reason.to_string() }
}
