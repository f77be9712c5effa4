//! The run page as JSON Lines, for programs: one object per event.

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::run::{HEARTBEAT_INTERVAL, Page};
use crate::status::{ColumnStatus, Outcome, RunStatus};
use crate::terminal::Piece;

/// The page as objects.
#[derive(Debug)]
pub(crate) struct JsonPage {
    /// Text that was not written to stdout yet.
    text: String,
    last_object_at: Instant,
}

impl JsonPage {
    pub(crate) fn new() -> JsonPage {
        JsonPage {
            text: String::new(),
            last_object_at: Instant::now(),
        }
    }

    /// Writes one object as a line, with the current time.
    fn write(&mut self, event: &str, mut object: Value) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        if let Some(fields) = object.as_object_mut() {
            fields.insert("event".to_owned(), json!(event));
            fields.insert("time".to_owned(), json!(now.to_string()));
        }
        self.text.push_str(&object.to_string());
        self.text.push('\n');
        self.last_object_at = Instant::now();
    }
}

/// The page of a request that runs nothing, for this reason.
pub(crate) fn refusal(reason: &str) -> String {
    let mut page = JsonPage::new();
    let object = json!({ "outcome": "failed", "failed": 0, "of": 0, "reason": reason });
    page.write("outcome", object);
    page.text
}

impl Page for JsonPage {
    fn begin(&mut self, run: &RunStatus) {
        let columns = run.columns.iter().map(|column| {
            json!({
                "row": column.number,
                "shell": column.title,
                "file": column.file,
                "route": column.route,
                "of": column.total,
            })
        });
        let columns: Vec<Value> = columns.collect();
        self.write("begin", json!({ "columns": columns }));
    }

    fn status(&mut self, column: &ColumnStatus, _index: usize) {
        let mut object = json!({
            "row": column.number,
            "state": column.state_text(),
            "sent": column.sent,
            "of": column.total,
            "seconds": column.elapsed.as_secs_f64(),
        });
        let outcome = match column.state.outcome() {
            Outcome::Pending => return self.write("state", object),
            Outcome::Success => "ok",
            Outcome::Failure => "failed",
        };
        if let Some(fields) = object.as_object_mut() {
            fields.insert("outcome".to_owned(), json!(outcome));
            if let Some(next_step) = column.next_step() {
                fields.insert("next_step".to_owned(), json!(next_step));
            }
        }
        self.write("end", object);
    }

    fn output(&mut self, column: &ColumnStatus, _index: usize, pieces: &[Piece]) {
        let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        if !text.is_empty() {
            self.write("output", json!({ "row": column.number, "text": text }));
        }
    }

    fn command(&mut self, column: &ColumnStatus, _index: usize, line: &str, is_added: bool) {
        let object = json!({ "row": column.number, "line": line, "added": is_added });
        self.write("command", object);
    }

    fn tick(&mut self, run: &RunStatus) {
        if self.last_object_at.elapsed() >= HEARTBEAT_INTERVAL {
            let seconds = run.elapsed().as_secs_f64();
            self.write("running", json!({ "seconds": seconds }));
        }
    }

    fn end(&mut self, run: &RunStatus) {
        let (failed, of) = (run.count(Outcome::Failure), run.columns.len());
        let outcome = if failed == 0 { "ok" } else { "failed" };
        let object = json!({ "outcome": outcome, "failed": failed, "of": of });
        self.write("outcome", object);
    }

    fn take(&mut self, _run: &RunStatus) -> String {
        std::mem::take(&mut self.text)
    }

    fn pending_bytes(&self) -> usize {
        self.text.len()
    }
}
