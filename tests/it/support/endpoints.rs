//! Ends of connections: origins that answer, clients that ask.

use std::io::{Read, Write};
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

/// A listener on loopback that does the same with every connection.
pub(crate) struct Origin {
    address: SocketAddr,
}

impl Origin {
    /// Each connection gets a thread that does this.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Origin {
        Origin::start_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    /// The same at this address of the machine.
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

    /// Sends back what comes, to the end.
    pub(crate) fn echo() -> Origin {
        Origin::start(|stream| {
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

    /// As the client asks for it.
    pub(crate) fn destination(&self) -> Destination {
        by_address(self.address)
    }
}

/// A target by address.
pub(crate) fn by_address(address: SocketAddr) -> Destination {
    Destination {
        host: Host::Address(address.ip()),
        port: address.port(),
    }
}

/// A target by name.
pub(crate) fn by_name(name: &str, port: u16) -> Destination {
    let host = Host::from_name(name.as_bytes());
    Destination { host, port }
}

/// A port of loopback on which nobody listens, and nobody will: below those the
/// system gives out.
pub(crate) const CLOSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

/// The bytes of a SOCKS4 or SOCKS4a request.
pub(crate) fn request(command: Command, destination: &Destination, user: &[u8]) -> Vec<u8> {
    Request::new(command, destination, user).unwrap().encode()
}

/// No read or write of a test blocks for ever.
pub(crate) fn with_timeout(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A plain connection.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    with_timeout(TcpStream::connect(address).expect("a connection"))
}

/// Connects from this address of loopback.
pub(crate) fn dial_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let (inet, stream) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket::socket(inet, stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
    with_timeout(TcpStream::from(socket))
}

/// Connects through the proxy with SOCKS4 CONNECT and the user ID `test`.
pub(crate) fn connect_through(proxy: SocketAddr, destination: &Destination) -> TcpStream {
    client::socks4::connect(dial(proxy), destination, b"test").expect("granted")
}

/// A pair of connected sockets: what the listener accepted, and the other end.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    with_timeout(listener.accept().expect("a connection").0)
}

/// A connection through the proxy with both ends in the test's hands: the
/// client's, the remote's.
pub(crate) fn relayed_pair(proxy: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = connect_through(proxy, &by_address(listener.local_addr().unwrap()));
    (client, accept(&listener))
}

/// Everything until the end.
pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("EOF");
    bytes
}

/// Exactly this many bytes.
pub(crate) fn read_exactly(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("that many bytes");
    bytes
}

pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("written");
}

/// Ends our sending half.
pub(crate) fn shutdown_write(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("half-closed");
}

/// Breaks the connection instead of closing it.
pub(crate) fn reset(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

/// The last one to close this connection breaks it.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &linger).expect("set");
}

/// Bytes that do not repeat, the same for the same seed.
pub(crate) fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    Rng::new(seed).bytes(count)
}

/// A listener whose queue is full: whoever connects to it waits for ever, as
/// behind a firewall that drops packets.
pub(crate) struct UnresponsiveListener {
    listener: TcpListener,
    /// The connections that fill the queue.
    _queued: Vec<TcpStream>,
}

impl UnresponsiveListener {
    pub(crate) fn new() -> UnresponsiveListener {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let backlog = socket::Backlog::new(0).unwrap();
        socket::listen(&listener, backlog).unwrap();
        let mut queued = Vec::new();
        // Linux queues one connection more than the backlog. The first connect that
        // times out proves that the queue is full.
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

/// Ports next to each other that are free now, the first of them, for a server
/// that cannot say which one it has taken. Below those that the system gives
/// out, lest a client or listener of another test take one meanwhile.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    crate::support::wait::until("free ports", || {
        let first = start + NEXT.fetch_add(count, Ordering::Relaxed) % 2000;
        let mut ports = first..first + count;
        let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        ports.all(is_free).then_some(first)
    })
}
