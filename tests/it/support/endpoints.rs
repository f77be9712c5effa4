//! Endpoints of connections: origin servers, clients, and what tests do with their sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use threadsocks::client;
use threadsocks::protocol::socks4::Request;
use threadsocks::protocol::{Command, Destination, Host};

use crate::support::random::Rng;
use crate::support::wait::TIMEOUT;

/// An origin server that handles every connection in the same way.
pub(crate) struct Origin {
    address: SocketAddr,
}

impl Origin {
    /// Listens on 127.0.0.1. Each connection gets a thread that runs `serve`. The
    /// listener stays open until the test program exits.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Origin {
        Origin::start_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    /// As [`Origin::start`], on this address of the machine.
    pub(crate) fn start_at(
        ip: IpAddr,
        serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static,
    ) -> Origin {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                thread::spawn(move || serve(with_timeout(stream)));
            }
        });
        Origin { address }
    }

    /// Sends all bytes back, until EOF.
    pub(crate) fn echo() -> Origin {
        Origin::echo_at(Ipv4Addr::LOCALHOST.into())
    }

    /// As [`Origin::echo`], on this address of the machine.
    pub(crate) fn echo_at(ip: IpAddr) -> Origin {
        Origin::start_at(ip, |stream| {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                if (&stream).write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The destination of a request to this origin.
    pub(crate) fn destination(&self) -> Destination {
        by_address(self.address)
    }
}

/// A destination by address.
pub(crate) fn by_address(address: SocketAddr) -> Destination {
    Destination {
        host: Host::Address(address.ip()),
        port: address.port(),
    }
}

/// A destination by name.
pub(crate) fn by_name(name: &str, port: u16) -> Destination {
    let host = Host::from_name(name.as_bytes());
    Destination { host, port }
}

/// A port of loopback without a listener. The system never gives out port 1, so no
/// other test can receive it.
pub(crate) const CLOSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

/// The bytes of a SOCKS4 or SOCKS4a request.
pub(crate) fn request(command: Command, destination: &Destination, user: &[u8]) -> Vec<u8> {
    Request::new(command, destination, user).unwrap().encode()
}

/// Limits each read and write to [`TIMEOUT`], so that a test fails instead of
/// blocking for ever. Sets TCP_NODELAY.
pub(crate) fn with_timeout(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connects to this address.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    with_timeout(TcpStream::connect(address).expect("a connection"))
}

/// Connects from this local address; port 0: the system chooses the port.
pub(crate) fn dial_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
    with_timeout(TcpStream::from(socket))
}

/// Connects through the proxy with SOCKS4 CONNECT and the user ID `test`.
pub(crate) fn connect_through(proxy: SocketAddr, destination: &Destination) -> TcpStream {
    client::socks4::connect(dial(proxy), destination, b"test").expect("granted")
}

/// Accepts one connection.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    with_timeout(listener.accept().expect("a connection").0)
}

/// Opens a session and returns the sockets of both sides: client, remote.
pub(crate) fn relayed_pair(proxy: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = connect_through(proxy, &by_address(listener.local_addr().unwrap()));
    (client, accept(&listener))
}

/// Reads to EOF. Fails at an error, such as a reset.
pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("EOF");
    bytes
}

/// Reads to a reset and returns the bytes before it. Fails at EOF.
pub(crate) fn read_until_reset(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = stream
        .read_to_end(&mut bytes)
        .expect_err("a reset, not EOF");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    bytes
}

/// Reads exactly this many bytes.
pub(crate) fn read_exactly(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("that many bytes");
    bytes
}

/// Writes all bytes.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("written");
}

/// Half-closes the connection: sends FIN and can still read.
pub(crate) fn shutdown_write(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("half-closed");
}

/// Closes the connection with RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

/// Makes the close of the last descriptor of this socket send RST: SO_LINGER with a
/// timeout of zero.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &linger).expect("set");
}

/// Pseudo-random bytes, the same for the same seed.
pub(crate) fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    Rng::new(seed).bytes(count)
}

/// A listener whose accept queue is full. The system drops each further SYN, so a
/// connect waits as it does for a firewall that drops packets.
pub(crate) struct UnresponsiveListener {
    listener: TcpListener,
    /// The connections that fill the queue.
    _queued: Vec<TcpStream>,
}

impl UnresponsiveListener {
    /// On a free port of 127.0.0.1.
    pub(crate) fn new() -> UnresponsiveListener {
        UnresponsiveListener::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// At this address of the machine; port 0: the system chooses the port.
    pub(crate) fn at(address: SocketAddr) -> UnresponsiveListener {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let backlog = socket::Backlog::new(0).unwrap();
        socket::listen(&listener, backlog).unwrap();
        // Linux queues one connection more than the backlog. On a busy machine the first
        // connect may take long, so it has no timeout.
        let mut queued = vec![TcpStream::connect(address).unwrap()];
        // Other systems queue more. The first connect that times out proves that the queue
        // is full.
        let timeout = std::time::Duration::from_millis(200);
        while let Ok(stream) = TcpStream::connect_timeout(&address, timeout) {
            queued.push(stream);
        }
        UnresponsiveListener {
            listener,
            _queued: queued,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

/// Finds `count` consecutive free ports and returns the first, for a server that
/// cannot report which port it has bound. The ports are below Linux's default range
/// of local ports (32768 and up), so no socket of another test receives one of them.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test programs at the same time start at different ports. Relaxed: the
    // counter only has to give each call another number.
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    crate::support::wait::until("free ports", || {
        let first = start + NEXT.fetch_add(count, Ordering::Relaxed) % 2000;
        let mut ports = first..first + count;
        let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        ports.all(is_free).then_some(first)
    })
}
