//! The header of HAProxy's PROXY protocol, versions 1 and 2: the address of the client of a proxy.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::{MAX_PROXY_LINE, ProtocolError, ProxyHeaderError, ReadError};
use super::read::read_message;
use super::types::canonical;

/// What a proxy says of a connection, before the bytes of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy itself is the client, for example for a health check (`LOCAL` in version 2).
    Local,
    /// The proxy passes the connection of a client on. Addresses are canonical: IPv4 is never
    /// mapped.
    Client {
        /// The client.
        source: SocketAddr,
        /// Where the client has connected to.
        destination: SocketAddr,
    },
}

/// What version 1 begins with.
const SIGNATURE_V1: &[u8] = b"PROXY ";

/// What version 2 begins with.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses: signature, version and command, family, length.
const HEAD_V2: usize = 16;

/// Most bytes of extensions (TLV) after the addresses of version 2. They are skipped. A proxy
/// may put the names of a TLS certificate there, which have some hundred bytes.
const MAX_EXTENSIONS: usize = 4096;

/// Two IPv4 addresses and two ports.
const ADDRESSES_V4: usize = 12;
/// Two IPv6 addresses and two ports.
const ADDRESSES_V6: usize = 36;
/// Two paths of Unix sockets.
const ADDRESSES_UNIX: usize = 216;

type Decoded = Result<Option<(ProxyHeader, usize)>, ProxyHeaderError>;

impl ProxyHeader {
    /// Decodes a header at the beginning of these bytes: the header and its length, or `None`
    /// while more must come.
    ///
    /// # Errors
    ///
    /// The bytes are no header with a client, whatever follows.
    pub fn decode(bytes: &[u8]) -> Decoded {
        if bytes.starts_with(SIGNATURE_V1) {
            decode_v1(bytes)
        } else if bytes.starts_with(SIGNATURE_V2) {
            decode_v2(bytes)
        } else if SIGNATURE_V1.starts_with(bytes) || SIGNATURE_V2.starts_with(bytes) {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Missing)
        }
    }

    /// Reads a header and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or begins with no header with a client.
    pub fn read(stream: &mut impl BufRead) -> Result<ProxyHeader, ReadError> {
        read_message(stream, |bytes| {
            ProxyHeader::decode(bytes).map_err(ProtocolError::ProxyHeader)
        })
    }

    fn client(source: SocketAddr, destination: SocketAddr) -> ProxyHeader {
        ProxyHeader::Client {
            source: canonical(source),
            destination: canonical(destination),
        }
    }
}

/// Decodes a line such as `PROXY TCP4 192.0.2.1 192.0.2.2 50000 1080`.
fn decode_v1(bytes: &[u8]) -> Decoded {
    let possible = bytes.get(..MAX_PROXY_LINE).unwrap_or(bytes);
    let Some(end) = possible.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < MAX_PROXY_LINE {
            true => Ok(None),
            false => Err(ProxyHeaderError::LineTooLong),
        };
    };
    let line = possible
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let fields = line.map(|line| line.split(' ').collect::<Vec<_>>());
    let header = match fields.as_deref() {
        // What follows `UNKNOWN` has no form.
        Some([_, "UNKNOWN", ..]) => return Err(ProxyHeaderError::NoClient),
        Some([_, "TCP4", addresses @ ..]) => addresses_v1::<Ipv4Addr>(addresses),
        Some([_, "TCP6", addresses @ ..]) => addresses_v1::<Ipv6Addr>(addresses),
        _ => None,
    };
    let header = header.ok_or(ProxyHeaderError::Line)?;
    Ok(Some((header, end + 1)))
}

/// The client by the last four fields of the line.
fn addresses_v1<A: std::str::FromStr + Into<IpAddr>>(fields: &[&str]) -> Option<ProxyHeader> {
    let [source, destination, source_port, destination_port] = fields else {
        return None;
    };
    // The parsers of the standard library accept no leading zeros in IPv4 addresses.
    let address = |text: &str| Some(text.parse::<A>().ok()?.into());
    Some(ProxyHeader::client(
        SocketAddr::new(address(source)?, port_v1(source_port)?),
        SocketAddr::new(address(destination)?, port_v1(destination_port)?),
    ))
}

/// Parses a decimal number without leading zeros and sign.
fn port_v1(text: &str) -> Option<u16> {
    match text.as_bytes() {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => text.parse().ok(),
        _ => None,
    }
}

/// Decodes the binary form. Invalid fields are found as soon as their bytes are there.
fn decode_v2(bytes: &[u8]) -> Decoded {
    let Some(&command) = bytes.get(12) else {
        return Ok(None);
    };
    if command >> 4 != 2 {
        return Err(ProxyHeaderError::Version(command >> 4));
    }
    let is_local = match command & 0xF {
        0 => true,
        1 => false,
        command => return Err(ProxyHeaderError::Command(command)),
    };
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    // With `LOCAL` the family has no meaning, so the longest addresses are possible.
    let addresses = match (family >> 4, family & 0xF) {
        (1, 1) => ADDRESSES_V4,
        (2, 1) => ADDRESSES_V6,
        (0..=3, 0..=2) if !is_local => return Err(ProxyHeaderError::NoClient),
        _ if !is_local => return Err(ProxyHeaderError::Family(family)),
        _ => ADDRESSES_UNIX,
    };
    let Some(&[high, low]) = bytes.get(14..HEAD_V2) else {
        return Ok(None);
    };
    let length = u16::from_be_bytes([high, low]);
    let extensions = usize::from(length).checked_sub(addresses);
    match extensions {
        None if is_local => {}
        Some(..=MAX_EXTENSIONS) => {}
        _ => return Err(ProxyHeaderError::Length(length)),
    }
    let end = HEAD_V2 + usize::from(length);
    let Some(body) = bytes.get(HEAD_V2..end) else {
        return Ok(None);
    };
    let header = match is_local {
        true => Some(ProxyHeader::Local),
        false if addresses == ADDRESSES_V4 => addresses_v2::<4>(body),
        false => addresses_v2::<16>(body),
    };
    Ok(header.map(|header| (header, end)))
}

/// The client by the addresses of this length at the beginning of the body.
fn addresses_v2<const N: usize>(body: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    let address = |ip: [u8; N], port| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(ProxyHeader::client(
        address(*source, *source_port),
        address(*destination, *destination_port),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    /// A header of version 2 with this command, family, body, and length of the body.
    fn v2(command: u8, family: u8, body: &[u8], length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        [SIGNATURE_V2, &[command, family, high, low], body].concat()
    }

    fn client(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::client(
            source.parse().expect("an address"),
            destination.parse().expect("an address"),
        )
    }

    /// Valid headers, and what they say.
    fn headers() -> Vec<(Vec<u8>, ProxyHeader)> {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xC3, 0x50, 4, 56];
        let [ip, mapped] = ["2001:db8::1", "::ffff:192.0.2.2"]
            .map(|it| it.parse::<Ipv6Addr>().expect("an address").octets());
        let v6 = [&ip[..], &mapped, &[0xC3, 0x50, 4, 56]].concat();
        let with = |body: &[u8], count| [body, &vec![0xEE; count]].concat();
        let v4_client = client("192.0.2.1:50000", "192.0.2.2:1080");
        let v6_client = client("[2001:db8::1]:50000", "192.0.2.2:1080");
        let line = |text: &str| text.as_bytes().to_vec();
        vec![
            (
                line("PROXY TCP4 192.0.2.1 192.0.2.2 50000 1080\r\n"),
                v4_client,
            ),
            (
                line("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"),
                client("255.255.255.255:65535", "0.0.0.0:0"),
            ),
            (
                line("PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 50000 1080\r\n"),
                v6_client,
            ),
            (
                line("PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::ffff:c000:202 50000 1080\r\n"),
                v6_client,
            ),
            (v2(0x21, 0x11, &v4, 12), v4_client),
            (v2(0x21, 0x11, &with(&v4, 1), 13), v4_client),
            (v2(0x21, 0x11, &with(&v4, 4096), 4108), v4_client),
            (v2(0x21, 0x21, &v6, 36), v6_client),
            (v2(0x21, 0x21, &with(&v6, 4096), 4132), v6_client),
            (v2(0x20, 0, &[], 0), ProxyHeader::Local),
            (v2(0x20, 0xFF, &[7; 5], 5), ProxyHeader::Local),
            (v2(0x20, 0x11, &with(&v4, 300), 312), ProxyHeader::Local),
            (v2(0x20, 0, &[0; 4312], 4312), ProxyHeader::Local),
        ]
    }

    #[test]
    fn x30_a_header_is_read_in_any_pieces_and_no_byte_more() {
        for (bytes, expected) in headers() {
            let stream = [&bytes[..], b"\x05\x01\0"].concat();
            for capacity in (1..=bytes.len() + 3).step_by(bytes.len().div_ceil(300)) {
                let mut reader = BufReader::with_capacity(capacity, stream.as_slice());
                assert_eq!(ProxyHeader::read(&mut reader).expect("valid"), expected);
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).expect("the rest");
                assert_eq!(rest, b"\x05\x01\0", "{}", bytes.escape_ascii());
            }
            for length in 0..bytes.len() {
                assert_eq!(ProxyHeader::decode(&bytes[..length]), Ok(None));
            }
        }
    }

    #[test]
    fn x31_the_addresses_of_version_1_have_one_form() {
        let valid = "PROXY TCP4 192.0.2.1 192.0.2.2 5 1080\r\n";
        assert!(ProxyHeader::decode(valid.as_bytes()).is_ok());
        for (old, new) in [
            ("\r\n", "\n"),
            ("\r\n", "\rx\n"),
            ("\r\n", " \r\n"),
            ("\r\n", "0 1\r\n"),
            (" 5 ", "  5 "),
            (" 5 ", " 05 "),
            (" 5 ", " +5 "),
            (" 5 ", " -5 "),
            (" 5 ", " 65536 "),
            (" 5 ", " 0x5 "),
            (" 5 ", " "),
            (".1 ", ".01 "),
            (".1 ", ".256 "),
            (".1 ", " "),
            ("192.0.2.1", "::1"),
            ("192.0.2.1", "localhost"),
            ("TCP4", "TCP6"),
            ("TCP4", "tcp4"),
            ("TCP4", "TCP"),
            ("TCP4", "UDP4"),
            ("TCP4", "UNKNOWN4"),
            ("TCP4 192", "TCP4\t192"),
            ("192.0.2.1", "\u{e9}"),
            (" TCP4", "  TCP4"),
        ] {
            let line = valid.replacen(old, new, 1);
            let error = Err(ProxyHeaderError::Line);
            assert_eq!(ProxyHeader::decode(line.as_bytes()), error, "{line:?}");
        }
        let zone = "PROXY TCP6 fe80::1%1 ::1 5 1080\r\n";
        assert_eq!(
            ProxyHeader::decode(zone.as_bytes()),
            Err(ProxyHeaderError::Line)
        );
    }

    #[test]
    fn x31_a_line_of_version_1_has_at_most_107_bytes() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        assert_eq!(longest.len(), 107);
        let decode = |text: &str| ProxyHeader::decode(text.as_bytes());
        assert_eq!(decode(&longest), Err(ProxyHeaderError::NoClient));
        assert_eq!(decode(&longest[..106]), Ok(None));
        let longer = longest.replace('\r', "f\r");
        assert_eq!(decode(&longer[..106]), Ok(None));
        assert_eq!(decode(&longer[..107]), Err(ProxyHeaderError::LineTooLong));
        assert_eq!(decode(&longer), Err(ProxyHeaderError::LineTooLong));
    }

    #[test]
    fn x31_a_header_without_a_tcp_client_or_of_another_form_is_an_error() {
        use ProxyHeaderError::{Command, Family, Length, Missing, NoClient, Version};
        for (bytes, error) in [
            (b"PROXY UNKNOWN\r\n".to_vec(), NoClient),
            (
                b"PROXY UNKNOWN ffff::1 \xff 1 x\r\n".to_vec(),
                ProxyHeaderError::Line,
            ),
            (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n".to_vec(), NoClient),
            (v2(0x21, 0, &[], 0), NoClient),
            (v2(0x21, 0x12, &[0; 12], 12), NoClient),
            (v2(0x21, 0x22, &[0; 36], 36), NoClient),
            (v2(0x21, 0x31, &[0; 216], 216), NoClient),
            (v2(0x21, 0x32, &[0; 216], 216), NoClient),
            (v2(0x11, 0x11, &[], 0), Version(1)),
            (v2(0x31, 0x11, &[], 0), Version(3)),
            (v2(0x22, 0x11, &[], 0), Command(2)),
            (v2(0x2F, 0x11, &[], 0), Command(15)),
            (v2(0x21, 0x13, &[], 0), Family(0x13)),
            (v2(0x21, 0x41, &[], 0), Family(0x41)),
            (v2(0x21, 0x11, &[], 11), Length(11)),
            (v2(0x21, 0x11, &[], 4109), Length(4109)),
            (v2(0x21, 0x21, &[], 35), Length(35)),
            (v2(0x21, 0x21, &[], 4133), Length(4133)),
            (v2(0x20, 0x00, &[], 4313), Length(4313)),
            (b"\x05\x01\0".to_vec(), Missing),
            (b"\x04\x01".to_vec(), Missing),
            (b"GET /".to_vec(), Missing),
            (b"PROXYTCP4".to_vec(), Missing),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Missing),
        ] {
            assert_eq!(
                ProxyHeader::decode(&bytes),
                Err(error),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
