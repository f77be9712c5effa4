//! A resolver that answers only while the model permits it.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::protocol::HostName;
use crate::sync::thread;

thread_local! {
    static ANSWERS: Cell<bool> = const { Cell::new(true) };
}

/// Sets whether lookups return from now on.
pub(crate) fn set_answers(answers: bool) {
    ANSWERS.set(answers);
}

pub(crate) fn lookup(_: &HostName, port: u16) -> io::Result<Vec<SocketAddr>> {
    while !ANSWERS.get() {
        thread::yield_now();
    }
    Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
}
