//! Clients of a listed proxy (`--proxy-from`): the announced address counts for everything.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command as Program;

use nix::sys::signal::Signal;
use serde_json::Value;
use threadsocks::auth::users_file_line;
use threadsocks::client;
use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    CLOSED, Origin, accept, by_address, dial, dial_from, read_all, read_exactly, request, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, binary};
use crate::support::wait::{TIMEOUT, until};

/// The listed proxy.
const BALANCER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), 0);

/// What a client reads that is rejected without a session, or dropped.
const REJECTED: &[u8] = b"\x00\x5b\0\0\0\0\0\0";

fn server(rules: &str, options: &[&str]) -> Proxy {
    Proxy::start(rules, &[&["--proxy-from", "127.0.0.9"], options].concat())
}

/// A connection of the listed proxy that announces this client, on port 50000.
fn announce(proxy: &Proxy, client: &str) -> TcpStream {
    announce_over(dial_from(BALANCER, proxy.address()), client)
}

fn announce_over(connection: TcpStream, client: &str) -> TcpStream {
    let header = format!("PROXY TCP4 {client} 192.0.2.2 50000 1080\r\n");
    write(&connection, header.as_bytes());
    connection
}

/// Sends a CONNECT, and returns the first two bytes of the reply.
fn reply_code(client: &TcpStream, destination: &Destination, user: &[u8]) -> Vec<u8> {
    write(client, &request(Command::Connect, destination, user));
    read_exactly(client, 2)
}

/// Waits until stdout has an object of this event with this client, and returns it.
fn json(proxy: &Proxy, event: &str, client: &str) -> Value {
    proxy.stdout_line(&format!("{event} {client}"), |line| {
        let object: Value = serde_json::from_str(line).expect(line);
        (object["event"] == event && object["client"] == client).then_some(object)
    })
}

#[test]
fn x32_the_announced_client_is_judged_and_logged() {
    let rules = "deny - 203.0.113.66 - - -\npermit - 203.0.113. - - -\npermit - 127.0.0.1 - - -\n";
    let proxy = server(rules, &["-v"]);
    let origin = Origin::echo();
    for (client, code) in [
        ("203.0.113.9", 90),
        ("203.0.113.66", 91),
        ("127.0.0.9", 91),
        ("127.0.0.1", 90),
    ] {
        let connection = announce(&proxy, client);
        let reply = reply_code(&connection, &origin.destination(), b"");
        assert_eq!(reply, [0, code], "{client}");
        let address: SocketAddr = format!("{client}:50000").parse().unwrap();
        let summary = proxy.screen_message_for(address).summary();
        assert!(
            summary.ends_with(if code == 90 { "Accept" } else { "Reject" }),
            "{summary}"
        );
        drop(connection);
        proxy.stderr_line(&format!(" client={address} "));
    }
    // A mapped address is the IPv4 address; a client that is not listed announces nothing.
    let connection = dial_from(BALANCER, proxy.address());
    write(
        &connection,
        b"PROXY TCP6 ::ffff:203.0.113.66 ::1 50001 1080\r\n",
    );
    assert_eq!(reply_code(&connection, &origin.destination(), b""), [0, 91]);
    let direct = dial(proxy.address());
    assert_eq!(reply_code(&direct, &origin.destination(), b""), [0, 90]);
    drop((connection, direct));
    proxy.stderr_line(" client=203.0.113.66:50001 ");
    proxy.finish();
}

#[test]
fn x32_json_objects_have_the_client_and_the_proxy() {
    let proxy = server(PERMIT_ALL, &["--log", "json"]);
    let listening: Value = proxy.stdout_line("listening", |line| serde_json::from_str(line).ok());
    assert_eq!(listening["proxy_from"], 1);
    let origin = Origin::echo();
    let connection = announce(&proxy, "203.0.113.9");
    assert_eq!(reply_code(&connection, &origin.destination(), b""), [0, 90]);
    let own = connection.local_addr().unwrap();
    proxy.signal(Signal::SIGUSR1);
    for event in ["answered", "session", "closed"] {
        if event == "closed" {
            connection.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let object = json(&proxy, event, "203.0.113.9");
        assert_eq!(object["client_port"], 50000, "{object}");
        assert_eq!(object["via"], "127.0.0.9", "{object}");
        assert_eq!(object["via_port"], own.port(), "{object}");
    }
    // LOCAL: the proxy itself.
    let local = dial_from(BALANCER, proxy.address());
    write(&local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(reply_code(&local, &origin.destination(), b""), [0, 90]);
    let object = json(&proxy, "answered", "127.0.0.9");
    assert_eq!(object.get("via"), None);
    drop((connection, local));
    proxy.assert_resources_released();
    let mut proxy = proxy;
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

#[test]
fn x32_datagrams_come_from_the_announced_address() {
    let proxy = server(PERMIT_ALL, &[]);
    let remote = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    remote.set_read_timeout(Some(TIMEOUT)).unwrap();
    let connection = announce(&proxy, "127.0.0.5");
    write(&connection, b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0");
    let reply = read_exactly(&connection, 2 + 10);
    assert_eq!(reply[..4], [5, 0, 5, 0]);
    let to = (
        Ipv4Addr::LOCALHOST,
        u16::from_be_bytes([reply[10], reply[11]]),
    );
    let port = remote.local_addr().unwrap().port().to_be_bytes();
    let datagram = [&[0, 0, 0, 1, 127, 0, 0, 1][..], &port].concat();
    // First the proxy's own address, which is not the client's.
    for (host, data) in [(9, b"proxy "), (5, b"client")] {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).unwrap();
        socket.send_to(&[&datagram[..], data].concat(), to).unwrap();
    }
    let mut received = [0; 9];
    let count = remote.recv(&mut received).unwrap();
    assert_eq!(&received[..count], b"client");
    drop(connection);
    proxy.finish();
}

#[test]
fn x33_identd_is_not_asked_through_a_proxy_and_check_warns() {
    let rules = "permit c - - - - ident\n";
    let proxy = server(rules, &["-v"]);
    let destination = by_address(CLOSED.into());
    let connection = announce(&proxy, "127.0.0.1");
    assert_eq!(reply_code(&connection, &destination, b"me"), [0, 92]);
    proxy.stderr_line(
        "no usable reply from the client's identd: a client of a proxy cannot be asked",
    );
    let connection = announce(&proxy, "127.0.0.1");
    write(&connection, b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01\0\x01");
    assert_eq!(read_exactly(&connection, 4), [5, 0, 5, 2]);
    drop(connection);
    let check = |options: &[&str]| {
        let mut command: Program = binary();
        command.args(["--check", "--config"]).arg(proxy.config());
        let output = command.args(options).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let warning =
        "warning: line 1 has ident, but identd cannot be asked for the clients of a proxy";
    assert!(check(&["--proxy-from", "127.0.0.9"]).contains(warning));
    assert!(!check(&[]).contains(warning));
    proxy.stderr_line(warning);
    proxy.finish();
}

#[test]
fn x33_a_loop_is_found_by_the_announced_addresses_and_by_the_connection() {
    let proxy = Proxy::start(PERMIT_ALL, &["--proxy-from", "127.0.0.0/8", "-v"]);
    let connect = |header: &str, to| {
        let connection = dial(proxy.address());
        write(&connection, header.as_bytes());
        client::socks4::connect(connection, &by_address(to), b"").expect("granted")
    };
    const FIRST: &str = "PROXY TCP4 203.0.113.1 192.0.2.2 50000 1080\r\n";
    // The balancer is the destination, and announces where the server has connected from.
    let balancer = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let first = connect(FIRST, balancer.local_addr().unwrap());
    let outgoing = accept(&balancer);
    let (from, to) = (
        outgoing.peer_addr().unwrap(),
        outgoing.local_addr().unwrap(),
    );
    let second = dial(proxy.address());
    let (from_port, to_port) = (from.port(), to.port());
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from_port} {to_port}\r\n");
    write(&second, header.as_bytes());
    assert_eq!(
        reply_code(&second, &by_address(CLOSED.into()), b""),
        [0, 91]
    );
    proxy.stderr_line("this server itself has sent the request (a loop)");
    drop((first, outgoing, second));
    // The server is the destination, and the client wants to choose who it is. It would leave
    // after its request, so that nothing shows any more whose connection this is.
    let through = dial(proxy.address());
    write(&through, FIRST.as_bytes());
    assert_eq!(
        reply_code(&through, &by_address(proxy.address()), b""),
        [0, 91]
    );
    proxy.wait_for_stderr("this server itself has sent the request (a loop)", 2);
    drop(through);
    proxy.finish();
}

#[test]
fn x34_the_sessions_of_each_announced_client_are_limited() {
    let proxy = server(PERMIT_ALL, &["--max-per-client", "2"]);
    let origin = Origin::echo();
    let open = |client: &str| {
        let connection = announce(&proxy, client);
        assert_eq!(
            reply_code(&connection, &origin.destination(), b""),
            [0, 90],
            "{client}"
        );
        connection
    };
    // All of them come from one address.
    let held: Vec<_> = ["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"]
        .map(open)
        .into();
    let third = announce(&proxy, "203.0.113.1");
    assert_eq!(read_all(&third), REJECTED);
    proxy.stderr_line("203.0.113.1 has 2 sessions, the limit for one client");
    // Connections without a header count for no client.
    let waiting: Vec<_> = (0..5)
        .map(|_| dial_from(BALANCER, proxy.address()))
        .collect();
    let other = open("203.0.113.3");
    drop((held, third));
    until("a free slot", || {
        let connection = announce(&proxy, "203.0.113.1");
        let reply = reply_code(&connection, &origin.destination(), b"");
        (reply == [0, 90]).then_some(())
    });
    drop((waiting, other));
    proxy.finish();
}

#[test]
fn x34_a_flood_through_a_proxy_drops_the_client_with_the_most_connections() {
    let proxy = server(PERMIT_ALL, &["--max-sessions", "60"]);
    let origin = Origin::echo();
    // A few clients that are slow, and a listed proxy that has sent no header: none is dropped.
    let slow = ["203.0.113.1", "203.0.113.2"].map(|client| announce(&proxy, client));
    let waiting: Vec<_> = (0..10)
        .map(|_| dial_from(BALANCER, proxy.address()))
        .collect();
    let flood: Vec<_> = (0..48).map(|_| announce(&proxy, "203.0.113.66")).collect();
    // Half of the sessions are for clients without a request: 30, with the two slow ones.
    until("20 dropped clients", || {
        let rejected = |connection: &&TcpStream| {
            let mut first = [9];
            connection.set_nonblocking(true).unwrap();
            let _ = connection.peek(&mut first);
            connection.set_nonblocking(false).unwrap();
            first == [0]
        };
        (flood.iter().filter(rejected).count() >= 20).then_some(())
    });
    for connection in slow {
        assert_eq!(reply_code(&connection, &origin.destination(), b""), [0, 90]);
    }
    for connection in waiting {
        let connection = announce_over(connection, "203.0.113.3");
        assert_eq!(reply_code(&connection, &origin.destination(), b""), [0, 90]);
    }
    drop(flood);
    proxy.finish();
}

#[test]
fn x34_while_all_sessions_are_in_use_a_new_client_of_a_proxy_has_one() {
    let proxy = server(PERMIT_ALL, &["--max-sessions", "8"]);
    let origin = Origin::echo();
    let open = |number: u8| {
        let connection = announce(&proxy, &format!("203.0.113.{number}"));
        assert_eq!(reply_code(&connection, &origin.destination(), b""), [0, 90]);
        connection
    };
    let relays: Vec<_> = (1..=5).map(open).collect();
    let flood = [(); 3].map(|()| {
        let connection = announce(&proxy, "203.0.113.66");
        write(&connection, b"\x05\x01\0");
        assert_eq!(read_exactly(&connection, 2), [5, 0]);
        connection
    });
    for number in 6..=7 {
        drop(open(number));
    }
    drop((relays, flood));
    proxy.finish();
}

#[test]
fn x34_wrong_logins_delay_only_the_announced_client() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, users_file_line(b"alice", b"secret").unwrap()).unwrap();
    let users = file.to_str().unwrap();
    let proxy = server(PERMIT_ALL, &["--users", users, "--handshake-timeout", "1s"]);
    let log_in = |client: &str, password: &[u8]| {
        let connection = announce(&proxy, client);
        let (user, password) = (b"alice".to_vec(), password.to_vec());
        write(&connection, &[5, 1, 2]);
        write(&connection, &Credentials { user, password }.encode());
        let reply = read_exactly(&connection, 4);
        assert_eq!(reply[..3], [5, 2, 1]);
        (reply[3] == 0, connection.local_addr().unwrap().port())
    };
    // Six at once, then one every two seconds.
    until("a throttled login", || {
        let (accepted, port) = log_in("203.0.113.66", b"wrong");
        assert!(!accepted);
        let start = format!(
            "threadsocks: login failed from 203.0.113.66 port 50000 via 127.0.0.9 port {port} user \
             \"alice\": "
        );
        let cause = proxy.stderr_line(&start).split_off(start.len());
        (cause == "throttled").then_some(())
    });
    assert!(log_in("203.0.113.1", b"secret").0);
    proxy.finish();
}
