//! Why a login is refused.

use std::fmt;

/// Why a login is refused. The client learns only that it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is no such user, or the password is wrong.
    WrongCredentials,
    /// Too many logins from the same address have failed lately: this one was not
    /// checked.
    RateLimited,
    /// The time for the request was over before the login could be checked.
    TimedOut,
    /// The client left, or its session was terminated, before the login could be checked.
    ClientLeft,
    /// The system has no memory for the check.
    OutOfMemory,
}

impl fmt::Display for AuthError {
    /// Writes the reason, a clause.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            AuthError::WrongCredentials => "user or password are wrong",
            AuthError::RateLimited => "unheard, as too many have failed from there",
            AuthError::TimedOut => "its turn did not come in time",
            AuthError::ClientLeft => "the client left before its turn came",
            AuthError::OutOfMemory => "this machine has no memory left to check it",
        })
    }
}

impl std::error::Error for AuthError {}
