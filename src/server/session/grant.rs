//! What was granted to a session, to be judged again when the rules change.

use std::net::IpAddr;

use crate::events::ClientRequest;

/// A granted request.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) request: ClientRequest,
    /// The addresses to which the session is connected or for which it waits; `None`
    /// stands for any.
    pub(crate) addresses: Vec<Option<IpAddr>>,
    /// Has identd confirmed the user?
    pub(crate) confirmed: bool,
}
