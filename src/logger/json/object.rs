//! One JSON object: printable ASCII on one line of bounded length.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::super::format::printable;

/// Longest line with its newline, in bytes: a pipe takes so many in one piece (PIPE_BUF), so
/// the lines of several writers do not mix.
pub(super) const MAX_LINE: usize = 4096;

/// Follows the fields of an object of which a text was cut, and ends the line.
const TRUNCATED_END: &str = ",\"truncated\":true}\n";

/// The comma, the quotes and the colon of a text field, without its last quote.
const FIELD_MARKS: usize = 5;

/// Most bytes of a number with the name of its field.
const MAX_NUMBER: usize = 40;

/// Most bytes of the reason in one entry of `mistakes`.
const MAX_REASON: usize = 256;

/// An object whose fields are added one by one. Fields of bounded length come first: a text
/// that does not fit is cut.
#[derive(Debug)]
pub(super) struct JsonObject {
    text: String,
    is_truncated: bool,
}

impl JsonObject {
    /// An object with the moment of an event in UTC and its name.
    pub(super) fn new(time: SystemTime, event: &str) -> JsonObject {
        let time = humantime::format_rfc3339_millis(printable(time));
        JsonObject {
            text: format!("{{\"time\":\"{time}\",\"event\":\"{event}\""),
            is_truncated: false,
        }
    }

    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        self.field(name, value);
    }

    pub(super) fn optional_number(&mut self, name: &str, value: Option<usize>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.field(name, value);
    }

    /// Seconds with three decimals.
    pub(super) fn seconds(&mut self, name: &str, time: Duration) {
        let (seconds, millis) = (time.as_secs(), time.subsec_millis());
        self.field(name, format_args!("{seconds}.{millis:03}"));
    }

    /// An IP address. An IPv4 address that is written as an IPv6 one is written as IPv4.
    pub(super) fn address(&mut self, name: &str, address: IpAddr) {
        let address = address.to_canonical();
        self.field(name, format_args!("\"{address}\""));
    }

    pub(super) fn optional_address(&mut self, name: &str, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.address(name, address);
        }
    }

    /// Any bytes; printable ASCII stands for itself, a backslash is doubled, and any other byte
    /// is `\xNN`. This text is then escaped for JSON.
    pub(super) fn text(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        let end = MAX_LINE - TRUNCATED_END.len() - 1;
        if self.text.len() + name.len() + FIELD_MARKS > end {
            self.is_truncated = true;
            return;
        }
        self.field(name, "\"");
        self.is_truncated |= !push_escaped(&mut self.text, bytes.as_ref(), end);
        self.text.push('"');
    }

    pub(super) fn optional_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// The invalid lines of a file, with their numbers and reasons.
    pub(super) fn mistakes<'a>(&mut self, mistakes: impl Iterator<Item = (usize, &'a str)>) {
        self.field("mistakes", "[");
        for (place, (line, why)) in mistakes.enumerate() {
            // Room for the longest entry, and for the end of the list.
            if self.text.len() + MAX_REASON + 2 * MAX_NUMBER > MAX_LINE - TRUNCATED_END.len() {
                self.is_truncated = true;
                break;
            }
            let comma = if place == 0 { "" } else { "," };
            // Writing to a String does not fail.
            let _ = write!(self.text, "{comma}{{\"line\":{line},\"why\":\"");
            let end = self.text.len() + MAX_REASON;
            self.is_truncated |= !push_escaped(&mut self.text, why.as_bytes(), end);
            self.text.push_str("\"}");
        }
        self.text.push(']');
    }

    /// The line, with its newline.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str(match self.is_truncated {
            true => TRUNCATED_END,
            false => "}\n",
        });
        self.text
    }

    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a String does not fail.
        let _ = write!(self.text, ",\"{name}\":{value}");
    }
}

/// Adds these bytes until the text has this length. False if it has cut them.
fn push_escaped(text: &mut String, bytes: &[u8], max_length: usize) -> bool {
    for &byte in bytes {
        let before = text.len();
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str(r"\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing to a String does not fail.
                let _ = write!(text, r"\\x{byte:02x}");
            }
        }
        if text.len() > max_length {
            text.truncate(before);
            return false;
        }
    }
    true
}
