//! Addresses that stand for names: the server resolves names, and the program needs addresses.
//!
//! 198.18.0.0/15 is reserved for tests of networks (RFC 2544), so no host on the Internet has one
//! of its addresses. They are given in order, for all processes of the program in common: a name
//! that one process looks up can be used by another.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use threadsocks::protocol::{Host, HostName};

/// The first address; 198.18.0.0 itself is not used.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// How many names have an address at a time. Then the oldest loses its address.
const COUNT: u32 = (1 << 17) - 2;

/// The names that were looked up. Its lock is a leaf: no other lock is taken while it is held.
#[derive(Debug, Default)]
pub(crate) struct Names {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// How many addresses were given out, counting those that were given out again.
    given: u32,
    addresses: HashMap<String, Ipv4Addr>,
    names: HashMap<Ipv4Addr, HostName>,
}

/// Is this an address that stands for a name?
pub(crate) fn is_stand_in(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => matches!(address.octets(), [198, 18 | 19, _, _]),
        IpAddr::V6(_) => false,
    }
}

impl Names {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that stands for this name; an address in text stands for itself. `None`: this
    /// is no host name.
    pub(crate) fn address_of(&self, name: &[u8]) -> Option<IpAddr> {
        let name = match Host::from_name(name) {
            Host::Address(address) => return Some(address),
            Host::Invalid(_) => return None,
            Host::Name(name) => name.without_final_dot(),
        };
        let key = name.as_str().to_ascii_lowercase();
        let mut table = self.table();
        if let Some(address) = table.addresses.get(&key) {
            return Some((*address).into());
        }
        let address = Ipv4Addr::from(FIRST + table.given % COUNT);
        table.given = table.given.wrapping_add(1);
        if let Some(oldest) = table.names.insert(address, name) {
            let oldest = oldest.as_str().to_ascii_lowercase();
            table.addresses.remove(&oldest);
        }
        table.addresses.insert(key, address);
        Some(address.into())
    }

    /// The name for which this address stands.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<HostName> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.table().names.get(&address).cloned(),
            IpAddr::V6(_) => None,
        }
    }
}

/// The addresses that a hosts file (hosts(5)) gives this name.
pub(crate) fn in_hosts_file(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|it| it.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    lines.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_address_and_each_address_one_name() {
        let names = Names::default();
        let first = names.address_of(b"a.example").unwrap();
        assert_eq!(first, IpAddr::from([198, 18, 0, 1]));
        assert!(is_stand_in(first));
        assert_eq!(names.address_of(b"A.Example.").unwrap(), first);
        let second = names.address_of(b"b.example").unwrap();
        assert_eq!(second, IpAddr::from([198, 18, 0, 2]));
        assert_eq!(names.name_of(first).unwrap().as_str(), "a.example");
        assert_eq!(names.name_of(second).unwrap().as_str(), "b.example");
        assert!(names.name_of([198, 19, 0, 0].into()).is_none());
        assert_eq!(names.address_of(b"192.0.2.1"), Some([192, 0, 2, 1].into()));
        assert_eq!(names.address_of(b"a b"), None);
    }

    #[test]
    fn k16_the_oldest_name_loses_its_address_when_all_are_given() {
        let names = Names::default();
        for number in 0..=COUNT {
            let address = names.address_of(format!("n{number}").as_bytes()).unwrap();
            assert!(is_stand_in(address), "{address}");
        }
        let first = names.name_of([198, 18, 0, 1].into()).unwrap();
        assert_eq!(first.as_str(), format!("n{COUNT}"));
        let table = names.table();
        assert_eq!(table.addresses.len(), COUNT as usize);
        assert_eq!(table.names.len(), COUNT as usize);
    }

    #[test]
    fn the_hosts_file_is_searched_by_whole_names() {
        let text = "127.0.0.1 localhost # here\n#192.0.2.9 a\n192.0.2.1 A b\n::1 localhost\n";
        let found = |name| {
            let addresses = in_hosts_file(text, name);
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("a."), ["192.0.2.1"]);
        assert_eq!(found("here"), [""; 0]);
    }
}
