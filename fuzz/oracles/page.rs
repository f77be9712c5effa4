//! For any output of shells, the page has only known tags, and each column has its own text.

use std::time::{Duration, Instant};

use super::chunks::uneven_chunks;
use crate::failure::Failure;
use crate::html::Nonce;
use crate::page::HtmlPage;
use crate::query::Query;
use crate::row::Column;
use crate::run::Page;
use crate::shell::{SessionEnd, SessionEvent};
use crate::status::RunStatus;
use crate::terminal::{Terminal, plain};
use crate::text::TextPage;

/// Columns of the page. The first has the fuzzed output, the second a fixed line.
const COLUMNS: usize = 2;

/// Renders the page. The first line of the input is the query of the form, the rest is the
/// output of a shell.
pub fn check(bytes: &[u8]) {
    let (typed, output) = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let expected = expected_log(output);
    let equal = output.chunks(output.len() / 30 + 3).collect();
    for chunks in [vec![output], equal, uneven_chunks(output)] {
        let page = HtmlPage::new(&Query::parse(typed), Nonce::new(), None);
        let html = render(page, typed, &chunks);
        check_html(&html, typed, &expected);
        let text = render(TextPage::default(), typed, &chunks);
        check_text_page(&text, typed, &expected);
    }
}

/// The text that the first column must have: the output, then the command that is sent.
fn expected_log(output: &[u8]) -> String {
    let mut terminal = Terminal::default();
    let mut pieces = terminal.show(output);
    pieces.extend(terminal.finish());
    let mut text: String = pieces.into_iter().map(|piece| piece.text).collect();
    text.push_str(&plain(output));
    text.push('\n');
    text
}

/// Renders a page from its beginning to its end, with the output in these chunks.
fn render(mut page: impl Page, typed: &[u8], chunks: &[&[u8]]) -> String {
    let began = Instant::now();
    let columns: Vec<Column> = (1..=COLUMNS).map(|number| column(number, typed)).collect();
    let mut status = RunStatus::new(&columns, Duration::from_secs(600));
    page.begin(&status);
    let mut html = String::new();
    let mut terminal = Terminal::default();
    status.apply(0, &SessionEvent::Connecting, began);
    page.status(&status.columns[0], 0);
    for chunk in chunks {
        status.apply(0, &SessionEvent::Output(chunk.to_vec()), began);
        page.status(&status.columns[0], 0);
        page.output(&status.columns[0], 0, &terminal.show(chunk));
        page.command(&status.columns[1], 1, "other", true);
        status.advance_to(began + Duration::from_secs(20));
        page.tick(&status);
        html.push_str(&page.take(&status));
    }
    page.output(&status.columns[0], 0, &terminal.finish());
    let line = plain(&chunks.concat());
    page.command(&status.columns[0], 0, &line, false);
    for index in 0..COLUMNS {
        let end = SessionEnd::Failed(Failure::new(heading(typed), heading(typed)));
        status.apply(index, &SessionEvent::Ended(end), began);
        page.status(&status.columns[index], index);
    }
    page.end(&status);
    html.push_str(&page.take(&status));
    html
}

fn column(number: usize, typed: &[u8]) -> Column {
    Column {
        number,
        title: format!("{} ({number})", heading(typed)),
        file: heading(typed),
        route: heading(typed),
        is_direct: false,
        plan: Err(Vec::new()),
    }
}

/// The typed text as headings show it: at most 60 characters.
fn heading(typed: &[u8]) -> String {
    plain(typed).chars().take(60).collect()
}

/// A tag of the page, as a browser parses it.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, String)>,
}

impl Tag<'_> {
    fn get(&self, attribute: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(name, _)| *name == attribute)
            .map(|(_, value)| value.as_str())
    }
}

/// The tags that the console writes.
const TAGS: [&str; 30] = [
    "html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "p", "a",
    "main", "template", "div", "section", "pre", "slot", "span", "i", "b", "time", "nav", "form",
    "input", "button", "progress", "fieldset", "legend", "label",
];

/// The attributes that the console writes.
const ATTRIBUTES: [&str; 30] = [
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
    "datetime",
    "type",
    "value",
    "method",
    "action",
    "form",
    "max",
    "checked",
    "data-time",
    "target",
    "formtarget",
];

/// The page has only known tags and attributes, and the slot of the first column has exactly
/// its text.
fn check_html(html: &str, typed: &[u8], expected: &str) {
    let mut rest = html
        .strip_prefix("<!DOCTYPE html>")
        .expect("a document type");
    let mut open_tags: Vec<String> = Vec::new();
    let mut log = String::new();
    let mut log_depth = None;
    let mut last_slot = String::new();
    while let Some((text, tail)) = rest.split_once('<') {
        assert!(
            !text.contains(['>', '"', '\''])
                || open_tags.last().is_some_and(|name| name == "style")
        );
        if log_depth.is_some() {
            log.push_str(&html_unescape(text));
        }
        let (inside, after) = tail.split_once('>').expect("the end of a tag");
        rest = after;
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open_tags.pop().as_deref(), Some(name), "{inside}");
            if log_depth == Some(open_tags.len()) {
                log_depth = None;
            }
            continue;
        }
        let tag = parse_tag(inside);
        if tag.get("slot") == Some("log1") {
            log_depth = Some(open_tags.len());
        }
        if let Some(slot) = tag.get("slot") {
            slot.clone_into(&mut last_slot);
        }
        check_link(&tag, typed, (last_slot == "actions1").then_some(expected));
        if !["meta", "link", "input"].contains(&tag.name) {
            open_tags.push(tag.name.to_owned());
        }
    }
    assert!(open_tags.is_empty(), "tags are not closed: {open_tags:?}");
    assert_eq!(log, expected);
}

/// Parses a tag; its name and its attributes must be known.
fn parse_tag(inside: &str) -> Tag<'_> {
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    assert!(TAGS.contains(&name), "<{inside}>");
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once("=\"").expect(inside);
        let (value, tail) = tail.split_once('"').expect(inside);
        let name = name.trim();
        assert!(ATTRIBUTES.contains(&name), "<{inside}>");
        attributes.push((name, html_unescape(value)));
        rest = tail.trim_start();
    }
    Tag { name, attributes }
}

/// A link leads to the form, contains the transcript as a `data:` URL, or is the icon. The
/// transcript of the first column is the expected one after its heading.
fn check_link(tag: &Tag<'_>, typed: &[u8], expected: Option<&str>) {
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
        let saved = super::query::percent_decode(encoded.as_bytes());
        if let Some(expected) = expected {
            let end = saved.iter().position(|&byte| byte == b'\n');
            let end = end.expect("a heading");
            assert_eq!(&saved[end + 1..], expected.as_bytes());
        }
    } else {
        assert_eq!(tag.name, "link");
        assert!(href.starts_with("data:image/svg+xml,%3Csvg%20"), "{href}");
    }
}

/// Decodes the entities that the console writes, as a browser does. Any other entity, and a
/// `&` without one, is an error.
pub(super) fn html_unescape(html: &str) -> String {
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

/// On the text page every line begins with its column, and the lines of the first column are
/// its output.
fn check_text_page(text: &str, typed: &[u8], expected: &str) {
    let [first, second] = [1, 2].map(|number| column(number, typed).title);
    let mut log = String::new();
    for line in text.split_terminator('\n') {
        if let Some(output) = line.strip_prefix(&format!("{first} | ")) {
            log.push_str(output);
            log.push('\n');
        } else {
            let prefixes = [
                format!("{first} # "),
                format!("{second} # "),
                format!("{second} | "),
            ];
            let is_known =
                prefixes.iter().any(|prefix| line.starts_with(prefix)) || line.starts_with("# ");
            assert!(is_known, "{line:?}");
        }
    }
    // The page splits very long lines, so they are not compared.
    if expected.split('\n').all(|line| line.len() < 10_000) {
        assert_eq!(log, expected);
    }
}
