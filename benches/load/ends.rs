//! Both ends of a connection through a contender; the load generator holds them both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::peers::Peer;

/// Whoever needs longer for anything has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection: the client's end, and the origin's.
pub(crate) struct Pair {
    pub(crate) near: TcpStream,
    pub(crate) far: TcpStream,
}

impl Pair {
    /// Opens one; nobody else may connect to this listener meanwhile.
    pub(crate) fn open(peer: &Peer, listener: &TcpListener) -> io::Result<Pair> {
        let near = peer.connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        prepare(&far)?;
        Ok(Pair { near, far })
    }

    /// One byte each way.
    pub(crate) fn exchange(&self) -> io::Result<()> {
        let mut byte = [0];
        (&self.near).write_all(b"?")?;
        (&self.far).read_exact(&mut byte)?;
        (&self.far).write_all(b"!")?;
        (&self.near).read_exact(&mut byte)
    }
}

/// Listens on loopback, and does not wait for ever for a connection.
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let patience = TimeVal::seconds(PATIENCE.as_secs().cast_signed());
    setsockopt(&listener, sockopt::ReceiveTimeout, &patience).expect("set");
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
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(stream, sockopt::Linger, &at_once)?)
}

/// A socket for datagrams on loopback, which waits for so long for each.
pub(crate) fn datagrams(patience: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}
