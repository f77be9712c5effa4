//! An identd that answers in a while, or not.

use std::io;
use std::net::TcpStream;

use crate::net::{ConnectError, Deadline};
use crate::sync::{one_in, pause};
use crate::wire::ident::IdentReply;

pub(crate) fn ask(client: &TcpStream, deadline: Deadline) -> Result<IdentReply, ConnectError> {
    pause();
    if deadline.is_over() {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    if client.peer_addr().is_err() {
        return Err(ConnectError::ClientLeft);
    }
    Ok(match one_in(4) {
        true => IdentReply::Error(b"NO-USER".to_vec()),
        false => IdentReply::User(b"user".to_vec()),
    })
}
