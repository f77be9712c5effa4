//! A SOCKS4 request is read the same from any chunks, and no byte after it is consumed.

use std::net::Ipv4Addr;

use threadsocks::protocol::socks4::Request;
use threadsocks::protocol::{Command, Destination, Host, ProtocolError, ReadError};

use super::chunks::{ChunkedStream, chunkings};

/// Longest user ID and host name in bytes, without the zero byte at the end.
const MAX_USER: usize = 512;
const MAX_NAME: usize = 255;

/// Longest request in bytes: a header of eight bytes, and both fields with their zero bytes.
const MAX_REQUEST: usize = 8 + MAX_USER + 1 + MAX_NAME + 1;

/// The result of reading a stream; a complete request has a length in bytes.
#[derive(Debug, PartialEq)]
enum Outcome {
    Complete(Request, usize),
    Incomplete(usize),
    ProtocolError(ProtocolError),
}

/// Compares `Request::read` with `Request::decode`, for all chunkings and prefixes.
pub fn check(bytes: &[u8]) {
    let whole = read_chunks(vec![bytes]);
    assert_eq!(whole, decode(bytes), "read and decode differ");
    for chunks in chunkings(bytes) {
        assert_eq!(read_chunks(chunks.clone()), whole, "in chunks {chunks:?}");
    }
    check_prefixes(bytes, &whole);
    if let Outcome::Complete(request, length) = &whole {
        check_request(&bytes[..*length], request);
    }
    check_host(bytes);
}

fn read_chunks(chunks: Vec<&[u8]>) -> Outcome {
    let all: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let mut stream = ChunkedStream::new(chunks);
    let result = Request::read(&mut stream);
    assert!(
        stream.consumed <= MAX_REQUEST,
        "{} bytes were consumed",
        stream.consumed
    );
    match result {
        Ok(request) => Outcome::Complete(request, stream.consumed),
        Err(ReadError::Incomplete(received, _)) => {
            assert_eq!((received, stream.consumed), (all, all), "bytes are left");
            Outcome::Incomplete(received)
        }
        Err(ReadError::Protocol(error)) => Outcome::ProtocolError(error),
    }
}

fn decode(bytes: &[u8]) -> Outcome {
    match Request::decode(bytes) {
        Ok(Some((request, length))) => Outcome::Complete(request, length),
        Ok(None) => Outcome::Incomplete(bytes.len()),
        Err(error) => Outcome::ProtocolError(error),
    }
}

/// A prefix is incomplete, or already has the result of the whole input.
fn check_prefixes(bytes: &[u8], whole: &Outcome) {
    let decided_at = match whole {
        Outcome::Complete(_, length) => *length,
        Outcome::Incomplete(length) => *length,
        Outcome::ProtocolError(_) => {
            let end = (0..bytes.len()).find(|&end| Request::decode(&bytes[..end]).is_err());
            end.unwrap_or(bytes.len())
        }
    };
    if let Outcome::ProtocolError(error) = whole {
        check_error(bytes, *error, decided_at);
    }
    assert!(
        decided_at <= MAX_REQUEST,
        "undecided after {decided_at} bytes"
    );
    for end in 0..bytes.len().min(2 * MAX_REQUEST) {
        let part = decode(&bytes[..end]);
        match end < decided_at {
            true => assert_eq!(part, Outcome::Incomplete(end)),
            false => assert_eq!(part, *whole, "the first {end} bytes"),
        }
    }
}

/// The error is justified, and is reported at the first byte that proves it.
fn check_error(bytes: &[u8], error: ProtocolError, decided_at: usize) {
    let mut fields = bytes.get(8..).unwrap_or_default().split(|&byte| byte == 0);
    let user = fields.next().unwrap_or_default().len();
    let name = fields.next().unwrap_or_default().len();
    match error {
        ProtocolError::Version(byte) => assert_eq!((decided_at, byte), (1, bytes[0])),
        ProtocolError::UserTooLong => assert!(user > MAX_USER && decided_at == 8 + MAX_USER + 1),
        ProtocolError::NameTooLong => {
            assert!(user <= MAX_USER && name > MAX_NAME);
            assert_eq!(decided_at, 8 + user + 1 + MAX_NAME + 1);
        }
        ProtocolError::Command(byte) => {
            assert_eq!(byte, bytes[1]);
            let mut known = bytes.to_vec();
            known[1] = 1;
            let decoded = decode(&known);
            assert!(matches!(decoded, Outcome::Complete(_, length) if length == decided_at));
        }
        _ => panic!("{error} of a SOCKS4 request"),
    }
}

/// The fields are at the offsets of SOCKS4.protocol, and encoding returns the same bytes.
fn check_request(bytes: &[u8], request: &Request) {
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
    let destination = request.destination();
    check_printable(&destination.to_string());
    check_client_encoding(request, &destination);
    if request.name.is_some() {
        assert_eq!(destination.host, host_of_name_field(name));
    }
    check_host(name);
}

/// The host in a name field: also an IPv6 address, perhaps in brackets.
pub fn host_of_name_field(field: &[u8]) -> Host {
    let text = String::from_utf8_lossy(field);
    let bare = match text.len() {
        2.. if text.starts_with('[') && text.ends_with(']') => &text[1..text.len() - 1],
        _ => &text,
    };
    match bare.parse::<std::net::Ipv6Addr>() {
        Ok(address) => Host::Address(address.into()),
        Err(_) => match (Host::from_name(field), Host::from_name_field(field)) {
            // Only the reason may differ.
            (Host::Invalid(_), Host::Invalid(invalid)) => {
                assert_eq!(invalid.bytes, field);
                Host::Invalid(invalid)
            }
            (host, _) => host,
        },
    }
}

/// The request that the client library encodes for the destination has the same destination.
fn check_client_encoding(request: &Request, destination: &Destination) {
    match Request::new(request.command, destination, &request.user) {
        Ok(encoded_anew) => {
            let (read, length) = Request::decode(&encoded_anew.encode())
                .unwrap()
                .expect("a request");
            assert_eq!(
                (&read, length),
                (&encoded_anew, encoded_anew.encode().len())
            );
            assert_eq!(read.destination(), *destination);
        }
        Err(_) => {
            // 0.0.0.x announces a host name in SOCKS4A and is no address.
            let is_4a_marker = |ip: &Ipv4Addr| matches!(ip.octets(), [0, 0, 0, 1..=255]);
            let is_impossible = match &destination.host {
                Host::Invalid(_) => true,
                Host::Address(std::net::IpAddr::V4(ip)) => is_4a_marker(ip),
                // SOCKS4A has them only as text in the name field, which few servers read.
                Host::Address(std::net::IpAddr::V6(_)) => true,
                _ => false,
            };
            assert!(is_impossible, "{destination} cannot be sent");
        }
    }
}

/// A host name is safe to resolve and to print; any other name is an address or invalid.
fn check_host(bytes: &[u8]) {
    let host = Host::from_name(bytes);
    check_printable(&host.to_string());
    let upper = bytes.to_ascii_uppercase();
    match &host {
        Host::Name(name) => {
            assert_eq!(name.as_requested().as_bytes(), bytes.to_ascii_lowercase());
            assert_eq!(Host::from_name(name.as_requested().as_bytes()), host);
            assert_eq!(Host::from_name(&upper), host);
            assert_eq!(name.is_absolute(), bytes.ends_with(b"."));
            let text = name.as_str();
            assert_eq!(text, name.as_requested().trim_end_matches('.'));
            let absolute = Host::from_name(&[text.as_bytes(), b"."].concat());
            assert_eq!(absolute.name().map(|it| it.as_str()), Some(text));
            assert!(text.len() <= 253 && text.split('.').all(|label| label.len() <= 63));
            let is_allowed = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
            assert!(text.chars().all(is_allowed), "{text}");
            assert!(!text.split('.').any(str::is_empty), "{text}");
            assert!(!is_inet_address(text), "{text} is an address");
        }
        Host::Address(address) => {
            assert_eq!(address.to_string().as_bytes(), bytes);
        }
        Host::Invalid(invalid) => {
            assert_eq!(invalid.bytes, bytes);
            assert!(matches!(Host::from_name(&upper), Host::Invalid(_)));
            assert!(!is_name(bytes), "{invalid}");
        }
    }
}

/// Whether the bytes are a host name that no resolver reads as an IPv4 address.
fn is_name(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(is_allowed) && !label.starts_with('-')
    };
    let last = text.split('.').next_back().unwrap_or_default();
    let is_number = last.chars().all(|char| char.is_ascii_digit()) || is_inet_address(last);
    text.len() <= 253 && text.split('.').all(is_label) && !is_number
}

/// Whether inet_aton(3) accepts the text: one to four numbers in the notation of C.
fn is_inet_address(text: &str) -> bool {
    let is_number = |part: &str| {
        let (digits, base) = match part.as_bytes() {
            [b'0', b'x', ..] => (&part[2..], 16),
            [b'0', _, ..] => (&part[1..], 8),
            _ => (part, 10),
        };
        // strtoul(3) reads "0x" as 0. Numbers that are too large are not excluded here.
        digits.chars().all(|char| char.is_digit(base))
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 4 && parts.iter().all(|part| is_number(part))
}

fn check_printable(text: &str) {
    assert!(
        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{text:?}"
    );
}
