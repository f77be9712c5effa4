//! A page that is also written to the file of a kept run, as plain text.

use std::time::SystemTime;

use crate::kept_runs::{MAX_RUN_SIZE, RunFile};
use crate::run::Page;
use crate::status::{ColumnStatus, RunStatus};
use crate::terminal::Piece;
use crate::text::TextPage;

/// The start of the first line of a kept run's file, before the time of the start.
pub(crate) const TIME_LINE: &str = "# threadsocks console, ";

/// The start of the second line, before the user or the address of the client.
pub(crate) const WHO_LINE: &str = "# by ";

/// The start of the third line, before the query of the run.
pub(crate) const ROWS_LINE: &str = "# rows ";

/// The first three lines of a kept run. `who` has no control characters, and `rows` is an
/// encoded query.
pub(crate) fn first_lines(who: &str, rows: &str) -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("{TIME_LINE}{time}\n{WHO_LINE}{who}\n{ROWS_LINE}{rows}\n")
}

/// Forwards all events to a page and to a record of it.
pub(crate) struct RecordedPage {
    page: Box<dyn Page>,
    record: TextPage,
    file: RunFile,
    /// Output was left out because the file is full.
    is_cut: bool,
}

impl RecordedPage {
    /// Records a page in this file, which begins with [`first_lines`].
    pub(crate) fn new(page: Box<dyn Page>, file: RunFile) -> Self {
        RecordedPage {
            page,
            record: TextPage::default(),
            file,
            is_cut: false,
        }
    }

    /// Writes the new lines of the record to the file.
    fn save(&mut self) {
        let text = self.record.take_text();
        if !text.is_empty() {
            self.file.write(&text);
        }
    }

    /// Reports whether the file has space for output. Sets `is_cut` if it has none.
    fn has_space(&mut self) -> bool {
        self.is_cut |= self.file.is_full();
        !self.is_cut
    }
}

impl Page for RecordedPage {
    fn begin(&mut self, run: &RunStatus) {
        self.page.begin(run);
        self.record.begin(run);
    }

    fn status(&mut self, column: &ColumnStatus, index: usize) {
        self.page.status(column, index);
        self.record.status(column, index);
    }

    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        self.page.output(column, index, pieces);
        if self.has_space() {
            self.record.output(column, index, pieces);
        }
    }

    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, is_added: bool) {
        self.page.command(column, index, line, is_added);
        if self.has_space() {
            self.record.command(column, index, line, is_added);
        }
    }

    fn tick(&mut self, run: &RunStatus) {
        self.page.tick(run);
        self.record.tick(run);
    }

    fn is_stopped(&self) -> bool {
        self.file.is_stopped()
    }

    fn end(&mut self, run: &RunStatus) {
        self.page.end(run);
        self.save();
        if self.is_cut {
            let limit = MAX_RUN_SIZE / (1024 * 1024);
            self.file
                .write(&format!("# output after {limit} MiB is not kept\n"));
        }
        self.record.end(run);
        self.save();
        self.file.complete();
    }

    fn take(&mut self, run: &RunStatus) -> String {
        self.save();
        self.page.take(run)
    }

    fn pending_bytes(&self) -> usize {
        self.page.pending_bytes()
    }
}
