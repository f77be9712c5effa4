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
use crate::html::{self, Nonce, escape};
use crate::query::{Query, percent_encode};
use crate::run::Page;
use crate::status::{ColumnStatus, Outcome, RunStatus, SessionState};
use crate::terminal::{Piece, Style};

/// The style sheet of the columns, inside the shadow tree.
const COLUMN_STYLE: &str = include_str!("columns.css");

/// Maximum size in bytes of a percent-encoded transcript in its link. Browsers accept
/// URLs of up to 2 MB.
const MAX_SAVED_TRANSCRIPT: usize = 1024 * 1024;

/// A line end that the browser does not show.
const HIDDEN_LINE_END: &str = "<span class=\"end\">\n</span>";

/// The page as HTML, which grows at its end only.
#[derive(Debug)]
pub(crate) struct HtmlPage {
    nonce: Nonce,
    /// The query of the form with the same values.
    edit: String,
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
    /// A page for this query. The nonce must be that of its headers.
    pub(crate) fn new(query: &Query, nonce: Nonce) -> HtmlPage {
        HtmlPage {
            nonce,
            edit: query.encode(),
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

    /// Writes progress and elapsed time, if they have changed.
    fn update_clock(&mut self, column: &ColumnStatus, index: usize) {
        let progress = column.progress();
        match self.columns.get_mut(index) {
            Some(content) if content.clock != progress => content.clock.clone_from(&progress),
            _ => return,
        }
        self.close_span();
        let number = column.number;
        self.write(format_args!(
            "<span slot=\"clock{number}\">{progress}</span>\n"
        ));
    }

    /// Writes the link that saves the transcript of a column as a file.
    fn write_save_link(&mut self, column: &ColumnStatus, index: usize) {
        let Some(content) = self.columns.get_mut(index) else {
            return;
        };
        let transcript = std::mem::take(&mut content.transcript);
        let number = column.number;
        if transcript.is_too_long {
            self.write(format_args!(
                "<span slot=\"save{number}\">Too long for a link: save the whole page</span>\n"
            ));
        } else if !transcript.encoded.is_empty() {
            let title = column.title.replace(':', "-");
            let name = escape(&format!("{title} {}", column.file));
            let encoded = transcript.encoded;
            self.write(format_args!(
                "<a slot=\"save{number}\" download=\"{name}\" \
                 href=\"data:text/plain;charset=utf-8,{encoded}\">Save the transcript</a>\n"
            ));
        }
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
             <div class=\"clock\" aria-hidden=\"true\"><div><slot name=\"clock{number}\"></slot></div></div>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Output of {title}\">\
             <pre role=\"log\" aria-live=\"off\"><slot name=\"log{number}\"></slot></pre></div>\n\
             <p class=\"save\"><slot name=\"save{number}\"></slot></p>\n</section>\n"
        ));
    }
}

impl Page for HtmlPage {
    fn begin(&mut self, run: &RunStatus) {
        self.columns = vec![ColumnContent::default(); run.columns.len()];
        let head = html::document_head(&self.nonce, "Remote batch console");
        let edit = escape(&self.edit);
        let style = self.nonce.style(COLUMN_STYLE);
        self.write(format_args!(
            "{head}<body>\n<header class=\"top\"><h1>Remote batch console</h1>\n\
             <p><a href=\"?{edit}edit=1\">Edit these rows</a></p>\n\
             <p><a href=\"?\">Begin anew</a></p></header>\n\
             <main id=\"board\"><template shadowrootmode=\"open\">{style}<div class=\"columns\">\n"
        ));
        for column in &run.columns {
            self.write_column(column);
        }
        self.text.push_str("</div></template>\n");
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
            "<span slot=\"{slot}{number}\" class=\"{class}\">{words}</span>\n"
        ));
        self.update_clock(column, index);
        if column.has_ended() {
            self.write_save_link(column, index);
        }
    }

    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        match bulk::split(pieces) {
            Some(split) => self.write_block(column, index, &split),
            None => {
                self.open_span(column, index);
                self.write_pieces(pieces);
            }
        }
        for piece in pieces {
            self.append_transcript(index, &piece.text);
        }
    }

    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, is_added: bool) {
        self.open_span(column, index);
        let escaped = escape(line);
        match is_added {
            true => self.write(format_args!(
                "<b class=\"added\" title=\"sent by the console: the file has none\">\
                 {escaped}</b>\n"
            )),
            false => self.write(format_args!("<b>{escaped}</b>\n")),
        }
        self.append_transcript(index, line);
        self.append_transcript(index, "\n");
    }

    fn tick(&mut self, run: &RunStatus) {
        for (index, column) in run.columns.iter().enumerate() {
            self.update_clock(column, index);
        }
    }

    fn end(&mut self, run: &RunStatus) {
        self.close_span();
        self.write(format_args!(
            "</main>\n<footer id=\"sum\" role=\"status\">{run}</footer>\n</body>\n</html>\n"
        ));
    }

    fn take(&mut self) -> String {
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
    encoded: String,
    /// The transcript exceeded [`MAX_SAVED_TRANSCRIPT`] and was discarded.
    is_too_long: bool,
}

impl Transcript {
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
