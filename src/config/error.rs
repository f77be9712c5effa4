//! Why a file cannot be used: it cannot be read, or lines of it are invalid.

use std::fmt;
use std::io;
use std::path::Path;

use nix::unistd::geteuid;

/// Errors that are reported for one file: more than an operator corrects at once. The bound
/// keeps the work for a file with millions of invalid lines small.
pub const MAX_ERRORS: usize = 20;

/// One invalid line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// A sentence that states the error and the correct form.
    pub reason: String,
}

impl fmt::Display for SyntaxError {
    /// Writes `LINE: reason`; the caller writes the file's name and a colon before it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.reason)
    }
}

impl std::error::Error for SyntaxError {}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file could not be read; the reason as a sentence.
    Unreadable(String),
    /// Too little memory is left for the content; a sentence with the numbers.
    NoMemory(String),
    /// The file was read and has these errors, at least one.
    Syntax(Vec<SyntaxError>),
}

impl LoadError {
    /// One line per reason. Each begins with the file's name and, for an invalid line, its
    /// number.
    pub fn describe(&self, path: &Path) -> Vec<String> {
        let path = path.display();
        match self {
            LoadError::Unreadable(reason) | LoadError::NoMemory(reason) => {
                vec![format!("{path}: {reason}")]
            }
            LoadError::Syntax(errors) => {
                let line = |error: &SyntaxError| format!("{path}:{error}");
                let mut lines: Vec<String> = errors.iter().map(line).collect();
                if errors.len() == MAX_ERRORS {
                    lines.push(format!("{path}: there may be more errors after these"));
                }
                lines
            }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Unreadable(reason) | LoadError::NoMemory(reason) => out.write_str(reason),
            LoadError::Syntax(errors) => match errors.first() {
                Some(first) => write!(out, "line {first}"),
                None => out.write_str("it has errors"),
            },
        }
    }
}

impl std::error::Error for LoadError {}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        LoadError::Unreadable(match error.kind() {
            // By its number: the name of a user may come from a server on the network.
            io::ErrorKind::PermissionDenied => {
                format!("{error}; this process runs with user id {}", geteuid())
            }
            _ => error.to_string(),
        })
    }
}
