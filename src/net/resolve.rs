//! A name becomes addresses, once.
//!
//! Whoever asks twice may be told two different things (DNS rebinding), so the
//! addresses that come out of here are the ones that are judged and the ones
//! that are dialled.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};

use crate::protocol::HostName;

/// Asks the system resolver (hosts file, DNS, search list) and returns what it
/// says in its order. Blocks for as long as the resolver takes; the system's
/// resolv.conf sets that limit, and nothing can interrupt it.
///
/// # Errors
///
/// The resolver's own; also if it knows the name but no address.
pub fn lookup(name: &HostName) -> io::Result<Vec<IpAddr>> {
    // The resolver wants a port and hands it back with each address.
    let port = 0;
    let found = (name.as_str(), port).to_socket_addrs()?;
    let mut addresses = Vec::new();
    for address in found.map(|found| found.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}
