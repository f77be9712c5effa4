//! Real sockets that are polled: a thread that would block lets other threads run and looks again.

#[path = "resolve.rs"]
pub(crate) mod resolve;

use std::cell::{Cell, OnceCell};
use std::io::{self, BufRead, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFd;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::control::{any, one_in, pause, times_out};
pub(crate) use crate::real_net::{
    BindWait, ConnectError, Connection, DialError, PortRange, concerns_one_connection,
    dual_stack_udp, interleave, is_shortage, lengthen_backlog, listen, reset_on_close, send_fin,
    send_nonblocking, shorten_send_timeout, stop_listening,
};
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

/// Reads when there is something to read.
pub(crate) fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => poll_again(),
            result => return Ok(result?),
        }
    }
}

/// Writes when there is room.
pub(crate) fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    thread::yield_now();
    while !bytes.is_empty() {
        match send(stream.as_raw_fd(), bytes, flags) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EAGAIN) => poll_again(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads to EOF or an error.
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
}

impl<'a> PeekReader<'a> {
    pub(crate) fn new(stream: &'a TcpStream, deadline: Deadline) -> PeekReader<'a> {
        PeekReader {
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
            match recv(self.stream.as_raw_fd(), &mut self.seen, flags) {
                Ok(0) => break,
                Ok(count) => self.count = count,
                Err(Errno::EAGAIN) if self.deadline.is_over() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(Errno::EAGAIN) => poll_again(),
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

/// Connects, after a while, to a server that sends a word, waits for EOF, and then resets or
/// closes the connection.
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
    thread::spawn(move || {
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
    thread::spawn(move || {
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
        poll_again();
    }
    Ok(())
}

/// No peer ever connects.
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

pub(crate) fn wait_acceptable(_: &TcpListener) {
    thread::yield_now();
}

/// The listener of the models does not block: each "would block" is transient.
pub(crate) struct AcceptErrors;

impl AcceptErrors {
    pub(crate) fn new() -> AcceptErrors {
        AcceptErrors
    }

    pub(crate) fn is_transient(&mut self, error: &io::Error) -> bool {
        thread::yield_now();
        error.kind() == io::ErrorKind::WouldBlock
    }
}

/// Called for the listener, which must not block.
pub(crate) fn set_options<S: AsFd>(socket: &S) -> io::Result<()> {
    fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    crate::real_net::set_options(socket)
}

/// Two connected sockets.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let (one, other) = UnixStream::pair().unwrap();
    let tcp = |stream| TcpStream::from(OwnedFd::from(stream));
    (tcp(one), tcp(other))
}

/// Is there EOF, an error, or something to read?
pub(crate) fn has_ended(stream: &TcpStream) -> bool {
    recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN)
}
