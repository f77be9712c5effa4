//! What identd says is what a slow reading of its first line says, and said once.

use threadsocks::protocol::ident::{IdentError, IdentQuery, IdentReply, MAX_REPLY};

/// What the corpus and the strategies are about.
const QUERY: IdentQuery = IdentQuery {
    theirs: 6193,
    ours: 1080,
};

type Said = Result<Option<IdentReply>, IdentError>;

/// The oracle.
pub fn holds(bytes: &[u8]) {
    assert_eq!(QUERY.answer(bytes), meaning(bytes));
    // However far it has come: nothing yet, and from some byte on the same.
    let step = bytes.len() / 200 + 1;
    let mut said: Said = Ok(None);
    for end in (0..bytes.len()).step_by(step) {
        let now = QUERY.answer(&bytes[..end]);
        assert!(said == Ok(None) || said == now, "{said:?}, then {now:?}");
        said = now;
    }
    if let Ok(Some(IdentReply::User(name))) = meaning(bytes) {
        reported_again(&name);
    }
}

/// Each byte as a character.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// What RFC 1413 says of these bytes.
fn meaning(bytes: &[u8]) -> Said {
    let text = text(bytes);
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
    let [ports, kind, ..] = fields.as_slice() else {
        return Err(IdentError::ProtocolError);
    };
    let numbers: Option<Vec<u16>> = ports.split(',').map(number).collect();
    match numbers.as_deref() {
        Some([6193, 1080]) => {}
        Some([_, _]) => return Err(IdentError::OtherPorts),
        _ => return Err(IdentError::ProtocolError),
    }
    // Colons belong to the value.
    let behind = |count| line.splitn(count + 1, ':').nth(count).map(trim);
    let (answer, value): (fn(Vec<u8>) -> IdentReply, _) = match kind.to_ascii_uppercase().as_str() {
        "USERID" => (IdentReply::User, behind(3)),
        "ERROR" => (IdentReply::Error, behind(2)),
        _ => return Err(IdentError::ProtocolError),
    };
    match value {
        None | Some("") => Err(IdentError::ProtocolError),
        Some(value) => Ok(Some(answer(value.chars().map(|it| it as u8).collect()))),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\x0c'])
}

fn number(text: &str) -> Option<u16> {
    let digits = trim(text);
    let is_number = !digits.is_empty() && digits.chars().all(|char| char.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// A user who is reported is understood as himself.
fn reported_again(name: &[u8]) {
    let line = [b"6193,1080:USERID:UNIX:", name, b"\r\n"].concat();
    let same = Ok(Some(IdentReply::User(name.to_vec())));
    if line.len() <= MAX_REPLY {
        assert_eq!(QUERY.answer(&line), same);
    }
}
