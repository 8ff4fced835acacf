//! One term, and what a leader can do with it.

use std::fmt;
use std::ops::Deref;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result, Verdict, verdict};
use crate::etcd_client::{self, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use crate::guard::Guard;
use crate::retry;
use crate::session::Health;
use crate::ticket::{Grant, Seal};
use crate::token::FencingToken;

/// One uninterrupted leadership: a [`Guard`] of the office, and what a leader can do with it.
///
/// Dropping it resigns in the background.
#[must_use = "a leadership that is dropped at once is resigned at once"]
pub struct Leadership {
    guard: Guard,
    pub(super) ending: CancellationToken,
    /// The mod revision of the key as of the last proclamation that is known: the next builds on it.
    proclaimed: tokio::sync::Mutex<i64>,
    pub(super) transferring: tokio::sync::Mutex<()>,
}

impl Grant for Leadership {
    fn of(guard: Guard, _: Seal) -> Self {
        let ending = CancellationToken::new();
        let (ended, mut health) = (guard.ended(), guard.session().health());
        // Fires however the task ends: with its runtime, at the worst.
        let fires = ending.clone().drop_guard();
        guard.session().core().spawn(async move {
            tokio::select! {
                () = ended => {}
                _ = health.wait_for(|health| *health != Health::Safe) => {}
            }
            drop(fires);
        });
        let proclaimed = tokio::sync::Mutex::new(guard.token().into());
        Self { guard, ending, proclaimed, transferring: tokio::sync::Mutex::default() }
    }
}

impl Leadership {
    /// Fires when the term is about to end: at the shutdown of a [`run`](super::Election::run), in jeopardy, and at the
    /// latest when the hold has ended. Give it to tasks that must not outlive the term.
    #[must_use]
    pub fn ending(&self) -> CancellationToken {
        self.ending.child_token()
    }

    /// Publishes a new value; the term goes on. One proclamation is on its way at a time, and a late one never
    /// overwrites a newer one.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the hold has ended, [`Error::Etcd`] if etcd refuses. An outage is waited out until the
    /// deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, the value may or may not be published.
    pub async fn proclaim(&self, value: impl Into<Vec<u8>>) -> Result<()> {
        let value = value.into();
        let mut last = self.proclaimed.lock().await;
        let mut delays = retry::delays();
        let mut unsure = false;
        loop {
            if !self.is_valid() {
                return Err(self.lost().await.into());
            }
            match self.proclaim_once(*last, &value).await {
                Ok(reply) if reply.succeeded() => {
                    *last = reply.header().map_or(*last, |header| header.revision());
                    return Ok(());
                }
                Ok(reply) => {
                    let Some((revision, published)) = self.published(&reply) else {
                        return Err(self.why_gone().await.into());
                    };
                    // Somebody wrote since: this call, unheard, or one before it whose future was dropped.
                    *last = revision;
                    if unsure && published == value {
                        return Ok(());
                    }
                }
                Err(error) => {
                    match error.as_ref().map_or(Verdict::Unknown, verdict) {
                        Verdict::Never | Verdict::Exhausted => return Err(Error::failed(error)),
                        Verdict::Reauthenticate => self.session().core().reauthenticate().await,
                        Verdict::NoLease => return Err(self.why_gone().await.into()),
                        Verdict::Unknown => unsure = true,
                        Verdict::Again => {}
                    }
                    tokio::select! {
                        () = self.ended() => {}
                        () = sleep(delays.next()) => {}
                    }
                }
            }
        }
    }

    async fn proclaim_once(&self, last: i64, value: &[u8]) -> Result<TxnResponse, Option<etcd_client::Error>> {
        let newest = Compare::mod_revision(self.key(), CompareOp::Equal, last);
        let put = TxnOp::put(self.key(), value, Some(PutOptions::new().with_lease(self.lease())));
        let get = TxnOp::get(self.key(), Some(GetOptions::new()));
        let txn = Txn::new().when([self.condition(), newest]).and_then([put]).or_else([get]);
        let core = self.session().core();
        let mut kv = core.kv.clone();
        core.call(kv.txn(txn)).await
    }

    /// The key's mod revision and value, if the hold stands.
    fn published(&self, reply: &TxnResponse) -> Option<(i64, Vec<u8>)> {
        let Some(TxnOpResponse::Get(get)) = reply.op_responses().pop() else { return None };
        let kv = get.kvs().first().filter(|kv| FencingToken(kv.create_revision()) == self.token())?;
        Some((kv.mod_revision(), kv.value().to_vec()))
    }

    /// Gives the office up, and waits until etcd has confirmed.
    ///
    /// # Errors
    ///
    /// As [`Guard::unlock`].
    ///
    /// # Cancel safety
    ///
    /// The office is given up in the background, whether or not the future is awaited to its end.
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }
}

impl Deref for Leadership {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.guard
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("guard", &self.guard).finish_non_exhaustive()
    }
}
