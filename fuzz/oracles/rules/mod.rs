//! The verdicts of `socks.conf` agree with a simple text model of the file.

mod lines;
mod model;
mod networks;
mod queries;

use std::net::SocketAddr;

use threadsocks::config::{MAX_ERRORS, Settings, SyntaxError};
use threadsocks::protocol::Command;
use threadsocks::rules::{AccessQuery, Rules, Verdict, parse};

use self::model::{DENIED, expected_verdict, ipv4_mapped};
use self::queries::queries;

/// Prefixes of a file that are parsed; a bound on the time per input.
const MAX_PREFIXES: usize = 12;

/// Checks the result of the parser: layout, errors, display, verdicts, and prefixes.
pub fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    check_layout(bytes, &whole);
    match &whole {
        Err(errors) => check_errors(bytes, errors),
        Ok(rules) => {
            check_hidden_text(bytes, rules);
            check_display(rules);
            check_verdicts(bytes, rules);
        }
    }
    for end in line_ends(bytes) {
        check_prefix(&bytes[..end], &whole);
    }
}

/// Errors are in the order of the lines, at most one per line, in printable ASCII.
fn check_errors(bytes: &[u8], errors: &[SyntaxError]) {
    assert!((1..=MAX_ERRORS).contains(&errors.len()));
    let lines = bytes.split(|&byte| byte == b'\n').count();
    for (index, error) in errors.iter().enumerate() {
        let previous = index.checked_sub(1).map_or(0, |index| errors[index].line);
        assert!(previous < error.line && error.line <= lines, "{error}");
        assert!(error.reason.len() < 400, "{error}");
        assert!(
            error
                .reason
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte)),
            "{error}"
        );
    }
}

type Parsed = Result<Rules, Vec<SyntaxError>>;

/// The rules, or the numbers of the lines with an error.
fn rules_or_lines(parsed: &Parsed) -> Result<&Rules, Vec<usize>> {
    let lines = |errors: &Vec<SyntaxError>| errors.iter().map(|error| error.line).collect();
    parsed.as_ref().map_err(lines)
}

/// CRLF, a final newline, comments after a blank, additional spaces and a byte order mark
/// change nothing. Neither do capital letters, except in the names of users.
fn check_layout(bytes: &[u8], whole: &Parsed) {
    let lines = bytes.split(|&byte| byte == b'\n');
    // The CR before another end of line would be within the line.
    let lines: Vec<&[u8]> = lines.map(<[u8]>::trim_ascii_end).collect();
    let with_ends = |end: &[u8]| lines.join(end);
    let mut layouts = vec![
        with_ends(b"\r\n"),
        with_ends(b" \t\n"),
        with_ends(b" # \xff permit - -\n"),
        with_ends(b"\t#\n"),
        [bytes, b"\n"].concat(),
        [bytes, b"\n# end"].concat(),
    ];
    if !bytes
        .to_ascii_lowercase()
        .windows(5)
        .any(|it| it == b"user=")
    {
        layouts.extend([bytes.to_ascii_uppercase(), bytes.to_ascii_lowercase()]);
    }
    if !bytes.starts_with(b"\xef\xbb\xbf") {
        layouts.push([b"\xef\xbb\xbf", bytes].concat());
    }
    for layout in layouts {
        let text = layout.escape_ascii();
        assert_eq!(
            rules_or_lines(&parse(&layout)),
            rules_or_lines(whole),
            "with the layout {text}"
        );
    }
}

/// No part of a valid line is hidden: no character that other programs take for the end of a
/// line is within one, and a `#` directly after a rule is an error.
fn check_hidden_text(bytes: &[u8], rules: &Rules) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let is_end = |byte: &u8| [0, 0x0B, 0x0C, b'\r'].contains(byte);
        assert!(!line.trim_ascii().iter().any(is_end), "{line:?}");
    }
    for rule in rules.iter() {
        assert!(parse(format!("{rule} #x").as_bytes()).is_ok(), "{rule}");
        assert!(parse(format!("{rule}#x").as_bytes()).is_err(), "{rule}");
    }
}

/// The long form of each rule, written on the rule's own line, parses as the same rule.
fn check_display(rules: &Rules) {
    let mut text = String::new();
    for rule in rules.iter() {
        let line = text.matches('\n').count() + 1;
        let shown = rule.to_string();
        assert!(
            shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{shown}"
        );
        text.push_str(&"\n".repeat(rule.line() - line));
        text.push_str(&shown);
        text.push('\n');
    }
    assert_eq!(parse(text.as_bytes()).as_ref(), Ok(rules), "{text}");
}

/// The offsets after the first newlines.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n');
    ends.map(|at| at + 1).take(MAX_PREFIXES).collect()
}

/// A file that is cut off between two lines permits no more than the whole file: its rules
/// decide as before, and everything else is denied.
fn check_prefix(prefix: &[u8], whole: &Parsed) {
    let part = parse(prefix);
    let rules = match (&part, whole) {
        (Ok(rules), Ok(whole)) => (rules, whole),
        (Ok(_), Err(errors)) => {
            let last = prefix.split(|&byte| byte == b'\n').count() - 1;
            return assert!(
                errors[0].line > last,
                "the prefix accepts the error {}",
                errors[0]
            );
        }
        (Err(part), Err(whole)) => return assert!(whole.starts_with(part)),
        (Err(part), Ok(_)) => panic!("only the prefix has errors: {part:?}"),
    };
    let (part, whole) = rules;
    assert!(part.iter().eq(whole.iter().take(part.len())));
    let last = prefix.split(|&byte| byte == b'\n').count() - 1;
    for owned in queries(prefix) {
        let query = owned.query();
        let expected = match without_advice(whole.evaluate(&query)) {
            verdict @ Verdict {
                line: Some(line), ..
            } if line <= last => verdict,
            _ => DENIED,
        };
        assert_eq!(without_advice(part.evaluate(&query)), expected, "{owned:?}");
    }
}

/// The verdict without the field that only makes its text clearer.
fn without_advice(verdict: Verdict) -> Verdict {
    Verdict {
        lacks_local: None,
        ..verdict
    }
}

/// The verdicts are those of the model, also for IPv4-mapped IPv6 addresses. A query whose
/// address or port is not known yet is never judged more strictly than the complete query.
fn check_verdicts(bytes: &[u8], rules: &Rules) {
    let text = String::from_utf8_lossy(bytes);
    for owned in queries(bytes) {
        let query = owned.query();
        let verdict = without_advice(rules.evaluate(&query));
        assert_eq!(verdict, expected_verdict(&text, &owned), "{owned:?}");
        let mapped = AccessQuery {
            source: SocketAddr::new(ipv4_mapped(owned.source.ip()), owned.source.port()),
            address: Some(ipv4_mapped(owned.address)),
            ..query
        };
        assert_eq!(
            without_advice(rules.evaluate(&mapped)),
            verdict,
            "{mapped:?}"
        );
        for port in [Some(owned.port), None] {
            let best = rules.evaluate(&AccessQuery {
                address: None,
                port,
                ..query
            });
            let is_stricter = !best.permitted || best.ident && !verdict.ident;
            assert!(
                !verdict.permitted || !is_stricter,
                "{owned:?} was denied before it was complete"
            );
        }
        if owned.command == Command::Associate {
            let anything = rules.evaluate(&AccessQuery {
                name: None,
                address: None,
                port: None,
                ..query
            });
            let is_stricter = !anything.permitted || anything.ident && !verdict.ident;
            assert!(
                !verdict.permitted || !is_stricter,
                "{owned:?} was denied before it was complete"
            );
        }
        for rule in rules.iter() {
            let decides = Some(rule.line()) == verdict.line;
            let matches = rule.mismatches(&query).is_empty();
            assert!(matches || !decides, "{rule} does not match {owned:?}");
            if decides {
                break;
            }
            assert!(!matches, "{rule} matches {owned:?}");
        }
        let clients = Settings::default().client_kinds(false);
        if rules.open_relay(clients).is_none() && rules.len() == 1 {
            assert!(
                !verdict.permitted || !permits_every_connect(&text),
                "{text} is open"
            );
        }
    }
}

fn permits_every_connect(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [action, modes, from, from_port, to, port] = words[..] else {
        return false;
    };
    [action, modes, from, to] == ["permit", "c", "-", "-"]
        && ["-", "0-65535", "1024-65535"].contains(&from_port)
        && ["-", "0-65535", "1-65535"].contains(&port)
}
