//! What is said between a place and whoever drives it: plain data.

use crate::name::{Key, Revision};

/// What the caller should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give it a fresh key under a living lease, by [`Place::seat`](super::Place::seat).
    Seat,
    /// If the fence stands and the key is absent put it; and list whom it waits for.
    Enter,
    /// As `Enter`, and only if no key of those it waits for is younger than `known`; else list them.
    Try { known: Revision },
    /// List whom it would wait for.
    Probe { limit: Option<usize> },
    /// Read its own key and list whom it waits for, newest first, older than its own key.
    Look { limit: Option<usize> },
    /// Read its own key, those of its elders in view, and the mark: all that a look need be where the queue is deep.
    Glance,
    /// Delete the key and, with `fence`, void every `Enter` and `Try` still travelling. Set the
    /// [mark](super::Place::mark), if there is one.
    Leave { fence: bool },
    /// Nothing, until one of the keys that it watches changes.
    Wait,
    /// Nothing, ever: the key is gone and will not come back.
    Stop(End),
}

/// How a place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was given up: released, cancelled, dropped.
    Left,
    /// A try found the queue not free.
    NotFree,
    /// It held, and its key was deleted by someone else.
    KeyGone,
    /// It held, and its lease was lost.
    LeaseLost,
}

/// What the caller saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The key stands, created by this request or by an earlier one of the same place.
    Entered {
        created: Revision,
        listing: Listing,
    },
    /// The try found younger keys, and put nothing.
    Occupied(Listing),
    Probed(Listing),
    Looked {
        own: Option<Revision>,
        listing: Listing,
    },
    /// What a glance found: of the elders in view, those that stand.
    Glanced {
        own: Option<Revision>,
        revision: Revision,
        elders: Vec<Elder>,
        mark: Option<Revision>,
    },
    /// The key does not exist any more.
    Left,
    /// The fence moved after the request was made; nothing was put.
    Fenced,
    /// The mark may not be read, or neither it nor the fence may be written, for want of space or of permission;
    /// nothing was deleted.
    Refused,
    /// The outcome of the last request is unknown.
    Unknown,
    /// Deletions of `key` after `from` will be reported.
    Covered {
        key: Key,
        from: Revision,
    },
    /// `key` was deleted at `at`.
    Deleted {
        key: Key,
        at: Revision,
    },
    /// The watches broke: deletions may have been missed.
    Broken,
    /// A guard that held under `lease` is handed over in memory; its deletion will follow.
    Handed {
        key: Key,
        created: Revision,
        lease: i64,
        exclusive: bool,
    },
    /// The lease of the key is lost.
    LeaseLost,
}

/// Keys that a place waits for, as one reply listed them: direct children only, the place's own left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) revision: Revision,
    pub(crate) elders: Vec<Elder>,
    /// The limit cut the list short.
    pub(crate) more: bool,
    /// Keys that are not direct children took up some of the limit.
    pub(crate) nested: bool,
    /// So many stand in the queue that a list is dear.
    pub(crate) deep: bool,
}

/// Somebody else's key in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elder {
    pub(crate) key: Key,
    pub(crate) created: Revision,
    pub(crate) lease: i64,
    pub(crate) weight: Option<u32>,
}

/// Whether a place waits for its turn or wants it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Try,
    /// Like `Try`, where the queue is believed not to be empty: a look before the attempt spares the server a
    /// compare over the whole queue.
    TryAfterLook,
}
