//! Actions to transactions, replies to inputs, nothing else.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::place::{Action, Elder, Input, Listing, Revision};
use super::rule::{Kind, Rule};
use crate::error;
use crate::etcd_client::{
    Compare, CompareOp, Error, GetOptions, GetResponse, KeyValue, KvClient, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use crate::name::{Key, Name};
use crate::session::crowd::{Census, Crowd, DEEP};

/// Whose requests these are.
pub(crate) struct Sender {
    pub(crate) kv: KvClient,
    pub(crate) name: Arc<Name>,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) rule: Rule,
    pub(crate) key: Key,
    /// The key's create revision, once it is known.
    pub(crate) created: Revision,
    /// The elders that a glance asks for.
    pub(crate) view: Vec<Key>,
    /// What a leave says to those who come next.
    pub(crate) mark: Option<Revision>,
    pub(crate) value: Arc<[u8]>,
    pub(crate) lease: i64,
    pub(crate) fence: Fence,
}

/// The key whose mod revision voids late writes.
pub(crate) struct Fence {
    pub(crate) key: String,
    pub(crate) value: Arc<str>,
    pub(crate) revision: Revision,
}

/// A reply: what it means for the place.
pub(crate) struct Reply {
    pub(crate) input: Input,
    /// The fence as it showed it, `None` if it did not.
    pub(crate) fence: Option<SeenFence>,
    /// Somebody stands in the queue with whom the place cannot share it.
    pub(crate) mismatch: Option<error::Error>,
    /// How many keys stand before it.
    pub(crate) ahead: Option<usize>,
    /// How many keys a leave deleted.
    pub(crate) deleted: i64,
}

/// The fence as a reply showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenFence {
    At(Revision),
    Missing,
}

impl From<Input> for Reply {
    fn from(input: Input) -> Self {
        Self { input, fence: None, mismatch: None, ahead: None, deleted: 0 }
    }
}

impl Sender {
    pub(crate) async fn send(mut self, action: Action) -> Result<Reply, Error> {
        match action {
            Action::Enter => self.put(None).await,
            Action::Try { known } => self.put(Some(known)).await,
            Action::Probe { limit } => {
                let (from, options) = self.range(limit);
                let reply = self.kv.get(from, Some(options)).await?;
                let mismatch = self.mismatch(Some(&reply)).await?;
                Ok(Reply { mismatch, ..Input::Probed(self.listing(&reply)).into() })
            }
            Action::Look { limit } => self.look(limit).await,
            Action::Glance => self.glance().await,
            Action::Leave { fence } if fence || self.mark.is_some() => self.leave(fence).await,
            Action::Leave { .. } => {
                let deleted = self.kv.delete(self.key.to_vec(), None).await?.deleted();
                Ok(Reply { deleted, ..Input::Left.into() })
            }
            Action::Seat | Action::Wait | Action::Stop(_) => unreachable!("{action:?} is no request"),
        }
    }

    /// One transaction puts the key if the fence stands and the key is absent, and lists the range before: what is
    /// there already is of interest. A try puts it only if no key in the range is younger than `known` too, and lists
    /// the range if there is one.
    async fn put(&mut self, known: Option<Revision>) -> Result<Reply, Error> {
        let (from, until) = self.rule.behind(&self.name);
        let list = |limit| {
            let (range, options) = self.range(Some(limit));
            TxnOp::get(range, Some(options))
        };
        let mut compares = vec![
            Compare::mod_revision(self.fence.key.as_str(), CompareOp::Equal, self.fence.revision),
            Compare::create_revision(self.key.to_vec(), CompareOp::Equal, 0),
        ];
        if let Some(known) = known {
            compares.push(Compare::create_revision(from, CompareOp::Less, known + 1).with_range(until));
        }
        let put = TxnOp::put(self.key.to_vec(), self.value.to_vec(), Some(PutOptions::new().with_lease(self.lease)));
        let own = TxnOp::get(self.key.to_vec(), Some(GetOptions::new().with_keys_only()));
        let fence = TxnOp::get(self.fence.key.as_str(), Some(GetOptions::new().with_keys_only()));
        let (then, otherwise) = match known {
            // Where it would be cut short it is not worth its price to the whole cluster.
            None if self.shares_lists() => (vec![put], vec![own, fence]),
            None if self.crowd.deep.load(Ordering::Relaxed) => (vec![list(self.rule.view()), put], vec![own, fence]),
            None => (vec![list(DEEP.max(self.rule.view())), put], vec![own, fence]),
            Some(_) => (vec![put], vec![own, fence, list(self.rule.view() + 1)]),
        };
        let reply = self.kv.txn(Txn::new().when(compares).and_then(then).or_else(otherwise)).await?;
        let mut ranges = ranges(&reply).into_iter();
        // What was not listed proves nothing.
        let unlisted = || Listing { revision: revision(&reply), more: true, ..Listing::default() };
        if reply.succeeded() {
            let (created, elders) = (revision(&reply), ranges.next());
            let listing = elders.as_ref().map_or_else(unlisted, |elders| self.listing(elders));
            let mismatch = self.mismatch(elders.as_ref()).await?;
            let ahead = elders.map(|elders| usize::try_from(elders.count()).unwrap_or(0));
            let listing = Listing { revision: created, ..listing };
            return Ok(Reply { mismatch, ahead, ..Input::Entered { created, listing }.into() });
        }
        let mut next = || ranges.next().ok_or_else(|| malformed("a transaction"));
        let (own, fence, everyone) = (next()?, next()?, ranges.next());
        let listing = everyone.as_ref().map_or_else(unlisted, |everyone| self.listing(everyone));
        let mismatch = self.mismatch(everyone.as_ref()).await?;
        let fence = fence.kvs().first().map_or(SeenFence::Missing, |kv| SeenFence::At(kv.mod_revision()));
        let input = match own.kvs().first() {
            Some(own) => Input::Entered { created: own.create_revision(), listing },
            None if matches!(fence, SeenFence::At(at) if at == self.fence.revision) => Input::Occupied(listing),
            None => Input::Fenced,
        };
        Ok(Reply { fence: Some(fence), mismatch, ..input.into() })
    }

    /// The own key, and the newest of those it waits for. Where its own key is among them that is one range.
    async fn look(&mut self, limit: Option<usize>) -> Result<Reply, Error> {
        if self.shares_lists() {
            let census = self.crowd.census(&mut self.kv, &self.name).await?;
            return Ok(self.find(&census, limit));
        }
        let (range, options) = self.range(limit);
        let options = options.with_max_create_revision(self.created).with_sort(SortTarget::Create, SortOrder::Descend);
        let (own, elders) = if self.rule.counts_itself() {
            let elders = self.kv.get(range, Some(options)).await?;
            (elders.kvs().iter().find(|kv| kv.key() == &*self.key).map(KeyValue::create_revision), elders)
        } else {
            let own = TxnOp::get(self.key.to_vec(), Some(GetOptions::new().with_keys_only()));
            let reply = self.kv.txn(Txn::new().and_then([own, TxnOp::get(range, Some(options))])).await?;
            let [own, elders] = ranges(&reply).try_into().map_err(|_| malformed("a look"))?;
            (own.kvs().first().map(KeyValue::create_revision), elders)
        };
        let mismatch = self.mismatch(Some(&elders)).await?;
        Ok(Reply { mismatch, ..Input::Looked { own, listing: self.listing(&elders) }.into() })
    }

    /// What a list of everyone says to this place: its own key, and the newest of those before it.
    fn find(&self, census: &Census, limit: Option<usize>) -> Reply {
        let keys = &census.keys;
        let before = keys.partition_point(|(created, ..)| *created < self.created);
        let own = keys.get(before).filter(|(_, key, _)| *key == self.key).map(|(created, ..)| *created);
        let first = before.saturating_sub(limit.unwrap_or(usize::MAX));
        let elders = keys[first..before].iter().map(|(created, key, lease)| Elder {
            key: key.clone(),
            created: *created,
            lease: *lease,
            weight: None,
        });
        let (more, deep) = (first > 0, keys.len() >= DEEP);
        let listing = Listing { revision: census.revision, elders: elders.collect(), more, nested: false, deep };
        // A proposal states nothing, whatever it says.
        let stated = Value::parse(&census.oldest).filter(|_| self.rule.kind != Kind::Election);
        let mismatch = stated.and_then(|value| self.rule.mismatch(value.kind, value.capacity));
        Reply { ahead: Some(before), mismatch, ..Input::Looked { own, listing }.into() }
    }

    /// The own key, the elders in view, and the mark, by their keys.
    async fn glance(&mut self) -> Result<Reply, Error> {
        let get = |key: &Key| TxnOp::get(key.to_vec(), Some(GetOptions::new().with_keys_only()));
        let mut gets = vec![get(&self.key), TxnOp::get(self.name.mark_key(), None)];
        gets.extend(self.view.iter().map(get));
        let reply = self.kv.txn(Txn::new().and_then(gets)).await?;
        let mut ranges = ranges(&reply).into_iter();
        let (Some(own), Some(mark)) = (ranges.next(), ranges.next()) else { return Err(malformed("a glance")) };
        let mark = mark.kvs().first().and_then(|kv| kv.value_str().ok()?.parse().ok());
        let elders = ranges.flat_map(|range| range.kvs().first().map(|kv| self.elder(kv))).collect();
        let own = own.kvs().first().map(KeyValue::create_revision);
        Ok(Input::Glanced { own, revision: revision(&reply), elders, mark }.into())
    }

    /// Deletes the key and sets the mark. With `fence`, rewrites the fence, which voids every put of this lease that is
    /// still travelling.
    async fn leave(&mut self, fence: bool) -> Result<Reply, Error> {
        let options = || Some(PutOptions::new().with_lease(self.lease));
        let mark = self.mark.map(|mark| TxnOp::put(self.name.mark_key(), mark.to_string(), options()));
        let rewrite = || TxnOp::put(self.fence.key.as_str(), &*self.fence.value, options());
        let ops = [TxnOp::delete(self.key.to_vec(), None)].into_iter().chain(mark).chain(fence.then(rewrite));
        let reply = self.kv.txn(Txn::new().and_then(ops.collect::<Vec<_>>())).await?;
        let deleted = reply.op_responses().into_iter().map(|op| match op {
            TxnOpResponse::Delete(delete) => delete.deleted(),
            _ => 0,
        });
        let deleted = deleted.sum();
        Ok(Reply { fence: fence.then(|| SeenFence::At(revision(&reply))), deleted, ..Input::Left.into() })
    }

    /// The range that the place waits for, in key order, with the values where they are to state anything.
    fn range(&self, limit: Option<usize>) -> (Vec<u8>, GetOptions) {
        let (from, until) = self.rule.behind(&self.name);
        let mut options = GetOptions::new().with_range(until);
        if let Some(limit) = limit {
            options = options.with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        if self.rule.kind == Kind::Election {
            options = options.with_keys_only();
        }
        (from, options)
    }

    /// Whether one list serves several places of the session: in a deep queue, for those who wait for everyone.
    fn shares_lists(&self) -> bool {
        let (deep, seats) = (&self.crowd.deep, &self.crowd.seats);
        self.rule.is_exclusive() && deep.load(Ordering::Relaxed) && seats.load(Ordering::Relaxed) > 1
    }

    fn listing(&self, reply: &GetResponse) -> Listing {
        let others = || reply.kvs().iter().filter(|kv| kv.key() != &*self.key);
        let deep = usize::try_from(reply.count()).is_ok_and(|count| count >= DEEP);
        self.crowd.deep.store(deep, Ordering::Relaxed);
        Listing {
            revision: reply.header().map_or(0, |header| header.revision()),
            elders: others().filter(|kv| self.name.is_direct(kv.key())).map(|kv| self.elder(kv)).collect(),
            more: reply.more(),
            nested: others().any(|kv| !self.name.is_direct(kv.key())),
            deep,
        }
    }

    fn elder(&self, kv: &KeyValue) -> Elder {
        let stated =
            if self.rule.permits == 1 { None } else { Value::parse(kv.value()).and_then(|value| value.weight) };
        // One of zero is none of ours, and would hold beside anybody.
        let weight = stated.filter(|weight| *weight > 0);
        Elder { key: Key::from(kv.key()), created: kv.create_revision(), lease: kv.lease(), weight }
    }

    /// Why the place cannot share the queue, if a reply gives reason to ask. Whoever is turned away has a key there
    /// for a moment too: what stands first in the queue says what it is.
    async fn mismatch(&mut self, reply: Option<&GetResponse>) -> Result<Option<error::Error>, Error> {
        if reply.is_none_or(|reply| self.stated(reply).all(|mismatch| mismatch.is_none())) {
            return Ok(None);
        }
        let sorted = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let everyone = self.kv.get(self.name.prefix(), Some(sorted)).await?;
        Ok(self.stated(&everyone).next().flatten())
    }

    /// For each key that states its kind, why the place cannot share a queue with it.
    fn stated(&self, reply: &GetResponse) -> impl Iterator<Item = Option<error::Error>> {
        let direct = reply.kvs().iter().filter(|kv| self.name.is_direct(kv.key()));
        let values = direct.filter_map(|kv| Value::parse(kv.value()));
        values.map(|value| self.rule.mismatch(value.kind, value.capacity))
    }
}

/// What the key of a lock says of its owner.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Value<'a> {
    /// Borrowed, since every list has many.
    #[serde(borrow)]
    pub(crate) identity: Cow<'a, str>,
    pub(crate) kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capacity: Option<u32>,
    /// When it was asked for, in seconds since 1970 by the clock of who asked. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<u64>,
}

impl<'a> Value<'a> {
    pub(crate) fn new(identity: &'a str, rule: Rule) -> Self {
        let shared = |number| (rule.kind == Kind::Semaphore).then_some(number);
        let (weight, capacity) = (shared(rule.weight), shared(rule.permits));
        Self { identity: identity.into(), kind: rule.kind, weight, capacity, since: None }
    }

    /// `None` for another client's.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of strings and numbers is JSON")
    }
}

fn malformed(what: &str) -> Error {
    Error::Internal(format!("the reply to {what} is incomplete"))
}

fn ranges(reply: &TxnResponse) -> Vec<GetResponse> {
    let responses = reply.op_responses().into_iter();
    responses.filter_map(|op| if let TxnOpResponse::Get(get) = op { Some(get) } else { None }).collect()
}

fn revision(reply: &TxnResponse) -> Revision {
    reply.header().map_or(0, |header| header.revision())
}
