//! Protocols other than SOCKS that clients speak by mistake: their first bytes, and the reply to HTTP.

use std::fmt;
use std::io::BufRead;

use super::error::{ProtocolError, ReadError};
use super::read::read_message;

/// A protocol other than SOCKS, which the first bytes of a connection show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherProtocol {
    /// An HTTP request: the client takes the server for an HTTP proxy or a web server.
    Http,
    /// TLS: the client takes the server for an HTTPS proxy or an HTTPS server.
    Tls,
    /// SSH.
    Ssh,
    /// A header of the PROXY protocol, which load balancers send before the client's bytes.
    ProxyHeader,
}

/// What each protocol begins with. No beginning is the beginning of another one. Most HTTP
/// requests have a form instead: see [`http_request`].
const BEGINNINGS: &[(&[u8], OtherProtocol)] = &[
    // The one method whose target does not begin with a slash, a star or "http".
    (b"CONNECT ", OtherProtocol::Http),
    // A handshake record of SSL 3.0 or TLS (RFC 8446, section 5.1).
    (b"\x16\x03", OtherProtocol::Tls),
    // RFC 4253, section 4.2.
    (b"SSH-", OtherProtocol::Ssh),
    // Versions 1 and 2 of HAProxy's PROXY protocol.
    (b"PROXY ", OtherProtocol::ProxyHeader),
    (b"\r\n\r\n\0\r\nQUIT\n", OtherProtocol::ProxyHeader),
];

/// Longest method in bytes that counts as HTTP. The longest registered one,
/// UPDATEREDIRECTREF, has 17.
const MAX_METHOD: usize = 20;

/// How many bytes show an HTTP request (RFC 9112): at most one empty line, a method in capital
/// letters and hyphens, a blank, and the first byte of a path, of `*` or of `http:`. `None`
/// if the bytes cannot be HTTP, `Some(None)` while more must come.
fn http_request(bytes: &[u8]) -> Option<Option<usize>> {
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let is_in_method = |byte: &&u8| byte.is_ascii_uppercase() || **byte == b'-';
    let method = line.iter().take_while(is_in_method).count();
    let begins_with_letter = line.first().is_none_or(u8::is_ascii_uppercase);
    match line.get(method..).unwrap_or_default() {
        _ if method > MAX_METHOD || !begins_with_letter => None,
        [] | [b' '] => Some(None),
        [b' ', b'/' | b'*' | b'h' | b'H', ..] => Some(Some(bytes.len() - line.len() + method + 2)),
        _ => None,
    }
}

impl OtherProtocol {
    /// Recognizes the protocol by these first bytes: the protocol and how many bytes show
    /// it, or `None` while more must come.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Version`] as soon as the bytes can be the beginning of none.
    pub fn decode(bytes: &[u8]) -> Result<Option<(OtherProtocol, usize)>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        for &(beginning, protocol) in BEGINNINGS {
            if bytes.starts_with(beginning) {
                return Ok(Some((protocol, beginning.len())));
            }
            if beginning.starts_with(bytes) {
                return Ok(None);
            }
        }
        match http_request(bytes) {
            Some(count) => Ok(count.map(|count| (OtherProtocol::Http, count))),
            None => Err(ProtocolError::Version(first)),
        }
    }

    /// Reads as many bytes as show the protocol: at most 24.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are the beginning of no protocol here.
    pub fn read(stream: &mut impl BufRead) -> Result<OtherProtocol, ReadError> {
        read_message(stream, OtherProtocol::decode)
    }
}

impl fmt::Display for OtherProtocol {
    /// Writes the protocol, and what to change.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            OtherProtocol::Http => {
                "HTTP, not SOCKS; set this server as its SOCKS proxy (socks5h://HOST:PORT or \
                 socks4a://HOST:PORT), not as its HTTP proxy"
            }
            OtherProtocol::Tls => {
                "TLS, not SOCKS; set this server as its SOCKS proxy (socks5h://HOST:PORT or \
                 socks4a://HOST:PORT), not as its HTTPS proxy"
            }
            OtherProtocol::Ssh => {
                "SSH, not SOCKS; set the option ProxyCommand in it, for example: \
                 nc -X 5 -x HOST:PORT %h %p (-X 4 for SOCKS4)"
            }
            OtherProtocol::ProxyHeader => {
                "the PROXY protocol, not SOCKS; turn that protocol off in the load balancer"
            }
        })
    }
}

/// The reply to an HTTP request. It contains nothing of the request. `scheme` and `version`
/// say what to set instead: `socks5h`, 5.
pub fn http_reply(scheme: &str, version: u8) -> Vec<u8> {
    let body = format!(
        "This is a SOCKS proxy, not an HTTP proxy.\n\
         \n\
         In curl, ALL_PROXY, http_proxy and https_proxy, write {scheme}://HOST:PORT\n\
         In a browser, enter host and port as SOCKS host (SOCKS v{version}), not as HTTP proxy.\n"
    );
    let length = body.len();
    let head = format!(
        "HTTP/1.0 501 This is a SOCKS proxy, not an HTTP proxy\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         \r\n"
    );
    [head, body].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    /// Streams of every protocol, and how many of their bytes show it.
    fn streams() -> Vec<(Vec<u8>, usize, OtherProtocol)> {
        let of_http = |start: &str| {
            let stream = format!("{start} and more").into_bytes();
            (stream, start.len(), OtherProtocol::Http)
        };
        let of_other = |&(start, protocol): &(&[u8], OtherProtocol)| {
            ([start, b" and more"].concat(), start.len(), protocol)
        };
        let requests = [
            "GET /",
            "GET h",
            "QUERY /",
            "PURGE /",
            "MKCALENDAR /",
            "VERSION-CONTROL /",
            "UPDATEREDIRECTREF H",
            "PRI *",
            "OPTIONS *",
            "\r\nPOST /",
            "A /",
        ];
        let requests = requests.into_iter().map(of_http);
        requests.chain(BEGINNINGS.iter().map(of_other)).collect()
    }

    #[test]
    fn h20_each_protocol_is_known_by_its_first_bytes_in_any_pieces() {
        for (stream, count, protocol) in streams() {
            for capacity in 1..=stream.len() {
                let mut reader = BufReader::with_capacity(capacity, stream.as_slice());
                let read = OtherProtocol::read(&mut reader).expect("known");
                assert_eq!(read, protocol);
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).expect("the rest");
                assert_eq!(rest, b" and more", "no byte more is taken");
            }
            for length in 0..count {
                assert_eq!(OtherProtocol::decode(&stream[..length]), Ok(None));
            }
        }
        let longest = [b"\r\n".as_slice(), &[b'A'; MAX_METHOD], b" /"].concat();
        let known = Ok(Some((OtherProtocol::Http, 24)));
        assert_eq!(OtherProtocol::decode(&longest), known);
    }

    #[test]
    fn h20_bytes_that_begin_no_protocol_are_known_at_the_first_that_differs() {
        // The longest part that can still become a beginning, and the byte after it.
        for (before, byte) in [
            (&b""[..], b'g'),
            (b"", 0xFF),
            (b"", b'-'),
            (b"", b' '),
            (b"GET", b'/'),
            (b"HELO ", b'e'),
            (b"USER ", b'a'),
            (b"PING", b'\r'),
            (b"\r\nGET ", b' '),
            (b"\r\n\r", b'G'),
            (&[b'A'; MAX_METHOD], b'A'),
            (b"\x16", 2),
            (b"SSH", b'_'),
            (b"PROXY", b'\t'),
            (b"\r\n\r\n\0\r\nQUIT", b'\r'),
        ] {
            assert_eq!(OtherProtocol::decode(before), Ok(None));
            let bytes = [before, &[byte]].concat();
            let error = Err(ProtocolError::Version(bytes[0]));
            assert_eq!(OtherProtocol::decode(&bytes), error, "{bytes:?}");
        }
        for byte in 0..=u8::MAX {
            let starts = byte.is_ascii_uppercase() || byte == 0x16 || byte == b'\r';
            assert_eq!(OtherProtocol::decode(&[byte]).is_ok(), starts, "{byte}");
        }
    }
}
