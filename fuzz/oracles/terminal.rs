//! Shell output becomes the same text wherever the network splits it, without control characters.

use super::chunks::chunkings;
use crate::html::escape;
use crate::terminal::{Piece, Style, Terminal, plain};

/// Compares all chunkings of the output, and checks text, styles and escaped HTML.
pub fn check(bytes: &[u8]) {
    let whole = render(&[bytes]);
    for chunks in chunkings(bytes) {
        assert_eq!(render(&chunks), whole, "in chunks {chunks:?}");
    }
    let text = text_of(&whole);
    check_no_controls(&text);
    // The longest replacement: U+FFFD has three bytes in UTF-8.
    assert!(text.len() <= 3 * bytes.len(), "{} bytes", text.len());
    for (style, _) in &whole {
        check_classes(*style);
    }
    check_newlines(bytes, &text);
    check_plain_text(bytes, &text);
    check_reset_at_end(bytes);
    let line = plain(bytes);
    assert!(
        !line.chars().any(|char| char.is_control() && char != '\t'),
        "{line:?}"
    );
    for text in [&text, &line, &*String::from_utf8_lossy(bytes)] {
        check_escape(text);
    }
}

/// The text of each style. Neighbouring pieces of one style are joined, since chunks may
/// split them.
fn render(chunks: &[&[u8]]) -> Vec<(Style, String)> {
    let mut terminal = Terminal::default();
    let mut all: Vec<Piece> = chunks
        .iter()
        .flat_map(|chunk| terminal.show(chunk))
        .collect();
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

fn text_of(rendered: &[(Style, String)]) -> String {
    rendered.iter().map(|(_, text)| text.as_str()).collect()
}

fn check_no_controls(text: &str) {
    let is_forbidden = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    assert!(!text.contains(is_forbidden), "{text:?}");
}

/// All classes are names of the page's stylesheet.
fn check_classes(style: Style) {
    let classes = style.classes();
    let is_known = |word: &str| {
        let colour = word
            .strip_prefix(['c', 'b'])
            .and_then(|number| number.parse().ok());
        ["strong", "under"].contains(&word) || colour.is_some_and(|number: u8| number < 16)
    };
    assert!(
        classes.is_empty() || classes.split(' ').all(is_known),
        "{classes}"
    );
}

/// No escape sequence removes a newline or text of the next line.
fn check_newlines(bytes: &[u8], text: &str) {
    let newlines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(text.matches('\n').count() >= newlines, "{text:?}");
    let longer = text_of(&render(&[bytes, b"\nthe next line"]));
    assert!(longer.ends_with("\nthe next line"), "{longer:?}");
}

/// Text without control characters is unchanged; invalid UTF-8 becomes U+FFFD.
fn check_plain_text(bytes: &[u8], text: &str) {
    let lossy = String::from_utf8_lossy(bytes);
    if !lossy.contains(|char: char| char.is_control() && !matches!(char, '\n' | '\t')) {
        assert_eq!(text, lossy);
    }
}

/// An unfinished sequence or style ends with the output.
fn check_reset_at_end(bytes: &[u8]) {
    let mut terminal = Terminal::default();
    terminal.show(bytes);
    terminal.finish();
    let style = Style::default();
    let text = "after".to_owned();
    assert_eq!(terminal.show(b"after"), [Piece { style, text }]);
}

/// Escaped text has no special character of HTML, and a browser shows the original text.
fn check_escape(text: &str) {
    let html = escape(text);
    assert!(
        !html.contains(['<', '>', '"', '\'', '\r', '\0']),
        "{html:?}"
    );
    assert_eq!(
        super::page::html_unescape(&html),
        text.replace('\0', "\u{fffd}")
    );
}
