//! What the screen message and the log say of one request.

use std::net::{IpAddr, SocketAddr};

use crate::protocol::Destination;

/// Collected while a request is handled, whatever its outcome is.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// The address that is dialled or expected, once known.
    pub(crate) address: Option<IpAddr>,
    /// The port that is dialled or expected, if it is not the port of the request.
    pub(crate) port: Option<u16>,
    /// The line of the rule that decided.
    pub(crate) rule: Option<usize>,
    /// Has identd confirmed the user?
    pub(crate) confirmed: bool,
}

impl RequestLog {
    pub(crate) fn new(destination: &Destination) -> RequestLog {
        RequestLog {
            address: destination.host.address(),
            port: None,
            rule: None,
            confirmed: false,
        }
    }

    /// The address is known, and the rule that decided on it.
    pub(crate) fn set_address(&mut self, address: IpAddr, rule: Option<usize>) {
        self.address = Some(address);
        self.rule = rule;
    }

    /// Any peer was expected, and this one has connected.
    pub(crate) fn set_peer(&mut self, peer: SocketAddr, rule: Option<usize>) {
        self.set_address(peer.ip(), rule);
        self.port = Some(peer.port());
    }
}
