//! The run page as plain text, for curl and other programs without HTML.
//!
//! `host:port | ` precedes each line of a shell, `host:port # ` each status line, and
//! `# ` the summary. The last line tells the outcome: `# OK 5 of 5` or `# FAILED 2 of 5`.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::run::{HEARTBEAT_INTERVAL, Page};
use crate::status::{ColumnStatus, RunStatus};
use crate::terminal::Piece;

/// Maximum length in bytes of a line that is buffered until its end. A longer line is
/// broken, which bounds memory use.
const MAX_LINE_LENGTH: usize = 16 * 1024;

/// The page as lines, each of which belongs to one column.
#[derive(Debug, Default)]
pub(crate) struct TextPage {
    /// Text that was not written to stdout yet.
    text: String,
    /// For each column the start of a line that has not ended yet.
    partial_lines: Vec<String>,
    /// For each column the elapsed time at its last line.
    last_line_at: Vec<Duration>,
}

impl TextPage {
    /// Removes and returns the text that was not written yet.
    pub(crate) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Writes one complete line.
    fn write_line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    /// Appends text to the partial line of a column, and writes the completed lines.
    fn append(&mut self, column: &ColumnStatus, index: usize, text: &str) {
        let Some(line) = self.partial_lines.get_mut(index) else {
            return;
        };
        let mut unfinished = std::mem::take(line);
        for part in text.split_inclusive('\n') {
            unfinished.push_str(part);
            if unfinished.ends_with('\n') || unfinished.len() > MAX_LINE_LENGTH {
                let complete = unfinished.strip_suffix('\n').unwrap_or(&unfinished);
                self.write_line(format_args!("{} | {complete}", column.title));
                unfinished.clear();
                self.record_line(column, index);
            }
        }
        if let Some(line) = self.partial_lines.get_mut(index) {
            *line = unfinished;
        }
    }

    /// Writes a line with state and progress of a column.
    fn write_status(&mut self, column: &ColumnStatus, index: usize) {
        let title = &column.title;
        let state = column.state_text();
        let progress = column.progress();
        match progress.is_empty() {
            true => self.write_line(format_args!("{title} # {state}")),
            false => self.write_line(format_args!("{title} # {state}, {progress}")),
        }
        if let Some(next_step) = column.next_step() {
            self.write_line(format_args!("{title} # next: {next_step}"));
        }
        self.record_line(column, index);
    }

    /// Restarts the heartbeat interval of a column.
    fn record_line(&mut self, column: &ColumnStatus, index: usize) {
        if let Some(last_line_at) = self.last_line_at.get_mut(index) {
            *last_line_at = column.elapsed;
        }
    }
}

impl Page for TextPage {
    fn begin(&mut self, run: &RunStatus) {
        self.partial_lines = vec![String::new(); run.columns.len()];
        self.last_line_at = vec![Duration::ZERO; run.columns.len()];
        for column in &run.columns {
            let ColumnStatus {
                title, file, route, ..
            } = column;
            self.write_line(format_args!("{title} # {file} {route}"));
        }
    }

    fn status(&mut self, column: &ColumnStatus, index: usize) {
        if column.has_ended()
            && self
                .partial_lines
                .get(index)
                .is_some_and(|line| !line.is_empty())
        {
            self.append(column, index, "\n");
        }
        self.write_status(column, index);
    }

    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        for piece in pieces {
            self.append(column, index, &piece.text);
        }
    }

    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, _is_added: bool) {
        self.append(column, index, line);
        self.append(column, index, "\n");
    }

    fn tick(&mut self, run: &RunStatus) {
        for (index, column) in run.columns.iter().enumerate() {
            let last_line_at = self.last_line_at.get(index).copied().unwrap_or_default();
            if !column.has_ended()
                && column.elapsed.saturating_sub(last_line_at) >= HEARTBEAT_INTERVAL
            {
                self.write_status(column, index);
            }
        }
    }

    fn end(&mut self, run: &RunStatus) {
        self.write_line(format_args!("# {run}"));
        self.write_line(format_args!("# {}", run.outcome_text()));
    }

    fn take(&mut self, _run: &RunStatus) -> String {
        self.take_text()
    }

    fn pending_bytes(&self) -> usize {
        self.text.len()
    }
}
