//! What is known of a request while it is being answered.

use std::net::{IpAddr, SocketAddr};

use crate::event::Asked;

/// Taken down for the screen and the log, whatever becomes of the request.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) asked: Asked,
    /// The port dialled or expected, if it is not the requested one.
    pub(super) port: Option<u16>,
    pub(super) rule: Option<usize>,
}

impl Notes {
    pub(super) fn new(asked: Asked) -> Notes {
        Notes {
            asked,
            port: None,
            rule: None,
        }
    }

    /// The address dialled or expected is known, and which rule decided on it.
    pub(super) fn destination(&mut self, address: IpAddr, rule: Option<usize>) {
        self.asked.address = Some(address);
        self.rule = rule;
    }

    /// Any peer was expected, and this one came.
    pub(super) fn peer(&mut self, peer: SocketAddr, rule: Option<usize>) {
        self.destination(peer.ip(), rule);
        self.port = Some(peer.port());
    }
}
