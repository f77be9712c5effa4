//! A table as text: aligned columns, with a limit on rows and on the width of a cell.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// Rows of a table. More than this no operator reads, and each row takes time and memory.
pub(super) const MAX_ROWS: usize = 1_000;

/// Characters of a cell. The longest IPv6 address with zone and port has 58; a host name has up
/// to 253, and an escaped user name up to 2,050.
const MAX_CELL: usize = 60;

/// In place of the middle of a longer cell, so that the port at its end stays visible.
const CUT: &str = "...";

/// A cell whose value is unknown.
pub(super) const UNKNOWN: &str = "-";

/// Headings and rows of `N` columns.
pub(super) struct Table<const N: usize> {
    lines: Vec<[String; N]>,
    /// What a row is about, in plural.
    about: &'static str,
    hidden: usize,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(about: &'static str, headings: [&str; N]) -> Table<N> {
        Table {
            lines: vec![headings.map(str::to_owned)],
            about,
            hidden: 0,
        }
    }

    /// Adds a row, or counts it if the table is full. Cells must be printable ASCII.
    pub(super) fn add(&mut self, row: impl FnOnce() -> [String; N]) {
        // The first line has the headings.
        if self.lines.len() <= MAX_ROWS {
            self.lines.push(row().map(cut));
        } else {
            self.hidden += 1;
        }
    }

    /// Counts rows that are not shown.
    pub(super) fn hide(&mut self, count: usize) {
        self.hidden += count;
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for line in &self.lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.len().max(*width);
            }
        }
        for (number, line) in self.lines.iter().enumerate() {
            if number > 0 {
                out.write_char('\n')?;
            }
            // Blanks before the next cell, so that no line ends with blanks.
            let mut blanks = 0;
            for (width, cell) in widths.iter().zip(line) {
                write!(out, "{:blanks$}{cell}", "")?;
                blanks = width - cell.len() + 2;
            }
        }
        if self.hidden > 0 {
            write!(out, "\n{} more {} are not shown", self.hidden, self.about)?;
        }
        Ok(())
    }
}

/// The cell, or its first and last characters.
fn cut(cell: String) -> String {
    let part = (MAX_CELL - CUT.len()) / 2;
    // A cell is ASCII, so each index is between two characters.
    let parts = cell
        .get(..part)
        .zip(cell.get(cell.len().saturating_sub(part)..));
    match parts {
        Some((first, last)) if cell.len() > MAX_CELL => format!("{first}{CUT}{last}"),
        _ => cell,
    }
}

/// A duration in its largest unit, rounded down: `59s`, `2m`, `5h`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = Duration::from_secs(duration.as_secs());
    let shown = humantime::format_duration(seconds).to_string();
    shown.split(' ').next().unwrap_or(UNKNOWN).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o17_the_columns_are_aligned_whatever_a_cell_contains() {
        let mut table = Table::new("things", ["NAME", "TARGET", "AGE"]);
        let long = format!("{}.example:65535", "a".repeat(200));
        for target in ["-", "\"a b\":1", &long] {
            table.add(|| ["s1", target, "2m"].map(str::to_owned));
        }
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let [headings, ..] = *lines else {
            panic!("{text}");
        };
        for line in &lines[1..] {
            assert_eq!(line.find("2m"), headings.find("AGE"), "{text}");
            assert!(line.len() < 80, "{text}");
        }
        assert!(lines[3].contains("aaa...aaa"), "{text}");
        assert!(lines[3].contains(".example:65535  2m"), "{text}");
    }

    #[test]
    fn o17_rows_above_the_limit_are_counted() {
        let mut table = Table::new("things", ["NUMBER"]);
        for number in 0..MAX_ROWS + 7 {
            table.add(|| [number.to_string()]);
        }
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), MAX_ROWS + 2);
        assert_eq!(lines[MAX_ROWS..], ["999", "7 more things are not shown"]);
    }

    #[test]
    fn o17_a_duration_is_shown_in_one_unit() {
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (179, "2m"), (7300, "2h")] {
            assert_eq!(short(Duration::from_millis(seconds * 1000 + 999)), shown);
        }
    }
}
