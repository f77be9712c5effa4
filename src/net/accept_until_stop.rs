//! A listener whose wait a dropped pipe ends.

use std::io::PipeReader;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::accept::concerns_one_connection;
use super::deadline::Deadline;
use super::poll::{wait, wait_readable};

/// Pause after an error of accept(2) that concerns more than one connection, such as a lack of
/// descriptors: poll(2) would report the same client again at once.
const BACKOFF: Duration = Duration::from_millis(100);

/// Accepts the next client of a listener that does not block; `None` after the writer of `stop`
/// was dropped. Several threads can wait for the same listener. No error ends the wait.
pub(crate) fn accept_until_stop(listener: &TcpListener, stop: &PipeReader) -> Option<TcpStream> {
    loop {
        let mut fds = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        // Fails only for lack of memory; then accept(2) fails as well.
        let _ = wait(&mut fds, Deadline::NEVER);
        let [_, of_stop] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if !of_stop.is_empty() {
            return None;
        }
        match listener.accept() {
            Ok((client, _)) => return Some(client),
            // Another thread was first, or the client has left.
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => {
                let _ = wait_readable(stop, Deadline::after(BACKOFF));
            }
        }
    }
}
