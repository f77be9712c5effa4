//! The page as plain text, for curl and for people without a browser.
//!
//! `host:port | ` stands before each line of a shell, `host:port # ` before its
//! status, `# ` before the sum.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::board::{Board, Standing};
use crate::run::Page;
use crate::terminal::Piece;

/// How long a column may write no line before its clock is written. A web server
/// gives up a program that is silent for much longer than ten seconds; time is
/// looked at once a second.
const HEARTBEAT: Duration = Duration::from_secs(9);

/// Bytes of a line that are kept until it ends; longer ones are broken.
const MAX_LINE: usize = 16 * 1024;

/// Lines, each of one column.
#[derive(Debug, Default)]
pub(crate) struct TextPage {
    text: String,
    /// For each column the line that has not ended yet.
    lines: Vec<String>,
    /// For each column the time of its last line.
    spoken: Vec<Duration>,
}

impl TextPage {
    fn line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    /// Adds to a column's line, and writes what has become complete.
    fn add(&mut self, standing: &Standing, index: usize, text: &str) {
        let Some(line) = self.lines.get_mut(index) else {
            return;
        };
        let mut unfinished = std::mem::take(line);
        for part in text.split_inclusive('\n') {
            unfinished.push_str(part);
            if unfinished.ends_with('\n') || unfinished.len() > MAX_LINE {
                let complete = unfinished.strip_suffix('\n').unwrap_or(&unfinished);
                self.line(format_args!("{} | {complete}", standing.title));
                unfinished.clear();
                self.has_spoken(standing, index);
            }
        }
        if let Some(line) = self.lines.get_mut(index) {
            *line = unfinished;
        }
    }

    /// A line about the column itself.
    fn speak_of(&mut self, standing: &Standing, index: usize) {
        let Standing { title, state, .. } = standing;
        let progress = standing.progress();
        match progress.is_empty() {
            true => self.line(format_args!("{title} # {state}")),
            false => self.line(format_args!("{title} # {state}, {progress}")),
        }
        self.has_spoken(standing, index);
    }

    fn has_spoken(&mut self, standing: &Standing, index: usize) {
        if let Some(spoken) = self.spoken.get_mut(index) {
            *spoken = standing.elapsed;
        }
    }
}

impl Page for TextPage {
    fn begin(&mut self, board: &Board) {
        self.lines = vec![String::new(); board.standings.len()];
        self.spoken = vec![Duration::ZERO; board.standings.len()];
        for standing in &board.standings {
            let Standing {
                title, file, socks, ..
            } = standing;
            self.line(format_args!("{title} # {file} through {socks}"));
        }
    }

    fn status(&mut self, standing: &Standing, index: usize) {
        if standing.has_ended() && self.lines.get(index).is_some_and(|line| !line.is_empty()) {
            self.add(standing, index, "\n");
        }
        self.speak_of(standing, index);
    }

    fn output(&mut self, standing: &Standing, index: usize, pieces: &[Piece]) {
        for piece in pieces {
            self.add(standing, index, &piece.text);
        }
    }

    fn command(&mut self, standing: &Standing, index: usize, line: &str, _is_added: bool) {
        self.add(standing, index, line);
        self.add(standing, index, "\n");
    }

    fn tick(&mut self, board: &Board) {
        for (index, standing) in board.standings.iter().enumerate() {
            let spoken = self.spoken.get(index).copied().unwrap_or_default();
            if !standing.has_ended() && standing.elapsed.saturating_sub(spoken) >= HEARTBEAT {
                self.speak_of(standing, index);
            }
        }
    }

    fn end(&mut self, board: &Board) {
        self.line(format_args!("# {board}"));
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn pending(&self) -> usize {
        self.text.len()
    }
}
