//! The run page as HTML: one stream with five live columns, without a script.
//!
//! The page starts with the columns, as a shadow tree in HTML (declarative shadow DOM).
//! The tree has a named slot for the output of each column. Each later piece of output
//! names its slot, and the browser shows the piece there.
//!
//! Slots also replace text. A browser shows the content of a slot only until an element
//! is assigned to the slot. So the slot for the end of a session contains the slot for
//! its start, and so on.
//!
//! A browser without shadow trees shows one transcript in the order of the events. No
//! column has the slot `label`, so only such a browser shows the labels, which tell the
//! column of each piece.

use std::fmt::{self, Write};

use crate::bulk::{self, SplitOutput};
use crate::html::{self, Icon, Nonce, escape};
use crate::query::{Query, percent_encode, row_list};
use crate::run::Page;
use crate::status::{ColumnStatus, Outcome, RunStatus, SessionState};
use crate::terminal::{Piece, Style};

/// Maximum size in bytes of a percent-encoded transcript in its link. Browsers accept
/// URLs of up to 2 MB.
const MAX_SAVED_TRANSCRIPT: usize = 1024 * 1024;

/// Length of a line in bytes after which the rest of the line is shown in blocks. The time for
/// the layout of one line grows with the square of its length: 3 MB would take Chromium 7 s.
const LONG_LINE: usize = 64 * 1024;

/// A line end that the browser does not show.
const HIDDEN_LINE_END: &str = "<span class=\"end\">\n</span>";

/// The page as HTML, which grows at its end only.
#[derive(Debug)]
pub(crate) struct HtmlPage {
    nonce: Nonce,
    query: Query,
    /// The name of the kept run.
    run_id: Option<String>,
    /// The summary that the page shows.
    summary: String,
    /// HTML that was not written to stdout yet.
    text: String,
    /// The column whose output element is open at the end of `text`.
    open_column: Option<usize>,
    /// The column of the last label.
    labelled_column: Option<usize>,
    columns: Vec<ColumnContent>,
}

/// The part of a column that later events need.
#[derive(Clone, Debug, Default)]
struct ColumnContent {
    /// The progress text that the page shows.
    clock: String,
    /// The number of commands in it.
    shown_commands: usize,
    /// The length of the line that has begun, in bytes.
    line_length: usize,
    transcript: Transcript,
}

/// The slots of the states. Content in a slot hides the slots before it.
const STATE_SLOTS: [&str; 4] = ["connecting", "granted", "running", "ended"];

/// The slot that a state fills.
fn slot_of(state: &SessionState) -> &'static str {
    let [connecting, granted, running, ended] = STATE_SLOTS;
    match state {
        // The page shows this state from the start.
        SessionState::Waiting => "",
        SessionState::Connecting => connecting,
        SessionState::Granted => granted,
        SessionState::Running => running,
        SessionState::Ended(_) => ended,
    }
}

impl HtmlPage {
    /// A page for this query. The nonce must be that of its headers. `run_id` is the name
    /// of the kept run, if it is kept.
    pub(crate) fn new(query: &Query, nonce: Nonce, run_id: Option<String>) -> HtmlPage {
        HtmlPage {
            nonce,
            query: query.clone(),
            run_id,
            summary: String::new(),
            text: String::new(),
            open_column: None,
            labelled_column: None,
            columns: Vec::new(),
        }
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = self.text.write_fmt(text);
    }

    /// Opens the output element of a column, unless it is open already.
    fn open_span(&mut self, column: &ColumnStatus, index: usize) {
        if self.open_column == Some(index) {
            return;
        }
        self.close_span();
        self.write_label(column, index);
        self.write(format_args!("<span slot=\"log{}\">", column.number));
        self.open_column = Some(index);
    }

    /// Writes the title of a column, if the last label is of another column.
    fn write_label(&mut self, column: &ColumnStatus, index: usize) {
        if self.labelled_column != Some(index) {
            let title = escape(&column.title);
            self.write(format_args!("<i slot=\"label\">\n{title} | </i>"));
            self.labelled_column = Some(index);
        }
    }

    /// Closes the open output element.
    fn close_span(&mut self) {
        if self.open_column.take().is_some() {
            self.text.push_str("</span>\n");
        }
    }

    /// Writes escaped text with its styles.
    fn write_pieces(&mut self, pieces: &[Piece]) {
        for Piece { style, text } in pieces {
            let text = escape(text);
            match *style == Style::default() {
                true => self.text.push_str(&text),
                false => {
                    let classes = style.classes();
                    self.write(format_args!("<span class=\"{classes}\">{text}</span>"));
                }
            }
        }
    }

    /// Writes output, with whole lines in bulk as a block.
    fn write_output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        match bulk::split(pieces) {
            Some(split) => self.write_block(column, index, &split),
            None => {
                self.open_span(column, index);
                self.write_pieces(pieces);
            }
        }
        if let Some(content) = self.columns.get_mut(index) {
            for Piece { text, .. } in pieces {
                content.line_length = match text.rsplit_once('\n') {
                    Some((_, line)) => line.len(),
                    None => content.line_length + text.len(),
                };
            }
        }
    }

    /// Writes a part of a long line as a block, which ends with the line or with the output.
    fn write_long_line(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        self.close_span();
        self.write_label(column, index);
        let number = column.number;
        self.write(format_args!("<span slot=\"log{number}\" class=\"bulk\">"));
        self.write_pieces(pieces);
        self.text.push_str("</span>\n");
        let has_ended = pieces.last().is_some_and(|last| last.text.ends_with('\n'));
        if let Some(content) = self.columns.get_mut(index).filter(|_| has_ended) {
            content.line_length = 0;
        }
    }

    /// Writes whole lines in bulk as a block. The block is a line break for the browser, so
    /// the line ends next to it are hidden: the page has the same text with and without
    /// the style sheet.
    fn write_block(&mut self, column: &ColumnStatus, index: usize, split: &SplitOutput) {
        self.open_span(column, index);
        self.write_pieces(&split.head);
        self.close_span();
        let number = column.number;
        self.write(format_args!(
            "<span slot=\"log{number}\" class=\"bulk\">{HIDDEN_LINE_END}"
        ));
        self.write_pieces(&split.block);
        self.write(format_args!("{HIDDEN_LINE_END}</span>\n"));
        if !split.tail.is_empty() {
            self.open_span(column, index);
            self.write_pieces(&split.tail);
        }
    }

    /// Appends text to the transcript of a column.
    fn append_transcript(&mut self, index: usize, text: &str) {
        if let Some(content) = self.columns.get_mut(index) {
            content.transcript.append(text);
        }
    }

    /// Writes progress and elapsed time of a column, if they have changed.
    fn update_clock(&mut self, column: &ColumnStatus, index: usize) {
        let progress = column.progress();
        match self.columns.get_mut(index) {
            Some(content) if content.clock != progress => {
                content.clock.clone_from(&progress);
                content.shown_commands = column.sent;
            }
            _ => return,
        }
        self.close_span();
        // The last value is not hidden from screen readers.
        let slot = if column.has_ended() { "done" } else { "clock" };
        let number = column.number;
        self.write(format_args!(
            "<span slot=\"{slot}{number}\">{progress}</span>\n"
        ));
    }

    /// Writes the summary of the run, if it has changed.
    fn update_summary(&mut self, run: &RunStatus) {
        let summary = run.to_string();
        if self.summary == summary {
            return;
        }
        self.close_span();
        let (sent, total) = run.commands();
        self.write(format_args!(
            "<span slot=\"summary\">{summary} \
             <progress max=\"{}\" value=\"{sent}\"></progress></span>\n",
            // Zero is no valid maximum.
            total.max(1)
        ));
        self.summary = summary;
    }

    /// Writes what the user can do with a column after its end.
    fn write_actions(&mut self, column: &ColumnStatus, index: usize) {
        let Some(content) = self.columns.get_mut(index) else {
            return;
        };
        let transcript = std::mem::take(&mut content.transcript);
        let number = column.number;
        if let Some(next_step) = column.next_step() {
            let next_step = escape(&next_step);
            self.write(format_args!(
                "<span slot=\"next{number}\">{next_step}</span>\n"
            ));
        }
        self.write(format_args!("<span slot=\"actions{number}\">"));
        if transcript.is_too_long {
            self.text
                .push_str("This transcript exceeds 1 MiB: save the page with the browser. ");
        } else {
            let name = escape(&transcript.name);
            let encoded = &transcript.encoded;
            self.write(format_args!(
                "<a download=\"{name}\" href=\"data:text/plain;charset=utf-8,{encoded}\">Save</a> "
            ));
        }
        self.write(format_args!(
            "<button form=\"rows\" name=\"again\" value=\"{number}\">Run again</button></span>\n"
        ));
    }

    /// Writes the header, and the form that starts and edits runs with the same rows.
    fn write_header(&mut self, run: &RunStatus) {
        let title = escape(&run.title());
        let head = html::document_head(&self.nonce, &run.title(), Icon::Running);
        let started = humantime::format_rfc3339_seconds(run.started_at).to_string();
        let edit = html::edit_control(&self.query);
        let kept = self.run_id.as_ref().map_or_else(String::new, |id| {
            format!(
                "<a href=\"?run={id}\" target=\"_blank\">Link to this run</a> \
                 <a href=\"?runs\" target=\"_blank\">Kept runs</a> "
            )
        });
        self.write(format_args!(
            "{head}<body>\n<header class=\"top\"><h1>{title}</h1>\n\
             <p class=\"soft\">started <time datetime=\"{started}\">{}</time></p>\n\
             <nav aria-label=\"This run\">{edit} <a href=\"?\" target=\"_blank\">New form</a> {kept}</nav></header>\n",
            html::readable_time(&started)
        ));
        self.text.push_str(&html::rows_form(&self.query));
        if let Some(id) = &self.run_id {
            let form = format!(
                "<form id=\"stop\" method=\"post\" action=\"?\">\
                 <input type=\"hidden\" name=\"stop\" value=\"{id}\"></form>\n"
            );
            self.text.push_str(&form);
        }
    }

    /// Writes the bar above the columns: the summary, the ways to stop or repeat the run,
    /// and the choice of the view. The end of the run fills the slots around the others.
    fn write_bar(&mut self) {
        self.text.push_str(
            "<div class=\"bar\">\n<div class=\"sum\" role=\"status\"><slot name=\"end\">\
             <span class=\"clock\" aria-hidden=\"true\"><span><slot name=\"summary\"></slot></span>\
             </span></slot></div>\n\
             <div><slot name=\"repeat\"><slot name=\"stop\"></slot></slot></div>\n\
             <fieldset class=\"view\"><legend>View</legend>\n",
        );
        for (id, label, checked) in [
            ("wrap", "wrap lines", " checked=\"checked\""),
            ("long", "long lines", ""),
            ("single", "one column", ""),
        ] {
            self.write(format_args!(
                "<label><input type=\"radio\" name=\"view\" id=\"{id}\"{checked}> {label}</label>\n"
            ));
        }
        self.text.push_str(
            "<label><input type=\"checkbox\" id=\"times\"> times</label></fieldset>\n</div>\n",
        );
    }

    /// Writes one column of the shadow tree, with empty slots.
    fn write_column(&mut self, column: &ColumnStatus) {
        let number = column.number;
        let title = escape(&column.title);
        let file = escape(&column.file);
        let route = escape(&column.route);
        let state = STATE_SLOTS.iter().fold(column.state_text(), |inner, slot| {
            format!("<slot name=\"{slot}{number}\">{inner}</slot>")
        });
        self.write(format_args!(
            "<section class=\"column\" id=\"column{number}\" aria-labelledby=\"title{number}\">\n\
             <h2 id=\"title{number}\">{title}</h2>\n\
             <p class=\"way\">{file} {route}</p>\n\
             <p class=\"state\" role=\"status\">{state}</p>\n\
             <div class=\"progress\"><slot name=\"done{number}\"><span class=\"clock\" aria-hidden=\"true\">\
             <span><slot name=\"clock{number}\"></slot></span></span></slot></div>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Output of {title}\">\
             <div class=\"content\"><pre role=\"log\" aria-live=\"off\"><slot name=\"log{number}\"></slot></pre>\
             <div class=\"next\"><slot name=\"next{number}\"></slot></div></div></div>\n\
             <p class=\"actions\"><slot name=\"actions{number}\"></slot></p>\n</section>\n"
        ));
    }
}

impl Page for HtmlPage {
    fn begin(&mut self, run: &RunStatus) {
        let content = |column: &ColumnStatus| ColumnContent {
            transcript: Transcript::new(run, column),
            ..ColumnContent::default()
        };
        self.columns = run.columns.iter().map(content).collect();
        self.write_header(run);
        let style = self.nonce.style(html::COLUMN_STYLE);
        self.write(format_args!(
            "<main id=\"board\"><template shadowrootmode=\"open\">{style}<div class=\"page\">\n"
        ));
        self.write_bar();
        self.text.push_str("<div class=\"columns\">\n");
        for column in &run.columns {
            self.write_column(column);
        }
        self.text.push_str("</div></div></template>\n");
        if self.run_id.is_some() {
            self.text
                .push_str("<button slot=\"stop\" class=\"small\" form=\"stop\">Stop</button>\n");
        }
        self.text.push_str(
            "<span slot=\"stop\" class=\"soft\">Closing this page stops the run.</span>\n",
        );
        self.update_summary(run);
    }

    fn status(&mut self, column: &ColumnStatus, index: usize) {
        self.close_span();
        self.write_label(column, index);
        let slot = slot_of(&column.state);
        let number = column.number;
        let class = match column.state.outcome() {
            Outcome::Pending => "busy",
            Outcome::Success => "good",
            Outcome::Failure => "bad",
        };
        let words = escape(&column.state_text());
        self.write(format_args!(
            "<span slot=\"{slot}{number}\" class=\"state {class}\">{words}</span>\n"
        ));
        if column.has_ended() {
            // The last value has a slot of its own, even if it is the same.
            if let Some(content) = self.columns.get_mut(index) {
                content.clock.clear();
            }
            self.write_actions(column, index);
        }
        self.update_clock(column, index);
    }

    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        for piece in pieces {
            self.append_transcript(index, &piece.text);
        }
        let line_length = self
            .columns
            .get(index)
            .map_or(0, |column| column.line_length);
        if line_length < LONG_LINE {
            return self.write_output(column, index, pieces);
        }
        let (line, rest) = bulk::split_first_line(pieces);
        self.write_long_line(column, index, &line);
        if !rest.is_empty() {
            self.write_output(column, index, &rest);
        }
    }

    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, is_added: bool) {
        self.open_span(column, index);
        let escaped = escape(line);
        let added = match is_added {
            true => {
                " class=\"added\" title=\"The console sent this exit; the batch contains none.\""
            }
            false => "",
        };
        let time = column.elapsed_text();
        self.write(format_args!(
            "<b{added} data-time=\"{time}\">{escaped}</b>\n"
        ));
        self.append_transcript(index, line);
        self.append_transcript(index, "\n");
        if let Some(content) = self.columns.get_mut(index) {
            content.line_length = 0;
        }
    }

    fn tick(&mut self, run: &RunStatus) {
        for (index, column) in run.columns.iter().enumerate() {
            self.update_clock(column, index);
        }
        self.update_summary(run);
    }

    fn end(&mut self, run: &RunStatus) {
        self.close_span();
        let failed = run.failed_rows();
        let icon = Icon::of(run).late_link();
        self.write(format_args!(
            "<span slot=\"end\" id=\"sum\">{run}</span>\n<span slot=\"repeat\" class=\"small\">"
        ));
        if !failed.is_empty() && failed.len() < run.columns.len() {
            let rows = row_list(&failed);
            self.write(format_args!(
                "<button form=\"rows\" name=\"again\" value=\"{rows}\">Run the failed ones again\
                 </button> "
            ));
        }
        self.write(format_args!(
            "<button form=\"rows\">Run all again</button></span>\n{icon}</main>\n</body>\n</html>\n"
        ));
    }

    fn take(&mut self, run: &RunStatus) -> String {
        let mut has_progress = false;
        for (index, column) in run.columns.iter().enumerate() {
            let content = self.columns.get(index);
            if content.is_some_and(|content| content.shown_commands != column.sent) {
                has_progress = true;
                self.update_clock(column, index);
            }
        }
        if has_progress && !run.has_ended() {
            self.update_summary(run);
        }
        self.close_span();
        std::mem::take(&mut self.text)
    }

    fn pending_bytes(&self) -> usize {
        self.text.len()
    }
}

/// Output and commands of a column, percent-encoded for a `data:` URL.
#[derive(Clone, Debug, Default)]
struct Transcript {
    /// The name of the file: date, shell and batch file.
    name: String,
    encoded: String,
    /// The transcript exceeded [`MAX_SAVED_TRANSCRIPT`] and was discarded.
    is_too_long: bool,
}

impl Transcript {
    /// A transcript that begins with a line with shell, batch file, way and date.
    fn new(run: &RunStatus, column: &ColumnStatus) -> Transcript {
        let ColumnStatus {
            title, file, route, ..
        } = column;
        let started = humantime::format_rfc3339_seconds(run.started_at).to_string();
        let first_line = format!("# {title}, {file} {route}, {started}\n");
        let name = format!("{started} {title} {file}").replace(':', "-");
        Transcript {
            name,
            encoded: percent_encode(&first_line),
            is_too_long: false,
        }
    }

    fn append(&mut self, text: &str) {
        if self.is_too_long {
            return;
        }
        self.encoded.push_str(&percent_encode(text));
        if self.encoded.len() > MAX_SAVED_TRANSCRIPT {
            self.encoded = String::new();
            self.is_too_long = true;
        }
    }
}
