//! Name resolution: a host name becomes addresses, once per request.
//!
//! Two lookups of the same name can return different addresses (DNS rebinding). So the
//! addresses that one lookup returns are the ones that the rules judge and the ones that
//! the server dials.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV6, ToSocketAddrs};

use nix::net::if_::if_nametoindex;

use super::happy_eyeballs::interleave;
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

/// Removes repeated addresses, lets the families alternate, and keeps [`MAX_ADDRESSES`].
fn choose(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let each_once = found.filter(|address| seen.insert(*address)).collect();
    let mut chosen = interleave(each_once, SocketAddr::is_ipv6);
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

/// The addresses of this name in the hosts file that count.
fn addresses_in_hosts_file(name: &HostName, port: u16) -> Vec<SocketAddr> {
    let text = fs::read(HOSTS_FILE).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    choose(hosts_entries(&text, name.as_str(), port).map(unmapped))
}

/// The addresses in the lines of this hosts file (hosts(5): an address, then names) that have
/// this name. A line without a valid address does not count.
fn hosts_entries(text: &str, name: &str, port: u16) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(move |line| {
        let entry = line.split('#').next().unwrap_or_default();
        let mut fields = entry.split_whitespace();
        let address = fields.next()?;
        let is_named = fields.any(|it| {
            it.strip_suffix('.')
                .unwrap_or(it)
                .eq_ignore_ascii_case(name)
        });
        is_named.then(|| parse_address(address, port)).flatten()
    })
}

/// An address, of IPv6 also with a zone (RFC 4007, section 11): the name or the number of a
/// network interface.
fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let number = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn d19_d23_a_name_is_found_in_the_hosts_file() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 off.test\n\
                    ::1\tsix.test Alias.test # comment.test\n\nlonely.test\n\
                    10.0.0.1 alias.test dot.test.\r\n::1 localhost\n127.0.0.1 localhost\n\
                    10.1 odd.test\n0x0a000001 odd.test\n010.0.0.1 odd.test\n\
                    ::ffff:10.0.0.2 mapped.test\nfe80::1%7 zone.test\n\
                    fe80::1%none.such zone.test\n10.0.0.1%7 zone.test\n";
        for (name, found) in [
            ("localhost", &["127.0.0.1:80", "[::1]:80"][..]),
            ("six.test", &["[::1]:80"]),
            ("alias.test", &["[::1]:80", "10.0.0.1:80"]),
            ("dot.test", &["10.0.0.1:80"]),
            ("mapped.test", &["10.0.0.2:80"]),
            ("zone.test", &["[fe80::1%7]:80"]),
            ("odd.test", &[]),
            ("off.test", &[]),
            ("comment.test", &[]),
            ("lonely.test", &[]),
            ("test", &[]),
            ("127.0.0.1", &[]),
        ] {
            let expected: Vec<SocketAddr> = found.iter().map(|it| it.parse().unwrap()).collect();
            let entries = hosts_entries(text, name, 80).map(unmapped);
            assert_eq!(choose(entries), expected, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn d23_a_zone_in_the_hosts_file_is_the_name_of_an_interface() {
        let loopback = if_nametoindex("lo").unwrap();
        let found: Vec<SocketAddr> = hosts_entries("fe80::1%lo a.test", "a.test", 80).collect();
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback);
        assert_eq!(found, [SocketAddr::V6(expected)]);
    }
}
