//! What is known of a request, while it is answered and as long as its session lasts.

use std::net::{IpAddr, SocketAddr};

use crate::events::ClientRequest;
use crate::protocol::Destination;

/// Taken down for the screen and the log, whatever becomes of the request.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// The address dialled or expected, once known.
    pub(crate) address: Option<IpAddr>,
    /// The port dialled or expected, if it is not the requested one.
    pub(crate) port: Option<u16>,
    pub(crate) rule: Option<usize>,
    /// Has identd confirmed the user?
    pub(crate) confirmed: bool,
}

impl RequestLog {
    pub(crate) fn new(target: &Destination) -> RequestLog {
        RequestLog {
            address: target.host.address(),
            port: None,
            rule: None,
            confirmed: false,
        }
    }

    /// The address dialled or expected is known, and which rule decided on it.
    pub(crate) fn destination(&mut self, address: IpAddr, rule: Option<usize>) {
        self.address = Some(address);
        self.rule = rule;
    }

    /// Any peer was expected, and this one came.
    pub(crate) fn peer(&mut self, peer: SocketAddr, rule: Option<usize>) {
        self.destination(peer.ip(), rule);
        self.port = Some(peer.port());
    }
}

/// What a session is there for, to be judged again when the rules change.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) request: ClientRequest,
    /// The addresses that it is connected to or waits for; `None` set_grant for any.
    pub(crate) addresses: Vec<Option<IpAddr>>,
    pub(crate) confirmed: bool,
}
