//! The client during the handshake.

use crate::net::Deadline;
use crate::server::context::ServerContext;
use crate::server::session::Session;
use crate::server::unheard::UnheardPlace;

/// A client whose request is not complete.
#[derive(Clone, Copy)]
pub(super) struct HandshakeClient<'a> {
    pub(super) context: &'a ServerContext,
    pub(super) session: &'a Session,
    pub(super) place: &'a UnheardPlace,
    /// For the whole handshake.
    pub(super) deadline: Deadline,
}

impl HandshakeClient<'_> {
    /// Sends a reply after which the handshake continues.
    pub(super) fn send_reply(&self, reply: &[u8]) {
        // If the client has disconnected, the next read reports that.
        self.session.send_reply(reply);
    }

    /// Sends the reply that ends the handshake. A client that was dropped has another reply.
    pub(super) fn refuse(&self, reply: &[u8]) {
        if self.place.leave() {
            self.session.send_reply(reply);
        }
    }
}
