//! What can go wrong, in terms that a caller can act on; and which failures of a call are worth another try.

use std::fmt;

use crate::etcd_client;

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of this crate failed.
///
/// Its text says all that there is to say; [`source`](std::error::Error::source) has nothing to add, so that printing
/// a chain of causes does not repeat it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The hold has ended; nothing was done in its name.
    Lost(Loss),

    /// The session was closed, by [`Session::close`](crate::Session::close) on this handle or a clone, or with the
    /// runtime in which it was opened.
    Closed,

    /// The request may or may not have taken effect: the connection broke, or the time limit passed, before
    /// etcd answered.
    Unknown,

    /// A name that cannot be locked or contested. Nothing was sent.
    InvalidName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An option whose value cannot be used. Nothing was sent.
    InvalidOption {
        /// The option, by the name of its method or parameter.
        option: &'static str,
        /// What is wrong with its value.
        reason: String,
    },

    /// The name is in use by another kind of lock, and the two cannot share it: a semaphore, where anything else was
    /// asked for, or anything else where a semaphore was.
    KindMismatch {
        /// The kind that stands there, such as `semaphore`.
        stored: &'static str,
        /// The kind that was asked for.
        asked: &'static str,
    },

    /// The semaphore of that name is in use with another number of permits.
    CapacityMismatch {
        /// The number of those who use it.
        stored: u32,
        /// The number that was asked for.
        asked: u32,
    },

    /// Nobody of that identity stands in the election, apart from the leader itself.
    NotACandidate {
        /// The identity as given.
        identity: String,
    },

    /// A candidate that would have to give way does not answer: another client's, one whose process is gone, or one
    /// that does not wait.
    CannotBeAsked {
        /// The candidate's identity, or for another client's the last part of its key.
        identity: String,
    },

    /// etcd refused the request, or could not be reached.
    Etcd {
        /// The gRPC status code, such as 7 for permission denied or 14 for unavailable; 2, unknown, where the
        /// failure has none.
        code: i32,
        /// What etcd, or the connection to it, said.
        message: String,
        /// The client's own error, where there is one.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(loss) => write!(f, "the hold is lost: {loss}"),
            Self::Closed => write!(f, "the session is closed"),
            Self::Unknown => write!(f, "the outcome is unknown: etcd did not answer"),
            Self::InvalidName { name, reason } => write!(f, "invalid name {name:?}: {reason}"),
            Self::InvalidOption { option, reason } => write!(f, "invalid option `{option}`: {reason}"),
            Self::KindMismatch { stored, asked } => {
                write!(f, "the name is in use by another kind of lock: {stored} instead of {asked}")
            }
            Self::CapacityMismatch { stored, asked } => {
                write!(f, "the semaphore is in use with another number of permits: {stored} instead of {asked}")
            }
            Self::NotACandidate { identity } => write!(f, "{identity:?} is not a candidate"),
            Self::CannotBeAsked { identity } => write!(f, "candidate {identity:?} cannot be asked to give way"),
            Self::Etcd { message, .. } => write!(f, "etcd: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Loss> for Error {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss)
    }
}

/// Why a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The deadline passed without an acknowledged renewal.
    #[error("the lease was not renewed before its deadline")]
    Expired,
    /// etcd no longer knows the lease: an operator revoked it.
    #[error("the lease was revoked")]
    Revoked,
    /// The key of the hold was deleted by someone else; the lease is alive.
    #[error("the key was deleted")]
    Deleted,
    /// The session was closed.
    #[error("the session was closed")]
    Closed,
    /// The hold was given back by its owner.
    #[error("the hold was released")]
    Released,
}

/// The gRPC status codes that decide something here.
pub(crate) mod code {
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const NOT_FOUND: i32 = 5;
    pub(crate) const PERMISSION_DENIED: i32 = 7;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const OUT_OF_RANGE: i32 = 11;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
    pub(crate) const UNAVAILABLE: i32 = 14;
    pub(crate) const UNAUTHENTICATED: i32 = 16;
}

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It took no effect: send it again, elsewhere.
    Again,
    /// It may have taken effect: send it again only if that is harmless.
    Unknown,
    /// The token has expired: fetch a new one, then again.
    Reauthenticate,
    /// The lease that the request names does not exist.
    NoLease,
    /// There is no space left, or too much is being asked of the server: nothing was done, a delete may still pass.
    Exhausted,
    /// It will not pass however often it is sent.
    Never,
}

/// Judges a failed call by its gRPC status. A connection that breaks reports `Unknown`, a time limit `Cancelled`,
/// so whatever is not known to be harmless counts as ambiguous.
pub(crate) fn verdict(error: &etcd_client::Error) -> Verdict {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return match error {
            // The client's one error for a lease that is gone and for a stream that broke.
            etcd_client::Error::LeaseKeepAliveError(why) if why == "lease not found" => Verdict::NoLease,
            etcd_client::Error::LeaseKeepAliveError(_)
            | etcd_client::Error::WatchError(_)
            | etcd_client::Error::IoError(_)
            | etcd_client::Error::TransportError(_) => Verdict::Unknown,
            _ => Verdict::Never,
        };
    };
    let message = status.message();
    match i32::from(status.code()) {
        code::UNAUTHENTICATED => Verdict::Reauthenticate,
        code::UNKNOWN | code::INVALID_ARGUMENT if is_stale_token(message) => Verdict::Reauthenticate,
        code::UNAVAILABLE if message.contains("tcp connect error") || message.contains("no leader") => Verdict::Again,
        code::OUT_OF_RANGE => Verdict::Again,
        code::NOT_FOUND if message.contains("lease not found") => Verdict::NoLease,
        code::RESOURCE_EXHAUSTED if message.contains("etcdserver") => Verdict::Exhausted,
        code::INVALID_ARGUMENT
        | code::NOT_FOUND
        | code::PERMISSION_DENIED
        | code::FAILED_PRECONDITION
        | code::UNIMPLEMENTED => Verdict::Never,
        _ => Verdict::Unknown,
    }
}

/// Whether etcd's text, in a status or in the reason of a cancelled watch, asks for a new token.
pub(crate) fn is_stale_token(message: &str) -> bool {
    message.contains("invalid auth token") || message.contains("revision of auth store is old")
}

/// Whether a lease was not granted because it was granted before.
pub(crate) fn is_granted_before(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("lease already exists"))
}

impl Error {
    /// A call that failed; `None` if its time limit passed.
    pub(crate) fn failed(error: Option<etcd_client::Error>) -> Self {
        match error {
            Some(error) if verdict(&error) != Verdict::Unknown => Self::etcd(error),
            _ => Self::Unknown,
        }
    }

    /// A failure in etcd's, or the client's, own words.
    pub(crate) fn etcd(error: etcd_client::Error) -> Self {
        let (code, message) = match &error {
            etcd_client::Error::GRpcStatus(status) => (i32::from(status.code()), status.message().to_owned()),
            other => (code::UNKNOWN, other.to_string()),
        };
        Self::Etcd { code, message, source: Box::new(error) }
    }

    /// A failure in words of ours.
    pub(crate) fn told(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Etcd { code, source: message.clone().into(), message }
    }
}
