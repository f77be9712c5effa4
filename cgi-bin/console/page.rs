//! The page on which everything runs: one stream of HTML, five live columns.
//!
//! The columns stand at the beginning of the page, as a shadow tree that is
//! written in HTML (declarative shadow DOM). It has a named slot for each
//! column's text; a piece of text that arrives later says which slot it belongs
//! to, and the browser shows it there. No script is needed.
//!
//! What replaces something uses slots as well: the content of a slot is shown
//! only until something is assigned to it. So the slot for the end of a visit
//! holds the one for its beginning, and so on.
//!
//! A browser without shadow trees shows one transcript, in the order in which
//! things happened; pieces in the slot `label`, which no column has, say there
//! whose words these are.

use std::fmt::{self, Write};

use crate::html::{self, Nonce, escape};
use crate::query::{Query, percent_encode};
use crate::run::Page;
use crate::status::{ColumnStatus, Outcome, RunStatus, SessionState};
use crate::terminal::{Piece, Style};

/// The style of the columns, inside the shadow tree.
const COLUMN_STYLE: &str = include_str!("columns.css");

/// Bytes of one column's transcript, encoded, that its link for saving holds.
/// Browsers take addresses of up to two megabytes.
const MAX_SAVED_TRANSCRIPT: usize = 1024 * 1024;

/// The page as HTML.
#[derive(Debug)]
pub(crate) struct HtmlPage {
    nonce: Nonce,
    /// The query that leads to the form with the same values.
    edit: String,
    text: String,
    /// The column to which the last piece in `text` belongs, if that is open.
    open_column: Option<usize>,
    /// The column whose words came last.
    labelled_column: Option<usize>,
    columns: Vec<ColumnContent>,
}

/// What the page has of one column.
#[derive(Clone, Debug, Default)]
struct ColumnContent {
    clock: String,
    transcript: Transcript,
}

/// The slots of the states, each of which hides those before it.
const STATE_SLOTS: [&str; 4] = ["connecting", "granted", "running", "ended"];

fn slot_of(state: &SessionState) -> &'static str {
    let [connecting, granted, running, ended] = STATE_SLOTS;
    match state {
        // In the page from the beginning.
        SessionState::Waiting => "",
        SessionState::Connecting => connecting,
        SessionState::Granted => granted,
        SessionState::Running => running,
        SessionState::Ended(_) => ended,
    }
}

impl HtmlPage {
    /// For what this query asks.
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

    /// From here on, what is written belongs to this column.
    fn open_span(&mut self, column: &ColumnStatus, index: usize) {
        if self.open_column == Some(index) {
            return;
        }
        self.close_span();
        self.write_label(column, index);
        self.write(format_args!("<span slot=\"log{}\">", column.number));
        self.open_column = Some(index);
    }

    fn write_label(&mut self, column: &ColumnStatus, index: usize) {
        if self.labelled_column != Some(index) {
            let title = escape(&column.title);
            self.write(format_args!("<i slot=\"label\">\n{title} | </i>"));
            self.labelled_column = Some(index);
        }
    }

    fn close_span(&mut self) {
        if self.open_column.take().is_some() {
            self.text.push_str("</span>\n");
        }
    }

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

    fn append_transcript(&mut self, index: usize, text: &str) {
        if let Some(content) = self.columns.get_mut(index) {
            content.transcript.append(text);
        }
    }

    /// How far it is, and since when, if that has changed.
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

    /// One column of the shadow tree, with nothing in its slots.
    fn write_column(&mut self, column: &ColumnStatus) {
        let number = column.number;
        let title = escape(&column.title);
        let file = escape(&column.file);
        let socks = escape(&column.socks);
        let state = STATE_SLOTS
            .iter()
            .fold(SessionState::Waiting.to_string(), |inner, slot| {
                format!("<slot name=\"{slot}{number}\">{inner}</slot>")
            });
        self.write(format_args!(
            "<section class=\"column\" id=\"column{number}\" aria-labelledby=\"title{number}\">\n\
             <h2 id=\"title{number}\">{title}</h2>\n\
             <p class=\"way\">{file} through {socks}</p>\n\
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
        let words = escape(&column.state.to_string());
        self.write(format_args!(
            "<span slot=\"{slot}{number}\" class=\"{class}\">{words}</span>\n"
        ));
        self.update_clock(column, index);
        if column.has_ended() {
            self.write_save_link(column, index);
        }
    }

    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]) {
        self.open_span(column, index);
        self.write_pieces(pieces);
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

/// What a column said, as part of an address.
#[derive(Clone, Debug, Default)]
struct Transcript {
    encoded: String,
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
