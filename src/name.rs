//! Names to keys and back.
//!
//! The queue of a name lives under `<namespace><name>/`; our keys there are
//! `<lane><lease id, lowercase hex>-<n, lowercase hex>`, one per acquisition and never used twice. Only direct
//! children count, so that a name `a` and a name `a/b` never meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A key of etcd. Other clients' keys need not be UTF-8.
pub(crate) type Key = Arc<[u8]>;

/// A revision of the etcd store.
pub(crate) type Revision = i64;

/// A name that passed the check, with the prefix under which its queue lives.
#[derive(Debug)]
pub(crate) struct Name {
    name: Box<str>,
    /// `<namespace><name>/`
    prefix: Box<str>,
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
        Ok(Self { name: name.into(), prefix: format!("{namespace}{name}/").into() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The first key after every key of the queue.
    pub(crate) fn end(&self) -> Vec<u8> {
        let mut end = self.prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix ends with a slash") += 1;
        end
    }

    /// Whether `key`, which begins with the prefix, is a direct child.
    pub(crate) fn is_direct(&self, key: &[u8]) -> bool {
        !key[self.prefix.len()..].contains(&b'/')
    }

    /// A key that nobody used before and nobody will use again.
    pub(crate) fn fresh_key(&self, lane: &str, lease: i64) -> Arc<str> {
        // One count for the process, so that two sessions on one lease cannot meet either.
        static USED: AtomicU64 = AtomicU64::new(0);
        let n = USED.fetch_add(1, Ordering::Relaxed);
        format!("{}{lane}{lease:x}-{n:x}", self.prefix).into()
    }
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
    format!("{namespace}~session/{lease:x}")
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
    fn keys_are_never_used_twice() {
        let name = Name::new("", "a").unwrap();
        assert_ne!(name.fresh_key("", 31), name.fresh_key("", 31));
        assert!(name.fresh_key("r-", 31).starts_with("a/r-1f-"));
    }
}
