//! An identd that answers in a while, or not.

use std::io;
use std::net::TcpStream;

use crate::net::{Deadline, Unanswered};
use crate::sync::{one_in, pause};
use crate::wire::ident::Answer;

pub(crate) fn ask(client: &TcpStream, deadline: Deadline) -> Result<Answer, Unanswered> {
    pause();
    if deadline.is_over() {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    if client.peer_addr().is_err() {
        return Err(Unanswered::ClientLeft);
    }
    Ok(match one_in(4) {
        true => Answer::Error(b"NO-USER".to_vec()),
        false => Answer::User(b"user".to_vec()),
    })
}
