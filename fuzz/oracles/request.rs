//! A request is the same in any pieces, and nothing behind it is touched.

use std::net::Ipv4Addr;

use threadsocks::protocol::socks4::Request;
use threadsocks::protocol::{Command, Destination, Host, ProtocolError, ReadError};

use super::pieces::{Stream, cuttings};

/// Bytes of the longest user id and name.
const MAX_USER: usize = 512;
const MAX_NAME: usize = 255;

/// Bytes of the longest request: eight, and both fields with their zeros.
const LONGEST: usize = 8 + MAX_USER + 1 + MAX_NAME + 1;

/// What became of a stream: a request of so many bytes, or not.
#[derive(Debug, PartialEq)]
enum Outcome {
    Whole(Request, usize),
    Incomplete(usize),
    ProtocolError(ProtocolError),
}

/// The oracle.
pub fn holds(bytes: &[u8]) {
    let whole = read(vec![bytes]);
    assert_eq!(whole, as_decoded(bytes), "read and decode differ");
    for pieces in cuttings(bytes) {
        assert_eq!(read(pieces.clone()), whole, "in pieces {pieces:?}");
    }
    prefixes(bytes, &whole);
    if let Outcome::Whole(request, length) = &whole {
        well_read(&bytes[..*length], request);
    }
    host(bytes);
}

fn read(pieces: Vec<&[u8]>) -> Outcome {
    let all: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut stream = Stream::new(pieces);
    let result = Request::read(&mut stream);
    assert!(stream.taken <= LONGEST, "{} bytes taken", stream.taken);
    match result {
        Ok(request) => Outcome::Whole(request, stream.taken),
        Err(ReadError::Incomplete(received, _)) => {
            assert_eq!((received, stream.taken), (all, all), "it ended early");
            Outcome::Incomplete(received)
        }
        Err(ReadError::Protocol(why)) => Outcome::ProtocolError(why),
    }
}

fn as_decoded(bytes: &[u8]) -> Outcome {
    match Request::decode(bytes) {
        Ok(Some((request, length))) => Outcome::Whole(request, length),
        Ok(None) => Outcome::Incomplete(bytes.len()),
        Err(why) => Outcome::ProtocolError(why),
    }
}

/// A prefix lacks something, or is already what the whole is.
fn prefixes(bytes: &[u8], whole: &Outcome) {
    let undecided = match whole {
        Outcome::Whole(_, length) => *length,
        Outcome::Incomplete(length) => *length,
        Outcome::ProtocolError(_) => {
            let until = (0..bytes.len()).find(|&end| Request::decode(&bytes[..end]).is_err());
            until.unwrap_or(bytes.len())
        }
    };
    if let Outcome::ProtocolError(why) = whole {
        malformed(bytes, *why, undecided);
    }
    assert!(undecided <= LONGEST, "undecided after {undecided} bytes");
    for end in 0..bytes.len().min(2 * LONGEST) {
        let part = as_decoded(&bytes[..end]);
        match end < undecided {
            true => assert_eq!(part, Outcome::Incomplete(end)),
            false => assert_eq!(part, *whole, "the first {end} bytes"),
        }
    }
}

/// No more is refused than must be, and no sooner than it can be told.
fn malformed(bytes: &[u8], why: ProtocolError, decided: usize) {
    let mut fields = bytes.get(8..).unwrap_or_default().split(|&byte| byte == 0);
    let user = fields.next().unwrap_or_default().len();
    let name = fields.next().unwrap_or_default().len();
    match why {
        ProtocolError::Version(byte) => assert_eq!((decided, byte), (1, bytes[0])),
        ProtocolError::UserTooLong => assert!(user > MAX_USER && decided == 8 + MAX_USER + 1),
        ProtocolError::NameTooLong => {
            assert!(user <= MAX_USER && name > MAX_NAME);
            assert_eq!(decided, 8 + user + 1 + MAX_NAME + 1);
        }
        ProtocolError::Command(byte) => {
            assert_eq!(byte, bytes[1]);
            let mut known = bytes.to_vec();
            known[1] = 1;
            let decoded = as_decoded(&known);
            assert!(matches!(decoded, Outcome::Whole(_, length) if length == decided));
        }
        _ => panic!("{why} of a SOCKS4 request"),
    }
}

/// The fields are where the protocol has them, and writing gives the bytes back.
fn well_read(bytes: &[u8], request: &Request) {
    assert_eq!(request.encode(), bytes, "encode(read) differs");
    assert_eq!(bytes[0], 4);
    let command = if bytes[1] == 1 {
        Command::Connect
    } else {
        Command::Bind
    };
    assert_eq!((request.command, bytes[1]), (command, bytes[1].clamp(1, 2)));
    let port = u16::from(bytes[2]) * 256 + u16::from(bytes[3]);
    let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    assert_eq!((request.address.port(), *request.address.ip()), (port, ip));
    assert!(request.user.len() <= MAX_USER && !request.user.contains(&0));
    let by_name = bytes[4..7] == [0, 0, 0] && bytes[7] != 0;
    assert_eq!(request.name.is_some(), by_name);
    let name = request.name.as_deref().unwrap_or_default();
    assert!(name.len() <= MAX_NAME && !name.contains(&0));
    let target = request.target();
    printable(&target.to_string());
    sent_again(request, &target);
    host(name);
}

/// What our client would send for the same target means the same.
fn sent_again(request: &Request, target: &Destination) {
    match Request::new(request.command, target, &request.user) {
        Ok(again) => {
            let (read, length) = Request::decode(&again.encode())
                .unwrap()
                .expect("a request");
            assert_eq!((&read, length), (&again, again.encode().len()));
            assert_eq!(read.target(), *target);
        }
        Err(_) => {
            let in_4a = |ip: &Ipv4Addr| matches!(ip.octets(), [0, 0, 0, 1..=255]);
            let cannot = match &target.host {
                Host::Invalid(_) => true,
                Host::Address(std::net::IpAddr::V4(ip)) => in_4a(ip),
                _ => false,
            };
            assert!(cannot, "{target} cannot be sent");
        }
    }
}

/// What is taken for a host name can be looked up and printed without harm.
fn host(bytes: &[u8]) {
    let host = Host::from_name(bytes);
    printable(&host.to_string());
    let upper = bytes.to_ascii_uppercase();
    match &host {
        Host::Name(name) => {
            let text = name.as_str();
            assert_eq!(Host::from_name(text.as_bytes()), host);
            assert_eq!(Host::from_name(&upper), host);
            assert_eq!(Host::from_name(&[text.as_bytes(), b"."].concat()), host);
            assert!(text.len() <= 253 && text.split('.').all(|label| label.len() <= 63));
            let ordinary = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
            assert!(text.chars().all(ordinary), "{text}");
            assert!(!text.split('.').any(str::is_empty), "{text}");
            assert!(!is_inet_address(text), "{text} is an address");
        }
        Host::Address(address) => {
            let text = address.to_string();
            assert!(
                [text.clone(), format!("{text}.")].contains(&String::from_utf8_lossy(bytes).into())
            );
            assert_eq!(Host::from_name(text.as_bytes()), host);
        }
        Host::Invalid(bad) => {
            assert_eq!(bad.bytes, bytes);
            assert!(matches!(Host::from_name(&upper), Host::Invalid(_)));
            assert!(!is_name(bytes), "{bad}");
        }
    }
}

/// Is it a host name that no resolver takes for a number?
fn is_name(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let ordinary = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let good = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(ordinary) && !label.starts_with('-')
    };
    let last = text.split('.').next_back().unwrap_or_default();
    let number = last.chars().all(|char| char.is_ascii_digit()) || is_inet_address(last);
    text.len() <= 253 && text.split('.').all(good) && !number
}

/// Would inet_aton(3) take it? One to four numbers, each as C writes them.
fn is_inet_address(text: &str) -> bool {
    let number = |part: &str| {
        let (digits, base) = match part.as_bytes() {
            [b'0', b'x', ..] => (&part[2..], 16),
            [b'0', _, ..] => (&part[1..], 8),
            _ => (part, 10),
        };
        // strtoul(3) reads "0x" as 0; too large a number is not our concern.
        digits.chars().all(|char| char.is_digit(base))
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 4 && parts.iter().all(|part| number(part))
}

fn printable(text: &str) {
    assert!(
        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{text:?}"
    );
}
