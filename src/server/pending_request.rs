//! One request while it is handled: what every step of the handling needs.

use std::sync::Arc;

use super::context::ServerContext;
use super::session::Session;
use crate::events::ClientRequest;

/// A request, the session that sent it, and the server's shared state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingRequest<'a> {
    pub(crate) context: &'a Arc<ServerContext>,
    pub(crate) session: &'a Arc<Session>,
    pub(crate) request: &'a ClientRequest,
}
