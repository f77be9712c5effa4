//! The sockets of the load generator, which holds both ends of every connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Limit for each connect, accept, read and write. A contender that takes longer
/// has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Both ends of one relayed connection.
pub(crate) struct StreamPair {
    pub(crate) client: TcpStream,
    pub(crate) origin: TcpStream,
}

impl StreamPair {
    /// Sends one byte each way.
    pub(crate) fn exchange(&self) -> io::Result<()> {
        let mut byte = [0];
        (&self.client).write_all(b"?")?;
        (&self.origin).read_exact(&mut byte)?;
        (&self.origin).write_all(b"!")?;
        (&self.client).read_exact(&mut byte)
    }
}

/// A listener on a free port of loopback, whose accept times out (SO_RCVTIMEO).
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen on loopback");
    let timeout = TimeVal::seconds(TIMEOUT.as_secs().cast_signed());
    setsockopt(&listener, sockopt::ReceiveTimeout, &timeout).expect("set SO_RCVTIMEO");
    listener
}

/// Connects to this address, without a proxy.
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    Ok(stream)
}

/// Sets TCP_NODELAY, timeouts, and SO_LINGER with 0 seconds, by which close(2)
/// resets the connection. After a close with FIN each port would stay in TIME_WAIT
/// for a minute, and there are some 28,000 ephemeral ports.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let reset_on_close = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(stream, sockopt::Linger, &reset_on_close)?)
}

/// A UDP socket on a free port of loopback. `timeout` limits each receive.
pub(crate) fn datagram_socket(timeout: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}
