//! Both ends of a connection through a contender; the load generator holds them both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Whoever needs longer for anything has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection: the client's end, and the origin's.
pub(crate) struct StreamPair {
    pub(crate) client: TcpStream,
    pub(crate) origin: TcpStream,
}

impl StreamPair {
    /// One byte each way.
    pub(crate) fn exchange(&self) -> io::Result<()> {
        let mut byte = [0];
        (&self.client).write_all(b"?")?;
        (&self.origin).read_exact(&mut byte)?;
        (&self.origin).write_all(b"!")?;
        (&self.client).read_exact(&mut byte)
    }
}

/// Listens on loopback, and does not wait for ever for a connection.
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let timeout = TimeVal::seconds(TIMEOUT.as_secs().cast_signed());
    setsockopt(&listener, sockopt::ReceiveTimeout, &timeout).expect("set");
    listener
}

/// A plain connection.
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    Ok(stream)
}

/// Our ends send at once, do not wait for ever, and break the connection when
/// they close it: an orderly end keeps its port for a minute, and some tens of
/// thousands of those are all there are.
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

/// A socket for datagrams on loopback, which waits for so long for each.
pub(crate) fn datagram_socket(timeout: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}
