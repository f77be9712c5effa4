//! A request that is granted, and the relay that follows.

use std::sync::Arc;

use super::tcp_relay::ReverseDirection;
use crate::server::session::Session;
use crate::server::udp::Association;
use crate::sync::thread_pool::ReservedThread;

/// A request that is granted: everything that its relay needs is there.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The last reply, as bytes.
    pub(crate) reply: Vec<u8>,
    pub(crate) relay: RelayKind,
}

/// What is relayed after the reply.
#[derive(Debug)]
pub(crate) enum RelayKind {
    /// Two TCP connections, with the thread for the reverse direction.
    Streams(ReverseDirection),
    /// Datagrams, with the thread for those that come back.
    Datagrams(Arc<Association>, ReservedThread),
}

impl RelayKind {
    /// Relays. The calling thread runs the direction from client to remote and returns at
    /// the end of it; the last thread to drop the session closes it.
    pub(crate) fn run(self, session: &Arc<Session>) {
        match self {
            RelayKind::Streams(reverse) => reverse.relay(session),
            RelayKind::Datagrams(association, reverse) => association.relay(reverse),
        }
    }
}
