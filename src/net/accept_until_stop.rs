//! Accepts connections until the other end of a pipe is closed.

use std::io::{self, PipeReader};
use std::net::{TcpListener, TcpStream};
use std::slice;
use std::time::Duration;

use super::accept::{AcceptErrors, ClientWait, wait_for_clients};
use super::deadline::Deadline;
use super::poll::wait_readable;
use crate::sync::thread;

/// Pause after an error of accept(2) that concerns more than one connection, such as a lack of
/// descriptors: poll(2) would report the same client again at once. Also after an error of
/// poll(2), which can be a lasting one.
const BACKOFF: Duration = Duration::from_millis(100);

/// Accepts the next client of a listener that does not block; `None` after the writer of `stop`
/// was dropped. Several threads can wait for the same listener. No error ends the wait; `report`
/// gets each one that is followed by a pause.
pub(crate) fn accept_until_stop(
    listener: &TcpListener,
    stop: &PipeReader,
    report: impl Fn(io::Error),
) -> Option<TcpStream> {
    let mut errors = AcceptErrors::new();
    loop {
        match wait_for_clients(slice::from_ref(listener), stop) {
            Ok(ClientWait::Clients(_)) => {}
            Ok(ClientWait::Stop) => return None,
            Err(error) => {
                report(error);
                // No poll(2) would end this pause early: it fails.
                thread::sleep(BACKOFF);
            }
        }
        match listener.accept() {
            Ok((client, _)) => return Some(client),
            // Another thread was first.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if errors.is_transient(&error) => {}
            Err(error) => {
                report(error);
                let _ = wait_readable(stop, Deadline::after(BACKOFF));
            }
        }
    }
}
