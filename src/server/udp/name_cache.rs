//! The names to which one client sends datagrams, with their addresses.
//!
//! It is pure data: it says what to do with a datagram, and the association does it. No
//! thread is started and nothing is sent while the cache is locked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::drops::DropReason;
use crate::protocol::HostName;

/// Lookups of names that are not cached, per association at a time, so that it does not
/// take all threads for lookups. A repeated lookup counts only per client.
const MAX_LOOKUPS_PER_ASSOCIATION: usize = 4;

/// Bytes of one association that wait for names at most: enough for the first few
/// datagrams of an exchange. Further datagrams are dropped.
const MAX_QUEUED_BYTES: usize = 64 << 10;

/// Names that are cached for one association. For one more, the name that expires first is
/// removed.
const MAX_NAMES: usize = 64;

/// How long addresses are used before the name is looked up again; meanwhile they still
/// serve. The resolver does not report the TTL of DNS, and the addresses of busy hosts
/// change within a minute.
const POSITIVE_TTL: Duration = Duration::from_secs(30);

/// How long a name that was not found is not looked up again.
const NEGATIVE_TTL: Duration = Duration::from_secs(2);

/// What to do with a datagram to a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameAction {
    /// Send it to one of these addresses; there may be none. If they are expired, look the
    /// name up again as well.
    Send {
        addresses: Vec<IpAddr>,
        is_expired: bool,
    },
    /// The datagram was queued until its name is resolved.
    Queued,
    /// The name is unknown: look it up.
    LookUp,
    /// Drop it: too many bytes wait for names.
    Drop(DropReason),
}

/// A datagram that waits for its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueuedDatagram {
    pub(super) port: u16,
    pub(super) data: Vec<u8>,
}

/// The names of one association.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    entries: HashMap<HostName, Entry>,
}

#[derive(Debug)]
enum Entry {
    /// The name is being looked up, and these datagrams wait for it.
    Pending(Vec<QueuedDatagram>),
    /// Its addresses, perhaps none, and until when they are fresh.
    Resolved(Vec<IpAddr>, Instant),
}

impl NameCache {
    /// Says what to do with a datagram to this name, and queues it if the name is being
    /// looked up.
    pub(super) fn route(
        &mut self,
        name: &HostName,
        port: u16,
        data: &[u8],
        now: Instant,
    ) -> NameAction {
        match self.entries.get(name) {
            Some(Entry::Resolved(addresses, expires))
                if !addresses.is_empty() || *expires > now =>
            {
                NameAction::Send {
                    addresses: addresses.clone(),
                    is_expired: *expires <= now,
                }
            }
            Some(Entry::Pending(_)) if self.has_room(data) => {
                if let Some(Entry::Pending(queue)) = self.entries.get_mut(name) {
                    let data = data.to_vec();
                    queue.push(QueuedDatagram { port, data });
                }
                NameAction::Queued
            }
            Some(Entry::Pending(_)) => NameAction::Drop(DropReason::Unresolved),
            // The second is an expired entry without addresses.
            None | Some(Entry::Resolved(..)) => NameAction::LookUp,
        }
    }

    /// Notes that a name is about to be looked up, and queues the first datagram for it.
    ///
    /// # Errors
    ///
    /// Too many names of this association are being looked up, or too many bytes wait.
    pub(super) fn begin_lookup(
        &mut self,
        name: HostName,
        port: u16,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let is_pending = |entry: &&Entry| matches!(entry, Entry::Pending(_));
        let pending = self.entries.values().filter(is_pending).count();
        if pending >= MAX_LOOKUPS_PER_ASSOCIATION || !self.has_room(data) {
            return Err(DropReason::Unresolved);
        }
        self.evict();
        let data = data.to_vec();
        let queue = vec![QueuedDatagram { port, data }];
        self.entries.insert(name, Entry::Pending(queue));
        Ok(())
    }

    /// The lookup could not be started: removes the name and its queue. False if another
    /// lookup of the name, a repeated one, has resolved it meanwhile and sent the queue.
    pub(super) fn cancel_lookup(&mut self, name: &HostName) -> bool {
        let is_pending = matches!(self.entries.get(name), Some(Entry::Pending(_)));
        if is_pending {
            self.entries.remove(name);
        }
        is_pending
    }

    /// Notes that an expired name is about to be looked up again: until that is done, its
    /// addresses count as fresh, so that no other lookup of it begins.
    pub(super) fn begin_refresh(&mut self, name: &HostName, now: Instant) {
        if let Some(Entry::Resolved(_, expires)) = self.entries.get_mut(name) {
            *expires = now + POSITIVE_TTL;
        }
    }

    /// The resolver has answered. Returns the datagrams that have waited; the caller sends
    /// them and calls this again, until none is returned. Only then do later datagrams
    /// pass without waiting: the order is kept.
    pub(super) fn resolved(
        &mut self,
        name: &HostName,
        addresses: &[IpAddr],
        now: Instant,
    ) -> Vec<QueuedDatagram> {
        match self.entries.get_mut(name) {
            Some(Entry::Pending(queue)) if !queue.is_empty() => return std::mem::take(queue),
            // The old addresses are still used if there are no new ones.
            Some(Entry::Resolved(..)) if addresses.is_empty() => return Vec::new(),
            _ => {}
        }
        let ttl = match addresses.is_empty() {
            true => NEGATIVE_TTL,
            false => POSITIVE_TTL,
        };
        let entry = Entry::Resolved(addresses.to_vec(), now + ttl);
        self.entries.insert(name.clone(), entry);
        Vec::new()
    }

    /// May these bytes be queued as well?
    fn has_room(&self, data: &[u8]) -> bool {
        let queues = self.entries.values().map(|entry| match entry {
            Entry::Pending(queue) => queue.iter().map(|queued| cost(&queued.data)).sum(),
            Entry::Resolved(..) => 0,
        });
        queues.sum::<usize>() + cost(data) <= MAX_QUEUED_BYTES
    }

    /// Frees a place if the cache is full: removes the name that expires
    /// first.
    fn evict(&mut self) {
        if self.entries.len() < MAX_NAMES {
            return;
        }
        let resolved = self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Resolved(_, expires) => Some((name, *expires)),
            Entry::Pending(_) => None,
        });
        let first = resolved.min_by_key(|&(_, expires)| expires);
        if let Some(name) = first.map(|(name, _)| name.clone()) {
            self.entries.remove(&name);
        }
    }
}

/// Bytes that a queued datagram takes: an empty one is not free.
fn cost(data: &[u8]) -> usize {
    data.len() + size_of::<QueuedDatagram>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Host;
    use std::net::Ipv4Addr;

    const ADDRESS: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

    fn name(text: &str) -> HostName {
        match Host::from_name(text.as_bytes()) {
            Host::Name(name) => name,
            other => panic!("{other} is not a name"),
        }
    }

    fn data_of(queue: Vec<QueuedDatagram>) -> Vec<Vec<u8>> {
        queue.into_iter().map(|queued| queued.data).collect()
    }

    #[test]
    fn datagrams_wait_for_their_name_and_keep_their_order() {
        let (mut cache, now, a) = (NameCache::default(), Instant::now(), name("a.test"));
        assert_eq!(cache.route(&a, 1, b"1", now), NameAction::LookUp);
        cache.begin_lookup(a.clone(), 1, b"1").expect("room");
        assert_eq!(cache.route(&a, 2, b"2", now), NameAction::Queued);
        let queue = cache.resolved(&a, &ADDRESS, now);
        assert_eq!(data_of(queue), [b"1", b"2"]);
        // One that comes while these are sent waits as well.
        assert_eq!(cache.route(&a, 3, b"3", now), NameAction::Queued);
        assert_eq!(data_of(cache.resolved(&a, &ADDRESS, now)), [b"3"]);
        assert!(cache.resolved(&a, &ADDRESS, now).is_empty());
        let addresses = ADDRESS.to_vec();
        let send = |is_expired| NameAction::Send {
            addresses: addresses.clone(),
            is_expired,
        };
        assert_eq!(cache.route(&a, 4, b"4", now), send(false));
        let later = now + POSITIVE_TTL;
        assert_eq!(cache.route(&a, 5, b"5", later), send(true));
        cache.begin_refresh(&a, later);
        assert_eq!(cache.route(&a, 6, b"6", later), send(false));
        // A refresh that finds nothing leaves the old addresses.
        assert!(cache.resolved(&a, &[], later).is_empty());
        assert_eq!(cache.route(&a, 7, b"7", later), send(false));
    }

    #[test]
    fn a_name_that_was_not_found_is_looked_up_again_after_its_ttl() {
        let (mut cache, now, a) = (NameCache::default(), Instant::now(), name("a.test"));
        cache.begin_lookup(a.clone(), 1, b"1").expect("room");
        assert_eq!(data_of(cache.resolved(&a, &[], now)), [b"1"]);
        assert!(cache.resolved(&a, &[], now).is_empty());
        let none = NameAction::Send {
            addresses: Vec::new(),
            is_expired: false,
        };
        assert_eq!(cache.route(&a, 1, b"2", now), none);
        let later = now + NEGATIVE_TTL;
        assert_eq!(cache.route(&a, 1, b"3", later), NameAction::LookUp);
    }

    #[test]
    fn lookups_queued_bytes_and_names_are_bounded() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        for number in 0..MAX_LOOKUPS_PER_ASSOCIATION {
            let name = name(&format!("{number}.test"));
            assert_eq!(cache.begin_lookup(name, 1, b""), Ok(()));
        }
        let one_more = name("more.test");
        let too_many = Err(DropReason::Unresolved);
        assert_eq!(cache.begin_lookup(one_more.clone(), 1, b""), too_many);
        let large = vec![0; MAX_QUEUED_BYTES];
        let dropped = NameAction::Drop(DropReason::Unresolved);
        assert_eq!(cache.route(&name("0.test"), 1, &large, now), dropped);
        assert!(cache.cancel_lookup(&name("0.test")));
        assert!(!cache.cancel_lookup(&name("0.test")));
        assert_eq!(cache.begin_lookup(one_more.clone(), 1, &large), too_many);
        assert_eq!(cache.begin_lookup(one_more.clone(), 1, b""), Ok(()));
        // Another lookup of the name was faster: its addresses stay.
        while !cache.resolved(&one_more, &ADDRESS, now).is_empty() {}
        assert!(!cache.cancel_lookup(&one_more));
        let action = cache.route(&one_more, 1, b"", now);
        assert!(matches!(action, NameAction::Send { .. }), "{action:?}");

        let mut cache = NameCache::default();
        for number in 0..1000 {
            let name = name(&format!("{number}.test"));
            cache.begin_lookup(name.clone(), 1, b"").expect("room");
            while !cache.resolved(&name, &ADDRESS, now).is_empty() {}
            assert!(cache.entries.len() <= MAX_NAMES);
        }
    }
}
