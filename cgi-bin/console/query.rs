//! Parsing of the query string into five rows of text. Every query is valid.
//!
//! Two key formats exist: `h1 p1 f1 sh1 sp1` to `h5 ...`, with a SOCKS server for each
//! row, and the older `h0 p0 f0` to `h4 ...`, with one `sh` and `sp` for all rows. A
//! query may mix both.

use std::fmt::Write;

/// Number of rows of the form.
pub(crate) const ROWS: usize = 5;

/// Maximum length of a value in bytes; the rest is discarded. Longer than any host name
/// or file name, and enough for an error message. Only a typed batch and a list of shells
/// may be longer: the limits of a request bound them.
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

impl Row {
    /// Reports whether the user has begun to fill in this row. A SOCKS server alone does not
    /// count.
    pub(crate) fn is_used(&self) -> bool {
        !(self.host.is_empty() && self.port.is_empty() && self.file.is_empty())
    }
}

/// The representation of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Html,
    Text,
    /// One object per line.
    Json,
}

/// The content of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) rows: [Row; ROWS],
    /// The shared SOCKS server, for rows without a SOCKS server.
    pub(crate) socks_host: String,
    pub(crate) socks_port: String,
    /// The shared batch file, for rows without a batch file.
    pub(crate) file: String,
    /// The text of a typed batch, for rows without a batch file if no file is shared.
    pub(crate) batch: String,
    /// Entries of the list of shells, `host:port` each, for which there is no empty row.
    pub(crate) excess_shells: Vec<String>,
    /// The numbers of the rows to run, from 1; `None` for all rows. An empty list, from invalid
    /// numbers, runs nothing.
    pub(crate) only: Option<Vec<usize>>,
    pub(crate) format: Format,
    /// Whether to show the form, even if the rows could run.
    pub(crate) edit: bool,
    /// The one-time token that permits a run.
    pub(crate) token: String,
    /// Whether the list of the kept runs is requested.
    pub(crate) list_runs: bool,
    /// The ID of the kept run to show.
    pub(crate) show_run: String,
    /// The ID of the kept run to stop.
    pub(crate) stop_run: String,
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
    SharedFile,
    Batch,
    Shells,
    Again,
    Format,
    Edit,
    Token,
    Runs,
    ShowRun,
    StopRun,
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
                query.set(&kind, value);
            }
        }
        query.place_shells();
        query
    }

    fn set(&mut self, key: &Key, encoded: &[u8]) {
        let value = decode_value(encoded);
        match key {
            Key::SharedSocksHost => self.socks_host = value,
            Key::SharedSocksPort => self.socks_port = value,
            Key::SharedFile => self.file = value,
            Key::Batch => self.batch = decode(encoded, usize::MAX),
            Key::Shells => self.excess_shells = list_entries(&decode(encoded, usize::MAX)),
            Key::Again => self.only = (!value.is_empty()).then(|| row_numbers(&value)),
            Key::Format => {
                self.format = match value.as_str() {
                    "text" => Format::Text,
                    "json" => Format::Json,
                    _ => Format::Html,
                }
            }
            Key::Edit => self.edit = !value.is_empty(),
            Key::Token => self.token = value,
            Key::Runs => self.list_runs = true,
            Key::ShowRun => self.show_run = value,
            Key::StopRun => self.stop_run = value,
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

    /// Moves entries of the list of shells into the rows without a shell.
    fn place_shells(&mut self) {
        let mut entries = std::mem::take(&mut self.excess_shells).into_iter();
        let empty = |row: &&mut Row| row.host.is_empty() && row.port.is_empty();
        for (row, entry) in self.rows.iter_mut().filter(empty).zip(entries.by_ref()) {
            let (host, port) = split_host_and_port(&entry);
            (row.host, row.port) = (host.to_owned(), port.to_owned());
        }
        self.excess_shells = entries.collect();
    }

    /// The format of the page. Kept runs exist as text only, so JSON of them is text.
    pub(crate) fn page_format(&self) -> Format {
        match self.format {
            Format::Json if self.list_runs || !self.show_run.is_empty() => Format::Text,
            format => format,
        }
    }

    /// Reports whether the row with this number, from 1, is to run.
    pub(crate) fn runs_row(&self, number: usize) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&number))
    }

    /// The value of the key `again`; empty for all rows.
    pub(crate) fn again(&self) -> String {
        match &self.only {
            None => String::new(),
            // No row has this number.
            Some(only) if only.is_empty() => "0".to_owned(),
            Some(only) => row_list(only),
        }
    }

    /// Reports whether all rows and the shared values are empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields().is_empty()
    }

    /// The fields of the form that are not empty, as keys and values in the newer key
    /// format. Neither the token nor the rows to run are among them: a link or a form
    /// with these fields starts no run.
    pub(crate) fn fields(&self) -> Vec<(String, &str)> {
        let rows = self.rows.iter().zip(1..).flat_map(|(row, number)| {
            [
                (format!("h{number}"), &row.host),
                (format!("p{number}"), &row.port),
                (format!("f{number}"), &row.file),
                (format!("sh{number}"), &row.socks_host),
                (format!("sp{number}"), &row.socks_port),
            ]
        });
        let shared = [
            ("sh".to_owned(), &self.socks_host),
            ("sp".to_owned(), &self.socks_port),
            ("f".to_owned(), &self.file),
            ("batch".to_owned(), &self.batch),
        ];
        rows.chain(shared)
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key, value.as_str()))
            .collect()
    }

    /// Encodes all fields, the rows to run and the format, for a token.
    pub(crate) fn encode_run(&self) -> String {
        let mut text = encode_pairs(&self.fields());
        text.push_str(&encode_pairs(&[("again".to_owned(), &self.again())]));
        text + self.format_pair()
    }

    /// Encodes the fields and the format for a URL. A typed batch is left out: an address
    /// is kept in places that the user does not see.
    pub(crate) fn encode(&self) -> String {
        let mut fields = self.fields();
        fields.retain(|(key, _)| key != "batch");
        encode_pairs(&fields) + self.format_pair()
    }

    fn format_pair(&self) -> &'static str {
        match self.format {
            Format::Html => "",
            Format::Text => "format=text&",
            Format::Json => "format=json&",
        }
    }
}

/// Encodes pairs, each with an `&` at its end. A pair with an empty value is left out.
fn encode_pairs(pairs: &[(String, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !value.is_empty() {
            let _ = write!(text, "{key}={}&", percent_encode(value));
        }
    }
    text
}

/// Splits a list at white space and commas. Each entry has the maximum length of a value.
fn list_entries(list: &str) -> Vec<String> {
    let entries = list.split(|char: char| char.is_whitespace() || char == ',');
    let entries = entries.filter(|entry| !entry.is_empty());
    let mut entries: Vec<String> = entries.map(str::to_owned).collect();
    entries
        .iter_mut()
        .for_each(|entry| truncate(entry, MAX_VALUE_LENGTH));
    entries
}

/// Removes characters at the end until the text has at most this many bytes.
fn truncate(text: &mut String, max_length: usize) {
    while text.len() > max_length {
        text.pop();
    }
}

/// Splits at the last colon; an IPv6 address without brackets has no port.
fn split_host_and_port(entry: &str) -> (&str, &str) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ => (entry, ""),
    }
}

/// Joins row numbers with commas, the value of the key `again`.
pub(crate) fn row_list(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    numbers.join(",")
}

/// Parses a comma-separated list of row numbers. Other text is ignored.
fn row_numbers(list: &str) -> Vec<usize> {
    let numbers = list
        .split(',')
        .filter_map(|number| number.trim().parse().ok());
    numbers
        .filter(|number| (1..=ROWS).contains(number))
        .collect()
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
        [b'f'] => Some(Key::SharedFile),
        _ if key == b"format" => Some(Key::Format),
        _ if key == b"edit" => Some(Key::Edit),
        _ if key == b"once" => Some(Key::Token),
        _ if key == b"batch" => Some(Key::Batch),
        _ if key == b"shells" => Some(Key::Shells),
        _ if key == b"again" => Some(Key::Again),
        _ if key == b"runs" => Some(Key::Runs),
        _ if key == b"run" => Some(Key::ShowRun),
        _ if key == b"stop" => Some(Key::StopRun),
        _ => None,
    }
}

/// Decodes a value. White space around the value is removed, since copying and pasting
/// adds it.
fn decode_value(value: &[u8]) -> String {
    decode(value, MAX_VALUE_LENGTH).trim().to_owned()
}

/// Decodes `+` and `%xx` (application/x-www-form-urlencoded) to at most this many bytes. A
/// `%` without two hexadecimal digits stays as it is.
fn decode(value: &[u8], max_length: usize) -> String {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        if bytes.len() == max_length {
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
    truncate(&mut text, max_length);
    text
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
        assert!(new.format == Format::Text && new.edit);
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
        for format in ["", "format=text", "format=json"] {
            let fields = "h1=a%26b&p3=%3D%25&sh4=+x%e4y&sp5=1&sh=%22&sp=0&f2=t1.txt&f=all.txt&";
            let query = Query::parse(format!("{fields}{format}").as_bytes());
            assert_eq!(Query::parse(query.encode().as_bytes()), query);
            let run = format!("{fields}batch=a%0d%0a+b%0a&again=2,5&{format}");
            let run = Query::parse(run.as_bytes());
            assert_eq!(Query::parse(run.encode_run().as_bytes()), run);
            assert_eq!(run.encode(), query.encode());
        }
    }

    #[test]
    fn a_typed_batch_is_complete() {
        let text = format!("  first\r\n{}\n\n", "x".repeat(3 * MAX_VALUE_LENGTH));
        let query = Query::parse(format!("batch={}", percent_encode(&text)).as_bytes());
        assert_eq!(query.batch, text);
        assert_eq!(Query::parse(b"batch=\xff\xff").batch, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_list_of_shells_fills_the_empty_rows() {
        let query = Query::parse(b"shells=b:1%0d%0a[::1]:2,+::3+d&h1=a&f1=x&p3=7&f4=y");
        let shells = query.rows.each_ref().map(|row| (&*row.host, &*row.port));
        let expected = [
            ("a", ""),
            ("b", "1"),
            ("", "7"),
            ("[::1]", "2"),
            ("::3", ""),
        ];
        assert_eq!(shells, expected);
        assert_eq!(query.rows[3].file, "y");
        assert_eq!(query.excess_shells, ["d"]);
    }

    #[test]
    fn again_names_rows_from_1_to_5() {
        for (again, only) in [
            ("3", Some(vec![3])),
            ("2,5", Some(vec![2, 5])),
            ("0,6,-1,x,,1", Some(vec![1])),
            ("9", Some(vec![])),
            ("2+5", Some(vec![])),
            ("", None),
        ] {
            assert_eq!(Query::parse(format!("again={again}").as_bytes()).only, only);
        }
    }
}
