//! Reads keys into queues: who stands where, and who holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenure::etcd_client::{Client, Error, GetOptions, GetResponse, KeyValue, ResponseHeader};
use tenure::{Kind, Waiter};
use tokio::time::sleep;

use crate::args::Common;
use crate::connect;
use crate::failure::{Failure, UNREACHABLE};

/// How many keys a request asks for.
const PAGE: i64 = 5_000;

/// How often a request is sent: of three members one may be dead, and the client does not try the others.
const TRIES: u32 = 5;

/// One who stands in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) waiter: Waiter,
    /// Who it is: also of a candidate, by its session's key.
    pub(crate) identity: String,
    /// What a candidate, or another client, has in its key.
    pub(crate) value: Option<String>,
    pub(crate) holds: bool,
}

/// A name, and who stands there in order.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) places: Vec<Place>,
}

/// Reads queues, again and again if need be.
pub(crate) struct Reader<'a> {
    client: Client,
    common: &'a Common,
}

impl<'a> Reader<'a> {
    pub(crate) async fn connect(common: &'a Common) -> Result<Self, Failure> {
        Ok(Self { client: connect::client(common).await?, common })
    }

    /// All queues whose names begin with `prefix`, by name. A key is taken for one of a queue if its last part begins
    /// with its own lease, as those of this crate and of Go's `concurrency` do.
    pub(crate) async fn all(&mut self, prefix: &str) -> Result<Vec<Queue>, Failure> {
        let namespace = self.common.namespace.clone();
        let keys = self.range(&format!("{namespace}{prefix}"), Values::Leave).await?;
        let names = keys.iter().filter_map(|kv| name_of(kv)?.strip_prefix(&*namespace));
        // Sessions, of this namespace and of those below it.
        let names = names.filter(|name| !name.split('/').any(|part| part == "~session"));
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let mut queues = Vec::new();
        let sessions = self.sessions().await;
        for name in names {
            queues.push(self.queue(name, &sessions).await?);
        }
        queues.retain(|queue| !queue.places.is_empty());
        Ok(queues)
    }

    /// The queue of one name, which may be empty.
    pub(crate) async fn one(&mut self, name: &str) -> Result<Queue, Failure> {
        let sessions = self.sessions().await;
        self.queue(name.to_owned(), &sessions).await
    }

    /// How long a lease was granted for and what remains of it; `None` if it is gone.
    pub(crate) async fn lease(&mut self, lease: i64) -> Result<Option<(Duration, Duration)>, Failure> {
        let reply = self.again(async |mut client| client.lease_time_to_live(lease, None).await).await?;
        let seconds = |seconds: i64| u64::try_from(seconds).map(Duration::from_secs).ok();
        Ok(seconds(reply.granted_ttl()).zip(seconds(reply.ttl())))
    }

    async fn queue(&mut self, name: String, sessions: &BTreeMap<i64, String>) -> Result<Queue, Failure> {
        let prefix = format!("{}{name}/", self.common.namespace);
        let mut kvs = self.range(&prefix, Values::Bring).await?;
        kvs.retain(|kv| !kv.key()[prefix.len()..].contains(&b'/'));
        kvs.sort_unstable_by_key(KeyValue::create_revision);
        let mut places: Vec<_> = kvs.iter().map(|kv| place(kv, sessions)).collect();
        tell_who_holds(&mut places);
        Ok(Queue { name, places })
    }

    /// Who owns which lease; nothing is known to those who may not read it.
    async fn sessions(&mut self) -> BTreeMap<i64, String> {
        let kvs = self.range(&format!("{}~session/", self.common.namespace), Values::Bring).await.unwrap_or_default();
        let sessions = kvs.iter().filter(|kv| name_of(kv).is_some());
        sessions.map(|kv| (kv.lease(), Waiter::from(kv).identity().to_owned())).collect()
    }

    /// Everything that begins with `prefix`, page by page, as it was at the first of them.
    async fn range(&mut self, prefix: &str, values: Values) -> Result<Vec<KeyValue>, Failure> {
        let end = after_all(prefix.as_bytes());
        let (mut from, mut revision, mut found) = (prefix.as_bytes().to_vec(), 0, Vec::new());
        if from.is_empty() {
            from.push(0);
        }
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let options = &if values == Values::Leave { options.with_keys_only() } else { options };
            let key = from.as_slice();
            let mut reply: GetResponse =
                self.again(async |mut client| client.get(key, Some(options.clone())).await).await?;
            let more = reply.more();
            revision = reply.header().map_or(0, ResponseHeader::revision);
            found.append(&mut reply.take_kvs());
            match found.last().filter(|_| more) {
                Some(last) => from = [last.key(), &[0]].concat(),
                None => return Ok(found),
            }
        }
    }

    /// Sends a request that changes nothing, and sends it again where that may help.
    async fn again<T>(&self, send: impl AsyncFn(Client) -> Result<T, Error>) -> Result<T, Failure> {
        let mut tries = 1;
        loop {
            let error = match send(self.client.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => Failure::of_client(&self.common.endpoints, &error),
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

/// The first key after all that begin with `prefix`; `\0` for those that come last.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    kept.map_or(vec![0], |last| [&prefix[..last], &[prefix[last] + 1]].concat())
}

/// The lease in a key of a queue, in hex.
pub(crate) fn lease_of(key: &str) -> &str {
    let tail = key.rsplit('/').next().unwrap_or_default();
    let tail = tail.strip_prefix("r-").unwrap_or(tail);
    tail.split('-').next().unwrap_or_default()
}

/// The name in whose queue a key stands, namespace included, if it stands in one.
fn name_of(kv: &KeyValue) -> Option<&str> {
    let key = kv.key_str().ok()?;
    let stands = kv.lease() != 0 && lease_of(key) == format!("{:x}", kv.lease());
    key.rsplit_once('/').filter(|_| stands).map(|(name, _)| name)
}

fn place(kv: &KeyValue, sessions: &BTreeMap<i64, String>) -> Place {
    let waiter = Waiter::from(kv);
    let states = !matches!(waiter.kind(), None | Some(Kind::Election));
    let owner = sessions.get(&kv.lease()).filter(|_| !states).map(String::as_str);
    let value = String::from_utf8_lossy(kv.value());
    Place {
        identity: owner.unwrap_or(waiter.identity()).to_owned(),
        value: (!states && !value.is_empty()).then(|| value.into_owned()),
        holds: false,
        waiter,
    }
}

/// By the rule of each: readers wait for everyone but readers, those who want permits until enough are free, and
/// everybody else for all who came before.
fn tell_who_holds(places: &mut [Place]) {
    let (mut others, mut taken) = (0_usize, 0_u32);
    for (ahead, place) in places.iter_mut().enumerate() {
        let capacity = place.waiter.capacity().unwrap_or(u32::MAX);
        let weight = place.waiter.permits().unwrap_or(u32::MAX);
        place.holds = match place.waiter.kind() {
            Some(Kind::Read) => others == 0,
            Some(Kind::Semaphore) => taken.saturating_add(weight) <= capacity,
            _ => ahead == 0,
        };
        taken = taken.saturating_add(weight);
        others += usize::from(place.waiter.kind() != Some(Kind::Read));
    }
}
