//! What can go wrong, and what to do about it.

use std::io;
use std::process::ExitStatus;

use super::LIMIT;

/// What can go wrong with an etcd of one's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no etcd to run.
    #[error("no etcd found: {looked}; {advice}")]
    NotInstalled {
        /// Where it was looked for.
        looked: String,
        /// What to install or set. A field, so that `unwrap` prints it.
        advice: &'static str,
    },
    /// A member ended by itself.
    #[error("etcd member {member} ended by itself ({status}); the end of its log:\n{log}")]
    Exited {
        /// Which member.
        member: usize,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A member was to be paused, say, after it had been killed or stopped.
    #[error("etcd member {member} is not running")]
    NotRunning {
        /// Which member.
        member: usize,
    },
    /// A condition was waited for in vain.
    #[error("waited {LIMIT:?} in vain {what}; the end of the log:\n{log}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The last lines of the log, of one member or of each.
        log: String,
    },
    /// No series of a member's metrics fits.
    #[error("etcd member {member} has no metric `{name}` with the label `{label}`")]
    NoMetric {
        /// Which member.
        member: usize,
        /// The name that was looked for.
        name: String,
        /// The label text that was looked for.
        label: String,
    },
    /// The operating system or the connection failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// For `map_err`: names what failed.
pub(super) fn io_error(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Io { what: what(), source }
}
