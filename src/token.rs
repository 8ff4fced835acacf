//! Who stands in a queue, and the number that tells later holders from earlier ones.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::name::Key;

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
    pub(crate) identity: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) token: FencingToken,
    pub(crate) lease: i64,
}

impl Waiter {
    /// A key of the queue `name`, as etcd stores it.
    pub(crate) fn of(key: &Key, created: i64, lease: i64, value: &[u8]) -> Self {
        let key = String::from_utf8_lossy(key);
        let tail = key.rsplit('/').next().unwrap_or_default();
        let identity = identity(value).unwrap_or_else(|| tail.into());
        Self { identity, token: FencingToken(created), lease, key: key.into() }
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
}

/// Whose a value is, be it of a lock's key or of a session's fence key; `None` for another client's.
fn identity(value: &[u8]) -> Option<Box<str>> {
    #[derive(serde::Deserialize)]
    struct Owner {
        identity: Box<str>,
    }
    serde_json::from_slice(value).ok().map(|owner: Owner| owner.identity)
}
