//! Name resolution: a host name becomes addresses, once per request.
//!
//! Two lookups of the same name can return different addresses (DNS rebinding). So the
//! addresses that one lookup returns are the ones that the rules judge and the ones that
//! the server dials.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::happy_eyeballs::interleave;
use super::hosts_file;
use crate::protocol::{HostName, unmapped};
use crate::trace::{self, Wait};

/// At most so many addresses of a name count. Hosts have fewer. The owner of a name decides how
/// many there are, and the rules judge each of them.
const MAX_ADDRESSES: usize = 64;

/// The names that the operator of this machine has defined.
const HOSTS_FILE: &str = "/etc/hosts";

/// Asks the system's resolver (hosts file, DNS, search list) and returns its addresses with
/// this port, each once, and at most 64. The families alternate, so that both of them count;
/// within a family the order is the resolver's. A link-local IPv6 address keeps its zone, the
/// scope id. Blocks for as long as the resolver takes, which resolv.conf limits; nothing can
/// interrupt it.
///
/// A name with a final dot is absolute (RFC 1034, section 3.1): the search list must not
/// apply. Names in the hosts file have no final dot, and the resolver compares them as text.
/// So the server itself looks for such a name in this file first. The resolver never gets it
/// without the dot.
///
/// # Errors
///
/// The resolver's error; `NotFound` if the name exists and has no address.
pub fn lookup(name: &HostName, port: u16) -> io::Result<Vec<SocketAddr>> {
    let _wait = trace::wait(|| Wait::Resolver(name.to_string().into()));
    let in_hosts_file = match name.is_absolute() {
        true => addresses_in_hosts_file(name, port),
        false => Vec::new(),
    };
    let addresses = match in_hosts_file.is_empty() {
        true => addresses(name.as_requested(), port)?,
        false => in_hosts_file,
    };
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// Asks the resolver for this name. Returns the addresses that count.
fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(choose((name, port).to_socket_addrs()?.map(unmapped)))
}

/// Removes repeated addresses, lets the families alternate, and keeps [`MAX_ADDRESSES`]. It
/// keeps no more of each family meanwhile: an answer of DNS can have 4,000 addresses.
fn choose(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut each_once, mut v4_count, mut v6_count) = (Vec::new(), 0, 0);
    for address in found {
        let count = match address {
            SocketAddr::V4(_) => &mut v4_count,
            SocketAddr::V6(_) => &mut v6_count,
        };
        if *count < MAX_ADDRESSES && !each_once.contains(&address) {
            each_once.push(address);
            *count += 1;
        }
    }
    let mut chosen = interleave(each_once, SocketAddr::is_ipv6);
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

/// The addresses of this name in the hosts file that count; none if there is no such file.
fn addresses_in_hosts_file(name: &HostName, port: u16) -> Vec<SocketAddr> {
    let Ok(file) = File::open(HOSTS_FILE) else {
        return Vec::new();
    };
    choose(hosts_file::addresses_of(name.as_str(), port, file).map(unmapped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::net::if_::if_nametoindex;
    use std::net::SocketAddrV6;

    /// No name of the hosts file or the domain name system has a zone, only the resolver's
    /// other sources (mDNS). So the test asks for the address itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn d21_a_link_local_address_keeps_the_zone_that_the_resolver_finds() {
        let loopback = if_nametoindex("lo").unwrap();
        let found = addresses("fe80::1%lo", 80).unwrap();
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback);
        assert_eq!(found, [SocketAddr::V6(expected)]);
    }

    #[test]
    fn c23_64_addresses_of_a_name_count_and_both_families_among_them() {
        let v4 = |last| SocketAddr::from(([10, 0, 0, last], 80));
        let v6 = |last| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80));
        let all: Vec<SocketAddr> = (0..200).map(v6).chain((0..200).map(v4)).collect();
        let alternating: Vec<_> = (0..32)
            .flat_map(|last| [v6(last), v4(last as u8)])
            .collect();
        assert_eq!(choose(all.iter().copied()), alternating);
        // Each counts once. The first 64 count if there is one family.
        let twice = all.iter().flat_map(|&address| [address, address]);
        assert_eq!(choose(twice), alternating);
        let one_family = all.iter().copied().filter(SocketAddr::is_ipv4);
        let first: Vec<_> = (0..64).map(v4).collect();
        assert_eq!(choose(one_family), first);
        // One address of the other family is enough to count.
        assert!(choose(all[..200].iter().copied().chain([v4(1)])).contains(&v4(1)));
    }
}
