//! One question to the client's identd (RFC 1413), under one deadline.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};

use crate::net::{self, ConnectError, Deadline};
use crate::protocol::ident::{IdentQuery, IdentReply, MAX_REPLY, PORT};

/// Asks the host of this client whose connection to us it is. There is one
/// attempt, from the very address at which the client reached us: identd knows
/// the connection by both its ends.
pub(crate) fn ask(client: &TcpStream, deadline: Deadline) -> Result<IdentReply, ConnectError> {
    let (theirs, ours) = (client.peer_addr()?, client.local_addr()?);
    let query = IdentQuery {
        theirs: theirs.port(),
        ours: ours.port(),
    };
    let (from, to) = (at_port(ours, 0), at_port(theirs, PORT));
    let identd = net::dial_from(from, to, deadline, client)?;
    // Else the port stays taken for a minute, and we may have to ask the same host
    // for each of its users' connections.
    net::reset_on_close(&identd);
    net::send_nonblocking(&identd, &query.encode())?;
    // The longest line, and its end.
    let mut bytes = [0; MAX_REPLY + 2];
    let mut count = 0;
    loop {
        net::wait_for_reply(&identd, deadline, client)?;
        let room = bytes.get_mut(count..).unwrap_or_default();
        match (&identd).read(room)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            more => count += more,
        }
        let so_far = bytes.get(..count).unwrap_or_default();
        let answer = query.answer(so_far);
        let answer = answer.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
}

/// The same host at this port; IPv4 in IPv6's clothes as IPv4.
fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address.set_port(port);
    address
}
