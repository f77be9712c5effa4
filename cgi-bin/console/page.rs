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

use crate::board::{Board, Mood, Standing, State};
use crate::html::{self, Nonce, escape};
use crate::query::{Query, percent_encode};
use crate::run::Page;
use crate::terminal::{Piece, Style};

/// The style of the columns, inside the shadow tree.
const COLUMNS: &str = include_str!("columns.css");

/// Bytes of one column's transcript, encoded, that its link for saving holds.
/// Browsers take addresses of up to two megabytes.
const MAX_SAVED: usize = 1024 * 1024;

/// The page as HTML.
#[derive(Debug)]
pub(crate) struct HtmlPage {
    nonce: Nonce,
    /// The query that leads to the form with the same values.
    edit: String,
    text: String,
    /// The column to which the last piece in `text` belongs, if that is open.
    open: Option<usize>,
    /// The column whose words came last.
    labelled: Option<usize>,
    columns: Vec<Shown>,
}

/// What the page has of one column.
#[derive(Clone, Debug, Default)]
struct Shown {
    clock: String,
    transcript: Transcript,
}

/// The slots of the states, each of which hides those before it.
const STATES: [&str; 4] = ["connecting", "granted", "running", "ended"];

fn slot_of(state: &State) -> &'static str {
    let [connecting, granted, running, ended] = STATES;
    match state {
        // In the page from the beginning.
        State::Waiting => "",
        State::Connecting => connecting,
        State::Granted => granted,
        State::Running => running,
        State::Ended(_) => ended,
    }
}

impl HtmlPage {
    /// For what this query asks.
    pub(crate) fn new(query: &Query, nonce: Nonce) -> HtmlPage {
        HtmlPage {
            nonce,
            edit: query.encode(),
            text: String::new(),
            open: None,
            labelled: None,
            columns: Vec::new(),
        }
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = self.text.write_fmt(text);
    }

    /// From here on, what is written belongs to this column.
    fn turn_to(&mut self, standing: &Standing, index: usize) {
        if self.open == Some(index) {
            return;
        }
        self.close();
        self.label(standing, index);
        self.write(format_args!("<span slot=\"log{}\">", standing.number));
        self.open = Some(index);
    }

    fn label(&mut self, standing: &Standing, index: usize) {
        if self.labelled != Some(index) {
            let title = escape(&standing.title);
            self.write(format_args!("<i slot=\"label\">\n{title} | </i>"));
            self.labelled = Some(index);
        }
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.text.push_str("</span>\n");
        }
    }

    fn pieces(&mut self, pieces: &[Piece]) {
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

    fn keep(&mut self, index: usize, text: &str) {
        if let Some(shown) = self.columns.get_mut(index) {
            shown.transcript.keep(text);
        }
    }

    /// How far it is, and since when, if that has changed.
    fn clock(&mut self, standing: &Standing, index: usize) {
        let progress = standing.progress();
        match self.columns.get_mut(index) {
            Some(shown) if shown.clock != progress => shown.clock.clone_from(&progress),
            _ => return,
        }
        self.close();
        let number = standing.number;
        self.write(format_args!(
            "<span slot=\"clock{number}\">{progress}</span>\n"
        ));
    }

    fn save_link(&mut self, standing: &Standing, index: usize) {
        let Some(shown) = self.columns.get_mut(index) else {
            return;
        };
        let transcript = std::mem::take(&mut shown.transcript);
        let number = standing.number;
        if transcript.is_too_long {
            self.write(format_args!(
                "<span slot=\"save{number}\">Too long for a link: save the whole page</span>\n"
            ));
        } else if !transcript.encoded.is_empty() {
            let title = standing.title.replace(':', "-");
            let name = escape(&format!("{title} {}", standing.file));
            let encoded = transcript.encoded;
            self.write(format_args!(
                "<a slot=\"save{number}\" download=\"{name}\" \
                 href=\"data:text/plain;charset=utf-8,{encoded}\">Save the transcript</a>\n"
            ));
        }
    }

    /// One column of the shadow tree, with nothing in its slots.
    fn column(&mut self, standing: &Standing) {
        let number = standing.number;
        let title = escape(&standing.title);
        let file = escape(&standing.file);
        let socks = escape(&standing.socks);
        let state = STATES
            .iter()
            .fold(State::Waiting.to_string(), |inner, slot| {
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
    fn begin(&mut self, board: &Board) {
        self.columns = vec![Shown::default(); board.standings.len()];
        let head = html::head(&self.nonce, "Remote batch console");
        let edit = escape(&self.edit);
        let style = self.nonce.style(COLUMNS);
        self.write(format_args!(
            "{head}<body>\n<header class=\"top\"><h1>Remote batch console</h1>\n\
             <p><a href=\"?{edit}edit=1\">Edit these rows</a></p>\n\
             <p><a href=\"?\">Begin anew</a></p></header>\n\
             <main id=\"board\"><template shadowrootmode=\"open\">{style}<div class=\"columns\">\n"
        ));
        for standing in &board.standings {
            self.column(standing);
        }
        self.text.push_str("</div></template>\n");
    }

    fn status(&mut self, standing: &Standing, index: usize) {
        self.close();
        self.label(standing, index);
        let slot = slot_of(&standing.state);
        let number = standing.number;
        let mood = match standing.state.mood() {
            Mood::Busy => "busy",
            Mood::Good => "good",
            Mood::Bad => "bad",
        };
        let words = escape(&standing.state.to_string());
        self.write(format_args!(
            "<span slot=\"{slot}{number}\" class=\"{mood}\">{words}</span>\n"
        ));
        self.clock(standing, index);
        if standing.has_ended() {
            self.save_link(standing, index);
        }
    }

    fn output(&mut self, standing: &Standing, index: usize, pieces: &[Piece]) {
        self.turn_to(standing, index);
        self.pieces(pieces);
        for piece in pieces {
            self.keep(index, &piece.text);
        }
    }

    fn command(&mut self, standing: &Standing, index: usize, line: &str, is_added: bool) {
        self.turn_to(standing, index);
        let escaped = escape(line);
        match is_added {
            true => self.write(format_args!(
                "<b class=\"added\" title=\"sent by the console: the file has none\">\
                 {escaped}</b>\n"
            )),
            false => self.write(format_args!("<b>{escaped}</b>\n")),
        }
        self.keep(index, line);
        self.keep(index, "\n");
    }

    fn tick(&mut self, board: &Board) {
        for (index, standing) in board.standings.iter().enumerate() {
            self.clock(standing, index);
        }
    }

    fn end(&mut self, board: &Board) {
        self.close();
        self.write(format_args!(
            "</main>\n<footer id=\"sum\" role=\"status\">{board}</footer>\n</body>\n</html>\n"
        ));
    }

    fn take(&mut self) -> String {
        self.close();
        std::mem::take(&mut self.text)
    }

    fn pending(&self) -> usize {
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
    fn keep(&mut self, text: &str) {
        if self.is_too_long {
            return;
        }
        self.encoded.push_str(&percent_encode(text));
        if self.encoded.len() > MAX_SAVED {
            self.encoded = String::new();
            self.is_too_long = true;
        }
    }
}
