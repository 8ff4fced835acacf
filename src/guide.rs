//! How to use this crate well: the pages that the [front page](crate#the-guide) lists. Every block of Rust on them is run with
//! the tests, against a real etcd.
//!
//! How much one etcd carries, and how to go past it, is in the repository's `docs/scaling.md`.

#[doc = include_str!("guide/leases.md")]
pub mod leases {}

#[doc = include_str!("guide/fencing.md")]
pub mod fencing {}

#[doc = include_str!("guide/ttl.md")]
pub mod ttl {}

#[doc = include_str!("guide/migrating.md")]
pub mod migrating {}

#[doc = include_str!("guide/watching.md")]
pub mod watching {}

#[doc = include_str!("guide/keys.md")]
pub mod keys {}
