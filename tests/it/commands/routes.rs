//! Routes that lead nowhere, ports that run out, wires that are cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use threadsocks::client;

use crate::support::endpoints::{
    Origin, accept, by_address, by_name, connect_through, dial_from, random_bytes, read_exactly,
    reset, write,
};
use crate::support::netns::{Network, SecondHost, in_own_network};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::until;

#[test]
fn c02_every_way_to_have_no_route_is_told_in_its_own_words() {
    in_own_network(|network| {
        for (kind, address, why) in [
            ("unreachable", "10.1.0.1", "No route to host"),
            ("prohibit", "10.2.0.1", "Permission denied"),
            ("blackhole", "10.3.0.1", "Invalid argument"),
            ("", "10.4.0.1", "Network is unreachable"),
        ] {
            if !kind.is_empty() {
                network.ip(&format!("route add {kind} {address}/32"));
            }
            // One server each: of several causes within a second, one is told.
            let proxy = Proxy::open();
            let target: SocketAddr = format!("{address}:80").parse().unwrap();
            let shown = proxy.refusal_of(&by_address(target));
            assert_eq!(shown, format!("{target} CONNECT Reject"));
            proxy.stderr_line(why);
            proxy.finish();
        }
    });
}

/// From another address each, and a port that the system need not choose: the
/// few are for the server.
fn dial_as(number: u8, proxy: &Proxy) -> TcpStream {
    dial_from(([127, 0, 1, number], 30_000).into(), proxy.address())
}

/// No port for one address of a name: the next one is tried all the same.
#[test]
fn c06_when_ports_run_out_for_one_address_the_next_is_tried() {
    in_own_network(|network| {
        network.write_hosts("127.0.0.2 two.test\n127.0.0.3 two.test\n");
        let proxy = Proxy::open();
        let origin = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = origin.local_addr().unwrap().port();
        network.limit_to_four_ports();
        let first = SocketAddr::from(([127, 0, 0, 2], port));
        let held: Vec<TcpStream> = (0..4)
            .map(|_| TcpStream::connect(first).expect("one of four ports"))
            .collect();
        assert!(TcpStream::connect(first).is_err(), "there is no fifth");
        let client = dial_as(1, &proxy);
        let own = client.local_addr().unwrap();
        client::socks4::connect(client, &by_name("two.test", port), b"").expect("granted");
        assert_eq!(proxy.screen_message_for(own).destination, "127.0.0.3");
        drop((held, origin));
        proxy.finish();
    });
}

#[test]
fn c06_when_local_ports_run_out_the_answer_is_no_until_one_is_free() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        let origin = Origin::echo();
        network.limit_to_four_ports();
        let mut held = Vec::new();
        let refused = (1..).find_map(|number| {
            let client = dial_as(number, &proxy);
            match client::socks4::connect(client, &origin.destination(), b"") {
                Ok(client) => {
                    held.push(client);
                    None
                }
                Err(why) => Some(why),
            }
        });
        assert!(matches!(refused, Some(client::ClientError::Refused(_))));
        assert_eq!(held.len(), 4);
        proxy.stderr_line("Cannot assign requested address");
        write(&held[0], b"still here");
        assert_eq!(read_exactly(&held[0], 10), b"still here");
        // A reset, lest its port linger in TIME_WAIT.
        reset(held.pop().unwrap());
        let mut numbers = 100..;
        until("a free port", || {
            let client = dial_as(numbers.next().unwrap(), &proxy);
            client::socks4::connect(client, &origin.destination(), b"").ok()
        });
        drop(held);
        proxy.finish();
    });
}

/// Who dials a free port among those that the system gives out can be given that
/// very port to dial from, and is then connected to itself.
#[test]
fn c08_a_socket_that_is_connected_to_itself_is_connected_to_nobody() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        network.limit_to_four_ports();
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let happens = || match TcpStream::connect(nobody) {
            // A reset, for it happens no more while that lingers in TIME_WAIT.
            Ok(own) => {
                let to_itself = own.local_addr().unwrap() == nobody;
                reset(own);
                to_itself
            }
            Err(_) => false,
        };
        assert!((0..100).any(|_| happens()), "here it never happens");
        for number in 0..100 {
            let client = dial_as(number, &proxy);
            let result = client::socks4::connect(client, &by_address(nobody), b"");
            assert!(matches!(result, Err(client::ClientError::Refused(_))));
        }
        proxy.stderr_line("Connection refused");
        proxy.finish();
    });
}

#[test]
fn b11_without_a_port_to_listen_on_the_first_reply_is_no() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        network.limit_to_four_ports();
        let _taken: Vec<_> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
            .collect();
        let peer = by_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 21)));
        let result = client::socks4::bind(dial_as(1, &proxy), &peer, b"");
        assert!(matches!(result, Err(client::ClientError::Refused(_))));
        let line = proxy.stderr_line("no port to listen on");
        assert!(line.contains("Address already in use"), "{line}");
        proxy.finish();
    });
}

/// A session with an origin on the other machine: the client's end, and how to
/// keep the origin's.
fn relayed_far(network: &Network, proxy: &Proxy) -> (TcpStream, SecondHost, TcpStream) {
    let second_host = network.second_host();
    let listener = second_host.run(|| TcpListener::bind("10.9.0.2:0").unwrap());
    let client = connect_through(proxy.address(), &by_address(listener.local_addr().unwrap()));
    (client, second_host, accept(&listener))
}

#[test]
fn r10_a_peer_that_vanishes_is_noticed_by_keepalive() {
    in_own_network(|network| {
        for (limit, value) in [("time", "1"), ("intvl", "1"), ("probes", "2")] {
            network.set(&format!("tcp_keepalive_{limit}"), value);
        }
        let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
        let (client, second_host, remote) = relayed_far(network, &proxy);
        write(&client, b"hello");
        assert_eq!(read_exactly(&remote, 5), b"hello");
        second_host.disconnect();
        let gone = Instant::now();
        let error = (&client).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(gone.elapsed() < Duration::from_secs(15));
        proxy.stderr_line("Connection timed out");
        drop(client);
        proxy.finish();
    });
}

#[test]
fn r10_what_a_vanished_peer_was_to_get_ends_at_the_idle_limit() {
    in_own_network(|network| {
        let proxy = Proxy::start(PERMIT_ALL, &["-v", "--idle-timeout", "1s"]);
        let (client, second_host, _remote) = relayed_far(network, &proxy);
        second_host.disconnect();
        // More than all buffers hold.
        let _ = (&client).write_all(&random_bytes(10, 32 << 20));
        // No retransmission is given up that soon, so it is the limit.
        proxy.stderr_line("ending=\"idle for too long\"");
        drop(client);
        proxy.finish();
    });
}
