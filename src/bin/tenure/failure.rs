//! What ends the command, and the exit code that says so.

use std::fmt;
use std::io;

use tenure::{Error, etcd_client};

pub(crate) const OTHER: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNREACHABLE: u8 = 69;
pub(crate) const NOT_FREE: u8 = 124;
pub(crate) const LOST: u8 = 125;
pub(crate) const NOT_EXECUTABLE: u8 = 126;
pub(crate) const NOT_FOUND: u8 = 127;
/// To which the number of a signal is added.
pub(crate) const SIGNALLED: u8 = 128;

/// Why there is nothing more to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// An error of the crate's, about a name.
    pub(crate) fn of(name: &str, error: &Error) -> Self {
        let code = match error {
            Error::InvalidName { .. } | Error::InvalidOption { .. } => USAGE,
            Error::Lost(_) => LOST,
            Error::Unknown => UNREACHABLE,
            Error::Etcd { code, .. } => code_of(*code),
            _ => OTHER,
        };
        match error {
            Error::InvalidName { .. } | Error::InvalidOption { .. } => Self::new(code, error),
            _ => Self::new(code, format_args!("{name}: {error}")),
        }
    }

    /// An error of the client's, about the cluster.
    pub(crate) fn of_client(endpoints: &[String], error: &etcd_client::Error) -> Self {
        let code = match error {
            etcd_client::Error::GRpcStatus(status) => code_of(status.code().into()),
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => USAGE,
            _ => UNREACHABLE,
        };
        let message = match error {
            etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        Self::new(code, format_args!("etcd at {}: {message}", endpoints.join(", ")))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(OTHER, error)
    }
}

/// By the gRPC status code of a failed call.
fn code_of(status: i32) -> u8 {
    const CANCELLED: i32 = 1;
    const UNKNOWN: i32 = 2;
    const DEADLINE_EXCEEDED: i32 = 4;
    const UNAVAILABLE: i32 = 14;
    match status {
        CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | UNAVAILABLE => UNREACHABLE,
        _ => OTHER,
    }
}
