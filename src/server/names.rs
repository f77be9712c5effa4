//! Names in datagrams: each is looked up on a thread of its own, while others pass.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::association::Association;
use super::drops::Dropped;
use crate::resolve;
use crate::sync::{Mutex, lock};
use crate::wire::HostName;

/// Lookups that go on at a time for all associations together: each has a thread,
/// beyond the two of its session. One more is refused, and its datagram dropped.
pub(super) const MAX_LOOKUPS: usize = 32;

/// The same for one association, so that one does not take them all.
const MAX_OWN_LOOKUPS: usize = 4;

/// The same for one household (an address of IPv4, a network of IPv6), for the
/// same reason.
const MAX_LOOKUPS_OF_A_HOUSEHOLD: usize = MAX_LOOKUPS / 4;

/// Bytes that wait for their names in one association, at most; enough for the
/// first few datagrams of a conversation.
const MAX_WAITING: usize = 64 << 10;

/// Names that are remembered for one association.
const MAX_NAMES: usize = 64;

/// How long a name keeps its addresses, until it is looked up again while they go
/// on serving. The resolver does not tell how long they are good for, and those of
/// busy hosts change within a minute.
const FRESH: Duration = Duration::from_secs(30);

/// How long a name that was not found is not looked up again.
const NOT_FOUND: Duration = Duration::from_secs(2);

/// Addresses of one name that are tried, at most.
const MAX_ADDRESSES: usize = 8;

/// The names that one client has sent datagrams to.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<HostName, Name>>);

#[derive(Debug)]
enum Name {
    /// It is being looked up; what waits for that, with the ports.
    Sought(Vec<(u16, Vec<u8>)>),
    /// These are its addresses, perhaps none, until then.
    Found(Vec<IpAddr>, Instant),
}

impl Names {
    /// Sends data to a host by its name, as soon as that is found.
    pub(super) fn send(
        association: &Arc<Association>,
        name: HostName,
        port: u16,
        data: &[u8],
    ) -> Result<(), Dropped> {
        let mut entries = lock(&association.names.0);
        if let Some(Name::Found(addresses, until)) = entries.get_mut(&name)
            && (!addresses.is_empty() || *until > Instant::now())
        {
            let addresses = addresses.clone();
            if *until <= Instant::now() && association.permits(Some(&name), None, port) {
                // These serve until others are found; if none are, they go on.
                *until = Instant::now() + FRESH;
                let _ = seek(association, name.clone());
            }
            drop(entries);
            return send_to_one(association, &name, &addresses, port, data);
        }
        let has_room = waiting(&entries) + cost(data) <= MAX_WAITING;
        match entries.get_mut(&name) {
            Some(Name::Sought(waiting)) if has_room => {
                waiting.push((port, data.to_vec()));
                return Ok(());
            }
            Some(Name::Sought(_)) => return Err(Dropped::Nameless),
            Some(Name::Found(..)) | None => {}
        }
        // Nobody without a permit makes us ask the resolver.
        if !association.permits(Some(&name), None, port) {
            return Err(Dropped::Denied);
        }
        if sought(&entries) >= MAX_OWN_LOOKUPS || !has_room {
            return Err(Dropped::Nameless);
        }
        make_room(&mut entries);
        seek(association, name.clone())?;
        entries.insert(name, Name::Sought(vec![(port, data.to_vec())]));
        Ok(())
    }

    /// The resolver has given its answer. What has waited for it goes first, in
    /// its order.
    fn found(association: &Association, name: &HostName, addresses: &[IpAddr]) {
        let keep = if addresses.is_empty() {
            NOT_FOUND
        } else {
            FRESH
        };
        loop {
            let mut entries = lock(&association.names.0);
            let waiting = match entries.get_mut(name) {
                Some(Name::Sought(waiting)) => std::mem::take(waiting),
                Some(Name::Found(..)) if addresses.is_empty() => return,
                Some(Name::Found(..)) | None => Vec::new(),
            };
            if waiting.is_empty() {
                let found = Name::Found(addresses.to_vec(), Instant::now() + keep);
                entries.insert(name.clone(), found);
                return;
            }
            drop(entries);
            for (port, data) in waiting {
                if let Err(why) = send_to_one(association, name, addresses, port, &data) {
                    association.visit.drops.count(why);
                }
            }
        }
    }
}

/// Starts a thread that looks the name up. It does not keep the association
/// alive, only its seat: nothing can interrupt the resolver.
fn seek(association: &Arc<Association>, name: HostName) -> Result<(), Dropped> {
    let visit = &association.visit;
    let (lookups, household) = (&visit.house.lookups, visit.household());
    let lookup = lookups.enter(household, MAX_LOOKUPS, MAX_LOOKUPS_OF_A_HOUSEHOLD);
    let lookup = lookup.ok_or(Dropped::Nameless)?;
    let started = visit
        .house
        .workers
        .start(format!("s{}-name", visit.number()), {
            let (seat, association) = (visit.seat(), Arc::downgrade(association));
            move || {
                let addresses = resolve::lookup(&name).unwrap_or_default();
                drop(lookup);
                if let Some(association) = association.upgrade() {
                    Names::found(&association, &name, &addresses);
                }
                drop(seat);
            }
        });
    started.map_err(|_| Dropped::Nameless)
}

/// Sends to the first address that may be sent to, and can be.
fn send_to_one(
    association: &Association,
    name: &HostName,
    addresses: &[IpAddr],
    port: u16,
    data: &[u8],
) -> Result<(), Dropped> {
    let mut result = Err(Dropped::Nameless);
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
        Name::Sought(waiting) => waiting.iter().map(|(_, data)| cost(data)).sum(),
        Name::Found(..) => 0,
    });
    lists.sum()
}

fn sought(entries: &HashMap<HostName, Name>) -> usize {
    let is_sought = |entry: &&Name| matches!(entry, Name::Sought(_));
    entries.values().filter(is_sought).count()
}

/// Forgets the name that was found first, if there are too many.
fn make_room(entries: &mut HashMap<HostName, Name>) {
    if entries.len() < MAX_NAMES {
        return;
    }
    let found = entries.iter().filter_map(|(name, entry)| match entry {
        Name::Found(_, until) => Some((name, *until)),
        Name::Sought(_) => None,
    });
    let first = found.min_by_key(|&(_, until)| until);
    if let Some(name) = first.map(|(name, _)| name.clone()) {
        entries.remove(&name);
    }
}
