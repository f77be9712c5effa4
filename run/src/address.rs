//! Socket addresses as the kernel and a program exchange them, as bytes and as values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// What a program passes to connect(2), bind(2) and sendto(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProgramAddress {
    /// `AF_UNSPEC`: connect(2) then ends a connection.
    Unspecified,
    Internet(SocketAddr),
    /// The path of a Unix socket; empty for one without a name or with an abstract one.
    Unix(Vec<u8>),
    /// Another family, or bytes that are no address: only the kernel can say.
    Other,
}

/// The family of an internet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The longest address that is read: `sockaddr_storage`.
pub(crate) const MAX_LENGTH: usize = 128;

/// Decodes the structure of an address (`struct sockaddr`).
pub(crate) fn decode(bytes: &[u8]) -> ProgramAddress {
    let Some((family, rest)) = bytes.split_first_chunk() else {
        return ProgramAddress::Other;
    };
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNSPEC => ProgramAddress::Unspecified,
        libc::AF_UNIX => {
            let path = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            ProgramAddress::Unix(path.to_vec())
        }
        libc::AF_INET => decode_v4(rest).map_or(ProgramAddress::Other, ProgramAddress::Internet),
        libc::AF_INET6 => decode_v6(rest).map_or(ProgramAddress::Other, ProgramAddress::Internet),
        _ => ProgramAddress::Other,
    }
}

/// Port, address, and eight bytes that mean nothing, which must be there.
fn decode_v4(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = bytes.split_first_chunk()?;
    let (ip, rest) = rest.split_first_chunk::<4>()?;
    rest.first_chunk::<8>()?;
    Some(SocketAddr::from((*ip, u16::from_be_bytes(*port))))
}

/// Port, flow, address and scope; the scope may be missing (RFC 2133).
fn decode_v6(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = bytes.split_first_chunk()?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    let scope = rest.first_chunk().copied().unwrap_or_default();
    let [flow, scope] = [*flow, scope].map(u32::from_ne_bytes);
    let port = u16::from_be_bytes(*port);
    Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into())
}

/// Encodes an address for a socket of this family. An IPv4 address is mapped for an IPv6 socket;
/// an IPv6 address that no IPv4 socket can have becomes 0.0.0.0.
pub(crate) fn encode(address: SocketAddr, family: Family) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    let number = |family: i32| (family as u16).to_ne_bytes();
    match family {
        Family::V4 => {
            let ip = match address.ip().to_canonical() {
                IpAddr::V4(ip) => ip,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            };
            [&number(libc::AF_INET)[..], &port, &ip.octets(), &[0; 8]].concat()
        }
        Family::V6 => {
            let (ip, scope) = match address {
                SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
            };
            let scope = scope.to_ne_bytes();
            [
                &number(libc::AF_INET6)[..],
                &port,
                &[0; 4],
                &ip.octets(),
                &scope,
            ]
            .concat()
        }
    }
}

/// This address, as a socket of this family can be connected to it; `None` for an IPv6 address
/// and an IPv4 socket.
pub(crate) fn for_family(address: SocketAddr, family: Family) -> Option<SocketAddr> {
    match (address, family) {
        (SocketAddr::V4(address), Family::V6) => {
            Some((address.ip().to_ipv6_mapped(), address.port()).into())
        }
        (SocketAddr::V6(_), Family::V4) => None,
        _ => Some(address),
    }
}

/// Is this the machine itself? An unspecified address means loopback for connect(2).
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded_and_decoded() {
        for (text, family) in [
            ("192.0.2.1:80", Family::V4),
            ("[2001:db8::1]:80", Family::V6),
            ("[::ffff:192.0.2.1]:80", Family::V6),
            ("[fe80::1%3]:0", Family::V6),
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let decoded = decode(&encode(address, family));
            assert_eq!(decoded, ProgramAddress::Internet(address), "{text}");
        }
        let mapped = encode("192.0.2.1:80".parse().unwrap(), Family::V6);
        let expected = ProgramAddress::Internet("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(decode(&mapped), expected);
        let unmapped = encode("[::ffff:192.0.2.1]:80".parse().unwrap(), Family::V4);
        let expected = ProgramAddress::Internet("192.0.2.1:80".parse().unwrap());
        assert_eq!(decode(&unmapped), expected);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        for family in [0_u16, 1, 2, 10, 16, 999] {
            let whole = [&family.to_ne_bytes()[..], &[b'/'; 40]].concat();
            for length in 0..whole.len() {
                let decoded = decode(&whole[..length]);
                let needed = match family {
                    2 => 16,
                    10 => 24,
                    _ => 2,
                };
                let is_address = matches!(decoded, ProgramAddress::Internet(_));
                assert_eq!(
                    is_address,
                    needed > 2 && length >= needed,
                    "{family} {length}"
                );
            }
        }
        let unix = [&1_u16.to_ne_bytes()[..], b"/run/x\0yz"].concat();
        assert_eq!(decode(&unix), ProgramAddress::Unix(b"/run/x".to_vec()));
    }
}
