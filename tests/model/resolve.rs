//! A resolver that answers when the model lets it.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::protocol::HostName;
use crate::sync::thread;

thread_local! {
    static ANSWERS: Cell<bool> = const { Cell::new(true) };
}

/// Does it answer from now on?
pub(crate) fn answers(whether: bool) {
    ANSWERS.set(whether);
}

pub(crate) fn lookup(_: &HostName) -> io::Result<Vec<IpAddr>> {
    while !ANSWERS.get() {
        thread::yield_now();
    }
    Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
}
