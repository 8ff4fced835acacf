//! One lease: its deadline, its fence, and how it ended. Both belong to the keys under it, never to the session's
//! newest lease.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::deadline;
use crate::clock::{Deadline, Moment};
use crate::error::Loss;
use crate::etcd_client::LeaseClient;

/// How long the reason for a vanished key is looked for, before it counts as deleted.
const REASON_LIMIT: Duration = Duration::from_millis(500);

/// A lease of the session, kept by everything that holds or waits under it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    pub(crate) ttl: Duration,
    /// When the last acknowledged renewal was sent, in nanoseconds of the clock.
    sent: AtomicU64,
    /// The mod revision of the fence key, as far as it is known here.
    fence: AtomicI64,
    loss: OnceLock<Loss>,
    over: CancellationToken,
    revoker: Revoker,
}

/// What an abandoned lease needs to be given back.
pub(crate) struct Revoker {
    pub(crate) client: LeaseClient,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) limit: Duration,
}

impl std::fmt::Debug for Revoker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revoker").finish_non_exhaustive()
    }
}

impl Lease {
    pub(crate) fn new(id: i64, ttl: Duration, sent: Moment, fence: i64, revoker: Revoker) -> Self {
        Self {
            id,
            ttl,
            sent: AtomicU64::new(sent.as_nanos()),
            fence: AtomicI64::new(fence),
            loss: OnceLock::new(),
            over: CancellationToken::new(),
            revoker,
        }
    }

    /// When the last acknowledged renewal was sent.
    pub(crate) fn sent(&self) -> Moment {
        Moment::from_nanos(self.sent.load(Ordering::Acquire))
    }

    /// Accounts for an acknowledged renewal. One that comes after the deadline changes nothing.
    pub(crate) fn renewed(&self, sent: Moment) {
        if self.loss().is_none() {
            self.sent.fetch_max(sent.as_nanos(), Ordering::AcqRel);
        }
    }

    /// Passed, once the lease is lost.
    pub(crate) fn deadline(&self) -> Deadline {
        match self.loss() {
            None => Deadline(deadline::deadline(self.sent(), self.ttl)),
            Some(_) => Deadline(self.sent()),
        }
    }

    /// Why it ended, by what was heard or by the clock.
    pub(crate) fn loss(&self) -> Option<Loss> {
        if self.loss.get().is_none() && Moment::now() >= deadline::deadline(self.sent(), self.ttl) {
            self.end(Loss::Expired);
        }
        self.loss.get().copied()
    }

    /// Why a key under it that was found gone at `gone` is gone: with the lease, unless that was renewed since.
    pub(crate) fn explain(&self, gone: Moment) -> Option<Loss> {
        let renewed = self.sent() > gone || Moment::now().since(gone) > REASON_LIMIT;
        self.loss().or(renewed.then_some(Loss::Deleted))
    }

    /// Ends it; the first reason stands.
    pub(crate) fn end(&self, loss: Loss) {
        let _ = self.loss.set(loss);
        self.over.cancel();
    }

    /// Completes when it has ended, if the runtime's timers are on time: see [`Lease::loss`].
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(crate) fn fence(&self) -> i64 {
        self.fence.load(Ordering::Acquire)
    }

    pub(crate) fn learn_fence(&self, revision: i64) {
        self.fence.fetch_max(revision, Ordering::AcqRel);
    }
}

/// A lease past its deadline is abandoned even if etcd still renews it: it is given back once nobody refers to it,
/// so that no key of an outstanding guard goes while its owner may still believe in it.
impl Drop for Lease {
    fn drop(&mut self) {
        if self.loss.get() != Some(&Loss::Expired) {
            return;
        }
        let (mut client, id, limit) = (self.revoker.client.clone(), self.id, self.revoker.limit);
        self.revoker.runtime.spawn(async move {
            // One attempt: should it fail, the lease expires by itself.
            let _ = tokio::time::timeout(limit, client.revoke(id)).await;
        });
    }
}
