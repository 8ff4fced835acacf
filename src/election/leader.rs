//! Who leads, as those see it who ask.

use crate::etcd_client::KeyValue;
use crate::token::FencingToken;

/// Who leads, and with what value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub(super) value: Box<[u8]>,
    pub(super) key: Box<str>,
    pub(super) token: FencingToken,
    pub(super) lease: i64,
}

impl Leader {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self {
            value: kv.value().into(),
            key: String::from_utf8_lossy(kv.key()).into(),
            token: FencingToken(kv.create_revision()),
            lease: kv.lease(),
        }
    }

    /// What it proclaims.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Its key. Another client's that is not UTF-8 is shown with replacement characters.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its fencing token.
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
