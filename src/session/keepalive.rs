//! The renewal loop: one lease after another, each renewed on a stream of its own.
//!
//! 1. Time counts from the send of a renewal, and a reply acknowledges only the one that waits for it: there is
//!    never more than one on its way, and a stream whose reply is late is given up with it.
//! 2. A lease past its deadline is over, whatever etcd says of it later.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Health;
use super::core::{Core, Phase};
use super::deadline::{self, Step};
use super::lease::Lease;
use crate::clock::{Deadline, Moment};
use crate::error::{Error, Loss, Result, Verdict, is_granted_before, verdict};
use crate::etcd_client::{self, Client, KvClient, LeaseGrantOptions, PutOptions, PutResponse};
use crate::name::Revision;
use crate::{retry, telemetry};

/// Timers stand still while the machine sleeps, so the clock is looked at this often.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How long a request for a lease waits for its reply at first, before another member is asked: one that hangs must
/// not cost the whole time.
const FIRST_TRY: Duration = Duration::from_millis(200);

/// How long the work of a `run` may take to be dropped before that is worth a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a stream of renewals ended.
enum Break {
    Lost(Loss),
    /// To be opened again, elsewhere.
    Broken(String),
}

/// Keeps a session's lease over a connection, which may be its own. Ends the session with the task that owns it,
/// however that ends: with its runtime, at the worst.
pub(super) struct Keeper {
    pub(super) core: Arc<Core>,
    pub(super) client: Client,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.core.finish();
        self.core.remains.cut_off();
    }
}

/// Keeps the session alive until it is closed or its last handle is dropped.
pub(super) async fn run(keeper: &Keeper, mut lease: Arc<Lease>) {
    let core = &keeper.core;
    loop {
        let loss = tokio::select! {
            biased;
            () = core.closing.cancelled() => Loss::Closed,
            loss = watchdog(core, &lease) => loss,
            loss = renew(keeper, &lease) => loss,
        };
        lease.end(loss);
        core.set_health(Health::Lost(loss));
        if loss == Loss::Closed {
            close(keeper, &lease).await;
            break;
        }
        tracing::warn!(lease = lease.id, %loss, "the session lost its lease and asks for a new one");
        let last = lease.id;
        core.phase.send_replace(Phase::Between { last });
        drop(lease);
        let Some(next) = grant(keeper).await else { break };
        lease = next;
        tracing::info!(lease = lease.id, "the session has a new lease");
        core.begin(&lease);
    }
    core.remains.gone();
}

/// The next lease; `None`, and the session is at its end, if it was closed before there was one.
async fn grant(keeper: &Keeper) -> Option<Arc<Lease>> {
    let core = &keeper.core;
    let mut delays = retry::delays();
    loop {
        let mut granting = pin!(keeper.grant(core.call_limit));
        let granted = tokio::select! {
            biased;
            granted = &mut granting => granted,
            () = core.closing.cancelled() => {
                core.finish();
                // Heard to its end, and given back as any lease that nobody refers to.
                if let Ok(lease) = granting.await {
                    lease.end(Loss::Expired);
                }
                return None;
            }
        };
        match granted {
            Ok(lease) => return Some(lease),
            Err(error) => tracing::warn!(%error, "no new lease yet"),
        }
        tokio::select! {
            () = sleep(delays.next()) => {}
            () = core.closing.cancelled() => return None,
        }
    }
}

/// Reports jeopardy, and the deadline when it passes.
async fn watchdog(core: &Core, lease: &Lease) -> Loss {
    loop {
        if let Some(loss) = lease.loss() {
            return loss;
        }
        let (now, sent) = (Moment::now(), lease.sent());
        let (jeopardy, deadline) = (deadline::jeopardy(sent, lease.ttl), deadline::deadline(sent, lease.ttl));
        let next = if now < jeopardy {
            core.set_health(Health::Safe);
            jeopardy
        } else {
            core.set_health(Health::Jeopardy(Deadline(deadline)));
            deadline
        };
        tokio::select! {
            () = sleep(next.since(now).min(TICK)) => {}
            () = lease.over() => {}
        }
    }
}

async fn renew(keeper: &Keeper, lease: &Lease) -> Loss {
    let mut delays = retry::delays();
    loop {
        match stream(keeper, lease, &mut delays).await {
            Break::Lost(loss) => return loss,
            Break::Broken(why) => {
                telemetry::renewal_failed();
                tracing::debug!(lease = lease.id, why, "renewal failed");
            }
        }
        sleep(delays.next().min(lease.deadline().remaining() / 4)).await;
    }
}

async fn stream(keeper: &Keeper, lease: &Lease, delays: &mut retry::Delays) -> Break {
    let core = &keeper.core;
    // A reply that takes a third of the time that is left is not waited for.
    let limit = || lease.deadline().remaining() / 3;
    let late = || Break::Broken("no reply in time".to_owned());
    let mut client = keeper.client.lease_client();
    let mut sent = Moment::now();
    let (mut requests, mut replies) = match timeout(limit(), client.keep_alive(lease.id)).await {
        Err(_) => return late(),
        Ok(Err(error)) => return broken(keeper, error).await,
        Ok(Ok(stream)) => stream,
    };
    loop {
        telemetry::renewed(Moment::now().since(sent), lease.deadline().remaining());
        lease.renewed(sent);
        core.set_health(Health::Safe);
        delays.reset();
        loop {
            match deadline::step(lease.sent(), lease.ttl, Moment::now()) {
                Step::Over => return Break::Lost(Loss::Expired),
                Step::Renew => break,
                Step::Sleep(duration) => tokio::select! {
                    () = sleep(duration.min(TICK)) => {}
                    () = core.renew_now.notified() => break,
                },
            }
        }
        sent = Moment::now();
        if let Err(error) = requests.keep_alive().await {
            return broken(keeper, error).await;
        }
        match timeout(limit(), replies.message()).await {
            Err(_) => return late(),
            Ok(Err(error)) => return broken(keeper, error).await,
            Ok(Ok(None)) => return Break::Broken("the stream ended".to_owned()),
            Ok(Ok(Some(reply))) if reply.ttl() <= 0 => return Break::Lost(Loss::Revoked),
            Ok(Ok(Some(_))) => {}
        }
    }
}

async fn broken(keeper: &Keeper, error: etcd_client::Error) -> Break {
    match verdict(&error) {
        Verdict::NoLease => return Break::Lost(Loss::Revoked),
        Verdict::Reauthenticate => keeper.reauthenticate().await,
        _ => {}
    }
    Break::Broken(error.to_string())
}

/// The work of every `run` is dropped first, then the keys go with the lease: until it has expired by itself, at most.
async fn close(keeper: &Keeper, lease: &Lease) {
    let core = &keeper.core;
    core.phase.send_replace(Phase::Closing { last: lease.id });
    let remaining = || deadline::deadline(lease.sent(), lease.ttl).since(Moment::now());
    core.runs.close();
    if timeout(remaining().min(PATIENCE), core.runs.wait()).await.is_err() {
        tracing::warn!(runs = core.runs.len(), "a session that is being closed waits for work that is not dropped");
        let _ = timeout(remaining(), core.runs.wait()).await;
    }
    let expires_in = (lease.sent() + lease.ttl).since(Moment::now());
    if timeout(expires_in, revoke(keeper, lease)).await.is_err() {
        tracing::warn!(lease = lease.id, "etcd has not confirmed that a lease is revoked, which expires by itself");
    }
}

/// Insists until etcd no longer knows the lease.
async fn revoke(keeper: &Keeper, lease: &Lease) {
    let mut delays = retry::delays();
    loop {
        let mut client = keeper.client.lease_client();
        match keeper.core.call(client.revoke(lease.id)).await {
            Ok(_) => return,
            Err(Some(error)) if verdict(&error) == Verdict::NoLease => return,
            Err(Some(error)) if verdict(&error) == Verdict::Reauthenticate => keeper.reauthenticate().await,
            Err(_) => {}
        }
        sleep(delays.next()).await;
    }
}

impl Keeper {
    /// Asks for a lease and puts its fence key, within `limit`.
    pub(super) async fn grant(&self, limit: Duration) -> Result<Arc<Lease>> {
        let until = Instant::now() + limit;
        // The id is of our own choice, so that a lease whose grant was not heard of can be asked for again, and given
        // back. Its time counts from the first try.
        let (id, sent) = (fastrand::i64(1..), Moment::now());
        let core = &self.core;
        let ttl = i64::try_from(core.ttl.as_secs()).expect("checked by the builder");
        let grant = || async {
            let mut client = self.client.lease_client();
            match client.grant(ttl, Some(LeaseGrantOptions::new().with_id(id))).await {
                // By a try that was not heard of. What etcd grants is no less than what it was asked for.
                Err(error) if is_granted_before(&error) => Ok(core.ttl),
                granted => Ok(Duration::from_secs(u64::try_from(granted?.ttl()).unwrap_or(0))),
            }
        };
        let granted = self.answer(until, grant).await;
        let ttl = granted.as_ref().map_or(Duration::ZERO, |ttl| *ttl);
        let lease = Arc::new(Lease::new(id, ttl, sent, 0, core.revoker()));
        let fenced = match granted {
            Ok(_) => self.answer(until, || core.put_fence_key(self.client.kv_client(), id)).await,
            Err(error) => Err(error),
        };
        match fenced {
            Ok(put) => lease.learn_fence(revision(&put)),
            Err(error) => {
                // Given back as any lease that nobody refers to.
                lease.end(Loss::Expired);
                return Err(error);
            }
        }
        if lease.ttl > core.ttl {
            tracing::info!(asked = ?core.ttl, granted = ?lease.ttl, "etcd raised the TTL to its minimum");
        }
        Ok(lease)
    }

    /// The reply to a call, which is made again, perhaps to another member, if it takes long. The token is refreshed for
    /// the next one where that is what failed it.
    async fn answer<T, F>(&self, until: Instant, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let begun = Instant::now();
        while Instant::now() < until {
            // Longer and longer, for a cluster that is slow as a whole.
            let patience = FIRST_TRY.max(begun.elapsed() / 5);
            match timeout_at(until.min(Instant::now() + patience), call()).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => {
                    if verdict(&error) == Verdict::Reauthenticate {
                        self.reauthenticate().await;
                    }
                    return Err(Error::etcd(error));
                }
                Err(_) => {}
            }
        }
        Err(Error::Unknown)
    }

    async fn reauthenticate(&self) {
        self.core.reauthenticate_over(&self.client).await;
    }
}

impl Core {
    /// Rewrites a fence key that is missing: every put that was made before is void from then on.
    pub(crate) async fn rewrite_fence(&self, lease: &Lease) -> Result<Revision, Option<etcd_client::Error>> {
        let put = self.call(self.put_fence_key(self.kv.clone(), lease.id)).await?;
        Ok(revision(&put))
    }

    async fn put_fence_key(&self, mut kv: KvClient, lease: i64) -> Result<PutResponse, etcd_client::Error> {
        let options = PutOptions::new().with_lease(lease);
        kv.put(self.fence_key(lease), &*self.fence_value(), Some(options)).await
    }
}

fn revision(put: &PutResponse) -> Revision {
    put.header().map_or(0, |header| header.revision())
}
