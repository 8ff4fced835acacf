//! What is known of a key's end.

/// What etcd has said to the deletion of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// Nothing yet.
    Open,
    /// As `Open`, and a request may have deleted the key unheard.
    Unheard,
    Confirmed,
    /// There was no key to delete.
    NoKey,
}

impl Departure {
    pub(super) fn is_answered(self) -> bool {
        matches!(self, Self::Confirmed | Self::NoKey)
    }

    pub(super) fn confirm(&mut self, deleted: i64) {
        *self = match self {
            Self::Open if deleted == 0 => Self::NoKey,
            Self::NoKey => Self::NoKey,
            _ => Self::Confirmed,
        };
    }

    pub(super) fn lose(&mut self) {
        if !self.is_answered() {
            *self = Self::Unheard;
        }
    }
}

/// Whether the owner of a hold deletes the key by a request of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resignation {
    None,
    /// It may have, and whatever comes of it, the hold has ended: should the key go, the reply will tell why.
    Sent,
    Done,
}
