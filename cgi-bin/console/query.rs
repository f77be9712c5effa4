//! Parsing of the query string into five rows of text. Every query is valid.
//!
//! Two key formats exist: `h1 p1 f1 sh1 sp1` to `h5 ...`, with a SOCKS server for each
//! row, and the older `h0 p0 f0` to `h4 ...`, with one `sh` and `sp` for all rows. A
//! query may mix both.

use std::fmt::Write;

/// Number of rows of the form.
pub(crate) const ROWS: usize = 5;

/// Maximum length of a value in bytes; the rest is discarded. Longer than any host name
/// or file name, and enough for an error message.
const MAX_VALUE_LENGTH: usize = 1000;

/// The text of one row. Each field may be empty or invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// The shell server.
    pub(crate) host: String,
    pub(crate) port: String,
    /// The name of the batch file.
    pub(crate) file: String,
    pub(crate) socks_host: String,
    pub(crate) socks_port: String,
}

/// The content of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) rows: [Row; ROWS],
    /// The shared SOCKS server, for rows without a SOCKS server.
    pub(crate) socks_host: String,
    pub(crate) socks_port: String,
    /// Plain text instead of HTML.
    pub(crate) as_text: bool,
    /// The form with these values; no session starts.
    pub(crate) edit: bool,
    /// The one-time token that permits a run.
    pub(crate) token: String,
}

/// The meaning of a key; rows count from 0.
enum Key {
    Host(usize),
    Port(usize),
    File(usize),
    SocksHost(usize),
    SocksPort(usize),
    SharedSocksHost,
    SharedSocksPort,
    Format,
    Edit,
    Token,
}

impl Query {
    /// Parses a query. The first value of a repeated key is used. Unknown keys are
    /// ignored.
    pub(crate) fn parse(text: &[u8]) -> Query {
        let pairs = || text.split(|&byte| byte == b'&').map(split_pair);
        let from_zero = pairs().any(|(key, _)| is_row_key(key, b'0'));
        let first_row = if from_zero { b'0' } else { b'1' };
        let mut query = Query::default();
        let mut seen_keys = Vec::new();
        for (key, value) in pairs() {
            let Some(kind) = parse_key(key, first_row) else {
                continue;
            };
            if !seen_keys.contains(&key) {
                seen_keys.push(key);
                query.set(&kind, decode_value(value));
            }
        }
        query
    }

    fn set(&mut self, key: &Key, value: String) {
        match key {
            Key::SharedSocksHost => self.socks_host = value,
            Key::SharedSocksPort => self.socks_port = value,
            Key::Format => self.as_text = value == "text",
            Key::Edit => self.edit = !value.is_empty(),
            Key::Token => self.token = value,
            Key::Host(row) => self.row(*row, |row| row.host = value),
            Key::Port(row) => self.row(*row, |row| row.port = value),
            Key::File(row) => self.row(*row, |row| row.file = value),
            Key::SocksHost(row) => self.row(*row, |row| row.socks_host = value),
            Key::SocksPort(row) => self.row(*row, |row| row.socks_port = value),
        }
    }

    fn row(&mut self, number: usize, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.get_mut(number) {
            change(row);
        }
    }

    /// Reports whether all rows and the shared SOCKS server are empty.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = Row::default();
        self.rows.iter().all(|row| *row == nothing)
            && self.socks_host.is_empty()
            && self.socks_port.is_empty()
    }

    /// Encodes rows and format as a query in the newer key format. The token is left out:
    /// a link with these rows starts no run.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        let mut put = |key: &str, number: &str, value: &str| {
            if !value.is_empty() {
                let _ = write!(text, "{key}{number}={}&", percent_encode(value));
            }
        };
        for (index, row) in self.rows.iter().enumerate() {
            let number = (index + 1).to_string();
            put("h", &number, &row.host);
            put("p", &number, &row.port);
            put("f", &number, &row.file);
            put("sh", &number, &row.socks_host);
            put("sp", &number, &row.socks_port);
        }
        put("sh", "", &self.socks_host);
        put("sp", "", &self.socks_port);
        put("format", "", if self.as_text { "text" } else { "" });
        text
    }
}

/// Splits `key=value`; a pair without `=` has an empty value.
fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = pair.splitn(2, |&byte| byte == b'=');
    let key = halves.next().unwrap_or_default();
    (key, halves.next().unwrap_or_default())
}

/// Reports whether a key is one of the five keys of the row with this digit.
fn is_row_key(key: &[u8], digit: u8) -> bool {
    matches!(key, [b'h' | b'p' | b'f', row] | [b's', b'h' | b'p', row] if *row == digit)
}

/// Parses a key; `None` if it is unknown. `first_row` is the digit of the first row.
fn parse_key(key: &[u8], first_row: u8) -> Option<Key> {
    let row = |digit: u8| {
        let row = usize::from(digit.checked_sub(first_row)?);
        (row < ROWS).then_some(row)
    };
    match *key {
        [b'h', digit] => row(digit).map(Key::Host),
        [b'p', digit] => row(digit).map(Key::Port),
        [b'f', digit] => row(digit).map(Key::File),
        [b's', b'h', digit] => row(digit).map(Key::SocksHost),
        [b's', b'p', digit] => row(digit).map(Key::SocksPort),
        [b's', b'h'] => Some(Key::SharedSocksHost),
        [b's', b'p'] => Some(Key::SharedSocksPort),
        _ if key == b"format" => Some(Key::Format),
        _ if key == b"edit" => Some(Key::Edit),
        _ if key == b"once" => Some(Key::Token),
        _ => None,
    }
}

/// Decodes `+` and `%xx` (application/x-www-form-urlencoded). A `%` without two
/// hexadecimal digits stays as it is. White space around the value is removed, since
/// copying and pasting adds it.
fn decode_value(value: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        if bytes.len() == MAX_VALUE_LENGTH {
            break;
        }
        rest = tail;
        match (first, hex_pair(tail)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    // U+FFFD, which replaces invalid UTF-8 and a character cut at the limit, has three
    // bytes, so the text may be longer than the limit.
    while text.len() > MAX_VALUE_LENGTH {
        text.pop();
    }
    text.trim().to_owned()
}

/// The value of the first two characters, if they are hexadecimal digits.
fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(query: &str) -> [String; ROWS] {
        Query::parse(query.as_bytes()).rows.map(|row| row.host)
    }

    #[test]
    fn w02_rows_count_from_zero_if_a_key_has_digit_zero() {
        assert_eq!(hosts("h1=a&h5=e"), ["a", "", "", "", "e"]);
        assert_eq!(hosts("h0=a&h4=e&h5=f"), ["a", "", "", "", "e"]);
        assert_eq!(hosts("h1=b&sp0="), ["", "b", "", "", ""]);
        assert_eq!(
            hosts("h=a&h9=b&hx=c&h-1=d&h10=e&=f&&&="),
            [""; ROWS].map(str::to_owned)
        );
    }

    #[test]
    fn w02_both_key_formats_are_parsed() {
        let old = Query::parse(b"h0=a&p0=1&f0=t1.txt&sh=s&sp=1080");
        assert_eq!(old.rows[0].port, "1");
        assert_eq!(old.rows[0].file, "t1.txt");
        assert_eq!(
            (old.socks_host.as_str(), old.socks_port.as_str()),
            ("s", "1080")
        );
        let new = Query::parse(b"h2=a&p2=1&f2=x&sh2=s&sp2=1081&format=text&edit=1");
        let row = &new.rows[1];
        assert_eq!(
            (row.socks_host.as_str(), row.socks_port.as_str()),
            ("s", "1081")
        );
        assert!(new.as_text && new.edit);
        assert!(Query::parse(b"format=text").is_empty());
        assert!(Query::parse(b"").is_empty());
    }

    #[test]
    fn w02_values_are_decoded_and_the_first_of_a_key_is_used() {
        for (query, host) in [
            ("h1=a&h1=b", "a"),
            ("h1=&h1=b", ""),
            ("h1=a=b", "a=b"),
            ("h1", ""),
            ("h1=a+b%2Bc", "a b+c"),
            ("h1=%zz%4%", "%zz%4%"),
            ("h1=%41%e4%bd%a0", "A\u{4f60}"),
            ("h1=%ff", "\u{fffd}"),
            ("h1=a%00b", "a\0b"),
            ("h1=++a%09", "a"),
            ("h1=%+1", "% 1"),
        ] {
            assert_eq!(hosts(query)[0], host, "{query}");
        }
        let long = format!("h1={}", "a".repeat(1_000_000));
        assert_eq!(hosts(&long)[0].len(), MAX_VALUE_LENGTH);
        let invalid = format!("h1={}", "%ff".repeat(MAX_VALUE_LENGTH));
        assert_eq!(hosts(&invalid)[0], "\u{fffd}".repeat(MAX_VALUE_LENGTH / 3));
    }

    #[test]
    fn a_truncated_value_survives_encoding_and_parsing() {
        for sign in ["%ff", "%e4%bd%a0", "%f0%9f%98%80", "a%c3%a9"] {
            let query = Query::parse(format!("h1={}", sign.repeat(MAX_VALUE_LENGTH)).as_bytes());
            assert_eq!(Query::parse(query.encode().as_bytes()), query, "{sign}");
        }
    }

    #[test]
    fn w02_an_encoded_query_parses_to_itself() {
        let query =
            Query::parse(b"h1=a%26b&p3=%3D%25&sh4=+x%e4y&sp5=1&sh=%22&sp=0&f2=t1.txt&format=text");
        assert_eq!(Query::parse(query.encode().as_bytes()), query);
    }
}
