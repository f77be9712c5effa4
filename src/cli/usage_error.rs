//! The error of an invalid command line.

use std::fmt;

/// An invalid command line, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub(super) String);

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (see --help)", self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

impl From<String> for UsageError {
    fn from(reason: String) -> UsageError {
        UsageError(reason)
    }
}
