//! Locks and leadership on etcd: fair, watch-driven, and honest about when a hold has ended.

#[cfg(feature = "testing")]
pub mod testing;
