//! A reader sees the same text wherever the network cuts, and nothing but text.

use super::pieces::cuttings;
use crate::html::escape;
use crate::terminal::{Piece, Style, Terminal, plain};

/// The oracle.
pub fn holds(bytes: &[u8]) {
    let whole = shown(&[bytes]);
    for pieces in cuttings(bytes) {
        assert_eq!(shown(&pieces), whole, "in pieces {pieces:?}");
    }
    let text = text_of(&whole);
    only_text(&text);
    // The largest: a byte that becomes a sign of three.
    assert!(text.len() <= 3 * bytes.len(), "{} bytes", text.len());
    for (style, _) in &whole {
        classes(*style);
    }
    lines_stay(bytes, &text);
    as_it_is(bytes, &text);
    forgotten_at_the_end(bytes);
    let line = plain(bytes);
    assert!(
        !line.chars().any(|char| char.is_control() && char != '\t'),
        "{line:?}"
    );
    for text in [&text, &line, &*String::from_utf8_lossy(bytes)] {
        escaped(text);
    }
}

/// The text in each style; pieces may be cut anywhere.
fn shown(pieces: &[&[u8]]) -> Vec<(Style, String)> {
    let mut terminal = Terminal::default();
    let mut all: Vec<Piece> = pieces.iter().flat_map(|it| terminal.show(it)).collect();
    all.extend(terminal.finish());
    let mut joined: Vec<(Style, String)> = Vec::new();
    for Piece { style, text } in all {
        match joined.last_mut() {
            Some((last, so_far)) if *last == style => so_far.push_str(&text),
            _ => joined.push((style, text)),
        }
    }
    joined
}

fn text_of(shown: &[(Style, String)]) -> String {
    shown.iter().map(|(_, text)| text.as_str()).collect()
}

fn only_text(text: &str) {
    let disturbing = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    assert!(!text.contains(disturbing), "{text:?}");
}

/// Classes are words of our own.
fn classes(style: Style) {
    let classes = style.classes();
    let known = |word: &str| {
        let colour = word.strip_prefix(['c', 'b']).and_then(|it| it.parse().ok());
        ["strong", "under"].contains(&word) || colour.is_some_and(|number: u8| number < 16)
    };
    assert!(
        classes.is_empty() || classes.split(' ').all(known),
        "{classes}"
    );
}

/// No sequence swallows a newline, or what stands in the next line.
fn lines_stay(bytes: &[u8], text: &str) {
    let newlines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(text.matches('\n').count() >= newlines, "{text:?}");
    let longer = text_of(&shown(&[bytes, b"\nthe next line"]));
    assert!(longer.ends_with("\nthe next line"), "{longer:?}");
}

/// Without control characters it is shown as it is, with U+FFFD for what is no
/// UTF-8.
fn as_it_is(bytes: &[u8], text: &str) {
    let lossy = String::from_utf8_lossy(bytes);
    if !lossy.contains(|char: char| char.is_control() && !matches!(char, '\n' | '\t')) {
        assert_eq!(text, lossy);
    }
}

/// What is left open ends with the output.
fn forgotten_at_the_end(bytes: &[u8]) {
    let mut terminal = Terminal::default();
    terminal.show(bytes);
    terminal.finish();
    let style = Style::default();
    let text = "after".to_owned();
    assert_eq!(terminal.show(b"after"), [Piece { style, text }]);
}

/// No sign of HTML is left, and a browser reads the text as it was.
fn escaped(text: &str) {
    let html = escape(text);
    assert!(
        !html.contains(['<', '>', '"', '\'', '\r', '\0']),
        "{html:?}"
    );
    assert_eq!(super::page::unescape(&html), text.replace('\0', "\u{fffd}"));
}
