//! UDP ASSOCIATE: from which port of its address a client may send.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::endpoints::{by_address, by_name, dial};
use crate::support::proxy::Proxy;
use crate::support::udp_client::{
    LOCALHOST, UdpClient, address_of, close_and_read_log, origin, receive, socket_on,
    verbose_proxy, with_header,
};
use crate::support::wait::until_within;

/// How long the current port must be silent before another one takes over.
const TAKEOVER_SILENCE: Duration = Duration::from_secs(15);

/// Sends a datagram through the association and receives its answer.
fn exchange(client: &UdpClient, origin: &UdpSocket) {
    let outer_address = client.send_and_receive_at(origin, b"question");
    origin.send_to(b"answer", outer_address).unwrap();
    let answer = (by_address(address_of(origin)), b"answer".to_vec());
    assert_eq!(client.receive(), answer);
}

#[test]
fn u13_the_announced_address_is_a_hint() {
    let proxy = verbose_proxy();
    let origin = origin();
    for announced in [
        // The destination, as some clients announce it.
        address_of(&origin),
        // Another port of the client, which an address translator has replaced.
        (LOCALHOST, 9).into(),
        (Ipv4Addr::UNSPECIFIED, 9).into(),
        // The address within the client's own network.
        ([10, 1, 2, 3], 40_000).into(),
        ([0, 0, 0, 0, 0, 0, 0, 1], 9).into(),
        ([0_u16; 8], 0).into(),
    ] {
        let control = dial(proxy.address());
        let client = UdpClient::announcing(control, announced).expect("granted");
        exchange(&client, &origin);
        exchange(&client, &origin);
        // With `-v` the port is told, beside the one that was announced.
        let (connection, port) = (
            client.control.local_addr().unwrap(),
            client.socket.local_addr(),
        );
        let announced_port = match announced.port() {
            0 => "no port".to_owned(),
            port => format!("port {port}"),
        };
        let told = format!(
            "{connection} sends datagrams from port {}; it has announced {announced_port}",
            port.unwrap().port(),
        );
        proxy.stderr_line(&told);
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("dropped=0 "), "{announced}: {line}");
    }
    proxy.finish();
}

/// The client's address translator removes its mapping, and gives the client another port. Waits
/// for the real time, which no option changes.
#[test]
fn u14_another_port_takes_over_after_15_seconds_of_silence() {
    let proxy = verbose_proxy();
    let origin = origin();
    let mut client = UdpClient::new(&proxy);
    exchange(&client, &origin);
    let began = Instant::now();
    let old = std::mem::replace(&mut client.socket, socket_on(LOCALHOST));
    origin.set_nonblocking(true).unwrap();
    let datagram = with_header(&by_address(address_of(&origin)), b"new port");
    let mut buffer = [0; 100];
    let dropped = std::cell::Cell::new(0);
    until_within(2 * TAKEOVER_SILENCE, "the new port", || {
        client.send_raw(&datagram);
        std::thread::park_timeout(Duration::from_millis(100));
        dropped.set(dropped.get() + 1);
        origin.recv_from(&mut buffer).ok()
    });
    assert!(began.elapsed() >= TAKEOVER_SILENCE, "{:?}", began.elapsed());
    assert!(dropped.get() > 10);
    origin.set_nonblocking(false).unwrap();
    while receive_now(&origin) {}
    exchange(&client, &origin);
    let (old_port, new_port) = (address_of(&old).port(), address_of(&client.socket).port());
    proxy.stderr_line(&format!(
        "sends datagrams from port {new_port}; datagrams from port {old_port} are dropped from now on"
    ));
    // The old port has to wait as well.
    old.send_to(&datagram, client.relay).unwrap();
    client.send_and_receive_at(&origin, b"still the new port");
    close_and_read_log(&proxy, client);
    proxy.finish();
}

/// Takes a datagram that has arrived; false if there is none.
fn receive_now(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let taken = socket.recv_from(&mut [0; 100]).is_ok();
    socket.set_nonblocking(false).unwrap();
    taken
}

/// Another program or user with the client's address sends first.
#[test]
fn u15_the_announced_port_takes_over_at_once() {
    let proxy = verbose_proxy();
    let origin = origin();
    let socket = socket_on(LOCALHOST);
    let announced = address_of(&socket);
    for announced in [
        announced,
        SocketAddr::new([0, 0, 0, 0].into(), announced.port()),
    ] {
        let control = dial(proxy.address());
        let client = UdpClient::announcing(control, announced).expect("granted");
        let client = UdpClient {
            socket: socket.try_clone().unwrap(),
            ..client
        };
        let other = socket_on(LOCALHOST);
        let datagram = with_header(&by_address(address_of(&origin)), b"other");
        other.send_to(&datagram, client.relay).unwrap();
        let (_, outer_address) = receive(&origin);
        exchange(&client, &origin);
        // From then on the other port is dropped, and gets no answer.
        other.send_to(&datagram, client.relay).unwrap();
        exchange(&client, &origin);
        origin.send_to(b"late", outer_address).unwrap();
        assert_eq!(client.receive().1, b"late");
        assert!(!receive_now(&other));
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("dropped=1 "), "{line}");
    }
    // The port of another address is no hint: the port that was first is kept.
    let control = dial(proxy.address());
    let announced = SocketAddr::from(([10, 1, 2, 3], announced.port()));
    let client = UdpClient::announcing(control, announced).expect("granted");
    exchange(&client, &origin);
    let datagram = with_header(&by_address(address_of(&origin)), b"other");
    socket.send_to(&datagram, client.relay).unwrap();
    exchange(&client, &origin);
    close_and_read_log(&proxy, client);
    proxy.finish();
}

/// Another program at the client's address sends datagrams that are refused, before the client
/// sends its first one, and from the port that the client has announced.
#[test]
fn u03_a_refused_datagram_does_not_fix_the_port() {
    let origin = origin();
    let port = address_of(&origin).port();
    let proxy = Proxy::start(&format!("permit - - - - {port}\n"), &["-v"]);
    let stray = socket_on(LOCALHOST);
    let announced = address_of(&stray);
    let permitted = with_header(&by_address(address_of(&origin)), b"x");
    let fragment = [&[0, 0, 1], &permitted[3..]].concat();
    let refused = [
        b"no header".to_vec(),
        fragment,
        with_header(&by_address((LOCALHOST, 0).into()), b"x"),
        with_header(&by_address((LOCALHOST, 9).into()), b"x"),
        with_header(&by_address(([0, 0, 0, 0], port).into()), b"x"),
        with_header(&by_address(([224, 0, 0, 1], port).into()), b"x"),
        with_header(&by_name("denied.test", 9), b"x"),
        with_header(&by_name("noport.test", 0), b"x"),
    ];
    let control = dial(proxy.address());
    let client = UdpClient::announcing(control, announced).expect("granted");
    for _ in 0..2 {
        for datagram in &refused {
            stray.send_to(datagram, client.relay).unwrap();
        }
        exchange(&client, &origin);
    }
    let port = address_of(&client.socket).port();
    proxy.stderr_line(&format!(
        "sends datagrams from port {port}; it has announced"
    ));
    // A permitted datagram from the announced port takes over.
    stray.send_to(&permitted, client.relay).unwrap();
    receive(&origin);
    let taken_over = format!("datagrams from port {port} are dropped from now on");
    proxy.stderr_line(&taken_over);
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("denied=4 dropped=12 "), "{line}");
    assert_eq!(proxy.wait_for_stderr("sends datagrams from port", 2), 2);
    proxy.finish();
}
