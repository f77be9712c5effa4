//! Lines on stderr, with their priority if they go to the journal.

use std::fmt;

use super::format::counted;
use super::writer::{MessageWriter, WriteResult};
use crate::events::Level;

/// stderr, which has lines of their own for lines that are lost.
pub(super) struct Diagnostics {
    writer: MessageWriter,
    has_priorities: bool,
}

impl Diagnostics {
    pub(super) fn new(writer: MessageWriter, has_priorities: bool) -> Diagnostics {
        Diagnostics {
            writer,
            has_priorities,
        }
    }

    /// Writes one line; false if it is lost. The next line that is not lost comes after a line
    /// that says how many were.
    pub(super) fn print(&mut self, level: Level, line: &dyn fmt::Display) -> bool {
        let notice = match self.writer.lost() {
            0 => String::new(),
            lost => {
                let lost = format!("stderr: {} lost here", counted(lost, "line"));
                self.whole_line(Level::Warning, &lost)
            }
        };
        let line = self.whole_line(level, line);
        match self.writer.write(&format!("{notice}{line}")) {
            WriteResult::Written(_) => true,
            WriteResult::Partial(_) => {
                self.writer.set_lost(0);
                true
            }
            WriteResult::Lost(_) => false,
        }
    }

    fn whole_line(&self, level: Level, line: &dyn fmt::Display) -> String {
        let prefix = level.prefix(self.has_priorities);
        format!("{prefix}threadsocks: {line}\n")
    }

    /// How many lines stderr itself has lost cannot be reported any more.
    pub(super) fn close(self) {
        self.writer.close();
    }
}
