//! IDENT (RFC 1413): the query for the user of a connection, and the reply.
//!
//! ```text
//!   query, to port 113 of the client's host      6193 , 1080 CR LF
//!   reply                        6193 , 1080 : USERID : UNIX : alice CR LF
//!   or                           6193 , 1080 : ERROR : NO-USER CR LF
//! ```
//!
//! The first port is the one at the host that receives the query: the client's.

use std::fmt;

/// The TCP port on which identd listens (RFC 1413, section 2).
pub const PORT: u16 = 113;

/// Longest reply in bytes, without its end of line (RFC 1413, section 6, note 2).
pub const MAX_REPLY: usize = 1000;

/// A query for one TCP connection between a client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentQuery {
    /// The port of the client, at the host that receives the query.
    pub client_port: u16,
    /// The port of the server, which sends the query.
    pub server_port: u16,
}

/// A reply of identd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentReply {
    /// The connection belongs to this user; any bytes, at least one.
    User(Vec<u8>),
    /// Identd reports no user, for this reason: `NO-USER`, `HIDDEN-USER`; any bytes, at
    /// least one.
    Error(Vec<u8>),
}

/// Why bytes are not a valid reply to the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentError {
    /// The line does not end within [`MAX_REPLY`] bytes.
    TooLong,
    /// The line does not follow the grammar of RFC 1413.
    InvalidReply,
    /// The ports are not those of the query.
    OtherPorts,
}

impl fmt::Display for IdentError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentError::TooLong => write!(out, "its reply does not end within {MAX_REPLY} bytes"),
            IdentError::InvalidReply => out.write_str("its reply is not valid by RFC 1413"),
            IdentError::OtherPorts => out.write_str("its reply is about another connection"),
        }
    }
}

impl std::error::Error for IdentError {}

impl IdentQuery {
    /// The bytes to send.
    pub fn encode(self) -> Vec<u8> {
        format!("{} , {}\r\n", self.client_port, self.server_port).into_bytes()
    }

    /// Parses the bytes received so far; `None` while the line is incomplete. Bytes after
    /// the line are ignored.
    ///
    /// Blanks around each field are dropped, around the user too, since servers differ in
    /// them. The line may end without CR, and its words may have any case.
    ///
    /// # Errors
    ///
    /// [`IdentError`], as soon as no further byte can make the line valid.
    pub fn parse_reply(self, bytes: &[u8]) -> Result<Option<IdentReply>, IdentError> {
        let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
        let line = lines.next().unwrap_or_default();
        let has_ended = lines.next().is_some();
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if text.len() > MAX_REPLY {
            return Err(IdentError::TooLong);
        }
        if !has_ended {
            return Ok(None);
        }
        let (ports, rest) = split_field(text).ok_or(IdentError::InvalidReply)?;
        let (client_port, server_port) = parse_ports(ports).ok_or(IdentError::InvalidReply)?;
        if (IdentQuery {
            client_port,
            server_port,
        }) != self
        {
            return Err(IdentError::OtherPorts);
        }
        parse_after_ports(rest)
            .map(Some)
            .ok_or(IdentError::InvalidReply)
    }
}

/// Parses the part of the reply after the ports.
fn parse_after_ports(text: &[u8]) -> Option<IdentReply> {
    let (kind, rest) = split_field(text)?;
    let (reply, value): (fn(Vec<u8>) -> IdentReply, _) = if kind.eq_ignore_ascii_case(b"USERID") {
        // This field names the operating system and the character set of the user. It is
        // not used: the user is compared as bytes.
        let (_system, user) = split_field(rest)?;
        (IdentReply::User, user)
    } else if kind.eq_ignore_ascii_case(b"ERROR") {
        (IdentReply::Error, rest)
    } else {
        return None;
    };
    let value = value.trim_ascii();
    (!value.is_empty()).then(|| reply(value.to_vec()))
}

/// The field before the next colon, and the bytes after the colon.
fn split_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = text.splitn(2, |&byte| byte == b':');
    Some((parts.next()?.trim_ascii(), parts.next()?))
}

/// Parses the two ports: `6193 , 1080`.
fn parse_ports(text: &[u8]) -> Option<(u16, u16)> {
    let (client_port, server_port) = std::str::from_utf8(text).ok()?.split_once(',')?;
    let port = |text: &str| {
        let digits = text.trim_ascii();
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    };
    Some((port(client_port)?, port(server_port)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: IdentQuery = IdentQuery {
        client_port: 6193,
        server_port: 1080,
    };

    fn user(name: &[u8]) -> Result<Option<IdentReply>, IdentError> {
        Ok(Some(IdentReply::User(name.to_vec())))
    }

    fn error(reason: &[u8]) -> Result<Option<IdentReply>, IdentError> {
        Ok(Some(IdentReply::Error(reason.to_vec())))
    }

    #[test]
    fn the_query_names_the_port_of_the_client_first() {
        assert_eq!(QUERY.encode(), b"6193 , 1080\r\n");
    }

    #[test]
    fn i05_the_user_is_everything_after_the_third_colon() {
        for (text, expected) in [
            ("alice", "alice"),
            (" alice", "alice"),
            ("  alice \t", "alice"),
            ("alice smith", "alice smith"),
            ("a:b : c", "a:b : c"),
            ("al\u{ef}ce", "al\u{ef}ce"),
            ("\u{1b}[2J", "\u{1b}[2J"),
        ] {
            let line = format!("6193, 1080 : USERID : UNIX :{text}\r\n");
            assert_eq!(
                QUERY.parse_reply(line.as_bytes()),
                user(expected.as_bytes())
            );
        }
        let longest = "u".repeat(512);
        let line = format!("6193, 1080 : USERID : UNIX : {longest}\r\n");
        assert_eq!(QUERY.parse_reply(line.as_bytes()), user(longest.as_bytes()));
        assert_eq!(
            QUERY.parse_reply(b"6193,1080:USERID:OTHER,UTF-8:\xff\x00\xfe\r\n"),
            user(b"\xff\x00\xfe")
        );
    }

    #[test]
    fn i06_an_error_is_a_valid_reply() {
        for reason in [
            "NO-USER",
            "HIDDEN-USER",
            "INVALID-PORT",
            "UNKNOWN-ERROR",
            "XNEW",
        ] {
            let line = format!("6193 , 1080 : ERROR : {reason}\r\n");
            assert_eq!(QUERY.parse_reply(line.as_bytes()), error(reason.as_bytes()));
        }
    }

    #[test]
    fn i08_deviations_in_blanks_and_case_are_tolerated_and_others_are_not() {
        for line in [
            "6193,1080:USERID:UNIX:alice\n",
            "6193,1080:userid:unix:alice\r\n",
            "  6193\t,  1080  :  UserId  :  UNIX , US-ASCII :  alice  \r\n",
            "06193,01080:USERID::alice\r\n",
        ] {
            assert_eq!(QUERY.parse_reply(line.as_bytes()), user(b"alice"), "{line}");
        }
        for line in [
            "6193,1081:USERID:UNIX:alice\r\n",
            "1080,6193:USERID:UNIX:alice\r\n",
            "0,0:ERROR:INVALID-PORT\r\n",
        ] {
            let other = Err(IdentError::OtherPorts);
            assert_eq!(QUERY.parse_reply(line.as_bytes()), other, "{line}");
        }
        for line in [
            "",
            "alice",
            "6193,1080",
            "6193,1080:",
            "6193 1080:USERID:UNIX:alice",
            "6193,1080,:USERID:UNIX:alice",
            "6193,+1080:USERID:UNIX:alice",
            "6193,66616:USERID:UNIX:alice",
            "6193,:USERID:UNIX:alice",
            "6193,1080:USERID",
            "6193,1080:USERID:alice",
            "6193,1080:USERID:UNIX:",
            "6193,1080:USERID:UNIX: \t",
            "6193,1080:ERROR",
            "6193,1080:ERROR:",
            "6193,1080:HELLO:UNIX:alice",
            "6193,1080:USER ID:UNIX:alice",
            "\u{fffd},1080:USERID:UNIX:alice",
        ] {
            let line = format!("{line}\r\n");
            let invalid = Err(IdentError::InvalidReply);
            assert_eq!(QUERY.parse_reply(line.as_bytes()), invalid, "{line}");
        }
    }

    #[test]
    fn i04_i10_the_line_has_a_maximum_length_and_bytes_after_it_are_ignored() {
        let line = b"6193,1080:USERID:UNIX:alice\r\n6193,1080:USERID:UNIX:bob\r\n\xff";
        for end in 0..line.len() {
            let expected = match end {
                0..29 => Ok(None),
                _ => user(b"alice"),
            };
            assert_eq!(QUERY.parse_reply(&line[..end]), expected, "{end}");
        }
        let head = b"6193,1080:USERID:UNIX:";
        let whole = [&head[..], &vec![b'a'; MAX_REPLY - head.len()]].concat();
        assert_eq!(QUERY.parse_reply(&whole), Ok(None));
        let ended = [&whole[..], b"\r\n"].concat();
        assert_eq!(QUERY.parse_reply(&ended), user(&whole[head.len()..]));
        let longer = [&whole[..], b"a"].concat();
        assert_eq!(QUERY.parse_reply(&longer), Err(IdentError::TooLong));
        let longer = [&longer[..], b"\r\n"].concat();
        assert_eq!(QUERY.parse_reply(&longer), Err(IdentError::TooLong));
    }
}
