//! Why a login is refused.

use std::fmt;

use crate::words::words;

/// Why a login is refused. The client learns only that it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is no such user, or the password is wrong.
    WrongCredentials,
    /// Too many logins from the same address, or of the same user name there, have failed
    /// lately: this one was not checked.
    RateLimited,
    /// The time for the request was over before the login could be checked.
    TimedOut,
    /// The client left, or its session was terminated, before the login could be checked.
    ClientLeft,
    /// The system has no memory for the check.
    OutOfMemory,
}

words! {
    /// The reason in one word, for programs that read the log. These words do not change.
    AuthError {
        AuthError::WrongCredentials => "wrong",
        AuthError::RateLimited => "throttled",
        AuthError::TimedOut => "too_late",
        AuthError::ClientLeft => "left",
        AuthError::OutOfMemory => "no_memory",
    }
}

impl fmt::Display for AuthError {
    /// Writes the reason, a clause.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            AuthError::WrongCredentials => "unknown user or wrong password",
            AuthError::RateLimited => "not checked: too many failed logins from this address",
            AuthError::TimedOut => "not checked within the handshake timeout",
            AuthError::ClientLeft => "the client disconnected before the login was checked",
            AuthError::OutOfMemory => "this machine has no memory left to check the password",
        })
    }
}

impl std::error::Error for AuthError {}
