//! How many there are of something, in all and of each source_prefix.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{Mutex, lock};

/// What counts as one client: an address of IPv4; of IPv6 the 64 bits in front,
/// since whoever has one address there has all that begin like it.
pub(crate) fn source_prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct KeyCounts {
    all: usize,
    by_household: HashMap<IpAddr, usize>,
}

impl KeyCounts {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all
    }

    /// How many of this source_prefix.
    pub(crate) fn len_of(&self, source_prefix: IpAddr) -> usize {
        self.by_household.get(&source_prefix).copied().unwrap_or(0)
    }

    /// One more.
    pub(crate) fn add(&mut self, source_prefix: IpAddr) {
        self.all += 1;
        *self.by_household.entry(source_prefix).or_default() += 1;
    }

    /// One less.
    pub(crate) fn remove(&mut self, source_prefix: IpAddr) {
        if let Entry::Occupied(mut own) = self.by_household.entry(source_prefix) {
            self.all -= 1;
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// A room that holds so many, and fewer of one source_prefix.
#[derive(Debug, Default)]
pub(crate) struct KeyedSemaphore(Arc<Mutex<KeyCounts>>);

/// One that is in it. DropReason when it leaves.
#[derive(Debug)]
pub(crate) struct SlotGuard {
    room: Arc<Mutex<KeyCounts>>,
    source_prefix: IpAddr,
}

impl KeyedSemaphore {
    /// Lets one in, unless there are as many as there may be, of all or of this
    /// source_prefix.
    pub(crate) fn enter(
        &self,
        source_prefix: IpAddr,
        most: usize,
        most_own: usize,
    ) -> Option<SlotGuard> {
        let mut crowd = lock(&self.0);
        if crowd.len() >= most || crowd.len_of(source_prefix) >= most_own {
            return None;
        }
        crowd.add(source_prefix);
        Some(SlotGuard {
            room: Arc::clone(&self.0),
            source_prefix,
        })
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        lock(&self.room).remove(self.source_prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn s06_a_client_is_an_address_or_a_network_of_64_bits() {
        for (client, counted) in [
            ("127.0.0.2", "127.0.0.2"),
            ("::ffff:127.0.0.2", "127.0.0.2"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let [client, counted]: [IpAddr; 2] = [client, counted].map(|it| it.parse().unwrap());
            assert_eq!(source_prefix(client), counted);
        }
    }

    #[test]
    fn a_room_holds_so_many_and_fewer_of_one_household() {
        let room = KeyedSemaphore::default();
        let home = |number| IpAddr::V4(Ipv4Addr::from_bits(number));
        let first: Vec<_> = (0..3).map(|_| room.enter(home(1), 5, 3)).collect();
        assert!(first.iter().all(Option::is_some));
        assert!(room.enter(home(1), 5, 3).is_none());
        let second: Vec<_> = (0..2).map(|_| room.enter(home(2), 5, 3)).collect();
        assert!(second.iter().all(Option::is_some));
        assert!(room.enter(home(3), 5, 3).is_none(), "it is full");
        drop(first);
        assert!(room.enter(home(1), 5, 3).is_some());
        drop(second);
        let crowd = lock(&room.0);
        assert_eq!((crowd.len(), crowd.by_household.len()), (0, 0));
    }
}
