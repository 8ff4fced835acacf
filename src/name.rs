//! Names to keys and back.
//!
//! The queue of a name lives under `<namespace><name>/`; our keys there are
//! `<lane><lease id, lowercase hex>-<n, lowercase hex>`, where `n` is the smallest number that the session has free.
//! Only direct children count, so that a name `a` and a name `a/b` never meet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// A key of etcd. Other clients' keys need not be UTF-8.
pub(crate) type Key = Arc<[u8]>;

/// A revision of the etcd store.
pub(crate) type Revision = i64;

/// Below the namespace, where the keys are that no queue has. No lease in hex has a slash.
const RESERVED: &str = "~session/";

/// A name that passed the check, with the prefix under which its queue lives.
#[derive(Debug)]
pub(crate) struct Name {
    name: Box<str>,
    /// `<namespace><name>/`
    prefix: Box<str>,
    mark_key: Box<str>,
}

impl Name {
    pub(crate) fn new(namespace: &str, name: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidName { name: name.to_owned(), reason };
        if let Some(reason) = flaw(name) {
            return Err(invalid(reason));
        }
        if name.starts_with('~') {
            return Err(invalid("a leading `~` is reserved"));
        }
        let mark_key = format!("{namespace}{RESERVED}mark/{name}").into();
        Ok(Self { name: name.into(), prefix: format!("{namespace}{name}/").into(), mark_key })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key that tells who held last, while the queue is deep.
    pub(crate) fn mark_key(&self) -> &str {
        &self.mark_key
    }

    /// Where keys lie that say something about the queue, and are in no queue: `room` is one of `revoke`, `transfer` and
    /// `consent`.
    pub(crate) fn beside(&self, room: &str) -> String {
        let namespace = &self.prefix[..self.prefix.len() - self.name.len() - 1];
        format!("{namespace}{RESERVED}{room}/{}/", self.name)
    }

    /// The first key after every key of the queue.
    pub(crate) fn end(&self) -> Vec<u8> {
        let mut end = self.prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix ends with a slash") += 1;
        end
    }

    /// Whether `key`, which begins with the prefix, is a direct child.
    pub(crate) fn is_direct(&self, key: &[u8]) -> bool {
        is_child(&self.prefix, key)
    }

    /// The key of the place with this number.
    pub(crate) fn key(&self, lane: &str, lease: i64, number: u64) -> Key {
        format!("{}{lane}{lease:x}-{number:x}", self.prefix).into_bytes().into()
    }
}

/// The numbers of a session's places, each one's own while it has it.
///
/// A key that is deleted stays in etcd's index until the next compaction, and every range over its queue passes it:
/// a key per acquisition would make a busy lock slower with each of them. So numbers that are given back are given
/// out again, the smallest first.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Mutex<Pool>);

#[derive(Debug, Default)]
struct Pool {
    next: u64,
    free: BinaryHeap<Reverse<u64>>,
}

impl Numbers {
    pub(crate) fn take(&self) -> u64 {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reverse(free)) = pool.free.pop() {
            return free;
        }
        pool.next += 1;
        pool.next - 1
    }

    /// For the next place, once nothing that travels can create or delete a key with it.
    pub(crate) fn give_back(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).free.push(Reverse(number));
    }
}

/// Whether a key whose last part is `tail` is one of this crate's, given its lease.
pub(crate) fn is_ours(tail: &str, lease: i64) -> bool {
    let (owner, number) = tail.strip_prefix("r-").unwrap_or(tail).split_once('-').unwrap_or_default();
    owner == format!("{lease:x}") && u64::from_str_radix(number, 16).is_ok()
}

/// Whether `key`, which begins with `prefix`, is a direct child.
pub(crate) fn is_child(prefix: &str, key: &[u8]) -> bool {
    !key[prefix.len()..].contains(&b'/')
}

/// Checks a namespace: empty, or names each followed by a slash.
pub(crate) fn check_namespace(namespace: &str) -> Result<()> {
    let reason = match namespace.strip_suffix('/') {
        None if namespace.is_empty() => return Ok(()),
        None => Some("it must end with a slash"),
        Some(path) if path.starts_with('~') => Some("a leading `~` is reserved"),
        Some(path) => flaw(path),
    };
    reason.map_or(Ok(()), |reason| {
        Err(Error::InvalidOption { option: "namespace", reason: format!("{namespace:?}: {reason}") })
    })
}

/// The key that voids the late writes of a lease when it is rewritten.
pub(crate) fn fence_key(namespace: &str, lease: i64) -> String {
    format!("{namespace}{RESERVED}{lease:x}")
}

fn flaw(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('\0') {
        Some("it contains a NUL")
    } else if name.starts_with('/') {
        Some("it begins with a slash")
    } else if name.ends_with('/') {
        Some("it ends with a slash")
    } else if name.contains("//") {
        Some("it contains a doubled slash")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_prefix_that_no_nested_name_shares() {
        let name = Name::new("prod/", "jobs/reindex").unwrap();
        assert_eq!(name.prefix(), "prod/jobs/reindex/");
        assert_eq!(name.end(), b"prod/jobs/reindex0");
        assert!(name.is_direct(b"prod/jobs/reindex/1f-0"));
        assert!(!name.is_direct(b"prod/jobs/reindex/1f-0/x"));
    }

    #[test]
    fn a_bad_name_is_refused_with_what_is_wrong_with_it() {
        for bad in ["", "/a", "a/", "a//b", "a\0b", "~session"] {
            let error = Name::new("", bad).unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_namespace_ends_with_a_slash() {
        assert!(check_namespace("").is_ok());
        assert!(check_namespace("prod/eu/").is_ok());
        for bad in ["prod", "/", "/a/", "a//", "~a/"] {
            assert!(check_namespace(bad).unwrap_err().to_string().contains("namespace"), "{bad}");
        }
    }

    #[test]
    fn a_number_has_one_owner_and_the_smallest_comes_first() {
        let numbers = Numbers::default();
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [0, 1, 2]);
        numbers.give_back(2);
        numbers.give_back(0);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [0, 2, 3]);
    }

    #[test]
    fn a_key_says_its_lane_its_lease_and_its_number() {
        assert_eq!(&*Name::new("", "a").unwrap().key("r-", 31, 10), b"a/r-1f-a");
        assert!(is_ours("r-1f-a", 31) && is_ours("1f-0", 31));
        for others in ["1f", "1f-", "1f-x", "20-0", "r-1f", "leader"] {
            assert!(!is_ours(others, 31), "{others}");
        }
    }
}
