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

/// What each protocol begins with. No beginning is the beginning of another one.
const BEGINNINGS: &[(&[u8], OtherProtocol)] = &[
    // The methods of RFC 9110, section 9, and of RFC 5789.
    (b"GET ", OtherProtocol::Http),
    (b"HEAD ", OtherProtocol::Http),
    (b"POST ", OtherProtocol::Http),
    (b"PUT ", OtherProtocol::Http),
    (b"DELETE ", OtherProtocol::Http),
    (b"CONNECT ", OtherProtocol::Http),
    (b"OPTIONS ", OtherProtocol::Http),
    (b"TRACE ", OtherProtocol::Http),
    (b"PATCH ", OtherProtocol::Http),
    // WebDAV (RFC 4918, 3253 and 5323).
    (b"PROPFIND ", OtherProtocol::Http),
    (b"PROPPATCH ", OtherProtocol::Http),
    (b"MKCOL ", OtherProtocol::Http),
    (b"COPY ", OtherProtocol::Http),
    (b"MOVE ", OtherProtocol::Http),
    (b"LOCK ", OtherProtocol::Http),
    (b"UNLOCK ", OtherProtocol::Http),
    (b"REPORT ", OtherProtocol::Http),
    (b"SEARCH ", OtherProtocol::Http),
    // The connection preface of HTTP/2 (RFC 9113, section 3.4).
    (b"PRI ", OtherProtocol::Http),
    // A handshake record of SSL 3.0 or TLS (RFC 8446, section 5.1).
    (b"\x16\x03", OtherProtocol::Tls),
    // RFC 4253, section 4.2.
    (b"SSH-", OtherProtocol::Ssh),
    // Versions 1 and 2 of HAProxy's PROXY protocol.
    (b"PROXY ", OtherProtocol::ProxyHeader),
    (b"\r\n\r\n\0\r\nQUIT\n", OtherProtocol::ProxyHeader),
];

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
        Err(ProtocolError::Version(first))
    }

    /// Reads as many bytes as show the protocol: at most 12.
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
                "HTTP, not SOCKS; set this server as its SOCKS proxy (socks5h://HOST:PORT), not \
                 as its HTTP proxy"
            }
            OtherProtocol::Tls => {
                "TLS, not SOCKS; set this server as its SOCKS proxy (socks5h://HOST:PORT), not as \
                 its HTTPS proxy"
            }
            OtherProtocol::Ssh => {
                "SSH, not SOCKS; set the option ProxyCommand in it, for example: \
                 nc -X 5 -x HOST:PORT %h %p"
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

    #[test]
    fn h20_each_protocol_is_known_by_its_first_bytes_in_any_pieces() {
        for &(beginning, protocol) in BEGINNINGS {
            let stream = [beginning, b"/ and more".as_slice()].concat();
            for capacity in 1..=stream.len() {
                let mut reader = BufReader::with_capacity(capacity, stream.as_slice());
                let read = OtherProtocol::read(&mut reader).expect("known");
                assert_eq!(read, protocol);
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).expect("the rest");
                assert_eq!(rest, b"/ and more", "no byte more is taken");
            }
            for length in 0..beginning.len() {
                assert_eq!(OtherProtocol::decode(&beginning[..length]), Ok(None));
            }
        }
        let longest = BEGINNINGS.iter().map(|(beginning, _)| beginning.len());
        assert_eq!(longest.max(), Some(12));
    }

    #[test]
    fn h20_bytes_that_begin_no_protocol_are_known_at_the_first_that_differs() {
        // The longest part that can still become a beginning, and the byte after it.
        for (before, byte) in [
            (&b""[..], b'g'),
            (b"", 0xFF),
            (b"GET", b'X'),
            (b"H", b'T'),
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
        for byte in 0..=255 {
            let starts = BEGINNINGS.iter().any(|(beginning, _)| beginning[0] == byte);
            assert_eq!(OtherProtocol::decode(&[byte]).is_ok(), starts, "{byte}");
        }
    }
}
