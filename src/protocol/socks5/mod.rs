//! SOCKS5: its messages as bytes and as values.
//!
//! First client and server negotiate a method (RFC 1928, section 3):
//!
//! ```text
//!      +-----+----------+-..------+          +-----+--------+
//!      | VER | NMETHODS | METHODS |   then   | VER | METHOD |     VER = 05
//!      +-----+----------+-..------+          +-----+--------+     ff: none of them
//! bytes   1       1      0 to 255               1      1
//! ```
//!
//! With method 02 the client logs in (RFC 1929):
//!
//! ```text
//!      +-----+------+-..----+------+-..-----+          +-----+--------+
//!      | VER | ULEN | UNAME | PLEN | PASSWD |   then   | VER | STATUS |   VER = 01
//!      +-----+------+-..----+------+-..-----+          +-----+--------+   00: success
//! bytes   1     1   0 to 255   1    0 to 255              1      1
//! ```
//!
//! Then the client sends its request. Replies have the same form (RFC 1928, sections 4
//! and 6):
//!
//! ```text
//!      +-----+-----+-----+------+-..---+------+    CMD = 01 CONNECT, 02 BIND, 03 UDP
//!      | VER | CMD | RSV | ATYP | ADDR | PORT |    ATYP = 01 IPv4: 4 bytes
//!      +-----+-----+-----+------+-..---+------+           03 name: length, then name
//! bytes   1     1     1     1             2               04 IPv6: 16 bytes
//!
//!        05    01    00    03    05 612e6f7267 0050    CONNECT to a.org:80
//! ```
//!
//! Each datagram of a UDP association (section 7) begins with the same fields, with 00 00
//! in place of VER and CMD, and the number of a fragment in place of RSV.

mod datagram;
mod fields;
mod negotiation;
mod request;

pub use datagram::UdpHeader;
pub use fields::{MAX_FIELD, udp_header_length};
pub use negotiation::{AuthStatus, Credentials, Greeting, Method, MethodSelection};
pub use request::{Reply, Request, code};

#[cfg(test)]
mod tests {
    use super::fields::{IPV4, IPV6, NAME};
    use super::request::{ASSOCIATE, BIND, CONNECT, error_of};
    use super::*;
    use crate::protocol::{Command, Destination, Host, ProtocolError, ReadError, ReplyError};
    use std::fmt::Debug;
    use std::io::{BufReader, Read};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// Reads the message in parts of every size. The bytes after it must stay unread, and
    /// every proper prefix must be incomplete.
    fn read_exactly<T: Debug + PartialEq>(
        bytes: &[u8],
        expected: &T,
        read: fn(&mut BufReader<&[u8]>) -> Result<T, ReadError>,
    ) {
        let with_more = [bytes, b"\x05early"].concat();
        for part in 1..=with_more.len() {
            let mut stream = BufReader::with_capacity(part, &with_more[..]);
            assert_eq!(
                &read(&mut stream).expect("a message"),
                expected,
                "{bytes:?}"
            );
            let mut left = Vec::new();
            stream.read_to_end(&mut left).expect("the rest");
            assert_eq!(left, b"\x05early");
        }
        for length in 0..bytes.len() {
            match read(&mut BufReader::new(&bytes[..length])) {
                Err(ReadError::Incomplete(received, _)) => assert_eq!(received, length),
                other => panic!("{other:?} from {length} bytes of {bytes:?}"),
            }
        }
    }

    fn destination_of(host: Host, port: u16) -> Destination {
        Destination { host, port }
    }

    /// The bytes from ATYP on, and the destination that they encode.
    fn destinations() -> Vec<(Vec<u8>, Destination)> {
        let longest = [&[b'a'; 63][..], b"."].concat().repeat(4);
        let longest = &longest[..253];
        let name = |name: &[u8]| {
            let length = u8::try_from(name.len()).expect("a short name");
            [&[NAME, length], name, &[0, 80]].concat()
        };
        let mut v6 = vec![IPV6];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([1, 187]);
        vec![
            (
                vec![IPV4, 140, 113, 1, 2, 0x12, 0x34],
                destination_of(Host::Address([140, 113, 1, 2].into()), 0x1234),
            ),
            (
                v6,
                destination_of(Host::Address(Ipv6Addr::LOCALHOST.into()), 443),
            ),
            (
                name(b"a.org"),
                destination_of(Host::from_name(b"a.org"), 80),
            ),
            (name(longest), destination_of(Host::from_name(longest), 80)),
        ]
    }

    #[test]
    fn messages_are_read_exactly_in_any_parts() {
        for methods in [vec![], vec![0], vec![0, 2], vec![1; 255]] {
            let greeting = Greeting { methods };
            read_exactly(&greeting.encode(), &greeting, |stream| {
                Greeting::read(stream)
            });
        }
        for selection in
            [None, Some(Method::Anonymous), Some(Method::Password)].map(MethodSelection)
        {
            read_exactly(&selection.encode(), &selection, |stream| {
                MethodSelection::read(stream)
            });
        }
        for (user, password) in [(0, 0), (1, 1), (5, 255), (255, 255), (255, 0)] {
            let credentials = Credentials {
                user: vec![0xFF; user],
                password: vec![0; password],
            };
            read_exactly(&credentials.encode(), &credentials, |stream| {
                Credentials::read(stream)
            });
        }
        for status in [AuthStatus::Accepted, AuthStatus::Denied] {
            read_exactly(&status.encode(), &status, |stream| AuthStatus::read(stream));
        }
        for (bytes, destination) in destinations() {
            for (code, command) in [
                (CONNECT, Command::Connect),
                (BIND, Command::Bind),
                (ASSOCIATE, Command::Associate),
            ] {
                let destination = destination.clone();
                let request = Request {
                    command,
                    destination,
                };
                let bytes = [&[5, code, 0], &bytes[..]].concat();
                assert_eq!(request.encode(), bytes);
                read_exactly(&bytes, &request, |stream| Request::read(stream));
            }
            let bound = destination.clone();
            let reply = Reply {
                outcome: Ok(()),
                bound,
            };
            let bytes = [&[5, 0, 0], &bytes[..]].concat();
            assert_eq!(reply.encode(), bytes);
            read_exactly(&bytes, &reply, |stream| Reply::read(stream));
            let min_length = |length| Reply::min_length(&bytes[..length]);
            assert!(
                (0..bytes.len())
                    .all(|count| (count + 1..=bytes.len()).contains(&min_length(count)))
            );
            assert_eq!(min_length(bytes.len()), bytes.len());
        }
    }

    #[test]
    fn every_code_has_its_error() {
        for number in 1..=8 {
            let outcome = Err(error_of(number).expect("a code of RFC 1928"));
            let reply = Reply::new(outcome, ([10, 0, 0, 1], 7).into());
            let bytes = [5, number, 0, 1, 10, 0, 0, 1, 0, 7];
            assert_eq!(reply.encode(), bytes);
            assert_eq!(Reply::decode(&bytes), Ok(Some((reply, 10))));
        }
        for number in 9..=255 {
            let bytes = [5, number, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(Reply::decode(&bytes), Err(ProtocolError::ReplyCode(number)));
        }
        assert_eq!(
            code(ReplyError::IdentFailed),
            code(ReplyError::UserMismatch)
        );
        // An IPv4-mapped IPv6 address is written as IPv4.
        let mapped = "[::ffff:10.0.0.1]:7".parse().expect("an address");
        let reply = Reply::new(Ok(()), mapped).encode();
        assert_eq!(reply, [5, 0, 0, 1, 10, 0, 0, 1, 0, 7]);
    }

    #[test]
    fn an_invalid_request_is_reported_by_its_wrong_byte() {
        let with = |version, command, reserved, kind| {
            let bytes = [
                version, command, reserved, kind, 1, b'a', 0, 80, 0, 80, 0, 80,
            ];
            Request::decode(&bytes).map(|_| ())
        };
        for other in (0..=255).filter(|&byte| byte != 5) {
            assert_eq!(with(other, 1, 0, NAME), Err(ProtocolError::Version(other)));
        }
        for other in (0..=255).filter(|byte| !(1..=3).contains(byte)) {
            assert_eq!(with(5, other, 0, NAME), Err(ProtocolError::Command(other)));
            // The error is not reported before the request is complete.
            assert_eq!(Request::decode(&[5, other, 0, NAME, 1, b'a', 0]), Ok(None));
        }
        for other in 1..=255 {
            assert_eq!(with(5, 1, other, NAME), Err(ProtocolError::Reserved(other)));
        }
        for other in (0..=255).filter(|byte| ![IPV4, NAME, IPV6].contains(byte)) {
            assert_eq!(with(5, 1, 0, other), Err(ProtocolError::AddressType(other)));
        }
        for (bytes, error) in [
            (&[4, 1][..], ProtocolError::Version(4)),
            (&[5, 1], ProtocolError::Method(1)),
            (&[5, 3], ProtocolError::Method(3)),
        ] {
            assert_eq!(MethodSelection::decode(bytes), Err(error));
        }
        assert_eq!(Greeting::decode(&[4]), Err(ProtocolError::Version(4)));
        assert_eq!(Credentials::decode(&[5]), Err(ProtocolError::Version(5)));
        assert_eq!(AuthStatus::decode(&[5]), Err(ProtocolError::Version(5)));
        let other_status = AuthStatus::decode(&[1, 7]);
        assert_eq!(other_status, Ok(Some((AuthStatus::Denied, 2))));
    }

    #[test]
    fn a_name_field_may_have_any_bytes() {
        for name in [&b""[..], b"a\0b", b"127.1", b"[127.0.0.1]", &[0xFF; 255]] {
            let length = u8::try_from(name.len()).expect("short");
            let bytes = [&[5, 1, 0, NAME, length], name, &[0, 80]].concat();
            let (request, count) = Request::decode(&bytes)
                .expect("well formed")
                .expect("complete");
            assert_eq!(count, bytes.len());
            assert!(
                matches!(request.destination.host, Host::Invalid(_)),
                "{name:?}"
            );
            assert_eq!(request.encode(), bytes);
        }
        for (text, address) in [
            ("127.0.0.1", IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ("::1", Ipv6Addr::LOCALHOST.into()),
            ("[::1]", Ipv6Addr::LOCALHOST.into()),
        ] {
            let length = u8::try_from(text.len()).expect("short");
            let bytes = [&[5, 1, 0, NAME, length], text.as_bytes(), &[0, 80]].concat();
            let (request, _) = Request::decode(&bytes)
                .expect("well formed")
                .expect("complete");
            assert_eq!(request.destination.host, Host::Address(address));
        }
    }

    #[test]
    fn a_datagram_is_split_after_its_header() {
        for (bytes, destination) in destinations() {
            let header = UdpHeader {
                fragment: 0,
                destination,
            };
            let head = [&[0, 0, 0], &bytes[..]].concat();
            assert_eq!(header.encode(), head);
            for data in [&b""[..], b"data"] {
                let datagram = [&head[..], data].concat();
                assert_eq!(UdpHeader::split(&datagram), Ok((header.clone(), data)));
            }
            for length in 0..head.len() {
                assert_eq!(
                    UdpHeader::split(&head[..length]),
                    Err(ProtocolError::Truncated)
                );
            }
        }
        let split = |bytes: &[u8]| UdpHeader::split(bytes).map(|(header, _)| header.fragment);
        assert_eq!(split(&[0, 0, 9, IPV4, 1, 1, 1, 1, 0, 0]), Ok(9));
        assert_eq!(
            split(&[1, 0, 0, IPV4, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::Reserved(1))
        );
        assert_eq!(
            split(&[0, 2, 0, IPV4, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::Reserved(2))
        );
        assert_eq!(
            split(&[0, 0, 0, 2, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::AddressType(2))
        );
    }

    #[test]
    fn debug_output_shows_no_password() {
        let credentials = Credentials {
            user: b"al\x1b".to_vec(),
            password: b"secret".to_vec(),
        };
        assert_eq!(format!("{credentials:?}"), "Credentials(\"al\\x1b\")");
    }
}
