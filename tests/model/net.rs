//! Real sockets that are polled: a thread that would block lets other threads run and looks again.

#[path = "resolve.rs"]
pub(crate) mod resolve;

use std::cell::{Cell, OnceCell};
use std::io::{self, BufRead, PipeReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::Location;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, recv, send,
};
use nix::sys::stat::fstat;

use crate::control::{any, one_in, pause, times_out};
use crate::real_net;
pub(crate) use crate::real_net::{
    AcceptErrors, BindWait, ClientWait, ConnectError, Connection, DialError, Listeners, PortRange,
    accept_until_stop, concerns_one_connection, dual_stack_udp, interleave, is_gone, is_shortage,
    listen, set_options,
};
use crate::steps::{self, Awaited, Event, Object, Origin, Place};
use crate::sync::AtomicBool;
use crate::sync::thread;

/// A deadline that comes at random.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline;

impl Deadline {
    pub(crate) fn after(_: Duration) -> Deadline {
        Deadline
    }

    pub(crate) fn min_after(self, _: Duration) -> Deadline {
        self
    }

    pub(crate) fn is_over(self) -> bool {
        times_out()
    }

    pub(crate) fn remaining(self) -> Duration {
        Duration::from_secs(1)
    }
}

thread_local! {
    static POLLS: Cell<u32> = const { Cell::new(0) };
}

/// Lets other threads run. On a busy machine the system may take long to deliver what was
/// sent. A thread that has polled often gives it real time, so that the model does not take
/// the thread for one that waits for ever.
fn poll_again() {
    POLLS.set(POLLS.get() + 1);
    if POLLS.get() > 5_000 && POLLS.get().is_multiple_of(100) {
        std::thread::sleep(Duration::from_millis(2));
    }
    thread::yield_now();
}

/// At the start of an execution.
pub(crate) fn begin() {
    POLLS.set(0);
}

/// The socket, for the record of steps.
fn object(socket: &impl AsFd) -> Object {
    // Fails only for a descriptor that is not open.
    steps::socket(fstat(socket).map_or(0, |status| status.st_ino))
}

/// Names the socket in the record of steps.
fn name(socket: &impl AsFd, name: &'static str) {
    if let Ok(status) = fstat(socket) {
        steps::name_socket(status.st_ino, Origin::Name(name.into()));
    }
}

/// Notes what the current thread has done to this socket.
pub(crate) fn note(what: &'static str, socket: &impl AsFd, place: Place) {
    steps::note(Event::OnSocket(what, object(socket)), Some(place));
}

/// Notes the result of a read.
fn note_read(stream: &TcpStream, result: Result<usize, Errno>, place: Place) {
    let event = match result {
        Ok(count) => Event::Read(object(stream), count),
        Err(error) => Event::ReadError(object(stream), io::Error::from(error).kind()),
    };
    steps::note(event, Some(place));
}

/// Lets other threads run until there are bytes to read.
fn poll_bytes(stream: &TcpStream, place: Place) {
    steps::polls(place, || Awaited::Bytes(object(stream)));
    poll_again();
}

/// Reads when there is something to read.
#[track_caller]
pub(crate) fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let place = Location::caller();
    loop {
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => poll_bytes(stream, place),
            result => {
                note_read(stream, result, place);
                return Ok(result?);
            }
        }
    }
}

/// Writes when there is room.
#[track_caller]
pub(crate) fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let place = Location::caller();
    thread::yield_now();
    while !bytes.is_empty() {
        match send(stream.as_raw_fd(), bytes, flags) {
            Ok(count) => {
                steps::note(Event::Write(object(stream), count), Some(place));
                bytes = &bytes[count..];
            }
            Err(Errno::EAGAIN) => {
                steps::polls(place, || Awaited::Room(object(stream)));
                poll_again();
            }
            Err(error) => {
                let event = Event::WriteError(object(stream), io::Error::from(error).kind());
                steps::note(event, Some(place));
                return Err(error.into());
            }
        }
    }
    Ok(())
}

#[track_caller]
pub(crate) fn send_nonblocking(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    let result = real_net::send_nonblocking(stream, message);
    let event = match &result {
        Ok(()) => Event::Write(object(stream), message.len()),
        Err(error) => Event::WriteError(object(stream), error.kind()),
    };
    steps::note(event, Some(Location::caller()));
    result
}

#[track_caller]
/// No model has metrics.
pub(crate) fn send_all(stream: &TcpStream, message: &[u8], _: Deadline) -> io::Result<()> {
    send_nonblocking(stream, message)
}

pub(crate) fn send_fin(stream: &TcpStream) -> io::Result<()> {
    let result = real_net::send_fin(stream);
    let what = match result {
        Ok(()) => "sends FIN on",
        Err(_) => "cannot send FIN on",
    };
    note(what, stream, Location::caller());
    result
}

#[track_caller]
pub(crate) fn reset_on_close(stream: &TcpStream) {
    real_net::reset_on_close(stream);
    note("prepares RST for the close of", stream, Location::caller());
}

#[track_caller]
pub(crate) fn shorten_send_timeout(stream: &TcpStream) {
    real_net::shorten_send_timeout(stream);
    note("shortens the send timeout of", stream, Location::caller());
}

/// Reads to EOF or an error.
#[track_caller]
pub(crate) fn read_to_end(stream: &TcpStream) {
    while read(stream, &mut [0; 64]).is_ok_and(|count| count > 0) {}
}

/// Only splice calls this, and no model splices.
pub(crate) fn wait(_: &mut [PollFd<'_>], _: Deadline) -> io::Result<bool> {
    Ok(true)
}

/// As [`wait`].
pub(crate) fn wait_readable(_: &impl AsFd, deadline: Deadline) -> io::Result<bool> {
    Ok(!deadline.is_over())
}

pub(crate) fn has_unread_bytes(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags).is_ok_and(|count| count > 0)
}

/// Reads one byte at a time, so it never takes a byte too many.
pub(crate) struct PeekReader<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
    seen: [u8; 1],
    count: usize,
    place: Place,
}

impl<'a> PeekReader<'a> {
    #[track_caller]
    pub(crate) fn new(stream: &'a TcpStream, deadline: Deadline) -> PeekReader<'a> {
        PeekReader {
            place: Location::caller(),
            stream,
            deadline,
            seen: [0],
            count: 0,
        }
    }

    /// The models do without the flag: a wait for a thread that is active ends by a timeout.
    pub(crate) fn with_flag(self, _: &AtomicBool) -> PeekReader<'a> {
        self
    }
}

impl BufRead for PeekReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.count == 0 {
            let flags = MsgFlags::MSG_DONTWAIT;
            let result = recv(self.stream.as_raw_fd(), &mut self.seen, flags);
            if result != Err(Errno::EAGAIN) {
                note_read(self.stream, result, self.place);
            }
            match result {
                Ok(0) => break,
                Ok(count) => self.count = count,
                Err(Errno::EAGAIN) if self.deadline.is_over() => {
                    note("reads until the timeout from", self.stream, self.place);
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(Errno::EAGAIN) => poll_bytes(self.stream, self.place),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(&self.seen[..self.count])
    }

    fn consume(&mut self, count: usize) {
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

pub(crate) const LINGER_TIME: Duration = Duration::ZERO;

#[track_caller]
pub(crate) fn lingering_close(stream: &TcpStream, deadline: Deadline) {
    if send_fin(stream).is_ok() {
        let _ = io::copy(&mut PeekReader::new(stream, deadline), &mut io::sink());
    }
}

thread_local! {
    static DESTINATION: OnceCell<TcpListener> = const { OnceCell::new() };
}

/// The destination of every client.
pub(crate) fn destination() -> SocketAddr {
    DESTINATION.with(|listener| {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        listener.get_or_init(bind).local_addr().unwrap()
    })
}

/// Connects a client from this address to the server.
#[track_caller]
pub(crate) fn connect_from(from: Ipv4Addr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket::socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let from = SocketAddr::from((from, 0));
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
    let stream = TcpStream::from(socket);
    name(&stream, "client's end");
    note("connects", &stream, Location::caller());
    Ok(stream)
}

/// Connects, after a while, to a server that sends a word, waits for EOF, and then resets or
/// closes the connection.
#[track_caller]
pub(crate) fn dial<S>(
    addresses: &[SocketAddr],
    deadline: Deadline,
    client: &TcpStream,
    _: impl Fn() -> Option<S>,
) -> Result<Connection, DialError> {
    pause();
    if deadline.is_over() {
        return Err(DialError::TimedOut);
    }
    if client.peer_addr().is_err() {
        return Err(DialError::ClientLeft);
    }
    let remote = addresses[0];
    let failed = |error| DialError::Failed(remote, error);
    let stream = TcpStream::connect(remote).map_err(failed)?;
    let local = stream.local_addr().map_err(failed)?;
    let accepted = DESTINATION.with(|listener| listener.get().unwrap().accept());
    let (peer, _) = accepted.map_err(failed)?;
    name(&stream, "remote");
    name(&peer, "remote's end");
    note("connects", &stream, Location::caller());
    thread::spawn_named("remote", move || {
        let _ = write_all(&peer, b"word");
        read_to_end(&peer);
        match one_in(2) {
            true => reset_on_close(&peer),
            false => drop(peer.shutdown(Shutdown::Write)),
        }
    });
    Ok(Connection {
        stream,
        local,
        remote,
    })
}

/// Connects, in a while, to an identd that confirms the user, reports an error, or
/// closes the connection.
pub(crate) fn dial_from(
    _: SocketAddr,
    _: SocketAddr,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<TcpStream, ConnectError> {
    pause();
    if deadline.is_over() {
        return Err(ConnectError::Failed(io::ErrorKind::TimedOut.into()));
    }
    if client.peer_addr().is_err() {
        return Err(ConnectError::ClientLeft);
    }
    let (stream, identd) = pair();
    thread::spawn_named("identd", move || {
        let mut query = [0; 32];
        let count = read(&identd, &mut query).unwrap_or(0);
        let ports = query[..count].trim_ascii_end();
        let reply = any(&[
            &b" : USERID : UNIX : user\r\n"[..],
            b" : ERROR : NO-USER\r\n",
            b"",
        ]);
        if !reply.is_empty() {
            let _ = write_all(&identd, &[ports, reply].concat());
        }
    });
    Ok(stream)
}

/// Waits until there is something to read.
#[track_caller]
pub(crate) fn wait_for_reply(
    remote: &TcpStream,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<(), ConnectError> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    while recv(remote.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN) {
        if deadline.is_over() {
            return Err(ConnectError::Failed(io::ErrorKind::TimedOut.into()));
        }
        if client.peer_addr().is_err() {
            return Err(ConnectError::ClientLeft);
        }
        poll_bytes(remote, Location::caller());
    }
    Ok(())
}

/// No peer ever connects.
#[track_caller]
pub(crate) fn wait_for_peer(
    _: &TcpListener,
    client: &TcpStream,
    deadline: Deadline,
) -> io::Result<BindWait> {
    if deadline.is_over() {
        return Ok(BindWait::TimedOut);
    }
    read_to_end(client);
    Ok(BindWait::ClientLeft)
}

/// No client of the models logs in.
pub(crate) fn client_stays_until(_: &TcpStream, deadline: Deadline) -> bool {
    deadline.is_over()
}

/// Waits until a client has connected, or the other end of the pipe is closed.
#[track_caller]
pub(crate) fn wait_for_clients<'a>(
    listeners: &'a [TcpListener],
    stop: &PipeReader,
) -> io::Result<ClientWait<'a>> {
    let is_ready = |fd: BorrowedFd<'_>| {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        Ok::<_, io::Error>(poll(&mut fds, PollTimeout::ZERO)? > 0)
    };
    steps::polls(Location::caller(), || {
        Awaited::Until("for a client to accept")
    });
    loop {
        if is_ready(stop.as_fd())? {
            return Ok(ClientWait::Stop);
        }
        let mut clients = Vec::new();
        for listener in listeners {
            if is_ready(listener.as_fd())? {
                clients.push(listener);
            }
        }
        if !clients.is_empty() {
            return Ok(ClientWait::Clients(clients));
        }
        poll_again();
    }
}

/// Two connected sockets. In a report they have the names of the variables that get them.
#[track_caller]
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let (one, other) = UnixStream::pair().unwrap();
    let tcp = |stream| TcpStream::from(OwnedFd::from(stream));
    let pair = (tcp(one), tcp(other));
    let place = Location::caller();
    for (socket, part) in [(&pair.0, 0), (&pair.1, 1)] {
        let inode = fstat(socket).unwrap().st_ino;
        steps::name_socket(inode, Origin::Variable(place, part));
    }
    pair
}

/// Is there EOF, an error, or something to read?
#[track_caller]
pub(crate) fn has_ended(stream: &TcpStream) -> bool {
    let has_ended =
        recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN);
    let what = match has_ended {
        true => "finds the end of",
        false => "finds no end of",
    };
    note(what, stream, Location::caller());
    has_ended
}
