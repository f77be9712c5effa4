//! One attempt to connect to another host, and the wait for its reply.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{self, SockaddrStorage};

use super::deadline::Deadline;
use super::options::set_options;
use super::poll::wait;
use super::socket::nonblocking_tcp;
use crate::trace::{self, Wait};

/// Why another host was not reached or did not reply.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The client's connection is gone: the result is not needed any more.
    ClientLeft,
    /// The system's error; `TimedOut` at the deadline.
    Failed(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::ClientLeft => out.write_str("the client has disconnected"),
            ConnectError::Failed(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<Errno> for ConnectError {
    fn from(error: Errno) -> ConnectError {
        ConnectError::Failed(error.into())
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        ConnectError::Failed(error)
    }
}

/// Does this error of socket(2) or connect(2) say that this machine lacks descriptors or
/// memory? Then another address would fail as well. (A lack of ports, or of an address
/// family, concerns one destination only.)
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// Begins a non-blocking connect(2) with the options of a relayed connection. The socket is
/// writable when the attempt has succeeded or failed; [`finish`] tells which.
pub(super) fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let remote = nonblocking_tcp(address)?;
    set_options(&remote)?;
    begin_connect(&remote, address)?;
    Ok(remote)
}

fn begin_connect(remote: &TcpStream, address: SocketAddr) -> io::Result<()> {
    match socket::connect(remote.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The result of an attempt that has ended: the error, or a connection, which becomes
/// blocking.
pub(super) fn finish(remote: &TcpStream) -> io::Result<()> {
    match remote.take_error()? {
        Some(error) => Err(error),
        None => remote.set_nonblocking(false),
    }
}

/// Connects to this address from this local address, before the deadline, for as long as
/// the client stays.
pub(crate) fn dial_from(
    local: SocketAddr,
    address: SocketAddr,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<TcpStream, ConnectError> {
    let remote = nonblocking_tcp(address)?;
    set_options(&remote)?;
    // Otherwise bind(2) takes a port that is free for all destinations, and soon none
    // of these is left.
    #[cfg(target_os = "linux")]
    socket::setsockopt(&remote, socket::sockopt::IpBindAddressNoPort, &true)?;
    socket::bind(remote.as_raw_fd(), &SockaddrStorage::from(local))?;
    begin_connect(&remote, address)?;
    let wait = trace::wait(|| Wait::Connect(Some(address)));
    wait_beside_client(&remote, PollFlags::POLLOUT, deadline, client)?;
    drop(wait);
    finish(&remote)?;
    Ok(remote)
}

/// Waits until there is something to read from the remote, for as long as the client
/// stays.
pub(crate) fn wait_for_reply(
    remote: &TcpStream,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<(), ConnectError> {
    let _wait = trace::wait(|| Wait::Readable(trace::peer(remote)));
    wait_beside_client(remote, PollFlags::POLLIN, deadline, client)
}

/// Waits for this event of the remote. The client's connection is in the same poll(2):
/// its end also ends the wait. Only a connection that is gone counts as having left: a
/// client that has sent EOF still waits for the reply.
fn wait_beside_client(
    remote: &TcpStream,
    event: PollFlags,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<(), ConnectError> {
    let mut fds = [
        PollFd::new(remote.as_fd(), event),
        PollFd::new(client.as_fd(), PollFlags::empty()),
    ];
    if !wait(&mut fds, deadline)? {
        return Err(ConnectError::Failed(io::ErrorKind::TimedOut.into()));
    }
    let [_, client] = fds;
    match client.any() {
        Some(false) => Ok(()),
        _ => Err(ConnectError::ClientLeft),
    }
}
