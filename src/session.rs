//! A process's membership: a lease that a background task renews, and what stands on it.
//!
//! 1. A session has at most one living lease. It outlives the loss of one: it grants itself the next, and what was
//!    held under the old one is told that it is lost.
//! 2. Three tasks serve it: the renewal loop, the watch stream, the janitor. They end with it.
//! 3. Whatever holds or waits keeps the session; when the last handle goes the lease is revoked.

pub(crate) mod deadline;
pub(crate) mod janitor;
pub(crate) mod keepalive;
pub(crate) mod lease;
pub(crate) mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Deadline, Moment};
use crate::error::{Error, Loss, Result, Verdict, verdict};
use crate::etcd_client::{self, Client, ConnectOptions, KvClient, WatchClient};
use crate::name;
use crate::retry;
use janitor::Departing;
use lease::{Lease, Revoker};
use watch::Hub;

/// How long a connection may take to be made, and how long [`SessionBuilder::open`] insists where nobody answers.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The longest that a request may take, as etcd's own clients have it; shorter for a short TTL, so that a member
/// that hangs does not cost the lease.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// etcd's own limit, in seconds.
const MAX_TTL: u64 = 9_000_000_000;

/// Options for a connection as a session needs it, to which TLS, credentials and more can be added.
///
/// - Connecting takes 2 s at most, and a request 5 s.
/// - HTTP/2 keep-alive every 5 s, answered within 2 s. etcd punishes a shorter interval by closing the connection.
/// - A leader is required: a member that is cut off from its cluster says so instead of keeping silent.
/// - An expired authentication token is renewed.
#[must_use = "options do nothing until a client is connected with them"]
pub fn connect_options() -> ConnectOptions {
    ConnectOptions::new()
        .with_connect_timeout(CONNECT_LIMIT)
        .with_timeout(CALL_LIMIT)
        .with_keep_alive(Duration::from_secs(5), Duration::from_secs(2))
        .with_require_leader(true)
        .with_auto_token_refresh(true)
}

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

/// What the tasks of a session share.
pub(crate) struct Core {
    client: Client,
    pub(crate) kv: KvClient,
    identity: Box<str>,
    /// What a fence key says: whose session it is.
    fence_value: Arc<str>,
    namespace: Box<str>,
    ttl: Duration,
    pub(crate) call_limit: Duration,
    phase: channel::Sender<Phase>,
    health: channel::Sender<Health>,
    pub(crate) hub: Hub,
    departures: mpsc::UnboundedSender<Box<dyn Departing>>,
    /// Asks for a renewal at once: something happened that a revoked lease would explain.
    renew_now: Notify,
    /// The `run`s whose work is dropped before the lease goes.
    pub(crate) runs: TaskTracker,
    closing: CancellationToken,
    runtime: tokio::runtime::Handle,
}

/// Where a session stands.
#[derive(Clone)]
enum Phase {
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

impl Session {
    /// Connects to etcd with [`connect_options`] and opens a session with the defaults of [`Session::builder`].
    ///
    /// # Errors
    ///
    /// [`Error::Etcd`] if etcd cannot be reached, within 2 s if nobody answers, or refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session; a lease that was granted meanwhile is revoked in the background.
    pub async fn connect<E: AsRef<str>, S: AsRef<[E]>>(endpoints: S) -> Result<Self> {
        let client = Client::connect(endpoints, Some(connect_options())).await?;
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
        SessionBuilder { client, ttl: Duration::from_secs(10), identity: None, namespace: String::new() }
    }

    /// The id of the lease, or of the last one while a new one is asked for.
    #[must_use]
    pub fn lease_id(&self) -> i64 {
        match &*self.core().phase.borrow() {
            Phase::Standing(lease) => lease.id,
            Phase::Between { last } | Phase::Closing { last } | Phase::Closed { last } => *last,
        }
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

    /// How sure the session is of its lease: a channel that always has the newest value.
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

    /// Closes the session, for all clones: `lost` fires for what is held, every `run` drops its work, then the keys
    /// go with the lease. What waits fails with [`Error::Closed`]. Closing again is harmless.
    ///
    /// # Errors
    ///
    /// None today: where etcd does not answer, this returns at the lease's deadline, and the lease expires by itself.
    ///
    /// # Cancel safety
    ///
    /// The session is closed in the background, whether or not the future is awaited to its end.
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

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("identity", &self.identity())
            .field("lease", &format_args!("{:x}", self.lease_id()))
            .field("health", &*self.core().health.borrow())
            .finish_non_exhaustive()
    }
}

/// Options of a session.
#[must_use = "a builder does nothing until `open` is called"]
pub struct SessionBuilder {
    client: Client,
    ttl: Duration,
    identity: Option<String>,
    namespace: String,
}

impl SessionBuilder {
    /// The time to live of the lease: how long a crash, or a cut connection, keeps others from a hold. Whole
    /// seconds, 10 s by default: long enough to ride out an election of etcd's own leader, which takes about 1 s
    /// and in bad cases several. Below the server's minimum (2 s at etcd's default election timeout) it is raised.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What the session calls itself in queues: `host:pid` by default.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// A prefix for the names of all locks and elections of this session, such as `prod/`: none by default. It ends
    /// with a slash.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Opens the session.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a TTL of zero, of a fraction of a second or above etcd's maximum of
    /// 9,000,000,000 s, and for a namespace that cannot be one. [`Error::Etcd`] if etcd refuses, or, after 2 s,
    /// cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session; a lease that was granted meanwhile is revoked in the background.
    pub async fn open(self) -> Result<Session> {
        let invalid = |reason: &str| Error::InvalidOption { option: "ttl", reason: reason.to_owned() };
        if self.ttl.is_zero() {
            return Err(invalid("it is zero"));
        } else if self.ttl.subsec_nanos() != 0 {
            return Err(invalid("etcd counts in whole seconds"));
        } else if self.ttl.as_secs() > MAX_TTL {
            return Err(invalid("etcd's maximum is 9000000000 seconds"));
        }
        name::check_namespace(&self.namespace)?;
        // Seen through to the end, so that a session that nobody takes is closed like any other.
        let opening = tokio::spawn(self.start());
        opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn start(self) -> Result<Session> {
        let (departures, departing) = mpsc::unbounded_channel();
        let identity = self.identity.unwrap_or_else(default_identity);
        let core = Arc::new(Core {
            kv: self.client.kv_client(),
            client: self.client,
            fence_value: serde_json::json!({ "identity": identity }).to_string().into(),
            identity: identity.into(),
            namespace: self.namespace.into(),
            ttl: self.ttl,
            call_limit: (self.ttl / 2).clamp(Duration::from_secs(1), CALL_LIMIT),
            phase: channel::Sender::new(Phase::Between { last: 0 }),
            health: channel::Sender::new(Health::Safe),
            hub: Hub::default(),
            departures,
            renew_now: Notify::new(),
            runs: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let lease = core.first_grant().await?;
        core.begin(&lease);
        tokio::spawn(watch::run(core.clone()));
        tokio::spawn(janitor::run(core.clone(), departing));
        tokio::spawn(keepalive::run(core.clone(), lease));
        Ok(Session { handle: Arc::new(Handle { core }) })
    }
}

impl std::fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("ttl", &self.ttl)
            .field("identity", &self.identity)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

fn default_identity() -> String {
    format!("{}:{}", gethostname::gethostname().display(), std::process::id())
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

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn fence_value(&self) -> Arc<str> {
        self.fence_value.clone()
    }

    pub(crate) fn fence_key(&self, lease: i64) -> String {
        name::fence_key(&self.namespace, lease)
    }

    /// A call under a time limit of ours, since the client may have none: `None` if it passed.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Option<etcd_client::Error>> {
        tokio::time::timeout(self.call_limit, call).await.map_or(Err(None), |reply| reply.map_err(Some))
    }

    /// Fetches a new token. A failure shows in the call that needs it.
    pub(crate) async fn reauthenticate(&self) {
        if let Err(error) = self.call(self.client.refresh_token()).await {
            tracing::debug!(?error, "could not refresh the authentication token");
        }
    }

    /// Runs `task` to its end, though nobody waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Reads, until etcd answers or a time limit passes.
    pub(crate) async fn read<T, F: Future<Output = Result<T, etcd_client::Error>>>(
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
                Verdict::Never => return Err(error.map_or(Error::Unknown, Error::from)),
                Verdict::Reauthenticate => self.reauthenticate().await,
                _ => {}
            }
            if started.elapsed() >= self.call_limit {
                return Err(error.map_or(Error::Unknown, Error::from));
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

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|current| std::mem::replace(current, health) != health);
    }

    fn begin(self: &Arc<Self>, lease: &Arc<Lease>) {
        self.hub.keep_pulse(self, lease.id);
        self.phase.send_replace(Phase::Standing(lease.clone()));
        self.set_health(Health::Safe);
    }

    fn finish(&self) {
        self.phase.send_modify(|phase| {
            let (Phase::Between { last } | Phase::Closing { last } | Phase::Closed { last }) = *phase else {
                unreachable!("a session finishes after its lease")
            };
            *phase = Phase::Closed { last };
        });
        self.set_health(Health::Lost(Loss::Closed));
    }

    async fn first_grant(self: &Arc<Self>) -> Result<Arc<Lease>> {
        let started = tokio::time::Instant::now();
        let mut delays = retry::delays();
        loop {
            let error = match self.grant().await {
                Ok(lease) => return Ok(lease),
                Err(error) => error,
            };
            let Error::Etcd { source, .. } = &error else { return Err(error) };
            let worth = source.downcast_ref().is_some_and(|error| verdict(error) != Verdict::Never);
            if !worth || started.elapsed() >= CONNECT_LIMIT {
                return Err(error);
            }
            tokio::time::sleep(delays.next()).await;
        }
    }

    fn revoker(&self) -> Revoker {
        Revoker { client: self.client.lease_client(), runtime: self.runtime.clone(), limit: self.call_limit }
    }
}
