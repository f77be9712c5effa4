//! The few things about sockets that `std::net` lacks.

mod port_range;
pub mod resolve;

pub(crate) use port_range::PortRange;

use std::io::{self, BufRead, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// A point in time by which something must be done. It may lie so far off that
/// the clock cannot express it; then it never comes.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// This long from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(duration))
    }

    /// Does it lie in the past?
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// The time left, zero if it is over.
    pub fn remaining(self) -> Duration {
        match self.0 {
            Some(instant) => instant.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// The earlier of this deadline and one that lies this long from now.
    pub(crate) fn min_after(self, duration: Duration) -> Deadline {
        Deadline::after(self.remaining().min(duration))
    }

    /// The time left as poll(2) wants it, rounded up so that a wait never ends
    /// a moment too early and spins. What is longer than poll can express (25
    /// days) takes several waits.
    fn poll_timeout(self) -> PollTimeout {
        if self.0.is_none() {
            return PollTimeout::NONE;
        }
        let millis = self.remaining().as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }
}

/// poll(2), again after an interrupting signal, until something is ready or the
/// deadline has come. True if something is ready.
///
/// # Errors
///
/// Those of poll(2) that no caller can cause: want of memory.
pub fn wait(fds: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        match poll(fds, deadline.poll_timeout()) {
            Ok(0) if deadline.is_over() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until there is something to read (bytes, an end, an error), or until
/// the deadline has come; true if there is.
///
/// # Errors
///
/// As [`wait`].
pub(crate) fn wait_readable(socket: &impl AsFd, deadline: Deadline) -> io::Result<bool> {
    wait(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        deadline,
    )
}

/// Bytes looked at in one go: more than the longest message of a client has.
const PEEK_BUFFER: usize = 1024;

/// A connection read under one total deadline, that looks before it takes.
///
/// As a [`BufRead`], its buffer is the kernel's: [`fill_buf`](BufRead::fill_buf)
/// peeks, and [`consume`](BufRead::consume) takes exactly what a message
/// needed. What the client sent early stays where the relay will find it.
#[derive(Debug)]
pub struct PeekReader<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
    /// Copies of the bytes that were seen and not yet consumed.
    seen: [u8; PEEK_BUFFER],
    count: usize,
}

impl<'a> PeekReader<'a> {
    /// Starts reading this connection.
    pub fn new(stream: &'a TcpStream, deadline: Deadline) -> PeekReader<'a> {
        let seen = [0; PEEK_BUFFER];
        PeekReader {
            stream,
            deadline,
            seen,
            count: 0,
        }
    }
}

impl BufRead for PeekReader<'_> {
    /// Waits for bytes and shows them; none means the end of the stream.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.count == 0 {
            // Looking before waiting costs nothing where bytes are already there.
            match peek(self.stream, &mut self.seen) {
                Ok(0) => break,
                Ok(count) => self.count = count,
                Err(Errno::EAGAIN) => {
                    if !wait_readable(self.stream, self.deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.seen.get(..self.count).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.count);
        let taken = self.seen.get_mut(..count).unwrap_or_default();
        // These bytes were seen in the kernel's buffer, so this returns at once
        // with all of them; a connection reset in between shows at the next use.
        let _ = self.stream.read_exact(taken);
        self.seen.copy_within(count..self.count, 0);
        self.count -= count;
    }
}

impl Read for PeekReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// What has arrived, without taking it and without waiting: `EAGAIN` if
/// nothing has, 0 bytes at the end of the stream.
fn peek(stream: &TcpStream, buffer: &mut [u8]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    loop {
        match socket::recv(stream.as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Sends a short message without ever waiting. The few bytes of a reply always
/// fit the send buffer of a connection on which nothing else has been sent.
///
/// # Errors
///
/// As send(2); `WriteZero` if not everything fitted.
pub(crate) fn send_nonblocking(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    // No signal if the other end is gone: Rust programs ignore SIGPIPE.
    match socket::send(stream.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT)? {
        sent if sent == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Why another host gave no answer.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The client broke its connection meanwhile.
    ClientLeft,
    /// The system's reason; `TimedOut` at the deadline.
    Failed(io::Error),
}

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

/// Does this error of socket(2) or connect(2) tell of this machine, which lacks
/// descriptors or memory, rather than of the other? (One of ports, or of an
/// address of that family, is about this destination: another may be reached.)
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// Connects to this address before the deadline, for as long as the client
/// stays. Only a broken connection counts as having left: a client that has
/// closed its sending half still waits for the answer.
pub(crate) fn dial(
    address: SocketAddr,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<TcpStream, ConnectError> {
    let remote = nonblocking_socket(address)?;
    connect(remote, address, deadline, client)
}

/// The same from this local address, where [`dial`] leaves the choice to the
/// system.
pub(crate) fn dial_from(
    local: SocketAddr,
    address: SocketAddr,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<TcpStream, ConnectError> {
    let remote = nonblocking_socket(address)?;
    // Else bind(2) chooses a port that is free for all destinations, of which
    // there are soon none left.
    #[cfg(target_os = "linux")]
    socket::setsockopt(&remote, sockopt::IpBindAddressNoPort, &true)?;
    socket::bind(remote.as_raw_fd(), &SockaddrStorage::from(local))?;
    connect(remote, address, deadline, client)
}

fn connect(
    remote: TcpStream,
    address: SocketAddr,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<TcpStream, ConnectError> {
    match socket::connect(remote.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    wait_with(&remote, PollFlags::POLLOUT, deadline, client)?;
    if let Some(error) = remote.take_error()? {
        return Err(ConnectError::Failed(error));
    }
    remote.set_nonblocking(false)?;
    tune(&remote)?;
    Ok(remote)
}

/// Waits until there is something to read from the remote, for as long as the
/// client stays.
pub(crate) fn wait_for_reply(
    remote: &TcpStream,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<(), ConnectError> {
    wait_with(remote, PollFlags::POLLIN, deadline, client)
}

fn wait_with(
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

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(target_os = "linux")]
fn nonblocking_socket(to: SocketAddr) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family(to), SockType::Stream, flags, None)?;
    Ok(TcpStream::from(socket))
}

/// Not every other system has the flags. (We start no programs that could
/// inherit it.)
#[cfg(not(target_os = "linux"))]
fn nonblocking_socket(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket::socket(family(to), SockType::Stream, SockFlag::empty(), None)?;
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What came first while a listener waited for a peer.
#[derive(Debug)]
pub(crate) enum BindWait {
    /// A peer.
    Peer(TcpStream, SocketAddr),
    /// The client's end of the connection.
    ClientLeft,
    /// The deadline.
    TimedOut,
}

/// Waits at once for a peer, the deadline, and the client leaving.
///
/// A client that ends its side with nothing sent has given up. One that has
/// sent something early may well have ended its side behind that: it waits for
/// the peer, and only breaking the connection counts as leaving.
pub(crate) fn wait_for_peer(
    listener: &TcpListener,
    client: &TcpStream,
    deadline: Deadline,
) -> io::Result<BindWait> {
    listener.set_nonblocking(true)?;
    let mut watched = PollFlags::POLLIN;
    loop {
        let mut fds = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(client.as_fd(), watched),
        ];
        if !wait(&mut fds, deadline)? {
            return Ok(BindWait::TimedOut);
        }
        let [knock, client_state] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::all()));
        if has_given_up(client, client_state, &mut watched) {
            return Ok(BindWait::ClientLeft);
        }
        if !knock.is_empty() {
            match listener.accept() {
                Ok((peer, address)) => {
                    // Elsewhere than on Linux it inherits the listener's mode.
                    peer.set_nonblocking(false)?;
                    tune(&peer)?;
                    return Ok(BindWait::Peer(peer, address));
                }
                // It knocked and ran: the next one may come.
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Has the client given up, by what poll says of it? What it sends early is looked
/// at once, and not `watched` any more: it is not for us, and would wake us again
/// and again.
fn has_given_up(client: &TcpStream, state: PollFlags, watched: &mut PollFlags) -> bool {
    if state.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
        return true;
    }
    if !state.contains(PollFlags::POLLIN) {
        return false;
    }
    match peek(client, &mut [0]) {
        Ok(0) => true,
        Ok(_) => {
            *watched = PollFlags::empty();
            false
        }
        Err(Errno::EAGAIN) => false,
        Err(_) => true,
    }
}

/// Waits until the deadline, for as long as the client stays; true if it has. One
/// that ends its side with nothing left to be read has given up, as has one that
/// breaks the connection, and one whose visit is cut.
pub(crate) fn client_stays_until(client: &TcpStream, deadline: Deadline) -> bool {
    let mut watched = PollFlags::POLLIN;
    loop {
        let mut fds = [PollFd::new(client.as_fd(), watched)];
        match wait(&mut fds, deadline) {
            Ok(false) => return true,
            Ok(true) => {}
            Err(_) => return false,
        }
        let [state] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::all()));
        if has_given_up(client, state, &mut watched) {
            return false;
        }
    }
}

/// Waits until a client wants to be accepted, or nobody listens any more.
pub(crate) fn wait_acceptable(listener: &TcpListener) {
    // Fails only for want of memory; then the caller sees for itself.
    let _ = wait_readable(listener, Deadline(None));
}

/// Is this error of accept(2) about one connection that went away, rather than
/// about us?
pub(crate) fn is_transient(error: &io::Error) -> bool {
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

/// How long a write waits for its reader before it says "would block". Nothing
/// else wakes who is stuck in one, without telling the reader an end.
const SEND_TIMEOUT_MS: i64 = 500;

/// Makes a relayed connection prompt (no waiting for fuller packets), notice a
/// vanished peer (keepalive, at the system's intervals), and look up from a write
/// now and then.
///
/// Set on a listener, all of it holds for every connection it accepts.
pub(crate) fn tune<S: AsFd>(socket: &S) -> io::Result<()> {
    socket::setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    socket::setsockopt(socket, sockopt::KeepAlive, &true)?;
    socket::setsockopt(
        socket,
        sockopt::SendTimeout,
        &TimeVal::milliseconds(SEND_TIMEOUT_MS),
    )?;
    Ok(())
}

/// From now on no write to this connection waits for its reader. (One that waits
/// already does so to the end of its time.)
pub(crate) fn shorten_send_timeout(stream: &TcpStream) {
    // Zero would mean to wait for ever. Fails only on what is no socket.
    let _ = socket::setsockopt(stream, sockopt::SendTimeout, &TimeVal::microseconds(1));
}

/// Lengthens the queue of connections that wait to be accepted, which std sets
/// to 128, to what the system allows.
pub(crate) fn lengthen_backlog(listener: &TcpListener) -> io::Result<()> {
    Ok(socket::listen(listener, Backlog::MAXCONN)?)
}

/// Closes a listener that another thread may be blocked on: new connections are
/// refused at once, and a blocked accept(2) returns with an error.
pub(crate) fn stop_listening(listener: &TcpListener) {
    // The only error is "not listening", which is what we want.
    let _ = socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Both);
}

/// From now on closing this connection resets it: its end learns that it did
/// not get everything, instead of taking a cut for the end.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Fails only on a socket that has no connection left to reset.
    let _ = socket::setsockopt(stream, sockopt::Linger, &now);
}

/// How long and how many bytes a lingering close waits for the other end.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 10;

/// Closes our half, then reads and drops what still comes until the other end
/// closes as well.
///
/// A socket closed with unread bytes resets the connection, and the reset can
/// overtake the reply that was just sent (RFC 1122, section 4.2.2.13).
pub(crate) fn lingering_close(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut late = PeekReader::new(stream, Deadline::after(LINGER));
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        match late.fill_buf() {
            Ok([]) | Err(_) => return,
            Ok(bytes) => {
                let count = bytes.len();
                dropped += count;
                late.consume(count);
            }
        }
    }
}
