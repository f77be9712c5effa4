//! NameCache in datagrams: each is looked up on a thread of its own, while others pass.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::resolve;
use crate::protocol::HostName;
use crate::server::udp::association::Association;
use crate::server::udp::drops::DropReason;
use crate::sync::{Mutex, lock};

/// Lookups that go on at a time for all associations together: each has a thread,
/// beyond the two of its session. One more is refused, and its datagram dropped.
pub(crate) const MAX_LOOKUPS: usize = 32;

/// The same for one association, so that one does not take them all.
const MAX_LOOKUPS_PER_ASSOCIATION: usize = 4;

/// The same for one source_prefix (an address of IPv4, a network of IPv6), for the
/// same reason.
const MAX_LOOKUPS_PER_SOURCE: usize = MAX_LOOKUPS / 4;

/// Bytes that wait for their names in one association, at most; enough for the
/// first few datagrams of a conversation.
const MAX_QUEUED_BYTES: usize = 64 << 10;

/// NameCache that are remembered for one association.
const MAX_NAMES: usize = 64;

/// How long a name keeps its addresses, until it is looked up again while they go
/// on serving. The resolver does not tell how long they are good for, and those of
/// busy hosts change within a minute.
const POSITIVE_TTL: Duration = Duration::from_secs(30);

/// How long a name that was not found is not looked up again.
const NEGATIVE_TTL: Duration = Duration::from_secs(2);

/// Addresses of one name that are tried, at most.
const MAX_ADDRESSES: usize = 8;

/// The names that one client has sent datagrams to.
#[derive(Debug, Default)]
pub(crate) struct NameCache(Mutex<HashMap<HostName, Name>>);

#[derive(Debug)]
enum Name {
    /// It is being looked up; what waits for that, with the ports.
    Pending(Vec<(u16, Vec<u8>)>),
    /// These are its addresses, perhaps none, until then.
    Resolved(Vec<IpAddr>, Instant),
}

impl NameCache {
    /// Sends data to a host by its name, as soon as that is found.
    pub(crate) fn send(
        association: &Arc<Association>,
        name: HostName,
        port: u16,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let mut entries = lock(&association.names.0);
        if let Some(Name::Resolved(addresses, until)) = entries.get_mut(&name)
            && (!addresses.is_empty() || *until > Instant::now())
        {
            let addresses = addresses.clone();
            if *until <= Instant::now() && association.permits(Some(&name), None, port) {
                // These serve until others are found; if none are, they go on.
                *until = Instant::now() + POSITIVE_TTL;
                let _ = seek(association, name.clone());
            }
            drop(entries);
            return send_to_one(association, &name, &addresses, port, data);
        }
        let has_room = waiting(&entries) + cost(data) <= MAX_QUEUED_BYTES;
        match entries.get_mut(&name) {
            Some(Name::Pending(waiting)) if has_room => {
                waiting.push((port, data.to_vec()));
                return Ok(());
            }
            Some(Name::Pending(_)) => return Err(DropReason::Unresolved),
            Some(Name::Resolved(..)) | None => {}
        }
        // Nobody without a permit makes us ask the resolver.
        if !association.permits(Some(&name), None, port) {
            return Err(DropReason::Denied);
        }
        if sought(&entries) >= MAX_LOOKUPS_PER_ASSOCIATION || !has_room {
            return Err(DropReason::Unresolved);
        }
        evict(&mut entries);
        seek(association, name.clone())?;
        entries.insert(name, Name::Pending(vec![(port, data.to_vec())]));
        Ok(())
    }

    /// The resolver has given its answer. What has waited for it goes first, in
    /// its order.
    fn found(association: &Association, name: &HostName, addresses: &[IpAddr]) {
        let keep = if addresses.is_empty() {
            NEGATIVE_TTL
        } else {
            POSITIVE_TTL
        };
        loop {
            let mut entries = lock(&association.names.0);
            let waiting = match entries.get_mut(name) {
                Some(Name::Pending(waiting)) => std::mem::take(waiting),
                Some(Name::Resolved(..)) if addresses.is_empty() => return,
                Some(Name::Resolved(..)) | None => Vec::new(),
            };
            if waiting.is_empty() {
                let found = Name::Resolved(addresses.to_vec(), Instant::now() + keep);
                entries.insert(name.clone(), found);
                return;
            }
            drop(entries);
            for (port, data) in waiting {
                if let Err(why) = send_to_one(association, name, addresses, port, &data) {
                    association.session.drops.count(why);
                }
            }
        }
    }
}

/// Starts a thread that looks the name up. It does not keep the association
/// alive, only its slot: nothing can interrupt the resolver.
fn seek(association: &Arc<Association>, name: HostName) -> Result<(), DropReason> {
    let session = &association.session;
    let (lookups, source_prefix) = (&session.context.lookups, session.source_prefix());
    let lookup = lookups.enter(source_prefix, MAX_LOOKUPS, MAX_LOOKUPS_PER_SOURCE);
    let lookup = lookup.ok_or(DropReason::Unresolved)?;
    let started = session
        .context
        .threads
        .start(format!("s{}-name", session.number()), {
            let (slot, association) = (session.slot(), Arc::downgrade(association));
            move || {
                let addresses = resolve::lookup(&name).unwrap_or_default();
                drop(lookup);
                if let Some(association) = association.upgrade() {
                    NameCache::found(&association, &name, &addresses);
                }
                drop(slot);
            }
        });
    started.map_err(|_| DropReason::Unresolved)
}

/// Sends to the first address that may be sent to, and can be.
fn send_to_one(
    association: &Association,
    name: &HostName,
    addresses: &[IpAddr],
    port: u16,
    data: &[u8],
) -> Result<(), DropReason> {
    let mut result = Err(DropReason::Unresolved);
    for &address in addresses.iter().take(MAX_ADDRESSES) {
        result = association.send(Some(name), SocketAddr::new(address, port), data);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What it costs to keep this waiting, in bytes: an empty datagram is not free.
fn cost(data: &[u8]) -> usize {
    data.len() + size_of::<(u16, Vec<u8>)>()
}

/// What everything costs that waits for its name.
fn waiting(entries: &HashMap<HostName, Name>) -> usize {
    let lists = entries.values().map(|entry| match entry {
        Name::Pending(waiting) => waiting.iter().map(|(_, data)| cost(data)).sum(),
        Name::Resolved(..) => 0,
    });
    lists.sum()
}

fn sought(entries: &HashMap<HostName, Name>) -> usize {
    let is_sought = |entry: &&Name| matches!(entry, Name::Pending(_));
    entries.values().filter(is_sought).count()
}

/// Forgets the name that was found first, if there are too many.
fn evict(entries: &mut HashMap<HostName, Name>) {
    if entries.len() < MAX_NAMES {
        return;
    }
    let found = entries.iter().filter_map(|(name, entry)| match entry {
        Name::Resolved(_, until) => Some((name, *until)),
        Name::Pending(_) => None,
    });
    let first = found.min_by_key(|&(_, until)| until);
    if let Some(name) = first.map(|(name, _)| name.clone()) {
        entries.remove(&name);
    }
}
