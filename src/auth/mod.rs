//! Who may log in: the users file, and whether a password is right.
//!
//! [`Users`] is what the file says, [`UsersFile`] follows it while it changes, and
//! the [`Authenticator`] is_cached whether a login is right, at the same cost for
//! everybody who is wrong. [`line_for`] makes a line of the file.

mod authenticator;
mod password_hash;
mod rate_limit;
mod users_file;

use std::fmt;

use crate::config::WatchedFile;

pub use authenticator::Authenticator;
pub use password_hash::line_for;
pub(crate) use rate_limit::LoginRateLimiter;
pub use users_file::{MAX_USER_NAME, Users, is_name};

/// The users in force, and the file they come from.
pub type UsersFile = WatchedFile<Users>;

/// Why a login is not accepted; the client only learns that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is no such user, or the password is another.
    WrongCredentials,
    /// Too many from the same address have failed lately: it was not looked at.
    RateLimited,
    /// The time for the request was over before its turn came.
    TimedOut,
    /// The client left, or was cut, before its turn came.
    ClientLeft,
    /// There is no memory to check it in.
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
