//! Escaping, response headers and the document head, which all HTML pages share.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::query::{Format, Query, percent_encode};
use crate::status::{Outcome, RunStatus};

/// The style sheet of all HTML pages.
const STYLE: &str = include_str!("style.css");

/// The style sheet of the columns: in the shadow tree of a run, and in the page of a kept
/// run.
pub(crate) const COLUMN_STYLE: &str = include_str!("columns.css");

/// Escapes text for HTML, between tags and in quoted attributes. A browser decodes
/// the result to the same text.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML parsers drop NUL and change CR to LF.
            '\0' => escaped.push('\u{fffd}'),
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// A random number of 128 bits, one per page. The browser applies only style sheets
/// that carry it (Content Security Policy), so injected styles have no effect.
#[derive(Debug)]
pub(crate) struct Nonce(String);

impl Nonce {
    /// Takes the number from two hashers of the standard library, whose keys come
    /// from the random number generator of the system.
    pub(crate) fn new() -> Nonce {
        let random = || RandomState::new().build_hasher().finish();
        Nonce(format!("{:016x}{:016x}", random(), random()))
    }

    /// A style element with this nonce.
    pub(crate) fn style(&self, css: &str) -> String {
        format!("<style nonce=\"{}\">\n{css}</style>", self.0)
    }
}

/// The headers of a page. They contain no input of the user, so a line end in a value
/// cannot inject a header. The nonce must be that of the page.
pub(crate) fn headers(format: Format, nonce: &Nonce) -> String {
    let content_type = match format {
        Format::Html => "text/html",
        Format::Text => "text/plain",
        // JSON Lines: one object per line.
        Format::Json => "application/jsonl",
    };
    let policy = match format {
        Format::Html => format!(
            "default-src 'none'; style-src 'nonce-{}'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
            nonce.0
        ),
        Format::Text | Format::Json => "default-src 'none'".to_owned(),
    };
    format!(
        "Content-Type: {content_type}; charset=utf-8\r\n\
         {STREAMING_HEADERS}Content-Security-Policy: {policy}\r\n\r\n"
    )
}

/// The response that leads a browser to this URL of the console with GET. `query` is a
/// query with its `?`, and `label` is the text of a link to it.
///
/// Python's web server for tests sends the status 200 before it runs a CGI program. So
/// the page itself leads there too.
pub(crate) fn redirect(query: &str, label: &str) -> String {
    let nonce = Nonce::new();
    let target = escape(query);
    format!(
        "Status: 303 See Other\r\nLocation: {query}\r\n{}<!DOCTYPE html>\n<html lang=\"en\">\n\
         <head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"0;url={target}\">\n\
         <title>Remote batch console</title>\n</head>\n<body><p><a href=\"{target}\">{label}</a></p></body>\n\
         </html>\n",
        headers(Format::Html, &nonce)
    )
}

/// The response to a request for a host name that is not this console's. It says which
/// setting permits the name.
pub(crate) fn unknown_host(host: &str, format: Format) -> String {
    let first = format!("This console does not accept the host name \"{host}\".");
    let second = "It accepts IP addresses, localhost and the names in CONSOLE_HOST. This protects \
                  against DNS rebinding: another site could let its name resolve to this server.";
    let third = "To permit the name, the administrator of this console adds it to CONSOLE_HOST in \
                 the environment of the CGI program, in Apache for example: \
                 SetEnv CONSOLE_HOST \"console.example.edu\"";
    let status = "Status: 403 Forbidden\r\n";
    let nonce = Nonce::new();
    if format != Format::Html {
        let headers = headers(Format::Text, &nonce);
        return format!("{status}{headers}# {first}\n# {second}\n# {third}\n");
    }
    let paragraphs: String = [&first, second, third]
        .map(|text| format!("<p>{}</p>\n", escape(text)))
        .concat();
    format!(
        "{status}{}{}<body class=\"wide\">\n<main>\n<h1>Remote batch console</h1>\n{paragraphs}</main>\n\
         </body>\n</html>\n",
        headers(Format::Html, &nonce),
        document_head(&nonce, "Remote batch console", Icon::Plain)
    )
}

/// Headers against buffering, caching and content sniffing.
///
/// `Content-Encoding: none` keeps Apache from compressing, which would hold back the
/// page until its end. `X-Accel-Buffering: no` disables buffering in nginx.
const STREAMING_HEADERS: &str = "Content-Encoding: none\r\n\
                        X-Accel-Buffering: no\r\n\
                        Cache-Control: no-store\r\n\
                        X-Content-Type-Options: nosniff\r\n\
                        Referrer-Policy: same-origin\r\n";

/// The icon of a page: a sign in the colour of the state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Icon {
    /// A page without a run.
    Plain,
    Running,
    Success,
    Failure,
}

impl Icon {
    /// The icon of a run that has ended.
    pub(crate) fn of(run: &RunStatus) -> Icon {
        match run.count(Outcome::Failure) {
            0 => Icon::Success,
            _ => Icon::Failure,
        }
    }

    /// The link element for the head of a document.
    pub(crate) fn link(self) -> String {
        self.link_with("icon")
    }

    /// The link element for the body, where it replaces the icon of the head. HTML permits a
    /// link there if one of its types is `dns-prefetch`, which does nothing for a `data:` URL.
    pub(crate) fn late_link(self) -> String {
        self.link_with("dns-prefetch icon")
    }

    /// The link element with these types, and with the icon as a `data:` URL.
    fn link_with(self, types: &str) -> String {
        let (colour, sign) = match self {
            Icon::Plain => ("0b5cad", "M4 5l4 3-4 3M9 11h4"),
            Icon::Running => ("7a5200", "M8 4v4l3 2"),
            Icon::Success => ("17693a", "M4 8l3 3 5-6"),
            Icon::Failure => ("b3261e", "M5 5l6 6M11 5l-6 6"),
        };
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\">\
             <rect width=\"16\" height=\"16\" rx=\"3\" fill=\"#{colour}\"/>\
             <path d=\"{sign}\" stroke=\"white\" stroke-width=\"2\" fill=\"none\"/></svg>"
        );
        let url = percent_encode(&svg);
        format!("<link rel=\"{types}\" href=\"data:image/svg+xml,{url}\">\n")
    }
}

/// A form without visible fields, which has the rows of a run. Buttons elsewhere in the
/// document start and edit runs with it, by `form="rows"`.
pub(crate) fn rows_form(query: &Query) -> String {
    let fields = query.fields().into_iter().map(|(key, value)| {
        let value = escape(value);
        format!("<input type=\"hidden\" name=\"{key}\" value=\"{value}\">")
    });
    let fields: String = fields.collect();
    format!("<form id=\"rows\" method=\"post\" action=\"?\">{fields}</form>\n")
}

/// A link to the form with the rows of a run, in another tab: to leave the page of a run
/// stops the run. A link would put a typed batch into the URL; then it is a button of
/// [`rows_form`].
pub(crate) fn edit_control(query: &Query) -> String {
    const LABEL: &str = "Edit these rows";
    match query.batch.is_empty() {
        true => {
            let rows = escape(&query.encode());
            format!("<a href=\"?{rows}edit=1\" target=\"_blank\">{LABEL}</a>")
        }
        false => format!(
            "<button form=\"rows\" formtarget=\"_blank\" name=\"edit\" value=\"1\">{LABEL}</button>"
        ),
    }
}

/// A time in the format of RFC 3339, in UTC, for people: `2026-11-28 15:46:12 UTC`.
pub(crate) fn readable_time(time: &str) -> String {
    time.replace('T', " ").replace('Z', " UTC")
}

/// The HTML document from its start to `</head>`.
pub(crate) fn document_head(nonce: &Nonce, title: &str, icon: Icon) -> String {
    document_head_with(nonce, title, icon, "")
}

/// The same with an additional style sheet.
pub(crate) fn document_head_with(nonce: &Nonce, title: &str, icon: Icon, style: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n{}{}\n</head>\n",
        escape(title),
        icon.link(),
        nonce.style(&[STYLE, style].concat())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the entities that [`escape`] produces, as a browser does.
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
        // All sequences of up to four of these strings.
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
        let html = headers(Format::Html, &one);
        assert_eq!(html.replace(&one.0, &two.0), headers(Format::Html, &two));
        assert!(html.starts_with("Content-Type: text/html; charset=utf-8\r\n"));
    }
}
