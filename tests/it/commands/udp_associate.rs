//! UDP ASSOCIATE: which datagrams are relayed, and what ends an association.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
};
use threadsocks::client;
use threadsocks::protocol::socks5::{MethodSelection, Reply, Request};
use threadsocks::protocol::{Command, Host, ReplyError};

use crate::support::dns_server::{DnsAnswer, NameServer, addresses};
use crate::support::endpoints::{
    Origin, by_address, by_name, dial, dial_from, free_ports, read_all, read_exactly,
    read_until_reset, reset, shutdown_write, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup};
use crate::support::udp_client::{
    LOCALHOST, UdpClient, address_of, assert_association_ends, close_and_read_log, origin, receive,
    request_association, socket_on, unspecified, verbose_proxy, with_header,
};
use crate::support::wait::{TIMEOUT, until};

#[test]
fn datagrams_are_relayed_both_ways_by_address_and_name() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let origin = origin();
    let port = address_of(&origin).port();
    for target in [by_address(address_of(&origin)), by_name("localhost", port)] {
        client.send(&target, b"there");
        let (data, from) = receive(&origin);
        assert_eq!(data, b"there");
        origin.send_to(b"back", from).unwrap();
        assert_eq!(
            client.receive(),
            (by_address(address_of(&origin)), b"back".to_vec())
        );
    }
    let message = proxy.screen_message_for(client.control.local_addr().unwrap());
    assert_eq!(message.summary(), "0.0.0.0:0 UDP ASSOCIATE Accept");
    // The server discards data on the TCP connection.
    write(&client.control, &[5; 100_000]);
    client.send_and_receive_at(&origin, b"still there");
    let line = close_and_read_log(&proxy, client);
    assert!(
        line.contains("command=UDP ASSOCIATE target=0.0.0.0:0"),
        "{line}"
    );
    // Datagrams by name count as with the ten-byte header of an IPv4 address.
    let up = (10 + 5) + (10 + 5) + (10 + 11);
    assert!(
        line.contains(&format!("up={up} down=28 denied=0 dropped=0 ")),
        "{line}"
    );
    proxy.finish();
}

#[test]
fn u01_only_the_client_address_may_send() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let origin = origin();
    let unexpected_peer = socket_on([127, 0, 0, 2]);
    let forged = with_header(&by_address(address_of(&origin)), b"forged");
    // Before the first datagram of the client.
    unexpected_peer.send_to(&forged, client.relay).unwrap();
    let outer_address = client.send_and_receive_at(&origin, b"first");
    // After the first datagram of the client.
    unexpected_peer.send_to(&forged, client.relay).unwrap();
    client.send_and_receive_at(&origin, b"second");
    origin.send_to(b"back", outer_address).unwrap();
    assert_eq!(client.receive().1, b"back");
    close_and_read_log(&proxy, client);
    proxy.finish();
}

/// Datagrams come from another address than the client's connection: `-v` reports the first one.
#[test]
fn u01_datagrams_from_another_address_are_reported_once() {
    let proxy = verbose_proxy();
    let (client, origin) = (UdpClient::new(&proxy), origin());
    let sockets = [2, 3].map(|last| socket_on([127, 0, 0, last]));
    // A datagram without a header is not reported: it is not meant for the association.
    sockets[1].send_to(b"stray", client.relay).unwrap();
    let datagram = with_header(&by_address(address_of(&origin)), b"x");
    for _ in 0..50 {
        for socket in &sockets {
            socket.send_to(&datagram, client.relay).unwrap();
        }
    }
    client.send_and_receive_at(&origin, b"from the client");
    let connection = client.control.local_addr().unwrap();
    let from = address_of(&sockets[0]);
    proxy.stderr_line(&format!(
        "{connection} may send datagrams only from its address; those from {from} and other \
         addresses are dropped"
    ));
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("dropped=101 "), "{line}");
    assert_eq!(proxy.wait_for_stderr("only from its address", 1), 1);
    proxy.finish();
}

#[test]
fn u02_the_udp_socket_is_bound_to_the_address_the_client_reached() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind", "0.0.0.0"]);
    for ip in [[127, 0, 0, 1], [127, 0, 0, 5]].map(Ipv4Addr::from) {
        let client = UdpClient::with_control(dial((ip, proxy.port()).into()));
        assert_eq!(client.relay.ip(), ip);
        // The server binds this address only: the port is free on other addresses.
        let other_address = SocketAddr::from(([127, 0, 0, 6], client.relay.port()));
        UdpSocket::bind(other_address).expect("a free port");
        UdpSocket::bind(client.relay).expect_err("the port of the association");
    }
    proxy.finish();
    let proxy = Proxy::start(PERMIT_ALL, &["--advertise", "192.0.2.1"]);
    let client = UdpClient::new(&proxy);
    assert_eq!(client.relay.ip(), Ipv4Addr::new(192, 0, 2, 1));
    drop(client);
    proxy.finish();
    let port = free_ports(1);
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-ports", &format!("{port}-{port}")]);
    let client = UdpClient::new(&proxy);
    assert_eq!(client.relay.port(), port);
    let other = request_association(&dial(proxy.address()), unspecified());
    assert_eq!(other.outcome, Err(ReplyError::Rejected));
    drop(client);
    proxy.finish();
}

#[test]
fn u03_the_first_datagram_fixes_the_client_port() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let origin = origin();
    client.send_and_receive_at(&origin, b"first");
    let other = socket_on(LOCALHOST);
    let forged = with_header(&by_address(address_of(&origin)), b"forged");
    other.send_to(&forged, client.relay).unwrap();
    client.send_and_receive_at(&origin, b"second");
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("dropped=1 "), "{line}");
    proxy.finish();
}

#[test]
fn u04_the_rules_judge_every_datagram() {
    let (permitted, denied) = (origin(), origin());
    let port = address_of(&permitted).port();
    let rules = format!("permit u - - 127.0.0.0/8 {port}\npermit u localhost\n");
    let proxy = Proxy::start(&rules, &["-v"]);
    let client = UdpClient::new(&proxy);
    client.send(&by_address(address_of(&denied)), b"no");
    client.send_and_receive_at(&permitted, b"yes");
    // The second rule permits the other port by name.
    client.send(
        &by_name("localhost", address_of(&denied).port()),
        b"by name",
    );
    assert_eq!(receive(&denied).0, b"by name");
    // Changed rules apply to a running association.
    proxy.wait_for_rules_mtime();
    std::fs::write(proxy.config(), "permit u - - 127.0.0.2 -\n").unwrap();
    let other_address = socket_on([127, 0, 0, 2]);
    let denied_before = client.send_until_permitted(&other_address);
    client.send(&by_address(address_of(&permitted)), b"no");
    client.send(&by_name("localhost", port), b"no");
    client.send_and_receive_at(&other_address, b"yes");
    let line = close_and_read_log(&proxy, client);
    let counts = format!("denied={} dropped=0 ", denied_before + 3);
    assert!(line.contains(&counts), "{counts}: {line}");
    proxy.finish();
    // Rules with names only still permit an association: some datagrams may match.
    let proxy = Proxy::start("permit u localhost\n", &[]);
    let name_client = UdpClient::new(&proxy);
    name_client.send(&by_address(address_of(&permitted)), b"no");
    name_client.send(&by_name("localhost", port), b"by name");
    assert_eq!(receive(&permitted).0, b"by name");
    drop(name_client);
    proxy.finish();
    // Without any rule for UDP, no datagram could match: no association.
    let proxy = Proxy::start("permit cb - - - -\n", &[]);
    let refused = request_association(&dial(proxy.address()), unspecified());
    assert_eq!(refused.outcome, Err(ReplyError::NotAllowed));
    proxy.finish();
}

/// The address in the request is that of the client (RFC 1928, section 4), not a
/// destination, so no rule about destinations applies to it.
#[test]
fn u04_the_rules_ignore_the_name_in_the_request() {
    for options in [&[][..], &["--enforce"]] {
        let proxy = Proxy::start("deny u evil.test\npermit u localhost\n", options);
        for name in ["evil.test", "localhost"] {
            let control = dial(proxy.address());
            let request = Request {
                command: Command::Associate,
                destination: by_name(name, 0),
            };
            write(&control, &[vec![5, 1, 0], request.encode()].concat());
            let mut stream = std::io::BufReader::with_capacity(1, &control);
            MethodSelection::read(&mut stream).expect("a method selection");
            let reply = Reply::read(&mut stream).expect("a reply");
            assert_eq!(reply.outcome, Ok(()), "{name} {options:?}");
        }
        proxy.finish();
    }
}

/// An answer passes only while a datagram to its source would be permitted.
#[test]
fn u04_the_rules_judge_every_answer() {
    let (first, second) = (origin(), origin());
    let probe = socket_on([127, 0, 0, 2]);
    let proxy = Proxy::start("deny u - - 127.0.0.2 -\npermit - -\n", &["-v"]);
    let client = UdpClient::new(&proxy);
    let outer_address = client.send_and_receive_at(&first, b"hello");
    client.send_and_receive_at(&second, b"hello");
    proxy.wait_for_rules_mtime();
    let port = address_of(&second).port();
    let rules = format!("permit u - - 127.0.0.1 {port}\npermit u - - 127.0.0.2 -\n");
    std::fs::write(proxy.config(), rules).unwrap();
    client.send_until_permitted(&probe);
    first.send_to(b"denied", outer_address).unwrap();
    second.send_to(b"permitted", outer_address).unwrap();
    assert_eq!(client.receive().1, b"permitted");
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("dropped=1 "), "{line}");
    proxy.finish();
}

#[test]
fn u05_malformed_datagrams_are_dropped() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let origin = origin();
    let valid = with_header(&by_address(address_of(&origin)), b"x");
    let mut malformed: Vec<Vec<u8>> = (0..10).map(|length| valid[..length].to_vec()).collect();
    // Invalid values of RSV, FRAG (no reassembly) and ATYP.
    for (position, byte) in [
        (0, 1),
        (1, 1),
        (2, 1),
        (2, 0x80),
        (3, 0),
        (3, 2),
        (3, 5),
        (3, 255),
    ] {
        let mut datagram = valid.clone();
        datagram[position] = byte;
        malformed.push(datagram);
    }
    // Names: longer than the datagram, empty, with a zero byte, and an address in
    // a form that only the C library accepts.
    for name in [&b"\xffshort"[..], b"\x00", b"\x03a\x00b", b"\x05127.1"] {
        malformed.push([&[0, 0, 0, 3], name, &[0, 80], b"x"].concat());
    }
    malformed.push([0; 65_507].to_vec());
    malformed.push([0xFF; 65_507].to_vec());
    for datagram in &malformed {
        client.send_raw(datagram);
        client.send_and_receive_at(&origin, b"still relayed");
    }
    let line = close_and_read_log(&proxy, client);
    assert!(
        line.contains(&format!("denied=0 dropped={} ", malformed.len())),
        "{line}"
    );
    proxy.finish();
}

#[test]
fn u06_the_association_ends_with_its_tcp_connection() {
    let proxy = verbose_proxy();
    let origin = origin();
    let half_close = |control| {
        shutdown_write(&control);
        Some(control)
    };
    let reset_connection = |control| {
        reset(control);
        None
    };
    for end in [
        half_close,
        reset_connection as fn(TcpStream) -> Option<TcpStream>,
    ] {
        let client = UdpClient::new(&proxy);
        client.send_and_receive_at(&origin, b"still relayed");
        let control = end(client.control);
        assert_association_ends(&proxy, client.relay);
        drop(control);
    }
    proxy.finish();
}

/// The server must read the FIN although datagrams of this client keep arriving.
#[test]
fn u06_a_flood_does_not_delay_the_end_of_the_association() {
    let proxy = verbose_proxy();
    let origin = origin();
    let client = UdpClient::new(&proxy);
    client.send_and_receive_at(&origin, b"still relayed");
    let datagram = with_header(&by_address(address_of(&origin)), &[0; 100]);
    let (socket, relay) = (client.socket.try_clone().unwrap(), client.relay);
    let flood = thread::spawn(move || {
        // On a connected socket, ICMP port unreachable makes send(2) fail once the
        // server has closed its socket.
        socket.connect(relay).unwrap();
        while socket.send(&datagram).is_ok() {}
    });
    shutdown_write(&client.control);
    assert_association_ends(&proxy, relay);
    flood.join().unwrap();
    drop(client);
    proxy.finish();
}

#[test]
fn u07_only_contacted_hosts_may_answer() {
    let (first, second, third) = (origin(), origin(), socket_on([127, 0, 0, 3]));
    let port = address_of(&second).port();
    let rules = format!(
        "permit u - - 127.0.0.1 {}\npermit u - - 127.0.0.1 {port}\n",
        address_of(&first).port()
    );
    let proxy = Proxy::start(&rules, &["-v"]);
    let client = UdpClient::new(&proxy);
    let outer_address = client.send_and_receive_at(&first, b"hello");
    // A host that the client never sent to.
    third.send_to(b"unknown host", outer_address).unwrap();
    // Another port of a contacted host, denied by the rules.
    origin().send_to(b"denied", outer_address).unwrap();
    // Another port of a contacted host, permitted by the rules.
    second.send_to(b"as TFTP does", outer_address).unwrap();
    assert_eq!(
        client.receive(),
        (by_address(address_of(&second)), b"as TFTP does".to_vec())
    );
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("dropped=2 "), "{line}");
    proxy.finish();
}

#[test]
fn u07_datagrams_to_multicast_unusable_and_own_addresses_are_dropped() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let other = UdpClient::new(&proxy);
    let origin = origin();
    let unusable = [
        "255.255.255.255:9",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "0.0.0.0:9",
        "[::]:9",
        "127.0.0.1:0",
        "240.0.0.1:9",
        "[2002:7f00:1::]:9",
        "[64:ff9b:1::7f00:1]:9",
    ];
    for address in unusable {
        client.send(&by_address(address.parse().unwrap()), b"x");
    }
    let forged = with_header(&by_address(address_of(&origin)), b"around");
    client.send(&by_address(client.relay), &forged);
    client.send(&by_address(other.relay), &forged);
    client.send_and_receive_at(&origin, b"still relayed");
    let line = close_and_read_log(&proxy, client);
    let count = unusable.len() + 2;
    assert!(
        line.contains(&format!("denied=0 dropped={count} ")),
        "{line}"
    );
    drop(other);
    proxy.finish();
}

#[test]
fn u07_the_idle_timeout_ends_the_association() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v", "--udp-timeout", "1s"]);
    let client = UdpClient::new(&proxy);
    let origin = origin();
    // Empty datagrams restart the idle timeout as well, in both directions.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let outer_address = client.send_and_receive_at(&origin, b"");
        origin.send_to(b"", outer_address).unwrap();
        client.receive();
    }
    assert_eq!(read_until_reset(&client.control), b"");
    assert_association_ends(&proxy, client.relay);
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("ending=\"idle for too long\""), "{line}");
    proxy.finish();
}

#[test]
fn u08_each_source_address_is_reported_in_its_own_family() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    for origin in [socket_on(LOCALHOST), socket_on(Ipv6Addr::LOCALHOST)] {
        let outer_address = client.send_and_receive_at(&origin, b"there");
        origin.send_to(b"back", outer_address).unwrap();
        assert_eq!(client.receive().0, by_address(address_of(&origin)));
    }
    // An IPv4-mapped IPv6 address is reported as IPv4.
    let origin = origin();
    let mapped = LOCALHOST.to_ipv6_mapped().into();
    let mapped = SocketAddr::new(mapped, address_of(&origin).port());
    client.send(&by_address(mapped), b"there");
    origin.send_to(b"back", receive(&origin).1).unwrap();
    assert_eq!(client.receive().0, by_address(address_of(&origin)));
    drop(client);
    proxy.finish();
    // The inner UDP socket has the address family of the TCP connection, here IPv6.
    let proxy = Proxy::start(PERMIT_ALL, &["--bind", "::", "--advertise", "192.0.2.1"]);
    let client = UdpClient::with_control(dial((Ipv6Addr::LOCALHOST, proxy.port()).into()));
    assert_eq!(client.relay.ip(), Ipv6Addr::LOCALHOST);
    let outer_address = client.send_and_receive_at(&origin, b"there");
    origin.send_to(b"back", outer_address).unwrap();
    assert_eq!(client.receive().0, by_address(address_of(&origin)));
    drop(client);
    // An IPv4 client of the same dual-stack listener gets an IPv4 socket.
    let control = dial((LOCALHOST, proxy.port()).into());
    let reply = request_association(&control, unspecified());
    assert_eq!(
        reply.bound.host,
        Host::Address(Ipv4Addr::new(192, 0, 2, 1).into())
    );
    drop(control);
    proxy.finish();
}

#[test]
fn u09_icmp_errors_and_long_datagrams_do_not_end_the_association() {
    let proxy = verbose_proxy();
    let client = UdpClient::new(&proxy);
    let origin = origin();
    // A closed port: ICMP makes a later call on the outer socket fail.
    client.send(&by_address((LOCALHOST, 1).into()), b"x");
    let outer_address = client.send_and_receive_at(&origin, b"");
    origin.send_to(b"", outer_address).unwrap();
    assert_eq!(client.receive().1, b"");
    // The longest UDP payload over IPv4 is 65,507 bytes, here with the header.
    let longest = vec![7; 65_507 - 10];
    client.send_and_receive_at(&origin, &longest);
    origin.send_to(&longest, outer_address).unwrap();
    assert_eq!(client.receive().1, longest);
    // Too long once the header of the answer is added: dropped.
    origin.send_to(&[7; 65_507], outer_address).unwrap();
    origin.send_to(b"still relayed", outer_address).unwrap();
    assert_eq!(client.receive().1, b"still relayed");
    // The socket of the client is closed for a moment: ICMP errors at the server.
    let UdpClient {
        control,
        socket,
        relay,
    } = client;
    let client_address = address_of(&socket);
    drop(socket);
    for _ in 0..3 {
        origin.send_to(b"lost", outer_address).unwrap();
    }
    let socket = until("the former port of the client", || {
        UdpSocket::bind(client_address).ok()
    });
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let client = UdpClient {
        control,
        socket,
        relay,
    };
    client.send_and_receive_at(&origin, b"again");
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("denied=0 dropped="), "{line}");
    proxy.finish();
}

#[test]
fn u10_a_pending_lookup_delays_no_other_datagram() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            "none.test" => addresses(&[]),
            _ => DnsAnswer::Silence,
        });
        let mut proxy = verbose_proxy();
        let client = UdpClient::new(&proxy);
        let origin = origin();
        let port = address_of(&origin).port();
        // Pending lookups, with two datagrams each. An association has four lookup slots, so
        // one remains.
        for number in 0..3 {
            client.send(&by_name(&format!("hangs{number}.test"), port), b"lost");
            client.send(&by_name(&format!("hangs{number}.test"), port), b"lost");
        }
        client.send_and_receive_at(&origin, b"by address");
        // Datagrams that wait for the same name share one lookup.
        for number in 0..10 {
            client.send(&by_name("good.test", port), &[number]);
        }
        for number in 0..10 {
            assert_eq!(receive(&origin).0, [number]);
        }
        assert_eq!(names.query_count("good.test", false), 1);
        // Datagrams are dropped if the name is not found, and wait if no lookup slot is free.
        until("the DNS query", || {
            client.send(&by_name("none.test", port), b"lost");
            (names.query_count("none.test", false) > 0).then_some(())
        });
        client.send(&by_name("hangs4.test", port), b"lost");
        client.send(&by_name("hangs5.test", port), b"lost");
        client.send_and_receive_at(&origin, b"still relayed");
        let other = UdpClient::new(&proxy);
        other.send(&by_name("good.test", port), b"another client's");
        assert_eq!(receive(&origin).0, b"another client's");
        // The association ends at once although lookups are pending.
        let relay = client.relay;
        drop(client);
        assert_association_ends(&proxy, relay);
        // The server stops at once although lookups are pending.
        drop(other);
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}

#[test]
fn u11_a_quarter_of_the_sessions_may_be_associations() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "40"]);
    let mut clients: Vec<UdpClient> = (0..10).map(|_| UdpClient::new(&proxy)).collect();
    let one_more = dial(proxy.address());
    assert_eq!(
        request_association(&one_more, unspecified()).outcome,
        Err(ReplyError::Rejected)
    );
    proxy.stderr_line("all 10 UDP associations are in use");
    drop(one_more);
    // The end of an association frees its slot.
    let relay = clients.remove(3).relay;
    assert_association_ends(&proxy, relay);
    until("a free slot", || {
        let again = dial(proxy.address());
        request_association(&again, unspecified()).outcome.ok()
    });
    drop(clients);
    proxy.finish();
}

#[test]
fn u11_the_limit_per_client_applies_to_associations() {
    let options = ["--max-per-client", "3"];
    let proxy = Proxy::start(PERMIT_ALL, &options);
    let clients: Vec<UdpClient> = (0..3).map(|_| UdpClient::new(&proxy)).collect();
    let one_more = dial(proxy.address());
    read_all(&one_more);
    proxy.stderr_line("127.0.0.1 has 3 sessions, the limit for one client");
    let other_client = dial_from(([127, 0, 0, 2], 0).into(), proxy.address());
    let other_client = UdpClient::with_control(other_client);
    other_client.send_and_receive_at(&origin(), b"relayed");
    drop((clients, one_more, other_client));
    proxy.finish();
}

#[test]
fn u11_a_thousand_associations_are_released() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "4000"]);
    let origin = origin();
    let clients: Vec<UdpClient> = (0..1000).map(|_| UdpClient::new(&proxy)).collect();
    for client in &clients {
        let outer_address = client.send_and_receive_at(&origin, b"there");
        origin.send_to(b"back", outer_address).unwrap();
        assert_eq!(client.receive().1, b"back");
    }
    assert!(proxy.resources().descriptors < 3 * 1000 + 100);
    drop(clients);
    proxy.finish();
}

#[test]
fn u12_termination_wakes_up_the_threads_that_wait_for_datagrams() {
    // Changed rules terminate the association.
    let proxy = Proxy::start(PERMIT_ALL, &["-v", "--enforce"]);
    let client = UdpClient::new(&proxy);
    std::fs::write(proxy.config(), "permit cb - - - -\n").unwrap();
    // No bytes: a second reply is not part of the protocol.
    assert_eq!(read_until_reset(&client.control), b"");
    assert_association_ends(&proxy, client.relay);
    let line = close_and_read_log(&proxy, client);
    assert!(
        line.contains("ending=\"no longer permitted: no rule"),
        "{line}"
    );
    proxy.finish();
    // The end of the grace period terminates the association.
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "100ms"]);
    let client = UdpClient::new(&proxy);
    client.send_and_receive_at(&origin(), b"still relayed");
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert_eq!(read_until_reset(&client.control), b"");
}

#[test]
fn r28_a_killed_process_resets_the_connection_of_an_association() {
    for has_relayed in [false, true] {
        let mut proxy = Proxy::open();
        let client = UdpClient::new(&proxy);
        if has_relayed {
            client.send_and_receive_at(&origin(), b"a datagram");
        }
        proxy.signal(Signal::SIGKILL);
        proxy.wait();
        assert_eq!(read_until_reset(&client.control), b"");
    }
}

/// A client that ends the association is answered with EOF, whatever it sent before.
#[test]
fn r28_an_association_that_its_client_ends_is_not_reset() {
    let proxy = Proxy::open();
    for bytes in [&b""[..], b"not part of the protocol"] {
        let client = UdpClient::new(&proxy);
        client.send_and_receive_at(&origin(), b"a datagram");
        write(&client.control, bytes);
        shutdown_write(&client.control);
        assert_eq!(read_all(&client.control), b"");
    }
    proxy.finish();
}

/// A link-local address is valid only with its zone (the interface index), which
/// the server must keep for the UDP socket.
#[test]
fn u02_a_client_may_connect_from_a_link_local_address() {
    in_own_network(|network| {
        let _peer_host = network.second_host();
        let index = nix::net::if_::if_nametoindex("here").unwrap();
        network.ip("addr add fe80::1/64 dev here nodad");
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", "::"]);
        let server_address = SocketAddrV6::new("fe80::1".parse().unwrap(), proxy.port(), 0, index);
        let control = dial(server_address.into());
        let reply = request_association(&control, unspecified());
        assert_eq!(reply.outcome, Ok(()));
        let mut client_address = control.local_addr().unwrap();
        client_address.set_port(0);
        let socket = UdpSocket::bind(client_address).unwrap();
        let mut relay = server_address;
        relay.set_port(reply.bound.port);
        let origin = origin();
        let datagram = with_header(&by_address(address_of(&origin)), b"there");
        socket.send_to(&datagram, relay).unwrap();
        let (data, outer_address) = receive(&origin);
        assert_eq!(data, b"there");
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        origin.send_to(b"back", outer_address).unwrap();
        assert!(receive(&socket).0.ends_with(b"back"));
        drop(control);
        proxy.finish();
    });
}

/// An association releases its slot and its port once, with its socket, even while
/// one of its lookups is pending.
#[test]
fn u11_a_pending_lookup_occupies_no_association_slot() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|_| DnsAnswer::Silence);
        let port = free_ports(1);
        let mut proxy = Proxy::start(
            PERMIT_ALL,
            &[
                "--max-sessions",
                "8",
                "--bind-ports",
                &format!("{port}-{port}"),
            ],
        );
        for round in 1..=3 {
            let client = until("the only port to be free", || {
                let control = dial(proxy.address());
                let reply = request_association(&control, unspecified());
                reply.outcome.ok().map(|()| control)
            });
            let socket = socket_on(LOCALHOST);
            let datagram = with_header(&by_name(&format!("hangs{round}.test"), 9), b"x");
            socket.send_to(&datagram, (LOCALHOST, port)).unwrap();
            until("the DNS query", || {
                let queries = names.query_count(&format!("hangs{round}.test"), false);
                (queries > 0).then_some(())
            });
            drop(client);
            assert_association_ends(&proxy, (LOCALHOST, port).into());
        }
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}

/// All associations of one source address share a quarter of at most 256 lookup slots.
#[test]
fn u10_lookups_of_one_client_leave_slots_for_others() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Silence,
        });
        let mut proxy = verbose_proxy();
        let origin = origin();
        let lookup_clients: Vec<UdpClient> = (0..20).map(|_| UdpClient::new(&proxy)).collect();
        for (number, client) in lookup_clients.iter().enumerate() {
            for name in 0..4 {
                client.send(&by_name(&format!("hangs{number}-{name}.test"), 9), b"x");
            }
            client.send_and_receive_at(&origin, b"still relayed");
        }
        let is_v4 = |query: &&crate::support::dns_server::DnsQuery| !query.v6;
        assert!(names.queries().iter().filter(is_v4).count() <= 64);
        let other_client = dial_from(([127, 0, 0, 2], 0).into(), proxy.address());
        let other_client = UdpClient::with_control(other_client);
        let port = address_of(&origin).port();
        other_client.send(&by_name("good.test", port), b"another client's");
        assert_eq!(receive(&origin).0, b"another client's");
        drop((lookup_clients, other_client));
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}

#[test]
fn u07_answers_from_port_zero_are_dropped() {
    in_own_network(|_| {
        let proxy = verbose_proxy();
        let client = UdpClient::new(&proxy);
        let origin = origin();
        let outer_address = client.send_and_receive_at(&origin, b"hello");
        // UDP header (RFC 768): source port 0, destination port, length 9, checksum 0
        // (none). Only a raw socket can send from port 0.
        let to = outer_address.port().to_be_bytes();
        let datagram = [0, 0, to[0], to[1], 0, 9, 0, 0, b'x'];
        let raw = socket::socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Udp,
        );
        let raw = raw.expect("a raw socket (needs root)");
        let to = SockaddrIn::from(SocketAddrV4::new(LOCALHOST, 0));
        socket::sendto(raw.as_raw_fd(), &datagram, &to, MsgFlags::empty()).expect("sent");
        origin.send_to(b"still relayed", outer_address).unwrap();
        assert_eq!(client.receive().1, b"still relayed");
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("dropped=1 "), "{line}");
        proxy.finish();
    });
}

/// The session limit accounts for memory: associations, pending lookups and lists
/// of contacted hosts at their maximum must fit in RLIMIT_DATA, and in RLIMIT_AS.
#[test]
fn s04_little_memory_is_enough_for_all_associations() {
    for (limit, resource) in [
        ("ulimit -d 74000", "bytes of data"),
        ("ulimit -v 80000", "bytes of address space"),
    ] {
        fill_all_associations(limit, resource);
    }
}

fn fill_all_associations(limit: &str, resource: &str) {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let _names = NameServer::start(|_| DnsAnswer::Silence);
        // `ulimit` counts in KiB.
        let script = format!("{limit}; exec \"$0\" \"$@\"");
        let mut proxy = Proxy::with(Setup {
            wrapper: &["sh", "-c", &script],
            ..Setup::default()
        });
        proxy.stderr_line(resource);
        let origin = origin();
        // Each from another address, so that only the limits on all sessions apply.
        let from = |number: u8| dial_from(([127, 0, 1, number], 0).into(), proxy.address());
        let clients: Vec<UdpClient> = (0..)
            .map_while(|number| UdpClient::try_new(from(number)))
            .collect();
        let mut streams = Vec::new();
        let echo = Origin::echo();
        while let Ok(stream) =
            client::socks4::connect(dial(proxy.address()), &echo.destination(), b"")
        {
            streams.push(stream);
        }
        for (number, client) in clients.iter().enumerate() {
            for name in 0..250 {
                let label = "x".repeat(60);
                let length = if name < 4 { 15_000 } else { 1 };
                let name = format!("{label}.{label}.{label}.{number}-{name}.test");
                client.send(&by_name(&name, 9), &vec![0; length]);
                client.send_and_receive_at(&origin, b"not delayed");
            }
            for host in 0..2000_u16 {
                let [high, low] = host.to_be_bytes();
                client.send(&by_address(([127, 9, high, low], 9).into()), b"x");
                if host % 50 == 0 {
                    client.send_and_receive_at(&origin, b"not delayed");
                }
            }
            let outer_address = client.send_and_receive_at(&origin, &[7; 60_000]);
            origin.send_to(&[7; 60_000], outer_address).unwrap();
            client.receive();
        }
        let bulk = vec![7; 300_000];
        for stream in &streams {
            thread::scope(|scope| {
                scope.spawn(|| write(stream, &bulk));
                assert!(read_exactly(stream, bulk.len()) == bulk);
            });
        }
        assert!(clients.len() > 5 && streams.len() > 15);
        drop((clients, streams));
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}
