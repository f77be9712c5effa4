//! The ident parser agrees with a simple text model of the first line (RFC 1413).

use threadsocks::protocol::ident::{IdentError, IdentQuery, IdentReply, MAX_REPLY};

/// The query that most replies of the corpus and of the strategies answer.
const QUERY: IdentQuery = IdentQuery {
    client_port: 6193,
    server_port: 1080,
};

type IdentResult = Result<Option<IdentReply>, IdentError>;

/// Compares the parser with the model, for the whole reply and for its prefixes.
pub fn check(bytes: &[u8]) {
    assert_eq!(QUERY.parse_reply(bytes), model(bytes));
    // A prefix has no result yet, or has its final result. At most 200 prefixes are tried.
    let step = bytes.len() / 200 + 1;
    let mut previous: IdentResult = Ok(None);
    for end in (0..bytes.len()).step_by(step) {
        let current = QUERY.parse_reply(&bytes[..end]);
        assert!(
            previous == Ok(None) || previous == current,
            "{previous:?}, then {current:?}"
        );
        previous = current;
    }
    if let Ok(Some(IdentReply::User(name))) = model(bytes) {
        check_round_trip(&name);
    }
}

/// Each byte as the character with the same number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// The result by RFC 1413, from the text of the first line.
fn model(bytes: &[u8]) -> IdentResult {
    let text = latin1(bytes);
    let (line, has_ended) = match text.split_once('\n') {
        Some((line, _)) => (line, true),
        None => (text.as_str(), false),
    };
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().count() > MAX_REPLY {
        return Err(IdentError::TooLong);
    }
    if !has_ended {
        return Ok(None);
    }
    let fields: Vec<&str> = line.split(':').map(trim).collect();
    let [ports, reply_type, ..] = fields.as_slice() else {
        return Err(IdentError::InvalidReply);
    };
    let numbers: Option<Vec<u16>> = ports.split(',').map(port).collect();
    match numbers.as_deref() {
        Some([6193, 1080]) => {}
        Some([_, _]) => return Err(IdentError::OtherPorts),
        _ => return Err(IdentError::InvalidReply),
    }
    // The last field may contain colons.
    let field = |count| line.splitn(count + 1, ':').nth(count).map(trim);
    let (reply, value): (fn(Vec<u8>) -> IdentReply, _) =
        match reply_type.to_ascii_uppercase().as_str() {
            "USERID" => (IdentReply::User, field(3)),
            "ERROR" => (IdentReply::Error, field(2)),
            _ => return Err(IdentError::InvalidReply),
        };
    match value {
        None | Some("") => Err(IdentError::InvalidReply),
        Some(value) => Ok(Some(reply(value.chars().map(|char| char as u8).collect()))),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\x0c'])
}

fn port(text: &str) -> Option<u16> {
    let digits = trim(text);
    let is_number = !digits.is_empty() && digits.chars().all(|char| char.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// A reply that reports this user is read back as the same user.
fn check_round_trip(name: &[u8]) {
    let line = [b"6193,1080:USERID:UNIX:", name, b"\r\n"].concat();
    let expected = Ok(Some(IdentReply::User(name.to_vec())));
    if line.len() <= MAX_REPLY {
        assert_eq!(QUERY.parse_reply(&line), expected);
    }
}
