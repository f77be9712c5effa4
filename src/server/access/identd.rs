//! One query to the client's identd (RFC 1413), under one deadline.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};

use crate::net::{self, ConnectError, Deadline};
use crate::protocol::ident::{IdentQuery, IdentReply, MAX_REPLY, PORT};

/// Asks the client's host to which user this connection belongs.
///
/// The query comes from the address at which the client has reached the server: identd
/// knows the connection by both its ends. There is one attempt.
pub(super) fn query(client: &TcpStream, deadline: Deadline) -> Result<IdentReply, ConnectError> {
    let (client_port, server_port) = (client.peer_addr()?, client.local_addr()?);
    let query = IdentQuery {
        client_port: client_port.port(),
        server_port: server_port.port(),
    };
    let (from, to) = (with_port(server_port, 0), with_port(client_port, PORT));
    let identd = net::dial_from(from, to, deadline, client)?;
    // Otherwise the port stays in TIME_WAIT for a minute, and the same host may have to be
    // asked for each of its users' connections.
    net::reset_on_close(&identd);
    net::send_nonblocking(&identd, &query.encode())?;
    // The longest reply, and its end of line.
    let mut bytes = [0; MAX_REPLY + 2];
    let mut count = 0;
    loop {
        net::wait_for_reply(&identd, deadline, client)?;
        let free = bytes.get_mut(count..).unwrap_or_default();
        match (&identd).read(free)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            more => count += more,
        }
        let received = bytes.get(..count).unwrap_or_default();
        let reply = query.parse_reply(received);
        let reply = reply.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(reply) = reply {
            return Ok(reply);
        }
    }
}

/// The same host at this port; an IPv4-mapped IPv6 address becomes its IPv4 address.
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address.set_port(port);
    address
}
