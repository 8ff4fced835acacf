//! Reads keys, again and again if need be.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tenure::etcd_client::{
    Client, Error, GetOptions, GetResponse, KeyValue, ResponseHeader, WatchOptions, WatchStream,
};
use tokio::time::sleep;

use crate::args::Common;
use crate::connect;
use crate::failure::{Failure, UNREACHABLE};
use crate::queues::{Place, Queue, Room, Sessions, Snapshot};

/// How many keys a request asks for.
const PAGE: i64 = 5_000;

/// How many queues are read at once.
const AT_ONCE: usize = 16;

/// How often a request is sent: of three members one may be dead, and the client does not try the others.
const TRIES: u32 = 5;

#[derive(Clone)]
pub(crate) struct Reader {
    client: Client,
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
}

impl Reader {
    pub(crate) async fn connect(common: &Common) -> Result<Self, Failure> {
        let client = connect::client(common).await?;
        Ok(Self { client, endpoints: common.endpoints.clone(), namespace: common.namespace.clone() })
    }

    /// Everything whose name begins with `prefix`; of directories in which nobody stands the keys alone.
    pub(crate) async fn all(&self, prefix: &str) -> Result<Snapshot, Failure> {
        let (keys, revision) = self.range(&format!("{}{prefix}", self.namespace), Values::Leave).await?;
        let mut places: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for kv in &keys {
            if let Some(Room::Name(name)) = Room::of(&self.namespace, kv.key()) {
                places.entry(name).or_default().push(Place::new(kv));
            }
        }
        let queues = places.into_iter().map(|(name, places)| Queue::new(name.to_owned(), places));
        let read = |queue: Queue| async { if queue.is_one() { self.queue(queue.name).await } else { Ok(queue) } };
        let queues = stream::iter(queues).map(read).buffered(AT_ONCE).try_collect().await?;
        Ok(Snapshot { revision, queues, sessions: self.sessions().await })
    }

    /// The queue of one name, which may be empty.
    pub(crate) async fn queue(&self, name: String) -> Result<Queue, Failure> {
        let prefix = format!("{}{name}/", self.namespace);
        let (kvs, _) = self.range(&prefix, Values::Bring).await?;
        let children = kvs.iter().filter(|kv| !kv.key()[prefix.len()..].contains(&b'/'));
        Ok(Queue::new(name, children.map(Place::new).collect()))
    }

    pub(crate) async fn sessions(&self) -> Sessions {
        let found = self.range(&Sessions::prefix(&self.namespace), Values::Bring).await;
        found.map_or_else(|_| Sessions::default(), |(kvs, _)| Sessions::new(&kvs))
    }

    /// How long a lease was granted for and what remains of it; `None` if it is gone, or not for us to see.
    pub(crate) async fn lease(&self, lease: i64) -> Result<Option<(Duration, Duration)>, Failure> {
        let reply = match self.again(async |mut client| client.lease_time_to_live(lease, None).await).await {
            Ok(reply) => reply,
            Err(failure) if failure.code == UNREACHABLE => return Err(failure),
            Err(_) => return Ok(None),
        };
        let seconds = |seconds: i64| u64::try_from(seconds).map(Duration::from_secs).ok();
        Ok(seconds(reply.granted_ttl()).zip(seconds(reply.ttl())))
    }

    /// All changes from `revision` on of keys that begin with `prefix`, in the namespace.
    pub(crate) async fn watch(&self, prefix: &str, revision: i64) -> Result<WatchStream, Failure> {
        let (from, end) = range_of(&format!("{}{prefix}", self.namespace));
        let options = WatchOptions::new().with_range(end).with_start_revision(revision);
        let watch = self.client.watch_client().watch(from, Some(options)).await;
        watch.map_err(|error| self.failure(&error))
    }

    pub(crate) fn failure(&self, error: &Error) -> Failure {
        Failure::of_client(&self.endpoints, error)
    }

    /// Everything that begins with `prefix`, page by page, as it was at the first of them, and the revision of that.
    async fn range(&self, prefix: &str, values: Values) -> Result<(Vec<KeyValue>, i64), Failure> {
        let (mut from, end) = range_of(prefix);
        let (mut revision, mut found) = (0, Vec::new());
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let options = &if values == Values::Leave { options.with_keys_only() } else { options };
            let key = from.as_slice();
            let mut reply: GetResponse =
                self.again(async |mut client| client.get(key, Some(options.clone())).await).await?;
            let more = reply.more();
            if revision == 0 {
                revision = reply.header().map_or(0, ResponseHeader::revision);
            }
            found.append(&mut reply.take_kvs());
            match found.last().filter(|_| more) {
                Some(last) => from = [last.key(), &[0]].concat(),
                None => return Ok((found, revision)),
            }
        }
    }

    /// Sends a request that changes nothing, and sends it again where that may help.
    async fn again<T>(&self, send: impl AsyncFn(Client) -> Result<T, Error>) -> Result<T, Failure> {
        let mut tries = 1;
        loop {
            let error = match send(self.client.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => self.failure(&error),
            };
            if tries == TRIES || error.code != UNREACHABLE {
                return Err(error);
            }
            sleep(Duration::from_millis(50) * tries).await;
            tries += 1;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Bring,
    Leave,
}

/// From the first key that begins with `prefix` to the first one after all of them; `\0` for those that come last.
fn range_of(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let prefix = prefix.as_bytes();
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let end = kept.map_or(vec![0], |last| [&prefix[..last], &[prefix[last] + 1]].concat());
    (if prefix.is_empty() { vec![0] } else { prefix.to_vec() }, end)
}
