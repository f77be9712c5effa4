//! What both pages have in common: escaping, headers, the head of the document.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The style of both pages.
const STYLE: &str = include_str!("style.css");

/// Text as HTML that a browser reads as exactly this text, between tags as well
/// as in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A browser would drop the one and normalise the other.
            '\0' => escaped.push('\u{fffd}'),
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// A number that nobody can guess: it marks the style sheets that are ours.
#[derive(Debug)]
pub(crate) struct Nonce(String);

impl Nonce {
    /// The standard library's hasher is keyed at random by the system.
    pub(crate) fn new() -> Nonce {
        let random = || RandomState::new().build_hasher().finish();
        Nonce(format!("{:016x}{:016x}", random(), random()))
    }

    /// A style element that the browser accepts.
    pub(crate) fn style(&self, css: &str) -> String {
        format!("<style nonce=\"{}\">\n{css}</style>", self.0)
    }
}

/// The headers of a page. Nothing that anybody typed gets in here.
pub(crate) fn html_headers(nonce: &Nonce) -> String {
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{}'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        nonce.0
    );
    format!(
        "Content-Type: text/html; charset=utf-8\r\n\
         {STREAMING_HEADERS}Content-Security-Policy: {policy}\r\n\r\n"
    )
}

/// The headers of plain text.
pub(crate) fn text_headers() -> String {
    format!("Content-Type: text/plain; charset=utf-8\r\n{STREAMING_HEADERS}\r\n")
}

/// Nobody on the way may compress, collect, keep or reinterpret it. The first
/// two are what Apache and nginx understand.
const STREAMING_HEADERS: &str = "Content-Encoding: none\r\n\
                        X-Accel-Buffering: no\r\n\
                        Cache-Control: no-store\r\n\
                        X-Content-Type-Options: nosniff\r\n\
                        Referrer-Policy: same-origin\r\n";

/// The document up to its body.
pub(crate) fn document_head(nonce: &Nonce, title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n{}\n</head>\n",
        escape(title),
        nonce.style(STYLE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser makes of it (the entities used here).
    fn decode(html: &str) -> String {
        let mut text = html.to_owned();
        for (entity, char) in [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#39;", "'"),
            ("&#13;", "\r"),
            ("&amp;", "&"),
        ] {
            text = text.replace(entity, char);
        }
        text
    }

    #[test]
    fn w06_escaped_text_decodes_to_the_original() {
        // Every sequence of up to five of what matters.
        let alphabet = [
            "<", ">", "&", "\"", "'", "\\", "/", "-", "!", "]", "amp;", "lt;", "#39;", "\u{2028}",
            "\r\n", "a",
        ];
        let mut texts = vec![String::new()];
        let mut longest = texts.clone();
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|text| alphabet.map(|more| format!("{text}{more}")))
                .collect();
            texts.extend(longest.iter().cloned());
        }
        for text in texts {
            let escaped = escape(&text);
            assert_eq!(decode(&escaped), text);
            assert!(!escaped.contains(['<', '>', '"', '\'']), "{escaped}");
        }
    }

    #[test]
    fn w06_every_character_decodes_to_itself() {
        for char in (1..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let text = char.to_string();
            assert_eq!(decode(&escape(&text)), text);
        }
    }

    #[test]
    fn w03_headers_differ_only_in_the_nonce() {
        let (one, two) = (Nonce::new(), Nonce::new());
        assert_ne!(one.0, two.0);
        assert_eq!(
            html_headers(&one).replace(&one.0, &two.0),
            html_headers(&two)
        );
        assert!(html_headers(&one).starts_with("Content-Type: text/html; charset=utf-8\r\n"));
    }
}
