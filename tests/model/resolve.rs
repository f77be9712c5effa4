//! A resolver that answers only while the model permits it.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;

use crate::protocol::HostName;
use crate::steps::{self, Awaited};
use crate::sync::thread;

thread_local! {
    static ANSWERS: Cell<bool> = const { Cell::new(true) };
}

/// Sets whether lookups return from now on.
pub(crate) fn set_answers(answers: bool) {
    ANSWERS.set(answers);
}

#[track_caller]
pub(crate) fn lookup(_: &HostName, port: u16) -> io::Result<Vec<SocketAddr>> {
    while !ANSWERS.get() {
        steps::polls(Location::caller(), || {
            Awaited::Until("for the addresses of a name")
        });
        thread::yield_now();
    }
    Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
}
