//! What the tasks of a session share, and the calls that all of them make.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Health;
use super::crowd::Crowds;
use super::janitor::Departing;
use super::lease::{Lease, Revoker};
use super::remains::Remains;
use super::watch::Hub;
use crate::error::{Error, Loss, Result, Verdict, verdict};
use crate::etcd_client::{self, Client, KvClient, WatchClient};
use crate::name::{self, Numbers};
use crate::retry;

/// How many places of a session may be entering queues at a time: a request takes some 16 kB until it is answered, and
/// etcd answers a thousand of them no sooner at once than in turn.
pub(super) const ENTERING: usize = 64;

/// What the tasks of a session share.
pub(crate) struct Core {
    pub(super) client: Client,
    pub(crate) kv: KvClient,
    pub(super) identity: Box<str>,
    /// What a fence key says: whose session it is.
    pub(super) fence_value: Arc<str>,
    pub(super) namespace: Box<str>,
    pub(super) ttl: Duration,
    pub(crate) call_limit: Duration,
    pub(super) phase: channel::Sender<Phase>,
    pub(super) health: channel::Sender<Health>,
    pub(crate) hub: Hub,
    pub(crate) numbers: Numbers,
    pub(crate) crowds: Crowds,
    /// For whoever enters a queue.
    pub(super) turns: Arc<Semaphore>,
    pub(super) departures: mpsc::UnboundedSender<Box<dyn Departing>>,
    pub(crate) remains: Remains,
    /// Asks for a renewal at once: something happened that a revoked lease would explain.
    pub(super) renew_now: Notify,
    /// The `run`s whose work is dropped before the lease goes.
    pub(crate) runs: TaskTracker,
    pub(super) closing: CancellationToken,
    pub(super) runtime: tokio::runtime::Handle,
}

/// Where a session stands.
#[derive(Clone)]
pub(super) enum Phase {
    Standing(Arc<Lease>),
    /// The last lease is lost, and the next not yet granted.
    Between {
        last: i64,
    },
    Closing {
        last: i64,
    },
    Closed {
        last: i64,
    },
}

/// Ends the session should the task that owns it panic, so that nobody waits for what that will not do.
pub(super) struct Vital<'a>(pub(super) &'a Core);

impl Drop for Vital<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.finish();
        }
    }
}

impl Core {
    /// The lease to stand under; waits while there is none.
    pub(crate) async fn lease(&self) -> Result<Arc<Lease>> {
        let mut phase = self.phase.subscribe();
        loop {
            match &*phase.borrow_and_update() {
                Phase::Standing(lease) if lease.loss().is_none() => return Ok(lease.clone()),
                Phase::Closing { .. } | Phase::Closed { .. } => return Err(Error::Closed),
                Phase::Standing(_) | Phase::Between { .. } => {}
            }
            phase.changed().await.expect("the session owns the channel");
        }
    }

    /// A turn to enter a queue, kept until etcd has answered.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        self.turns.clone().acquire_owned().await.expect("it is never closed")
    }

    /// The TTL that was asked for: the measure of how long to wait for a sign of life.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(crate) fn watch_client(&self) -> WatchClient {
        self.client.watch_client()
    }

    /// Completes when the session is being closed.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn fence_value(&self) -> Arc<str> {
        self.fence_value.clone()
    }

    pub(crate) fn fence_key(&self, lease: i64) -> String {
        name::fence_key(&self.namespace, lease)
    }

    /// A call under a time limit of ours, since the client may have none: `None` if it passed. Boxed, since a future
    /// of the client takes some kilobytes, which every future around it would carry.
    pub(crate) fn call<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>> + Send,
    ) -> impl Future<Output = Result<T, Option<etcd_client::Error>>> + Send {
        let call = tokio::time::timeout(self.call_limit, Box::pin(call));
        async move { call.await.map_or(Err(None), |reply| reply.map_err(Some)) }
    }

    /// Fetches a new token. A failure shows in the call that needs it.
    pub(crate) async fn reauthenticate(&self) {
        self.reauthenticate_over(&self.client).await;
    }

    pub(super) async fn reauthenticate_over(&self, client: &Client) {
        if let Err(error) = self.call(client.refresh_token()).await {
            tracing::warn!(?error, "could not refresh the authentication token");
        }
    }

    /// Runs `task` to its end, though nobody waits for it.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let core = self.clone();
        self.runtime.spawn(async move {
            let _vital = Vital(&core);
            task.await;
        });
    }

    /// Reads, until etcd answers or a time limit passes.
    pub(crate) async fn read<T, F: Future<Output = Result<T, etcd_client::Error>> + Send>(
        &self,
        read: impl Fn(KvClient) -> F,
    ) -> Result<T> {
        let started = tokio::time::Instant::now();
        let mut delays = retry::delays();
        loop {
            let error = match self.call(read(self.kv.clone())).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match error.as_ref().map_or(Verdict::Unknown, verdict) {
                Verdict::Never => return Err(Error::failed(error)),
                Verdict::Reauthenticate => self.reauthenticate().await,
                _ => {}
            }
            if started.elapsed() >= self.call_limit {
                return Err(Error::failed(error));
            }
            tokio::time::sleep(delays.next()).await;
        }
    }

    /// Takes over a place that its owner has given up.
    pub(crate) fn take(&self, departing: Box<dyn Departing>) {
        // A session that has ended took the key with it.
        let _ = self.departures.send(departing);
    }

    /// A key vanished that a revoked lease would explain.
    pub(crate) fn doubt_lease(&self) {
        self.renew_now.notify_one();
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.send_if_modified(|current| {
            // A new deadline in jeopardy is the same jeopardy.
            let same = std::mem::discriminant(current) == std::mem::discriminant(&health);
            let changed = *current != health;
            *current = health;
            match health {
                Health::Jeopardy(deadline) if !same => tracing::warn!(?deadline, "renewals are failing"),
                Health::Safe if !same => tracing::info!("renewals are acknowledged again"),
                _ => {}
            }
            changed
        });
    }

    pub(super) fn begin(self: &Arc<Self>, lease: &Arc<Lease>) {
        self.hub.keep_pulse(self, lease.id);
        self.phase.send_replace(Phase::Standing(lease.clone()));
        self.set_health(Health::Safe);
    }

    /// From here on everything is answered by [`Error::Closed`].
    pub(super) fn finish(&self) {
        self.closing.cancel();
        self.phase.send_modify(|phase| {
            let last = match phase {
                Phase::Standing(lease) => {
                    lease.end(Loss::Closed);
                    lease.id
                }
                Phase::Between { last } | Phase::Closing { last } | Phase::Closed { last } => *last,
            };
            *phase = Phase::Closed { last };
        });
        self.set_health(Health::Lost(Loss::Closed));
    }

    pub(super) fn revoker(&self) -> Revoker {
        Revoker { client: self.client.lease_client(), runtime: self.runtime.clone(), limit: self.call_limit }
    }
}
