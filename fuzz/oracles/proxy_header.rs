//! Headers of the PROXY protocol, compared with the crate `proxy-header`.
//!
//! That crate is more lenient: it accepts ports as `+80` and `080`, and extensions of any length. So
//! its result for other bytes counts only if it writes the same bytes again.

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader as OtherHeader};
use threadsocks::protocol::{ProxyHeader, ProxyHeaderError};

use super::chunks::{ChunkedStream, chunkings};

/// The documented limits in bytes: a line of version 1, extensions of version 2.
const MAX_LINE: usize = 107;
const MAX_EXTENSIONS: usize = 4096;

/// Compares the two parsers, and tries the prefixes and chunks of the bytes.
pub fn check(bytes: &[u8]) {
    let decoded = ProxyHeader::decode(bytes);
    check_against_crate(bytes, decoded);
    // A prefix has no result yet, or has the final result. At most 200 prefixes are tried.
    let step = bytes.len() / 200 + 1;
    for end in (0..bytes.len()).step_by(step) {
        let of_prefix = ProxyHeader::decode(&bytes[..end]);
        assert!(
            of_prefix == Ok(None) || of_prefix == decoded,
            "{end}: {of_prefix:?}, {decoded:?}"
        );
    }
    if let Ok(Some((header, length))) = decoded {
        assert!(length <= bytes.len());
        check_read(bytes, header, length);
    }
}

fn check_against_crate(
    bytes: &[u8],
    decoded: Result<Option<(ProxyHeader, usize)>, ProxyHeaderError>,
) {
    let other = OtherHeader::parse(bytes, ParseConfig::default());
    match (decoded, other) {
        (Ok(Some((header, length))), Ok((other, other_length))) => {
            assert_eq!((header, length), (in_our_form(&other), other_length));
        }
        // The crate tests the family also where it has no meaning.
        (Ok(Some((ProxyHeader::Local, _))), Err(Error::Invalid | Error::BufferTooShort)) => {}
        (Ok(Some(result)), Err(error)) => panic!("{result:?}, but the crate: {error:?}"),
        (Err(ProxyHeaderError::NoClient), Ok((other, _))) => {
            let address = other.proxied_address();
            assert!(
                address.is_none_or(|it| it.protocol == Protocol::Datagram),
                "{address:?}"
            );
        }
        (Err(ProxyHeaderError::Length(length)), Ok(_)) => {
            assert!(usize::from(length) > MAX_EXTENSIONS);
        }
        (Err(error), Ok((other, length))) => {
            assert!(bytes.starts_with(b"PROXY"), "{error:?}");
            let mut line = Vec::new();
            let written = other.encode_v1(&mut line);
            let is_same = written.is_ok() && line == bytes[..length] && length <= MAX_LINE;
            assert!(!is_same, "{error:?}");
        }
        (Ok(None), Ok((other, length))) => panic!("{other:?} with {length} bytes is not read"),
        (Ok(None) | Err(_), Err(_)) => {}
    }
}

/// What the header of the crate says. Only version 2 can have no client and be valid here.
fn in_our_form(other: &OtherHeader<'_>) -> ProxyHeader {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    match other.proxied_address() {
        None => ProxyHeader::Local,
        Some(address) => ProxyHeader::Client {
            source: canonical(address.source),
            destination: canonical(address.destination),
        },
    }
}

/// The header is read from a stream in any chunks, and no byte more.
fn check_read(bytes: &[u8], header: ProxyHeader, length: usize) {
    for chunks in chunkings(bytes) {
        let mut stream = ChunkedStream::new(chunks);
        let read = ProxyHeader::read(&mut stream);
        assert_eq!(read.expect("a valid header"), header);
        assert_eq!(stream.consumed, length);
    }
}
