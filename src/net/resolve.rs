//! Name resolution: a host name becomes addresses, once per request.
//!
//! Two lookups of the same name can return different addresses (DNS rebinding). So the
//! addresses that one lookup returns are the ones that the rules judge and the ones that
//! the server dials.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};

use crate::protocol::HostName;

/// Asks the system's resolver (hosts file, DNS, search list) and returns its addresses in
/// its order, each once. Blocks for as long as the resolver takes, which resolv.conf
/// limits; nothing can interrupt it.
///
/// # Errors
///
/// The resolver's error; `NotFound` if the name exists and has no address.
pub fn lookup(name: &HostName) -> io::Result<Vec<IpAddr>> {
    // The interface wants a port and returns it with each address.
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
