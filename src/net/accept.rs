//! Accepting connections: the server's clients, and the peer of a BIND.

use std::io::{self, PipeReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{self, Backlog};

use super::deadline::Deadline;
use super::poll::{has_given_up, wait};
use crate::trace::{self, Wait};

/// What ended the wait for the peer of a BIND.
#[derive(Debug)]
pub(crate) enum BindWait {
    /// A peer has connected, from this address.
    Peer(TcpStream, SocketAddr),
    /// The client has given up.
    ClientLeft,
    /// The deadline has come.
    TimedOut,
}

/// Waits for a peer, the deadline and the end of the client, all at once.
///
/// A client that sends EOF and nothing before it has given up. A client that has sent
/// data early may send EOF after them and still wait for the peer; then only the loss
/// of the connection counts.
pub(crate) fn wait_for_peer(
    listener: &TcpListener,
    client: &TcpStream,
    deadline: Deadline,
) -> io::Result<BindWait> {
    let _wait = trace::wait(|| Wait::BindPeer);
    listener.set_nonblocking(true)?;
    let mut watched = PollFlags::POLLIN;
    let mut errors = AcceptErrors::new();
    loop {
        let mut fds = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(client.as_fd(), watched),
        ];
        if !wait(&mut fds, deadline)? {
            return Ok(BindWait::TimedOut);
        }
        let [of_listener, of_client] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::all()));
        if has_given_up(client, of_client, &mut watched) {
            return Ok(BindWait::ClientLeft);
        }
        if !of_listener.is_empty() {
            match listener.accept() {
                Ok((peer, address)) => {
                    // On systems other than Linux it inherits the listener's mode.
                    peer.set_nonblocking(false)?;
                    return Ok(BindWait::Peer(peer, address));
                }
                // This peer is gone already; another one may come.
                Err(error) if errors.is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What ended the wait of a thread that accepts clients.
#[derive(Debug)]
pub(crate) enum ClientWait<'a> {
    /// On these listeners a client waits.
    Clients(Vec<&'a TcpListener>),
    /// The other end of the pipe is closed.
    Stop,
}

/// Waits for a client, or until the other end of the pipe is closed. A closed end is a state
/// and no event: this call returns [`ClientWait::Stop`] also if it begins after the close.
/// So no order of the two threads can miss it, and no flag is needed beside it.
///
/// The listeners are not shut down for that: one that another process holds as well would
/// end for both.
///
/// # Errors
///
/// As poll(2), while the other end of the pipe is open: a lack of memory, or a lasting error, such
/// as a limit on descriptors that is lowered below their number.
pub(crate) fn wait_for_clients<'a>(
    listeners: &'a [TcpListener],
    stop: &PipeReader,
) -> io::Result<ClientWait<'a>> {
    let _wait = trace::wait(|| Wait::Client);
    let watched = listeners.iter().map(AsFd::as_fd).chain([stop.as_fd()]);
    let mut fds: Vec<PollFd<'_>> = watched
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    if let Err(error) = wait(&mut fds, Deadline::NEVER) {
        // Otherwise a lasting error would hide the stop.
        return match is_closed(stop) {
            true => Ok(ClientWait::Stop),
            false => Err(error),
        };
    }
    let mut is_ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
    let clients = listeners.iter().zip(&mut is_ready);
    let clients = clients.filter_map(|(listener, ready)| ready.then_some(listener));
    let clients = clients.collect();
    Ok(match is_ready.next() {
        Some(true) => ClientWait::Stop,
        _ => ClientWait::Clients(clients),
    })
}

/// Is the other end of the pipe closed? Asks without poll(2), which has failed. Nothing is ever
/// written to the pipe, so read(2) returns EOF or EAGAIN.
fn is_closed(mut stop: &PipeReader) -> bool {
    fcntl(stop, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok()
        && matches!(stop.read(&mut [0]), Ok(0))
}

/// How many errors of accept(2) in a row can concern only one connection each. After that
/// the cause is taken for a lasting one, such as a filter that forbids accept(2).
const MAX_TRANSIENT: u32 = 16;

/// Counts the errors of accept(2) since the last accepted connection.
#[derive(Debug)]
pub(crate) struct AcceptErrors {
    count: u32,
}

impl AcceptErrors {
    pub(crate) fn new() -> AcceptErrors {
        AcceptErrors { count: 0 }
    }

    /// Does this error concern only one connection that is gone, and not the listener or
    /// this machine? After [`MAX_TRANSIENT`] errors the answer is always no.
    pub(crate) fn is_transient(&mut self, error: &io::Error) -> bool {
        self.count = self.count.saturating_add(1);
        self.count <= MAX_TRANSIENT && concerns_one_connection(error)
    }
}

/// Does this error of accept(2) usually concern one connection?
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    ) || matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EPROTO | Errno::EPERM)
    )
}

/// Sets the backlog, the queue of connections that wait to be accepted, to what the
/// system allows. The standard library sets it to 128.
pub(super) fn lengthen_backlog(listener: &TcpListener) -> io::Result<()> {
    Ok(socket::listen(listener, Backlog::MAXCONN)?)
}
