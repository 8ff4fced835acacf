//! What the places of one session in one queue share: how full it was when last seen, and, where it is deep, one list
//! for all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::DropGuard;

use crate::etcd_client::{Error, GetOptions, KvClient};
use crate::name::{Key, Name, Revision};

/// From this many keys on a queue is deep: there a list of it is dearer than two more keys read or written.
pub(crate) const DEEP: usize = 48;

/// How many keys a list asks for at a time: a reply may have 4 MiB.
const PAGE: i64 = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Somebody else was there when last seen, so that a try looks first.
    pub(crate) met: AtomicBool,
    /// How many places of the session there are.
    pub(crate) seats: AtomicUsize,
    /// The queue was deep when it was last listed.
    pub(crate) deep: AtomicBool,
    /// How often a list was asked for.
    asked: AtomicU64,
    /// Who has asked and has no list yet.
    waiting: AtomicUsize,
    last: tokio::sync::Mutex<Last>,
    /// Takes the session's request for revocation back when it is dropped.
    pub(crate) request: Mutex<Option<DropGuard>>,
}

/// The last list, for whoever had asked before it was begun.
#[derive(Debug, Default)]
struct Last {
    for_asked: u64,
    census: Option<Arc<Census>>,
}

/// Every direct child of a queue, by age.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) revision: Revision,
    /// Each with its create revision and its lease.
    pub(crate) keys: Vec<(Revision, Key, i64)>,
    /// What the oldest says of itself, unless it has gone since.
    pub(crate) oldest: Vec<u8>,
}

/// The crowds of a session, by the prefixes of their queues.
#[derive(Debug, Default)]
pub(crate) struct Crowds(Mutex<HashMap<Box<str>, Weak<Crowd>>>);

impl Crowds {
    pub(crate) fn of(&self, name: &Name) -> Arc<Crowd> {
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crowd) = crowds.get(name.prefix()).and_then(Weak::upgrade) {
            return crowd;
        }
        // Each time that there are twice as many as were in use.
        if crowds.len() == crowds.capacity() {
            crowds.retain(|_, crowd| crowd.strong_count() > 0);
        }
        let crowd = Arc::new(Crowd::default());
        crowds.insert(name.prefix().into(), Arc::downgrade(&crowd));
        crowd
    }
}

impl Crowd {
    /// A list that was begun after this call. Whoever calls while one is under way shares the next.
    pub(crate) async fn census(&self, kv: &mut KvClient, name: &Name) -> Result<Arc<Census>, Error> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _waiting = Waiting::new(&self.waiting);
        let mut last = self.last.lock().await;
        if last.for_asked < mine {
            let for_asked = self.asked.load(Ordering::SeqCst);
            let census = Some(Arc::new(Census::take(kv, name).await?));
            *last = Last { for_asked, census };
        }
        let census = last.census.clone().expect("kept while somebody waits for it");
        self.deep.store(census.keys.len() >= DEEP, Ordering::Relaxed);
        if self.waiting.load(Ordering::SeqCst) == 1 {
            *last = Last::default();
        }
        Ok(census)
    }
}

/// Counts whoever waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Census {
    async fn take(kv: &mut KvClient, name: &Name) -> Result<Self, Error> {
        let mut census = Self { revision: 0, keys: Vec::new(), oldest: Vec::new() };
        let mut from = name.prefix().as_bytes().to_vec();
        loop {
            let options = GetOptions::new().with_range(name.end()).with_keys_only().with_limit(PAGE);
            let reply = kv.get(from, Some(options.with_revision(census.revision))).await?;
            if census.revision == 0 {
                // Of the list; later pages bear that of their own time.
                census.revision = reply.header().map_or(0, |header| header.revision());
            }
            let direct = reply.kvs().iter().filter(|kv| name.is_direct(kv.key()));
            census.keys.extend(direct.map(|kv| (kv.create_revision(), Key::from(kv.key()), kv.lease())));
            match reply.kvs().last() {
                Some(last) if reply.more() => from = [last.key(), b"\0"].concat(),
                _ => break,
            }
        }
        census.keys.sort_unstable();
        if let Some((created, key, _)) = census.keys.first() {
            let mut reply = kv.get(key.to_vec(), None).await?;
            let stands = reply.take_kvs().into_iter().find(|kv| kv.create_revision() == *created);
            census.oldest = stands.map_or_else(Vec::new, |kv| kv.value().to_vec());
        }
        Ok(census)
    }
}
