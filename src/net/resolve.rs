//! Name resolution: a host name becomes addresses, once per request.
//!
//! Two lookups of the same name can return different addresses (DNS rebinding). So the
//! addresses that one lookup returns are the ones that the rules judge and the ones that
//! the server dials.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::happy_eyeballs::interleave;
use crate::protocol::{HostName, unmapped};

/// Addresses of a name that count at most. No host has more. The owner of a name decides how
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
/// A name with a final dot is absolute (RFC 1034, section 3.1): the search list does not
/// apply. But names in the hosts file have no final dot, and the resolver compares them as
/// text. So the resolver gets a name that is in this file without the dot.
///
/// # Errors
///
/// The resolver's error; `NotFound` if the name exists and has no address.
pub fn lookup(name: &HostName, port: u16) -> io::Result<Vec<SocketAddr>> {
    let asked = match name.is_absolute() && is_in_hosts_file(name) {
        true => name.as_str(),
        false => name.as_requested(),
    };
    let addresses = addresses(asked, port)?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// The resolver's addresses of this text that count.
fn addresses(asked: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(choose((asked, port).to_socket_addrs()?.map(unmapped)))
}

/// The addresses that count, each once.
fn choose(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let each_once = found.filter(|address| seen.insert(*address)).collect();
    let mut chosen = interleave(each_once, SocketAddr::is_ipv6);
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

fn is_in_hosts_file(name: &HostName) -> bool {
    let text = fs::read(HOSTS_FILE).unwrap_or_default();
    hosts_contain(&String::from_utf8_lossy(&text), name.as_str())
}

/// Does a line of this hosts file (hosts(5): an address, then names) have this name?
fn hosts_contain(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let entry = line.split('#').next().unwrap_or_default();
        let mut names = entry.split_whitespace().skip(1);
        names.any(|other| other.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No name of the hosts file or the domain name system has a zone, only the resolver's
    /// other sources (mDNS). So the test asks for the address itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn d21_a_link_local_address_keeps_the_zone_that_the_resolver_finds() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        let found = addresses("fe80::1%lo", 80).unwrap();
        let expected = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback);
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

    #[test]
    fn d19_a_name_is_found_in_the_hosts_file() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 off.test\n\
                    ::1\tsix.test Alias.test # comment.test\n\nlonely.test\n";
        for (name, found) in [
            ("localhost", true),
            ("six.test", true),
            ("alias.test", true),
            ("off.test", false),
            ("comment.test", false),
            ("lonely.test", false),
            ("test", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(hosts_contain(text, name), found, "{name}");
        }
    }
}
