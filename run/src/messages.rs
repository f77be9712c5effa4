//! Lines on stderr: what cannot go through the server, and why a request fails.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// How many different lines are remembered; from then on each line is printed.
const REMEMBERED: usize = 1_000;

/// Prints each line once: a program that tries again and again would fill the terminal. Its lock
/// is a leaf, and held while nothing is printed.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    printed: Mutex<HashSet<String>>,
}

impl Messages {
    /// Prints a line, unless it was printed before.
    pub(crate) fn say(&self, line: &str) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.len() < REMEMBERED && !printed.insert(line.to_owned()) {
            return;
        }
        drop(printed);
        say(line);
    }
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    // In one write, so that the program's own output does not divide it. If stderr is closed,
    // there is no other place to report to.
    let _ = io::stderr().write_all(format!("threadsocks-run: {line}\n").as_bytes());
}
