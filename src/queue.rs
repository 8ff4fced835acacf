//! Drives a place through etcd: all kinds of lock stand on it.

pub(crate) mod place;
pub(crate) mod rule;
