//! Who stands in a queue, and the number that tells later holders from earlier ones.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::etcd_client::KeyValue;
use crate::guard::Guard;
use crate::name::is_ours;
use crate::queue::rule::Kind;
use crate::queue::wire::Value;

/// A number that is strictly larger for every later holder of a name: the create revision of the holder's key.
///
/// A store that remembers the largest token it has seen, and refuses smaller ones, is safe from a holder that
/// wakes up late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub(crate) i64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for FencingToken {
    type Err = ParseIntError;

    fn from_str(token: &str) -> Result<Self, ParseIntError> {
        token.parse().map(Self)
    }
}

impl From<FencingToken> for i64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

/// One who stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    identity: Box<str>,
    key: Box<str>,
    token: FencingToken,
    lease: i64,
    kind: Option<Kind>,
    permits: Option<u32>,
    capacity: Option<u32>,
    since: Option<SystemTime>,
    value: Box<[u8]>,
}

/// A key of a queue that the caller has read, such as with many others; [`Mutex::queue`](crate::Mutex::queue) reads
/// those of one name. A candidate's key does not say who it is, which
/// [`Election::candidates`](crate::Election::candidates) finds out.
impl From<&KeyValue> for Waiter {
    fn from(kv: &KeyValue) -> Self {
        Self::of(kv, kv.value())
    }
}

impl Waiter {
    /// The leader by this guard.
    pub(crate) fn leading(guard: &Guard) -> Self {
        Self {
            identity: guard.session().identity().into(),
            key: guard.key().into(),
            token: guard.token(),
            lease: guard.lease(),
            kind: Some(Kind::Election),
            permits: None,
            capacity: None,
            since: None,
            value: Box::default(),
        }
    }

    /// A key of a queue, whose owner `value` tells.
    pub(crate) fn of(kv: &KeyValue, value: &[u8]) -> Self {
        let key = String::from_utf8_lossy(kv.key());
        let tail = key.rsplit('/').next().unwrap_or_default();
        let stated = Value::parse(value);
        let election = is_ours(tail, kv.lease()).then_some(Kind::Election);
        Self {
            identity: identity(value).unwrap_or_else(|| tail.into()),
            token: FencingToken(kv.create_revision()),
            lease: kv.lease(),
            kind: stated.as_ref().map(|value| value.kind).or(election),
            permits: stated.as_ref().and_then(|value| value.weight),
            capacity: stated.as_ref().and_then(|value| value.capacity),
            since: stated.and_then(|value| UNIX_EPOCH.checked_add(Duration::from_secs(value.since?))),
            key: key.into(),
            value: kv.value().into(),
        }
    }

    /// What its session calls itself; for another client's key, which does not say, the last part of the key.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its key. Another client's that is not UTF-8 is shown with replacement characters.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its fencing token, once it holds.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Its lease, 0 if it has none.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// The value of its key: in an election, what the candidate proposes.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// What it asks for; `None` for another client's key, which does not say.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// How many permits of a semaphore it asks for.
    #[must_use]
    pub fn permits(&self) -> Option<u32> {
        self.permits
    }

    /// How many permits the semaphore has, as it was told.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.capacity
    }

    /// When a lock was asked for, to the second, by the clock of who asked; `None` in elections and for another
    /// client's key, which do not say.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }
}

/// Whose a value is, be it of a lock's key or of a session's fence key; `None` for another client's.
fn identity(value: &[u8]) -> Option<Box<str>> {
    #[derive(serde::Deserialize)]
    struct Owner {
        identity: Box<str>,
    }
    serde_json::from_slice(value).ok().map(|owner: Owner| owner.identity)
}
