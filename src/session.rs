//! A process's membership: a lease that a background task renews, and what stands on it.
//!
//! 1. A session has at most one living lease. It outlives the loss of one: it grants itself the next, and what was
//!    held under the old one is told that it is lost.
//! 2. Three tasks serve it: the renewal loop, on a thread of its own if it is isolated, the watch stream, the janitor.
//!    They end with it.
//! 3. Whatever holds or waits keeps the session; when the last handle goes the lease is revoked.

mod builder;
mod core;
pub(crate) mod crowd;
pub(crate) mod deadline;
mod endpoints;
mod isolation;
pub(crate) mod janitor;
pub(crate) mod keepalive;
pub(crate) mod lease;
pub(crate) mod lookout;
pub(crate) mod note;
mod remains;
#[cfg(all(test, feature = "testing"))]
mod tests;
pub(crate) mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;

pub use self::builder::{SessionBuilder, connect_options};
pub(crate) use self::core::Core;
use self::core::Phase;
pub use self::endpoints::Endpoints;
use crate::clock::{Deadline, Moment};
use crate::error::{Error, Loss, Result};
use crate::etcd_client::{self, Client, ConnectOptions};

/// One process's membership: an etcd lease that a background task renews.
///
/// Locks and elections are taken through a session and held for as long as its lease lives. Clones share the
/// lease. One session is enough for a process, however many locks it holds or waits for: it costs etcd one lease,
/// one stream of renewals and one watch stream.
///
/// A session outlives the loss of its lease: it grants itself a new one, and every hold under the old one is told
/// that it is lost. Every handle, ticket and guard keeps the session; when the last is dropped, the lease is
/// revoked in the background. A runtime that shuts down first cannot do that: then the lease expires after its TTL.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let etcd = tenure::testing::Etcd::start().await?;
/// # let client = etcd.client().await?;
/// use std::time::Duration;
/// use tenure::Session;
///
/// let session = Session::builder(client).ttl(Duration::from_secs(5)).identity("api-7").open().await?;
/// let guard = session.mutex("jobs/reindex").lock().await?;
/// println!("{} holds {} with token {}", session.identity(), guard.name(), guard.token());
/// guard.unlock().await?;
/// session.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

/// The last of these ends the session.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.closing.cancel();
    }
}

/// How sure a session is of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Renewals are acknowledged.
    Safe,
    /// Two thirds of the TTL have passed since the last acknowledged renewal was sent; what is held ends at the
    /// deadline unless one is acknowledged before.
    Jeopardy(Deadline),
    /// The lease is lost, and what was held under it. Unless the session was closed, it asks for a new lease, and
    /// is `Safe` again once it has one.
    Lost(Loss),
}

impl Health {
    /// Whether renewals are acknowledged.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self, Self::Safe)
    }
}

impl Session {
    /// Connects to etcd with [`connect_options`] and opens a session with the defaults of [`Session::builder`].
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::open`], and [`Error::InvalidOption`] for an endpoint that is not a URI. That nobody is there is
    /// known after 2 s at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session; a lease that was granted meanwhile is revoked in the background.
    pub async fn connect(endpoints: impl Endpoints) -> Result<Self> {
        Self::connect_with(endpoints, connect_options()).await
    }

    /// Connects to etcd with the given options, such as [`connect_options`] with TLS or a password added, and opens a
    /// session with the defaults of [`Session::builder`].
    ///
    /// # Errors
    ///
    /// As [`Session::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session; a lease that was granted meanwhile is revoked in the background.
    pub async fn connect_with(endpoints: impl Endpoints, options: ConnectOptions) -> Result<Self> {
        let client = Client::connect(endpoints.into_endpoints(), Some(options)).await;
        let client = client.map_err(|error| match error {
            etcd_client::Error::GRpcStatus(_) => Error::etcd(error),
            other => Error::InvalidOption { option: "endpoints", reason: other.to_string() },
        })?;
        Self::open(client).await
    }

    /// Opens a session on a client of the caller's, with the defaults of [`Session::builder`].
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session; a lease that was granted meanwhile is revoked in the background.
    pub async fn open(client: Client) -> Result<Self> {
        Self::builder(client).open().await
    }

    /// Options for a session on a client of the caller's, made with [`connect_options`] or with its own.
    pub fn builder(client: Client) -> SessionBuilder {
        SessionBuilder::new(client)
    }

    /// The id of the lease, or of the last one while a new one is asked for.
    #[must_use]
    pub fn lease_id(&self) -> i64 {
        match &*self.core().phase.borrow() {
            Phase::Standing(lease) => lease.id,
            Phase::Between { last } | Phase::Closing { last } | Phase::Closed { last } => *last,
        }
    }

    /// Returns a clone of the client that the session uses; both share one connection.
    #[must_use]
    pub fn client(&self) -> Client {
        self.core().client.clone()
    }

    /// What this session calls itself in queues.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.core().identity
    }

    /// The time to live of the lease, as etcd granted it.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        match &*self.core().phase.borrow() {
            Phase::Standing(lease) => lease.ttl,
            _ => self.core().ttl,
        }
    }

    /// How sure the session is of its lease: a channel that always has the newest value. `cargo run --example service` has
    /// a readiness probe that follows it.
    #[must_use]
    pub fn health(&self) -> channel::Receiver<Health> {
        self.core().health.subscribe()
    }

    /// Until when the lease cannot have expired; passed, while there is no lease.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        match &*self.core().phase.borrow() {
            Phase::Standing(lease) => lease.deadline(),
            _ => Deadline(Moment::now()),
        }
    }

    /// Closes the session, for all clones: `lost` fires for what is held, every `run` drops its work, then all keys go
    /// with the lease: those of holds, of places in queues, and of what was dropped and is released in the background.
    /// What waits fails with [`Error::Closed`](Error::Closed). Closing again is harmless.
    ///
    /// This returns when etcd has confirmed, and after the [TTL](Self::ttl) at most, 10 s by default: by then the lease has
    /// expired by itself. Work inside a [`run`](crate::Guard::run) that nobody polls cannot be dropped, and is waited for
    /// until the deadline, at 98 % of that time.
    ///
    /// # Errors
    ///
    /// None today: where etcd does not confirm in time, a `tracing` warning says so.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, the session is closed in the background, whether or not the future is awaited to its end. The
    /// runtime has to go on running for that.
    pub async fn close(&self) -> Result<()> {
        let mut phase = self.core().phase.subscribe();
        self.core().closing.cancel();
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Closed { .. })).await;
        Ok(())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("identity", &self.identity())
            .field("lease", &format_args!("{:x}", self.lease_id()))
            .field("health", &*self.core().health.borrow())
            .finish_non_exhaustive()
    }
}
