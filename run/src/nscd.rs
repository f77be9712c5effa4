//! Messages of nscd, the cache that glibc asks for names before it reads nsswitch.conf.
//!
//! A request is twelve bytes and a key; the answers are in nscd-client.h of glibc. All numbers
//! have the byte order of the machine.

use std::net::IpAddr;

/// The version of the protocol.
const VERSION: i32 = 2;
/// The length of a request before its key.
pub(crate) const HEAD: usize = 12;
/// The longest key: a name, its final dot and the zero byte; nscd has 1,024.
pub(crate) const MAX_KEY: usize = 1024;

const HOST_NOT_FOUND: i32 = 1;
const NO_DATA: i32 = 4;

/// What a program wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `gethostbyname` for IPv4.
    Ipv4,
    /// `gethostbyname2` for IPv6.
    Ipv6,
    /// `gethostbyaddr`: the key is an address of 4 or 16 bytes.
    Name,
    /// `getaddrinfo`.
    Addresses,
}

/// The request, and how many bytes its key has. `None`: a request about something else (users,
/// groups), for which glibc then looks itself.
pub(crate) fn decode_head(head: &[u8; HEAD]) -> Option<(Request, usize)> {
    let (version, rest) = head.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let length = rest.first_chunk()?;
    let [version, kind, length] = [*version, *kind, *length].map(i32::from_ne_bytes);
    let length = usize::try_from(length).ok()?;
    let request = match kind {
        4 => Request::Ipv4,
        5 => Request::Ipv6,
        6 | 7 => Request::Name,
        14 => Request::Addresses,
        _ => return None,
    };
    (version == VERSION && (1..=MAX_KEY).contains(&length)).then_some((request, length))
}

/// The answer to `gethostbyname` and `gethostbyaddr`: a name and its addresses of one family.
pub(crate) fn encode_host(name: &str, addresses: &[IpAddr]) -> Vec<u8> {
    let Some(first) = addresses.first() else {
        return encode_no_host(NO_DATA);
    };
    let same = addresses
        .iter()
        .filter(|it| it.is_ipv4() == first.is_ipv4());
    let octets: Vec<Vec<u8>> = same.map(|it| octets(*it)).collect();
    let (family, size) = match first {
        IpAddr::V4(_) => (libc::AF_INET, 4),
        IpAddr::V6(_) => (libc::AF_INET6, 16),
    };
    let length = name.len() as i32 + 1;
    let head = [VERSION, 1, length, 0, family, size, octets.len() as i32, 0];
    [
        numbers(&head),
        name.as_bytes().to_vec(),
        vec![0],
        octets.concat(),
    ]
    .concat()
}

/// The answer that there is no such host.
pub(crate) fn encode_unknown_host() -> Vec<u8> {
    encode_no_host(HOST_NOT_FOUND)
}

fn encode_no_host(error: i32) -> Vec<u8> {
    numbers(&[VERSION, 0, 0, 0, -1, -1, 0, error])
}

/// The answer to `getaddrinfo`: addresses of both families, and the name.
pub(crate) fn encode_addresses(name: &str, addresses: &[IpAddr]) -> Vec<u8> {
    if addresses.is_empty() {
        return numbers(&[VERSION, 0, 0, 0, 0, HOST_NOT_FOUND]);
    }
    let families = addresses.iter().map(|it| match it {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    });
    let families: Vec<u8> = families.collect();
    let octets: Vec<u8> = addresses.iter().flat_map(|it| octets(*it)).collect();
    let (count, length) = (addresses.len() as i32, octets.len() as i32);
    let head = numbers(&[VERSION, 1, count, length, name.len() as i32 + 1, 0]);
    [head, octets, families, name.as_bytes().to_vec(), vec![0]].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn numbers(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: i32, kind: i32, length: i32) -> [u8; HEAD] {
        numbers(&[version, kind, length]).try_into().unwrap()
    }

    #[test]
    fn requests_for_hosts_are_decoded_and_others_are_not() {
        assert_eq!(decode_head(&head(2, 14, 5)), Some((Request::Addresses, 5)));
        assert_eq!(decode_head(&head(2, 4, 1024)), Some((Request::Ipv4, 1024)));
        for (version, kind, length) in [
            (2, 0, 5),
            (1, 14, 5),
            (2, 14, 0),
            (2, 14, -1),
            (2, 14, 1025),
        ] {
            assert_eq!(decode_head(&head(version, kind, length)), None);
        }
    }

    #[test]
    fn answers_have_the_lengths_that_their_heads_state() {
        let addresses: [IpAddr; 2] = [[198, 18, 0, 1].into(), [0_u16; 8].into()];
        assert_eq!(encode_addresses("a.b", &addresses).len(), 24 + 20 + 2 + 4);
        assert_eq!(encode_host("a.b", &addresses).len(), 32 + 4 + 4);
        assert_eq!(encode_host("a.b", &[]).len(), 32);
        assert_eq!(encode_addresses("a.b", &[]).len(), 24);
    }
}
