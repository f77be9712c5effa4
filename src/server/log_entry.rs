//! What is known of a request, while it is answered and as long as its session lasts.

use std::net::{IpAddr, SocketAddr};

use crate::event::ClientRequest;
use crate::wire::Destination;

/// Taken down for the screen and the log, whatever becomes of the request.
#[derive(Debug)]
pub(super) struct RequestLog {
    /// The address dialled or expected, once known.
    pub(super) address: Option<IpAddr>,
    /// The port dialled or expected, if it is not the requested one.
    pub(super) port: Option<u16>,
    pub(super) rule: Option<usize>,
    /// Has identd confirmed the user?
    pub(super) confirmed: bool,
}

impl RequestLog {
    pub(super) fn new(target: &Destination) -> RequestLog {
        RequestLog {
            address: target.host.address(),
            port: None,
            rule: None,
            confirmed: false,
        }
    }

    /// The address dialled or expected is known, and which rule decided on it.
    pub(super) fn destination(&mut self, address: IpAddr, rule: Option<usize>) {
        self.address = Some(address);
        self.rule = rule;
    }

    /// Any peer was expected, and this one came.
    pub(super) fn peer(&mut self, peer: SocketAddr, rule: Option<usize>) {
        self.destination(peer.ip(), rule);
        self.port = Some(peer.port());
    }
}

/// What a session is there for, to be judged again when the rules change.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) request: ClientRequest,
    /// The addresses that it is connected to or waits for; `None` set_grant for any.
    pub(super) addresses: Vec<Option<IpAddr>>,
    pub(super) confirmed: bool,
}
