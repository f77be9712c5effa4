//! The failure of a row: its reason, and what the user can do next.

use std::fmt;

/// Why a row cannot run, or why its session has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// A phrase for a status line, without a full stop.
    pub(crate) reason: String,
    /// One or more sentences.
    pub(crate) next_step: String,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>, next_step: impl Into<String>) -> Failure {
        Failure {
            reason: reason.into(),
            next_step: next_step.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}. {}", self.reason, self.next_step)
    }
}

impl std::error::Error for Failure {}
