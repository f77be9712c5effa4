//! A resolver that answers only while the model permits it.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::protocol::HostName;
use crate::sync::thread;

thread_local! {
    static ANSWERS: Cell<bool> = const { Cell::new(true) };
}

/// Sets whether lookups return from now on.
pub(crate) fn set_answers(answers: bool) {
    ANSWERS.set(answers);
}

pub(crate) fn lookup(_: &HostName) -> io::Result<Vec<IpAddr>> {
    while !ANSWERS.get() {
        thread::yield_now();
    }
    Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
}
