//! Whom a ticket has to wait for: the one thing in which the kinds of lock differ.
//!
//! > List the `permits` newest live keys that I wait for and that are older than mine. Fewer than `permits`: I
//! > hold. Otherwise wait until one of those vanishes, and look again.

use std::fmt;

use super::place::Elder;
use crate::error::Error;
use crate::name::Name;

/// What one who stands in a queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A [`Mutex`](crate::Mutex).
    Mutex,
    /// The office of an [`Election`](crate::Election).
    Election,
    /// A [`RwLock`](crate::RwLock), for reading.
    Read,
    /// A [`RwLock`](crate::RwLock), for writing.
    Write,
    /// Permits of a [`Semaphore`](crate::Semaphore).
    Semaphore,
}

impl Kind {
    /// As a key's value and the labels of metrics have it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::Election => "election",
            Self::Read => "read",
            Self::Write => "write",
            Self::Semaphore => "semaphore",
        }
    }

    /// In a user's words.
    fn as_str(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::Election => "election",
            Self::Read | Self::Write => "read-write lock",
            Self::Semaphore => "semaphore",
        }
    }
}

/// As in the JSON of a lock's key: `mutex`, `election`, `read`, `write`, `semaphore`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mutex => "mutex",
            Self::Election => "election",
            Self::Read => "read",
            Self::Write => "write",
            Self::Semaphore => "semaphore",
        })
    }
}

/// Where a place stands and whom it stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    /// Below the queue's prefix, where its own key lies.
    pub(crate) lane: &'static str,
    /// Below the queue's prefix, the first key that it does not wait for; empty if it waits for everyone.
    until: &'static str,
    /// How much weight may hold at once.
    pub(crate) permits: u32,
    /// Its own weight, from one to `permits`.
    pub(crate) weight: u32,
}

impl Rule {
    pub(crate) const MUTEX: Self = Self { kind: Kind::Mutex, lane: "", until: "", permits: 1, weight: 1 };
    pub(crate) const ELECTION: Self = Self { kind: Kind::Election, ..Self::MUTEX };
    pub(crate) const WRITE: Self = Self { kind: Kind::Write, ..Self::MUTEX };
    /// Waits for all but readers: writers, mutexes, and other clients' keys alike.
    pub(crate) const READ: Self = Self { kind: Kind::Read, lane: "r-", until: "r-", permits: 1, weight: 1 };

    pub(crate) const fn semaphore(permits: u32, weight: u32) -> Self {
        assert!(0 < weight && weight <= permits);
        Self { kind: Kind::Semaphore, permits, weight, ..Self::MUTEX }
    }

    /// The range of keys that a place waits for.
    pub(crate) fn behind(&self, name: &Name) -> (Vec<u8>, Vec<u8>) {
        let from = name.prefix().as_bytes().to_vec();
        if self.until.is_empty() {
            return (from, name.end());
        }
        let until = [&from, self.until.as_bytes()].concat();
        (from, until)
    }

    /// Whether the keys that a place waits for include its own.
    pub(crate) fn counts_itself(&self) -> bool {
        self.until.is_empty()
    }

    /// Whether a holder proves that everyone older than it is gone.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.until.is_empty() && self.permits == 1
    }

    /// How many of the newest that it waits for a place keeps in view. Behind an exclusive holder it is one more than
    /// has to go: when the older of the two goes, a look shows whether the other is the last, and its going is then
    /// all that there is to wait for.
    pub(crate) fn view(&self) -> usize {
        self.permits as usize + usize::from(self.is_exclusive())
    }

    /// Leaves the newest of them, as far as they are in view. Says whether that is everyone.
    pub(crate) fn narrow(&self, elders: &mut Vec<Elder>) -> bool {
        elders.sort_unstable_by_key(|elder| std::cmp::Reverse(elder.created));
        let all = elders.len() <= self.view();
        elders.truncate(self.view());
        elders.shrink_to_fit();
        all
    }

    /// Whether holds of this kind may be handed over in memory. Not an office: the leader that others read is
    /// the oldest key.
    pub(crate) fn hands_over(&self) -> bool {
        self.kind != Kind::Election
    }

    /// The weight of an elder: a key that states none fills the queue.
    pub(crate) fn weigh(&self, stated: Option<u32>) -> u32 {
        stated.unwrap_or(self.permits)
    }

    pub(crate) fn weigh_all(&self, elders: &[Elder]) -> u32 {
        elders.iter().fold(0, |sum, elder| sum.saturating_add(self.weigh(elder.weight)))
    }

    /// Why it cannot stand in one queue with a key that states this. All but semaphores can: a reader waits for
    /// mutexes as for writers. Elections state no kind, and ask for none.
    pub(crate) fn mismatch(&self, kind: Kind, capacity: Option<u32>) -> Option<Error> {
        match (kind, self.kind) {
            (Kind::Semaphore, Kind::Semaphore) => {
                let stored = capacity.filter(|stored| *stored != self.permits)?;
                Some(Error::CapacityMismatch { stored, asked: self.permits })
            }
            (Kind::Semaphore, _) | (_, Kind::Semaphore) => {
                Some(Error::KindMismatch { stored: kind.as_str(), asked: self.kind.as_str() })
            }
            _ => None,
        }
    }

    /// Whether there is room beside holders of weight `ahead`.
    pub(crate) fn has_room(&self, ahead: u32) -> bool {
        ahead.saturating_add(self.weight) <= self.permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_waits_for_everyone_but_readers() {
        let name = Name::new("", "q").unwrap();
        let (from, until) = Rule::READ.behind(&name);
        let waits_for = |key: &str| (from.as_slice()..until.as_slice()).contains(&key.as_bytes());
        assert!(waits_for("q/1f-0"), "a writer, a mutex or a Go client");
        assert!(!waits_for("q/r-1f-0"), "a reader");
        assert!(!Rule::READ.counts_itself());
    }

    #[test]
    fn a_mutex_and_a_writer_wait_for_everyone() {
        let name = Name::new("", "q").unwrap();
        for rule in [Rule::MUTEX, Rule::WRITE] {
            assert_eq!(rule.behind(&name), (b"q/".to_vec(), b"q0".to_vec()));
            assert!(rule.counts_itself());
        }
    }

    #[test]
    fn a_key_without_a_weight_fills_a_semaphore() {
        let rule = Rule::semaphore(4, 1);
        assert!(!rule.has_room(rule.weigh(None)));
        assert!(rule.has_room(rule.weigh(Some(3))));
        assert!(!rule.has_room(rule.weigh(Some(4))));
    }

    #[test]
    fn a_semaphore_shares_its_queue_with_its_like_alone() {
        let semaphore = Rule::semaphore(4, 1);
        for rule in [Rule::MUTEX, Rule::READ, Rule::WRITE, Rule::ELECTION] {
            assert!(matches!(rule.mismatch(Kind::Semaphore, Some(4)), Some(Error::KindMismatch { .. })));
            assert!(matches!(semaphore.mismatch(rule.kind, None), Some(Error::KindMismatch { .. })));
            for kind in [Kind::Mutex, Kind::Read, Kind::Write] {
                assert!(rule.mismatch(kind, None).is_none());
            }
        }
        assert!(semaphore.mismatch(Kind::Semaphore, Some(4)).is_none());
        assert!(semaphore.mismatch(Kind::Semaphore, None).is_none());
        let other = semaphore.mismatch(Kind::Semaphore, Some(5));
        assert!(matches!(other, Some(Error::CapacityMismatch { stored: 5, asked: 4 })));
    }

    #[test]
    fn only_an_exclusive_holder_proves_that_its_elders_are_gone() {
        assert!(Rule::MUTEX.is_exclusive());
        assert!(Rule::WRITE.is_exclusive());
        assert!(!Rule::READ.is_exclusive());
        assert!(!Rule::semaphore(2, 2).is_exclusive());
    }
}
