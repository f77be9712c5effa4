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

/// What each protocol begins with. No beginning is the beginning of another one. HTTP requests
/// have a form instead: see [`http_request`].
const BEGINNINGS: &[(&[u8], OtherProtocol)] = &[
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

/// Longest scheme in bytes that counts as HTTP: that of `coap+tcp`. Clients of an HTTP proxy
/// mostly use `http`, `https` and `ftp`.
const MAX_SCHEME: usize = 8;

/// How many bytes show an HTTP request (RFC 9112, section 3): at most one empty line, a method
/// that begins with a letter, one or two blanks, and the beginning of the target. A person may
/// type it: small letters, an LF alone and a second blank count too. `None` if the bytes cannot
/// be HTTP, `Some(None)` while more must come.
fn http_request(bytes: &[u8]) -> Option<Option<usize>> {
    let after_empty_line = [&b"\r\n"[..], b"\n"]
        .iter()
        .find_map(|end| bytes.strip_prefix(*end));
    let line = after_empty_line.unwrap_or(bytes);
    let begins_with_letter = line.first().is_none_or(u8::is_ascii_alphabetic);
    let method_length = line.iter().take_while(|byte| is_in_token(**byte)).count();
    if method_length > MAX_METHOD || !begins_with_letter {
        return None;
    }
    let before_target = bytes.len() - line.len() + method_length + 1;
    match line.split_at(method_length) {
        (_, []) => Some(None),
        // The target of this method is a host, which may begin with any letter or digit.
        (method, [b' ', ..]) if method.eq_ignore_ascii_case(b"CONNECT") => {
            Some(Some(before_target))
        }
        (_, [b' ', target @ ..]) => {
            let (blanks, target) = match target {
                [b' ', target @ ..] => (1, target),
                _ => (0, target),
            };
            let count = target_beginning(target)?;
            Some(count.map(|count| before_target + blanks + count))
        }
        _ => None,
    }
}

/// Can a method have this byte (RFC 9110, section 5.6.2)?
fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How many bytes show that this is a target: the first one of a path, a star, or a scheme with
/// `://`. Other protocols have none of these after their first word, such as `HELO mail`.
/// Returns `None` and `Some(None)` as [`http_request`] does.
fn target_beginning(target: &[u8]) -> Option<Option<usize>> {
    if let [b'/' | b'*', ..] = target {
        return Some(Some(1));
    }
    let is_in_scheme = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme_length = target.iter().take_while(is_in_scheme).count();
    let begins_with_letter = target.first().is_none_or(u8::is_ascii_alphabetic);
    if scheme_length > MAX_SCHEME || !begins_with_letter {
        return None;
    }
    match target.get(scheme_length..).unwrap_or_default() {
        [b':', b'/', b'/', ..] => Some(Some(scheme_length + 3)),
        [] | [b':'] | [b':', b'/'] => Some(None),
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

    /// Reads as many bytes as show the protocol: at most 35.
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
                "the PROXY protocol, not SOCKS; if it is your load balancer, set --proxy-from with \
                 this address, or turn that protocol off there"
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
            "GET http://",
            "QUERY /",
            "PURGE /",
            "MKCALENDAR /",
            "VERSION-CONTROL /",
            "UPDATEREDIRECTREF HTTP://",
            "PRI *",
            "OPTIONS *",
            "CONNECT ",
            "\r\nPOST /",
            "\r\nCONNECT ",
            "A /",
            "get /",
            "\nGET /",
            "\nget  HTTP://",
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
    }

    /// Each split of these requests is read, and no byte after the target's beginning counts.
    #[test]
    fn h25_an_http_request_is_known_by_its_form_with_every_method_and_target() {
        let methods = [
            "GET",
            "PROPFIND",
            "M-SEARCH",
            "X_FOO",
            "Get",
            "B2",
            "A!#$%&'*+-.^_`|~z9",
            "PROXY-CHECK",
            "SSH",
            "CONNECTED",
            "get",
            "m-search",
            "proxy-check",
            "connected",
        ];
        let targets = [
            "/",
            "*",
            "http://",
            "HTTPS://",
            "ftp://",
            "ws://",
            "wss://",
            "a://",
            "coap+tcp://",
            "git.a-1://",
        ];
        for (method, target) in methods
            .iter()
            .flat_map(|method| targets.map(|target| (method, target)))
        {
            let lines = ["", "\r\n", "\n"].map(|line| [(line, " "), (line, "  ")]);
            for (empty_line, blanks) in lines.into_iter().flatten() {
                let shown = format!("{empty_line}{method}{blanks}{target}");
                let stream = format!("{shown} and more");
                let known = Ok(Some((OtherProtocol::Http, shown.len())));
                assert_eq!(OtherProtocol::decode(stream.as_bytes()), known, "{shown}");
                for length in 0..shown.len() {
                    let part = OtherProtocol::decode(&stream.as_bytes()[..length]);
                    assert_eq!(part, Ok(None), "{shown} {length}");
                }
            }
        }
    }

    #[test]
    fn h25_at_most_35_bytes_show_an_http_request() {
        let method = "A".repeat(MAX_METHOD);
        let scheme = "a".repeat(MAX_SCHEME);
        let longest = format!("\r\n{method}  {scheme}://a");
        let known = Ok(Some((OtherProtocol::Http, 35)));
        assert_eq!(OtherProtocol::decode(longest.as_bytes()), known);
        for longer in [format!("{method}A"), format!("{method} {scheme}a")] {
            let error = Err(ProtocolError::Version(b'A'));
            assert_eq!(OtherProtocol::decode(longer.as_bytes()), error);
        }
    }

    #[test]
    fn h26_a_request_that_a_person_types_is_http() {
        for start in [
            "get /",
            "\nGET /",
            "\r\nget /",
            "GET  /",
            "\nget  http://",
            "connect ",
            "Connect ",
        ] {
            let known = Ok(Some((OtherProtocol::Http, start.len())));
            assert_eq!(OtherProtocol::decode(start.as_bytes()), known, "{start:?}");
        }
    }

    #[test]
    fn h20_bytes_that_begin_no_protocol_are_known_at_the_first_that_differs() {
        // The longest part that can still become a beginning, and the byte after it.
        for (before, byte) in [
            (&b""[..], b'4'),
            (b"", 4),
            (b"", 5),
            (b"\n", 4),
            (b"\n", 5),
            (b"\r\n", 5),
            (b"\n", b'\n'),
            (b"\n", b'\r'),
            (b"", 0xFF),
            (b"", b'-'),
            (b"", b' '),
            (b"GET", b'/'),
            (b"GET", b'\t'),
            (b"GET  ", b' '),
            (b"GET  ", b'1'),
            (b"GET ", b'1'),
            (b"get host", b'/'),
            (b"ssh", b'\n'),
            (b"helo mail", b'\r'),
            (b"proxy tcp4", b' '),
            (b"GET ", b':'),
            (b"GET http", b'/'),
            (b"GET http:", b'e'),
            (b"GET http:/", b'e'),
            (b"HELO mail", b'\r'),
            (b"HELO ", b'['),
            (b"USER bob", b' '),
            (b"USER alicebob", b'2'),
            (b"MAIL FROM:", b'<'),
            (b"PING", b'\r'),
            (b"EHLO", b'\n'),
            (b"CONNECT", b'\n'),
            (b"NICK ", 0xC3),
            (b"Hello", b','),
            (b"\r\nGET  ", b' '),
            (b"\r\n", b'1'),
            (b"\r", b'\r'),
            (b"\r\n\r", b'G'),
            (&[b'A'; MAX_METHOD], b'A'),
            (b"\x16", 2),
            (b"SSH", b'\r'),
            (b"PROXY", b'\t'),
            (b"\r\n\r\n\0\r\nQUIT", b'\r'),
        ] {
            assert_eq!(OtherProtocol::decode(before), Ok(None));
            let bytes = [before, &[byte]].concat();
            let error = Err(ProtocolError::Version(bytes[0]));
            assert_eq!(OtherProtocol::decode(&bytes), error, "{bytes:?}");
        }
        for byte in 0..=u8::MAX {
            let starts = byte.is_ascii_alphabetic() || b"\x16\r\n".contains(&byte);
            assert_eq!(OtherProtocol::decode(&[byte]).is_ok(), starts, "{byte}");
        }
    }
}
