//! Where a place stands, and what it knows there: plain data.

use super::{Elder, End};
use crate::name::{Key, Revision};

#[derive(Debug)]
pub(super) enum State {
    /// Without a key.
    Outside,
    Entering,
    Probing {
        left: u8,
        reach: Reach,
    },
    Trying {
        left: u8,
        known: Revision,
    },
    Waiting(Standing),
    Holding(Standing),
    Leaving {
        then: Then,
        way: Way,
    },
    Gone(End),
}

/// How far a list has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Window,
    /// Nested keys hide the direct ones.
    Everyone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Enter,
    Stop(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Fenced,
    /// The fence cannot be rewritten now: the key goes first.
    Plain,
}

/// What a place with a key knows.
#[derive(Debug)]
pub(super) struct Standing {
    /// The create revision of its key: the fencing token.
    pub(super) created: Revision,
    /// The revision of the last reply that showed its key.
    pub(super) seen: Revision,
    /// The newest whom it waits for, as far as its rule keeps them in view, not known to be gone.
    pub(super) elders: Vec<Elder>,
    /// There are no others.
    pub(super) complete: bool,
    /// Elders known to be gone, whom a late reply may still list.
    pub(super) gone: Vec<(Key, Revision)>,
    /// The keys that were put under watch, each with the revision after which its deletion will be reported.
    pub(super) covered: Covered,
    /// A look is due that shows this revision or a later one.
    pub(super) due: Option<Revision>,
    pub(super) reach: Reach,
    /// The queue was deep when it was listed: glances are worth their while.
    pub(super) deep: bool,
    /// A glance did not suffice.
    pub(super) glanced: bool,
    /// An elder was handed over in memory: its key may outlive the hold.
    pub(super) handed: bool,
}

/// Revisions by key, in order: two or three of them, as a rule.
#[derive(Debug, Default)]
pub(super) struct Covered(Vec<(Key, Revision)>);

impl Covered {
    pub(super) fn get(&self, key: &Key) -> Option<Revision> {
        self.find(key).ok().map(|at| self.0[at].1)
    }

    pub(super) fn insert(&mut self, key: Key, from: Revision) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = from,
            Err(at) => self.0.insert(at, (key, from)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn find(&self, key: &Key) -> Result<usize, usize> {
        self.0.binary_search_by(|(covered, _)| covered.cmp(key))
    }
}
