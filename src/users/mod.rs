//! Who may log in: the users file, and whether a password is right.
//!
//! [`Users`] is what the file says, [`Userbook`] follows it while it changes, and
//! the [`Doorkeeper`] knows whether a login is right, at the same cost for
//! everybody who is wrong. [`line_for`] makes a line of the file.

mod doorkeeper;
mod file;
mod hash;

use std::fmt;

use crate::book::Book;

pub use doorkeeper::Doorkeeper;
pub use file::{LONGEST_NAME, Users, is_name};
pub use hash::line_for;

/// The users in force, and the file they come from.
pub type Userbook = Book<Users>;

/// Why a login is not accepted; the client only learns that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    /// There is no such user, or the password is another.
    Wrong,
    /// Too many from the same address have failed lately: it was not looked at.
    TooManyFailures,
    /// The time for the request was over before its turn came.
    TooLate,
    /// The client left, or was cut, before its turn came.
    Left,
    /// There is no memory to check it in.
    NoMemory,
}

impl fmt::Display for NoEntry {
    /// Writes the reason, a clause.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NoEntry::Wrong => "user or password are wrong",
            NoEntry::TooManyFailures => "unheard, as too many have failed from there",
            NoEntry::TooLate => "its turn did not come in time",
            NoEntry::Left => "the client left before its turn came",
            NoEntry::NoMemory => "this machine has no memory left to check it",
        })
    }
}
