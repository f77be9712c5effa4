//! Why the program fails, and its exit statuses.

use std::error::Error;
use std::fmt::{self, Display};

/// A failure, such as a port in use or a file that cannot be read.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line, the rules or the users are invalid.
pub(crate) const EXIT_INVALID: u8 = 2;
/// `--explain`: the rules deny the request.
pub(crate) const EXIT_DENIED: u8 = 3;
/// `run`: there is no program that runs others, as env(1) says that it cannot execute one.
pub(crate) const EXIT_CANNOT_RUN: u8 = 126;
/// After a second signal: the status that shells report of a program that SIGINT ended (128 + 2).
pub(crate) const EXIT_FORCED: u8 = 130;

/// Why the program fails: its exit status, and the lines for stderr.
#[derive(Debug)]
pub(crate) struct ProgramError {
    pub(crate) status: u8,
    pub(crate) lines: Vec<String>,
}

impl ProgramError {
    pub(crate) fn new(status: u8, line: impl Display) -> ProgramError {
        let lines = vec![line.to_string()];
        ProgramError { status, lines }
    }
}

impl Display for ProgramError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

impl Error for ProgramError {}
