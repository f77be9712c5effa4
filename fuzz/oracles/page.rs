//! Whatever shells say, the page has only our tags, and each column its own text.

use std::time::{Duration, Instant};

use super::pieces::uneven;
use crate::board::Board;
use crate::html::Nonce;
use crate::page::HtmlPage;
use crate::query::Query;
use crate::row::Column;
use crate::run::Page;
use crate::shell::{End, News};
use crate::terminal::{Terminal, plain};
use crate::text::TextPage;

/// The columns of the page; the first says what is fuzzed.
const COLUMNS: usize = 2;

/// The oracle: the first line is typed into the form, the rest comes from a shell.
pub fn holds(bytes: &[u8]) {
    let (typed, said) = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let expected = text_of(said);
    let some = said.chunks(said.len() / 30 + 3).collect();
    for pieces in [vec![said], some, uneven(said)] {
        let page = HtmlPage::new(&Query::parse(typed), Nonce::new());
        let html = written(page, typed, &pieces);
        html_is_ours(&html, typed, &expected);
        let text = written(TextPage::default(), typed, &pieces);
        every_line_has_its_column(&text, typed, &expected);
    }
}

/// What the first column says, with a line sent in the middle.
fn text_of(said: &[u8]) -> String {
    let mut terminal = Terminal::default();
    let mut pieces = terminal.show(said);
    pieces.extend(terminal.finish());
    let mut text: String = pieces.into_iter().map(|piece| piece.text).collect();
    text.push_str(&plain(said));
    text.push('\n');
    text
}

/// A whole visit on a page.
fn written(mut page: impl Page, typed: &[u8], pieces: &[&[u8]]) -> String {
    let began = Instant::now();
    let columns: Vec<Column> = (1..=COLUMNS).map(|number| column(number, typed)).collect();
    let mut board = Board::new(&columns, began);
    page.begin(&board);
    let mut html = String::new();
    let mut terminal = Terminal::default();
    board.note(0, &News::Connecting, began);
    page.status(&board.standings[0], 0);
    for piece in pieces {
        board.note(0, &News::Output(piece.to_vec()), began);
        page.status(&board.standings[0], 0);
        page.output(&board.standings[0], 0, &terminal.show(piece));
        page.command(&board.standings[1], 1, "other", true);
        board.advance_to(began + Duration::from_secs(20));
        page.tick(&board);
        html.push_str(&page.take());
    }
    page.output(&board.standings[0], 0, &terminal.finish());
    let line = plain(&pieces.concat());
    page.command(&board.standings[0], 0, &line, false);
    for index in 0..COLUMNS {
        let end = End::Failed(shortened(typed));
        board.note(index, &News::Ended(end), began);
        page.status(&board.standings[index], index);
    }
    page.end(&board);
    html.push_str(&page.take());
    html
}

fn column(number: usize, typed: &[u8]) -> Column {
    Column {
        number,
        title: format!("{} ({number})", shortened(typed)),
        file: shortened(typed),
        socks: shortened(typed),
        plan: Err(Vec::new()),
    }
}

/// As headings have it.
fn shortened(typed: &[u8]) -> String {
    plain(typed).chars().take(60).collect()
}

/// A tag of the page, as a browser would see it.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, String)>,
}

impl Tag<'_> {
    fn get(&self, wanted: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.as_str())
    }
}

const TAGS: [&str; 22] = [
    "html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "p", "a",
    "main", "template", "div", "section", "pre", "slot", "span", "i", "b", "footer",
];

const ATTRIBUTES: [&str; 19] = [
    "lang",
    "charset",
    "name",
    "content",
    "rel",
    "href",
    "nonce",
    "class",
    "id",
    "shadowrootmode",
    "slot",
    "title",
    "download",
    "role",
    "tabindex",
    "aria-labelledby",
    "aria-hidden",
    "aria-label",
    "aria-live",
];

/// Only tags and attributes that we write, and in the slot of the first column
/// exactly its text.
fn html_is_ours(html: &str, typed: &[u8], expected: &str) {
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a document");
    let mut open: Vec<String> = Vec::new();
    let mut log = String::new();
    let mut logs_since = None;
    while let Some((text, behind)) = rest.split_once('<') {
        assert!(!text.contains(['>', '"', '\'']) || open.last().is_some_and(|it| it == "style"));
        if logs_since.is_some() {
            log.push_str(&unescape(text));
        }
        let (inside, after) = behind.split_once('>').expect("a tag's end");
        rest = after;
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{inside}");
            if logs_since == Some(open.len()) {
                logs_since = None;
            }
            continue;
        }
        let tag = tag(inside);
        if tag.get("slot") == Some("log1") {
            logs_since = Some(open.len());
        }
        link_is_harmless(&tag, typed, expected);
        if !["meta", "link"].contains(&tag.name) {
            open.push(tag.name.to_owned());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert_eq!(log, expected);
}

/// Takes a tag apart, and knows all of it.
fn tag(inside: &str) -> Tag<'_> {
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    assert!(TAGS.contains(&name), "<{inside}>");
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").expect(inside);
        let (value, behind) = behind.split_once('"').expect(inside);
        let name = name.trim();
        assert!(ATTRIBUTES.contains(&name), "<{inside}>");
        attributes.push((name, unescape(value)));
        rest = behind.trim_start();
    }
    Tag { name, attributes }
}

/// Links lead to the form, or have the transcript in them.
fn link_is_harmless(tag: &Tag<'_>, typed: &[u8], expected: &str) {
    let Some(href) = tag.get("href") else {
        return;
    };
    if let Some(query) = href.strip_prefix('?') {
        let typed = Query::parse(typed).encode();
        assert!(
            query.is_empty() || query == format!("{typed}edit=1"),
            "{query}"
        );
    } else if let Some(encoded) = href.strip_prefix("data:text/plain;charset=utf-8,") {
        let saved = super::query::decoded(encoded.as_bytes());
        if tag.get("slot") == Some("save1") {
            assert_eq!(saved, expected.as_bytes());
        }
    } else {
        assert_eq!((tag.name, href), ("link", "data:,"));
    }
}

/// What a browser makes of text with the entities used here. All others, and a
/// lone `&`, are none of ours.
pub(super) fn unescape(html: &str) -> String {
    let mut parts = html.split('&');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';').expect("an entity");
        text.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "#39" => '\'',
            "#13" => '\r',
            other => panic!("&{other};"),
        });
        text.push_str(rest);
    }
    text
}

/// As text every line begins with its column, and all of them are the output.
fn every_line_has_its_column(text: &str, typed: &[u8], expected: &str) {
    let [first, second] = [1, 2].map(|number| column(number, typed).title);
    let mut log = String::new();
    for line in text.split_terminator('\n') {
        if let Some(said) = line.strip_prefix(&format!("{first} | ")) {
            log.push_str(said);
            log.push('\n');
        } else {
            let known = [
                format!("{first} # "),
                format!("{second} # "),
                format!("{second} | "),
            ];
            let ours = known.iter().any(|front| line.starts_with(front)) || line.starts_with("# ");
            assert!(ours, "{line:?}");
        }
    }
    // Very long lines are broken.
    if expected.split('\n').all(|line| line.len() < 10_000) {
        assert_eq!(log, expected);
    }
}
