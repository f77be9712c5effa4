//! What is known of a request, while it is answered and as long as its visit lasts.

use std::net::{IpAddr, SocketAddr};

use crate::event::Asked;
use crate::wire::Target;

/// Taken down for the screen and the log, whatever becomes of the request.
#[derive(Debug)]
pub(super) struct Notes {
    /// The address dialled or expected, once known.
    pub(super) address: Option<IpAddr>,
    /// The port dialled or expected, if it is not the requested one.
    pub(super) port: Option<u16>,
    pub(super) rule: Option<usize>,
    /// Has identd confirmed the user?
    pub(super) confirmed: bool,
}

impl Notes {
    pub(super) fn new(target: &Target) -> Notes {
        Notes {
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

/// What a visit is there for, to be judged again when the rules change.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) asked: Asked,
    /// The addresses that it is connected to or waits for; `None` stands for any.
    pub(super) addresses: Vec<Option<IpAddr>>,
    pub(super) confirmed: bool,
}
