//! How a session is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{Core, ENTERING, Phase};
use super::crowd::Crowds;
use super::isolation::Isolation;
use super::keepalive::Keeper;
use super::lease::Lease;
use super::remains::Remains;
use super::watch::Hub;
use super::{Handle, Health, Session, janitor, keepalive, watch};
use crate::error::{Error, Result, Verdict, code, verdict};
use crate::etcd_client::{Client, ConnectOptions};
use crate::{name, retry, telemetry};

/// How long a connection may take to be made, and how long [`SessionBuilder::open`] insists where nobody listens.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The longest that a request may take, as etcd's own clients have it; shorter for a short TTL, so that a member
/// that hangs does not cost the lease. So long [`SessionBuilder::open`] insists where somebody listens.
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

/// Options of a session.
#[must_use = "a builder does nothing until `open` is called"]
pub struct SessionBuilder {
    client: Client,
    ttl: Duration,
    identity: Option<String>,
    namespace: String,
    isolation: Option<Isolation>,
    patience: Option<Duration>,
}

impl SessionBuilder {
    pub(super) fn new(client: Client) -> Self {
        let ttl = Duration::from_secs(10);
        Self { client, ttl, identity: None, namespace: String::new(), isolation: None, patience: None }
    }

    /// The time to live of the lease: how long a crash, or a cut connection, keeps others from a hold. Whole
    /// seconds, 10 s by default: long enough to ride out an election of etcd's own leader, which takes about 1 s
    /// and in bad cases several. Below the server's minimum (2 s at etcd's default election timeout) it is raised.
    /// [The guide](crate::guide::ttl) has the arithmetic, `cargo run --example storm` what it means for a million sessions.
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

    /// Renews the lease on a thread, a runtime and a connection of its own, to `endpoints` of the same cluster: code
    /// that blocks all threads of the session's runtime then costs it neither its lease nor what it holds. Not isolated
    /// by default.
    ///
    /// While the runtime is blocked, the lease is renewed, or granted anew; the [deadline](crate::Guard::deadline)
    /// moves with every renewal that is acknowledged, and [`is_valid`](crate::Guard::is_valid) and
    /// [`health`](Session::health) never believe in a lease that is lost. All else stays on the session's runtime, and
    /// waits until it runs again: that a key alone was deleted is not seen, nobody is granted a lock, `lost` does not
    /// fire, `run` does not drop its work, and what is dropped is not released.
    ///
    /// So a process that hangs for good keeps what it holds until it is ended: renewal that starves with the work is
    /// how a session notices by default. The session still ends with its runtime, and its lease is then revoked.
    ///
    /// The thread and its connection end with the session. [`connect_options`] are a good start for `options`; what the
    /// client needs to authenticate, the second connection needs too.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let etcd = tenure::testing::Etcd::start().await?;
    /// # let endpoints = etcd.endpoints();
    /// use tenure::etcd_client::Client;
    /// use tenure::{Session, connect_options};
    ///
    /// let client = Client::connect(&endpoints, Some(connect_options())).await?;
    /// let session = Session::builder(client).isolated(&endpoints, connect_options()).open().await?;
    /// let guard = session.mutex("jobs/reindex").lock().await?;
    /// // Whatever it blocks, the lease is renewed.
    /// std::thread::sleep(std::time::Duration::from_millis(10));
    /// assert!(guard.is_valid());
    /// session.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn isolated(
        mut self,
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        connect_options: ConnectOptions,
    ) -> Self {
        let endpoints = endpoints.into_iter().map(|endpoint| endpoint.as_ref().to_owned()).collect();
        self.isolation = Some(Isolation { endpoints, options: connect_options });
        self
    }

    /// Keeps trying to open the session for this long while etcd cannot be reached or does not answer, such as when the
    /// service starts before etcd does. By default 2 s if nobody listens at the endpoint and 5 s if nobody answers there.
    /// [`open`](Self::open) makes one try at least. What etcd refuses is an error at once.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Opens the session.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a TTL of zero, of a fraction of a second or above etcd's maximum of
    /// 9,000,000,000 s, for a namespace that cannot be one, and for [isolated](Self::isolated) endpoints that cannot be
    /// ones or are of another cluster. [`Error::Etcd`] if etcd refuses, or cannot be
    /// reached: after 2 s where nobody listens, and after 5 s where somebody does and does not answer, or after the
    /// [patience](Self::patience) that was set.
    /// [`Error::Closed`] if the runtime shuts down meanwhile.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
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
        opening.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closed),
        })
    }

    async fn start(self) -> Result<Session> {
        telemetry::describe();
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
            numbers: name::Numbers::default(),
            crowds: Crowds::default(),
            turns: Arc::new(Semaphore::new(ENTERING)),
            departures,
            remains: Remains::default(),
            renew_now: Notify::new(),
            runs: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let session = Session { handle: Arc::new(Handle { core: core.clone() }) };
        match self.isolation {
            Some(isolation) => isolation.begin(&core, self.patience).await?,
            None => {
                let keeper = Keeper { core: core.clone(), client: core.client.clone() };
                let lease = first_grant(&keeper, self.patience).await?;
                core.begin(&lease);
                tokio::spawn(async move { keepalive::run(&keeper, lease).await });
            }
        }
        tokio::spawn(watch::run(core.clone()));
        tokio::spawn(janitor::run(core, departing));
        Ok(session)
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("ttl", &self.ttl)
            .field("identity", &self.identity)
            .field("namespace", &self.namespace)
            .field("isolated", &self.isolation.is_some())
            .finish_non_exhaustive()
    }
}

/// The first lease. Whoever opens a session wants to know soon that nobody is there.
pub(super) async fn first_grant(keeper: &Keeper, patience: Option<Duration>) -> Result<Arc<Lease>> {
    let started = tokio::time::Instant::now();
    let mut delays = retry::delays();
    loop {
        let (connect, answer) = (patience.unwrap_or(CONNECT_LIMIT), patience.unwrap_or(CALL_LIMIT));
        let remaining = answer.saturating_sub(started.elapsed()).max(Duration::from_millis(100));
        let error = match keeper.grant(remaining.min(keeper.core.call_limit)).await {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        let (error, limit) = match error {
            Error::Etcd { ref source, .. } => {
                let passes = source.downcast_ref().is_some_and(|error| verdict(error) != Verdict::Never);
                (error, if passes { connect } else { Duration::ZERO })
            }
            _ => (no_answer(answer), answer),
        };
        let delay = delays.next();
        if started.elapsed() + delay >= limit {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
}

fn no_answer(limit: Duration) -> Error {
    Error::told(code::UNAVAILABLE, format!("no answer within {limit:?}"))
}

fn default_identity() -> String {
    format!("{}:{}", gethostname::gethostname().display(), std::process::id())
}
