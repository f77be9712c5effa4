//! The query string of a URL is parsed as browsers encode forms.

use crate::query::{Format, Query, ROWS, Row, percent_encode};

/// Longest value in bytes; the parser cuts off the rest.
const MAX_VALUE: usize = 1000;

/// Compares the parser with the model, and checks the encoder.
pub fn check(bytes: &[u8]) {
    let query = Query::parse(bytes);
    assert_eq!(query, model(bytes), "the model differs");
    for value in values(&query) {
        assert!(
            value.len() <= MAX_VALUE,
            "the value has {} bytes",
            value.len()
        );
        assert_eq!(value.trim(), value);
    }
    check_key_order(bytes, &query);
    check_link(&query);
    check_percent_encoding(&String::from_utf8_lossy(bytes));
}

fn values(query: &Query) -> Vec<&str> {
    let rows = query.rows.iter();
    let mut values: Vec<&str> = rows.flat_map(row_values).collect();
    values.extend([&query.socks_host[..], &query.socks_port, &query.file]);
    values.extend([&query.token[..], &query.show_run, &query.stop_run]);
    values
}

fn row_values(row: &Row) -> [&str; 5] {
    [
        &row.host,
        &row.port,
        &row.file,
        &row.socks_host,
        &row.socks_port,
    ]
    .map(String::as_str)
}

/// The query, built by searching the first value of each key.
fn model(bytes: &[u8]) -> Query {
    let mut query = Query::default();
    let from_zero = ["h0", "p0", "f0", "sh0", "sp0"]
        .iter()
        .any(|key| has_key(bytes, key));
    for row in 0..ROWS {
        let number = if from_zero { row } else { row + 1 };
        let get = |key: &str| first_value(bytes, &format!("{key}{number}"));
        query.rows[row] = Row {
            host: get("h"),
            port: get("p"),
            file: get("f"),
            socks_host: get("sh"),
            socks_port: get("sp"),
        };
    }
    query.socks_host = first_value(bytes, "sh");
    query.socks_port = first_value(bytes, "sp");
    query.file = first_value(bytes, "f");
    query.batch = String::from_utf8_lossy(&first_bytes(bytes, "batch")).into_owned();
    let again = first_value(bytes, "again");
    let numbers = again
        .split(',')
        .filter_map(|number| number.trim().parse().ok())
        .filter(|number| (1..=ROWS).contains(number));
    query.only = (!again.is_empty()).then(|| numbers.collect());
    query.format = match first_value(bytes, "format").as_str() {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => Format::Html,
    };
    query.edit = !first_value(bytes, "edit").is_empty();
    query.token = first_value(bytes, "once");
    query.list_runs = has_key(bytes, "runs");
    query.show_run = first_value(bytes, "run");
    query.stop_run = first_value(bytes, "stop");
    let list = first_bytes(bytes, "shells");
    place_shells(&mut query, &String::from_utf8_lossy(&list));
    query
}

/// Enters a list of shells into the rows that have neither a host nor a port.
fn place_shells(query: &mut Query, list: &str) {
    let mut row = 0;
    for entry in list.split([',', ' ']).flat_map(str::split_whitespace) {
        let ends = entry.char_indices().map(|(at, char)| at + char.len_utf8());
        let end = ends.take_while(|&end| end <= MAX_VALUE).last().unwrap_or(0);
        let entry = &entry[..end];
        while row < ROWS && (!query.rows[row].host.is_empty() || !query.rows[row].port.is_empty()) {
            row += 1;
        }
        if row == ROWS {
            query.excess_shells.push(entry.to_owned());
            continue;
        }
        let colons = entry.matches(':').count();
        let bracketed = entry
            .rfind("]:")
            .is_some_and(|at| !entry[at + 2..].contains(':'));
        let at = entry.rfind(':').filter(|_| colons == 1 || bracketed);
        let (host, port) = at.map_or((entry, ""), |at| (&entry[..at], &entry[at + 1..]));
        query.rows[row].host = host.to_owned();
        query.rows[row].port = port.to_owned();
        row += 1;
    }
}

fn has_key(bytes: &[u8], wanted: &str) -> bool {
    pairs(bytes)
        .iter()
        .any(|pair| key(pair) == wanted.as_bytes())
}

fn pairs(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|&byte| byte == b'&').collect()
}

fn key(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|&byte| byte == b'=');
    &pair[..end.unwrap_or(pair.len())]
}

/// The decoded value of the first pair with this key.
fn first_bytes(bytes: &[u8], wanted: &str) -> Vec<u8> {
    let pairs = pairs(bytes);
    let pair = pairs.iter().find(|pair| key(pair) == wanted.as_bytes());
    let value = pair.and_then(|pair| pair.get(wanted.len() + 1..));
    percent_decode(value.unwrap_or_default())
}

fn first_value(bytes: &[u8], wanted: &str) -> String {
    let mut bytes = first_bytes(bytes, wanted);
    bytes.truncate(MAX_VALUE);
    let text = String::from_utf8_lossy(&bytes);
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    let end = ends.take_while(|&end| end <= MAX_VALUE).last().unwrap_or(0);
    text[..end].trim().to_owned()
}

/// Decodes percent-encoding: splits at each `%` and tests for two hexadecimal digits.
pub(super) fn percent_decode(value: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = value
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    let mut parts = spaced.split(|&byte| byte == b'%');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let digits = part
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// Only the first value of a key counts: the order of different keys and unknown keys
/// change nothing.
fn check_key_order(bytes: &[u8], query: &Query) {
    let mut firsts: Vec<&[u8]> = Vec::new();
    for pair in pairs(bytes) {
        if !firsts.iter().any(|first| key(first) == key(pair)) {
            firsts.push(pair);
        }
    }
    firsts.reverse();
    assert_eq!(
        Query::parse(&firsts.join(&b'&')),
        *query,
        "in reverse order"
    );
    firsts.extend(pairs(b"other=1&h=2&h6=3&&=&%68%31=4&hh1=5"));
    assert_eq!(Query::parse(&firsts.join(&b'&')), *query, "with other keys");
}

/// The link from the page back to the form contains every value of the form but the typed
/// batch, and no token. The text of a token contains all that a run needs.
fn check_link(query: &Query) {
    let link = query.encode();
    let run = Query {
        edit: false,
        token: String::new(),
        excess_shells: Vec::new(),
        list_runs: false,
        show_run: String::new(),
        stop_run: String::new(),
        ..query.clone()
    };
    assert_eq!(Query::parse(query.encode_run().as_bytes()), run);
    let typed = Query {
        batch: String::new(),
        only: None,
        ..run
    };
    assert_eq!(Query::parse(link.as_bytes()), typed, "{link}");
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%=&".contains(&byte);
    assert!(link.bytes().all(is_allowed), "{link}");
}

/// Encoded text has only characters that a URL may contain, and decodes to the original.
fn check_percent_encoding(text: &str) {
    let encoded = percent_encode(text);
    assert_eq!(percent_decode(encoded.as_bytes()), text.as_bytes());
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    assert!(encoded.bytes().all(is_allowed), "{encoded}");
}
