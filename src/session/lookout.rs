//! Reading keys again whenever they may have changed: on the session's one watch stream.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Core;
use super::watch::{Notice, Scope, Watcher};
use crate::error::{Error, Result, code};
use crate::etcd_client::{GetOptions, KeyValue};
use crate::name::{Key, Revision};
use crate::retry::{self, Delays};

/// A watch, and the reads that it asks for. It ends when it is dropped.
pub(crate) struct Lookout {
    core: Arc<Core>,
    key: Key,
    scope: Scope,
    signal: Arc<Signal>,
    /// Something may have changed that was not read since.
    due: bool,
    delays: Delays,
}

impl Lookout {
    /// Over the deletion of `key`.
    pub(crate) fn over_key(core: &Arc<Core>, key: Key) -> Self {
        Self::new(core, key, Scope::Key)
    }

    /// Over all keys with `prefix`.
    pub(crate) fn over_prefix(core: &Arc<Core>, prefix: String) -> Self {
        Self::new(core, prefix.into_bytes().into(), Scope::Prefix)
    }

    fn new(core: &Arc<Core>, key: Key, scope: Scope) -> Self {
        let signal = Arc::new(Signal::default());
        // What came before a watch that stands already was told to others.
        let due = core.hub.watch_all(&key, scope, None, signal.clone()).is_some();
        Self { core: core.clone(), key, scope, signal, due, delays: retry::delays() }
    }

    /// What there is, as soon as the watch stands, and then each time that it may have changed. What can pass is
    /// ridden out. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Vec<KeyValue>> {
        if !self.due {
            self.signal.changed.notified().await;
            self.due = true;
        }
        let (key, scope) = (&self.key, self.scope);
        let options = || match scope {
            Scope::Key => GetOptions::new(),
            Scope::Prefix => GetOptions::new().with_prefix(),
        };
        loop {
            if let Some(reason) = self.signal.denied() {
                return Err(Error::told(code::PERMISSION_DENIED, &*reason));
            }
            match self.core.read(|mut kv| async move { kv.get(key.to_vec(), Some(options())).await }).await {
                Ok(mut reply) => {
                    self.due = false;
                    self.delays.reset();
                    return Ok(reply.take_kvs());
                }
                Err(error @ Error::Etcd { code: code::PERMISSION_DENIED, .. }) => return Err(error),
                Err(error) => tracing::debug!(%error, "could not look"),
            }
            sleep(self.delays.next()).await;
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        let watcher: Arc<dyn Watcher> = self.signal.clone();
        self.core.hub.unwatch(&self.key, &watcher);
    }
}

/// Completes once none of these keys stands any more, each under its create revision.
pub(crate) async fn gone(core: &Arc<Core>, keys: Vec<(Key, Revision)>) {
    for (key, token) in keys {
        let mut lookout = Lookout::over_key(core, key);
        loop {
            match lookout.next().await {
                Ok(found) if found.iter().any(|kv| kv.create_revision() == token) => {}
                Ok(_) => break,
                // It cannot be seen.
                Err(_) => return pending().await,
            }
        }
    }
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookout").field("key", &String::from_utf8_lossy(&self.key)).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Signal {
    changed: Notify,
    denied: Mutex<Option<Arc<str>>>,
}

impl Signal {
    fn denied(&self) -> Option<Arc<str>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watcher for Signal {
    fn tell(self: Arc<Self>, notice: Notice) {
        match notice {
            // It is told when it stands again.
            Notice::Broken => return,
            Notice::Denied { reason } => *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason),
            _ => {}
        }
        self.changed.notify_one();
    }
}
