//! The header of the PROXY protocol, with which each connection of a listed proxy begins.

use crate::events::{CloseReason, HandshakeError};
use crate::net::{Deadline, PeekReader};
use crate::protocol::{ProxyHeader, ReadError};
use crate::server::admission::admit_announced;
use crate::server::context::ServerContext;
use crate::server::session::Session;
use crate::server::unheard::UnheardPlace;

/// Reads the header, before the first byte of SOCKS. From then on the announced client is the
/// client of the session, and has a place among the clients without a request.
///
/// No reply tells what is wrong with a header: the proxy would pass it on to its client.
///
/// # Errors
///
/// Why the session ends: there is no header with a client, or this client is rejected.
pub(super) fn read_proxy_header(
    context: &ServerContext,
    session: &Session,
    deadline: Deadline,
) -> Result<UnheardPlace, CloseReason> {
    let mut stream = PeekReader::new(&session.client, deadline);
    match ProxyHeader::read(&mut stream) {
        Ok(ProxyHeader::Local) => {}
        // A client has this server connect to itself, from a listed address. It must not choose
        // its own address, so the header has no effect. The request is refused as a loop.
        Ok(ProxyHeader::Client { .. }) if session.is_loop(&context.registry) => {}
        Ok(ProxyHeader::Client {
            source,
            destination,
        }) => session.set_announced(source, destination),
        // A health check that only connects.
        Err(ReadError::Incomplete(0, _)) => return Err(CloseReason::Silent),
        Err(error) => {
            let error = HandshakeError::ProxyHeader(error);
            return Err(CloseReason::HandshakeFailed(error));
        }
    }
    admit_announced(context, session)
}
