//! The client of a UDP association, and the hosts to which it sends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use threadsocks::protocol::socks5::{Greeting, MethodSelection, Reply, Request, UdpHeader};
use threadsocks::protocol::{Command, Destination};

use super::endpoints::{by_address, dial, write};
use super::proxy::{PERMIT_ALL, Proxy};
use super::wait::{TIMEOUT, until};

pub(crate) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A UDP socket on this address whose reads time out.
pub(crate) fn socket_on(ip: impl Into<IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind((ip.into(), 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

pub(crate) fn address_of(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// The next datagram and its source.
pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_535];
    let (count, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(count);
    (buffer, from)
}

/// Data after a SOCKS5 UDP header (RFC 1928, section 7).
pub(crate) fn with_header(target: &Destination, data: &[u8]) -> Vec<u8> {
    let header = UdpHeader {
        fragment: 0,
        destination: target.clone(),
    };
    [&header.encode()[..], data].concat()
}

/// The client of an association.
pub(crate) struct UdpClient {
    /// The TCP connection that the association depends on.
    pub(crate) control: TcpStream,
    pub(crate) socket: UdpSocket,
    /// Address of the inner UDP socket of the server, which faces the client.
    pub(crate) relay: SocketAddr,
}

/// Requests an association and announces the source address of the datagrams.
pub(crate) fn request_association(control: &TcpStream, announced: SocketAddr) -> Reply {
    let greeting = Greeting { methods: vec![0] };
    let request = Request {
        command: Command::Associate,
        destination: by_address(announced),
    };
    write(control, &[greeting.encode(), request.encode()].concat());
    let mut stream = std::io::BufReader::with_capacity(1, control);
    MethodSelection::read(&mut stream).expect("a method selection");
    Reply::read(&mut stream).expect("a reply")
}

/// Announces no source address: the first datagram determines the port.
pub(crate) fn unspecified() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

impl UdpClient {
    pub(crate) fn new(proxy: &Proxy) -> UdpClient {
        UdpClient::with_control(dial(proxy.address()))
    }

    pub(crate) fn with_control(control: TcpStream) -> UdpClient {
        UdpClient::try_new(control).expect("granted")
    }

    /// `None` if the server refuses the association.
    pub(crate) fn try_new(control: TcpStream) -> Option<UdpClient> {
        UdpClient::announcing(control, unspecified())
    }

    /// The same for a client that announces this source address.
    pub(crate) fn announcing(control: TcpStream, announced: SocketAddr) -> Option<UdpClient> {
        let reply = request_association(&control, announced);
        reply.outcome.ok()?;
        let ip = reply.bound.host.address().expect("an address");
        let socket = socket_on(control.local_addr().unwrap().ip());
        let relay = SocketAddr::new(ip, reply.bound.port);
        Some(UdpClient {
            control,
            socket,
            relay,
        })
    }

    pub(crate) fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.relay).unwrap();
    }

    pub(crate) fn send(&self, target: &Destination, data: &[u8]) {
        self.send_raw(&with_header(target, data));
    }

    pub(crate) fn receive(&self) -> (Destination, Vec<u8>) {
        let (datagram, from) = receive(&self.socket);
        assert_eq!(from, self.relay);
        let (header, data) = UdpHeader::split(&datagram).expect("a header");
        assert_eq!(header.fragment, 0);
        (header.destination, data.to_vec())
    }

    /// Sends `data`, requires that it is the next datagram at `origin`, and returns
    /// the outer address of the server. UDP on loopback keeps the order, so all
    /// earlier datagrams were dropped or have arrived.
    pub(crate) fn send_and_receive_at(&self, origin: &UdpSocket, data: &[u8]) -> SocketAddr {
        self.send(&by_address(address_of(origin)), data);
        let (received, from) = receive(origin);
        assert_eq!(received, data);
        from
    }

    /// Sends datagrams to a host that new rules permit, and older ones do not, until one
    /// arrives: from then on the association is judged by the new rules. Returns how many
    /// were denied before.
    pub(crate) fn send_until_permitted(&self, host: &UdpSocket) -> u32 {
        let target = by_address(address_of(host));
        let (mut sent, mut buffer) = (0_u32, [0; 4]);
        host.set_nonblocking(true).unwrap();
        let first = until("the new rules", || {
            sent += 1;
            self.send(&target, &sent.to_be_bytes());
            host.recv(&mut buffer).ok()?;
            Some(u32::from_be_bytes(buffer))
        });
        host.set_nonblocking(false).unwrap();
        // Those that were sent after it arrive as well.
        for number in first + 1..=sent {
            assert_eq!(receive(host).0, number.to_be_bytes());
        }
        first - 1
    }
}

/// A remote end on loopback.
pub(crate) fn origin() -> UdpSocket {
    socket_on(LOCALHOST)
}

/// Ends the association and returns its line on stderr.
pub(crate) fn close_and_read_log(proxy: &Proxy, client: UdpClient) -> String {
    let address = client.control.local_addr().unwrap();
    drop(client);
    proxy.stderr_line(&format!("client={address} "))
}

/// The server must close the socket of the association within a second.
pub(crate) fn assert_association_ends(proxy: &Proxy, relay: SocketAddr) {
    let began = Instant::now();
    until("the end of the association", || {
        (!proxy.takes_datagrams_on(relay.port())).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// A server that permits everything and logs each session.
pub(crate) fn verbose_proxy() -> Proxy {
    Proxy::start(PERMIT_ALL, &["-v"])
}
