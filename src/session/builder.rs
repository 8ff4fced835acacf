//! How a session is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{Core, ENTERING, Phase};
use super::crowd::Crowds;
use super::lease::Lease;
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
}

impl SessionBuilder {
    pub(super) fn new(client: Client) -> Self {
        Self { client, ttl: Duration::from_secs(10), identity: None, namespace: String::new() }
    }

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
    /// 9,000,000,000 s, and for a namespace that cannot be one. [`Error::Etcd`] if etcd refuses, or cannot be
    /// reached: after 2 s where nobody listens, and after 5 s where somebody does and does not answer.
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
            renew_now: Notify::new(),
            runs: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let lease = first_grant(&core).await?;
        core.begin(&lease);
        tokio::spawn(watch::run(core.clone()));
        tokio::spawn(janitor::run(core.clone(), departing));
        tokio::spawn(keepalive::run(keepalive::Keeper(core.clone()), lease));
        Ok(Session { handle: Arc::new(Handle { core }) })
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("ttl", &self.ttl)
            .field("identity", &self.identity)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// The first lease. Whoever opens a session wants to know soon that nobody is there.
async fn first_grant(core: &Arc<Core>) -> Result<Arc<Lease>> {
    let started = tokio::time::Instant::now();
    let mut delays = retry::delays();
    loop {
        let remaining = CALL_LIMIT.saturating_sub(started.elapsed());
        let error = match core.grant(remaining.min(core.call_limit)).await {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        let (error, limit) = match error {
            Error::Etcd { ref source, .. } => {
                let passes = source.downcast_ref().is_some_and(|error| verdict(error) != Verdict::Never);
                (error, if passes { CONNECT_LIMIT } else { Duration::ZERO })
            }
            _ => (no_answer(CALL_LIMIT), CALL_LIMIT),
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
