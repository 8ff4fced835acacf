//! Hearing of a request.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::etcd_client::KeyValue;
use crate::guard::{Guard, Lost};
use crate::name::{Name, is_child};
use crate::session::Core;
use crate::session::lookout::Lookout;
use crate::token::FencingToken;

/// Where requests lie, beside the queue.
pub(super) const ROOM: &str = "revoke";

/// A request to let go of a hold: who asks, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Revocation {
    pub(super) identity: Box<str>,
    pub(super) reason: Box<str>,
}

impl Revocation {
    /// What the session that asks [calls itself](crate::Session::identity).
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Why it asks, in its own words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A request as etcd stores it.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Request {
    #[serde(flatten)]
    pub(super) revocation: Revocation,
    pub(super) tokens: Vec<i64>,
}

/// Completes when somebody asks for a hold. See [`Guard::revocation_requested`].
#[must_use = "a future does nothing unless it is polled"]
pub struct RevocationRequested {
    core: Arc<Core>,
    name: Arc<Name>,
    token: FencingToken,
    lost: Lost,
    /// The mutex is there for `Sync` alone.
    waiting: Mutex<Option<Waiting>>,
}

type Waiting = Pin<Box<dyn Future<Output = Revocation> + Send>>;

impl RevocationRequested {
    pub(crate) fn of(guard: &Guard) -> Self {
        Self {
            core: guard.session().core().clone(),
            name: guard.seat().name().clone(),
            token: guard.token(),
            lost: guard.lost(),
            waiting: Mutex::default(),
        }
    }

    fn wait(&self) -> Waiting {
        let Self { core, name, token, lost, .. } = self.clone();
        Box::pin(async move {
            let requested = async {
                let prefix = name.beside(ROOM);
                let mut lookout = Lookout::over_prefix(&core, prefix.clone());
                loop {
                    match lookout.next().await {
                        Ok(mut found) => {
                            found.retain(|kv| is_child(&prefix, kv.key()));
                            found.sort_unstable_by_key(KeyValue::create_revision);
                            let requests = found.iter().filter_map(|kv| serde_json::from_slice(kv.value()).ok());
                            let named = |request: &Request| request.tokens.contains(&token.0);
                            if let Some(request) = requests.into_iter().find(named) {
                                return request.revocation;
                            }
                        }
                        Err(error) => {
                            tracing::warn!(name = name.as_str(), %error, "requests for revocation cannot be seen");
                            return pending().await;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                _ = lost => {}
                revocation = requested => return revocation,
            }
            pending().await
        })
    }
}

impl Future for RevocationRequested {
    type Output = Revocation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Revocation> {
        if self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.waiting = Mutex::new(Some(self.wait()));
        }
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().expect("set above").as_mut().poll(context)
    }
}

impl Clone for RevocationRequested {
    fn clone(&self) -> Self {
        let Self { core, name, token, lost, .. } = self;
        let (core, name, lost) = (core.clone(), name.clone(), lost.clone());
        Self { core, name, token: *token, lost, waiting: Mutex::default() }
    }
}

impl fmt::Debug for RevocationRequested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, token) = (self.name.as_str(), self.token);
        f.debug_struct("RevocationRequested").field("name", &name).field("token", &token).finish_non_exhaustive()
    }
}
