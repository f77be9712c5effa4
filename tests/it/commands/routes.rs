//! Missing routes, exhausted local ports, and peers that become unreachable.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use threadsocks::client;
use threadsocks::protocol::Command;

use crate::support::endpoints::{
    Origin, accept, by_address, by_name, connect_through, dial, dial_from, random_bytes,
    read_exactly, read_until_reset, relayed_pair, request, reset, write,
};
use crate::support::netns::{Network, SecondHost, in_own_network};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::tcp_table::TcpRow;
use crate::support::wait::until;

#[test]
fn c02_each_routing_error_is_reported_by_its_own_text() {
    in_own_network(|network| {
        for (kind, address, error_text) in [
            ("unreachable", "10.1.0.1", "No route to host"),
            ("prohibit", "10.2.0.1", "Permission denied"),
            ("blackhole", "10.3.0.1", "Invalid argument"),
            ("", "10.4.0.1", "Network is unreachable"),
        ] {
            if !kind.is_empty() {
                network.ip(&format!("route add {kind} {address}/32"));
            }
            // A new server each time: within a second, the log reports one error only.
            let proxy = Proxy::open();
            let target: SocketAddr = format!("{address}:80").parse().unwrap();
            let shown = proxy.refusal_of(&by_address(target));
            assert_eq!(shown, format!("{target} CONNECT Reject"));
            proxy.stderr_line(error_text);
            proxy.finish();
        }
    });
}

/// Connects to the server from 127.0.1.`number` and a fixed port, so that the test
/// uses none of the four local ports that the server needs.
fn dial_from_address(number: u8, proxy: &Proxy) -> TcpStream {
    dial_from(([127, 0, 1, number], 30_000).into(), proxy.address())
}

/// Local ports are counted per destination: EADDRNOTAVAIL for one address says
/// nothing about the next.
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
            .map(|_| TcpStream::connect(first).expect("one of the four local ports"))
            .collect();
        assert!(
            TcpStream::connect(first).is_err(),
            "all four local ports are in use"
        );
        let client = dial_from_address(1, &proxy);
        let client_address = client.local_addr().unwrap();
        client::socks4::connect(client, &by_name("two.test", port), b"").expect("granted");
        assert_eq!(
            proxy.screen_message_for(client_address).destination,
            "127.0.0.3"
        );
        drop((held, origin));
        proxy.finish();
    });
}

#[test]
fn c06_connect_is_refused_while_no_local_port_is_free() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        let origin = Origin::echo();
        network.limit_to_four_ports();
        let mut held = Vec::new();
        let refused = (1..).find_map(|number| {
            let client = dial_from_address(number, &proxy);
            match client::socks4::connect(client, &origin.destination(), b"") {
                Ok(client) => {
                    held.push(client);
                    None
                }
                Err(error) => Some(error),
            }
        });
        assert!(matches!(refused, Some(client::ClientError::Refused(_))));
        assert_eq!(held.len(), 4);
        proxy.stderr_line("Cannot assign requested address");
        write(&held[0], b"still here");
        assert_eq!(read_exactly(&held[0], 10), b"still here");
        // RST instead of FIN: otherwise TIME_WAIT keeps the port in use.
        reset(held.pop().unwrap());
        let mut numbers = 100..;
        until("a free port", || {
            let client = dial_from_address(numbers.next().unwrap(), &proxy);
            client::socks4::connect(client, &origin.destination(), b"").ok()
        });
        drop(held);
        proxy.finish();
    });
}

/// A TCP self-connect (simultaneous open with itself): the kernel may choose the
/// destination port as the local port if that port is unused.
#[test]
fn c08_a_tcp_self_connect_is_refused() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        network.limit_to_four_ports();
        let unused = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let self_connects = || match TcpStream::connect(unused) {
            // RST instead of FIN: TIME_WAIT would prevent the next self-connect.
            Ok(stream) => {
                let to_itself = stream.local_addr().unwrap() == unused;
                reset(stream);
                to_itself
            }
            Err(_) => false,
        };
        assert!(
            (0..100).any(|_| self_connects()),
            "the kernel never self-connects here"
        );
        for number in 0..100 {
            let client = dial_from_address(number, &proxy);
            let result = client::socks4::connect(client, &by_address(unused), b"");
            assert!(matches!(result, Err(client::ClientError::Refused(_))));
        }
        proxy.stderr_line("Connection refused");
        proxy.finish();
    });
}

#[test]
fn b11_bind_is_refused_if_no_local_port_is_free() {
    in_own_network(|network| {
        let proxy = Proxy::open();
        network.limit_to_four_ports();
        let _occupied: Vec<_> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
            .collect();
        let peer = by_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 21)));
        let result = client::socks4::bind(dial_from_address(1, &proxy), &peer, b"");
        assert!(matches!(result, Err(client::ClientError::Refused(_))));
        let line = proxy.stderr_line("no port to listen on");
        assert!(line.contains("Address already in use"), "{line}");
        proxy.finish();
    });
}

/// A session with an origin on a second host: the client socket, the host, and
/// the socket of the origin.
fn relay_to_second_host(network: &Network, proxy: &Proxy) -> (TcpStream, SecondHost, TcpStream) {
    let second_host = network.second_host();
    let listener = second_host.run(|| TcpListener::bind("10.9.0.2:0").unwrap());
    let client = connect_through(proxy.address(), &by_address(listener.local_addr().unwrap()));
    (client, second_host, accept(&listener))
}

/// The first probe comes after two minutes, and then six of them without an answer, one
/// every thirty seconds, end the connection.
#[test]
#[ignore = "takes five minutes"]
fn r10_r31_keepalive_detects_an_unreachable_peer() {
    in_own_network(|network| {
        let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
        let (client, second_host, remote) = relay_to_second_host(network, &proxy);
        write(&client, b"hello");
        assert_eq!(read_exactly(&remote, 5), b"hello");
        second_host.disconnect();
        let disconnected = Instant::now();
        client
            .set_read_timeout(Some(Duration::from_secs(400)))
            .unwrap();
        assert_eq!(read_until_reset(&client), b"");
        let took = disconnected.elapsed();
        assert!((280..320).contains(&took.as_secs()), "{took:?}");
        proxy.stderr_line("Connection timed out");
        drop(client);
        proxy.finish();
    });
}

/// Does the server probe this client or remote within two minutes?
fn assert_is_probed(peer: &TcpStream) {
    const KEEPALIVE: &str = "02";
    // Before it the retransmission timer runs, until the peer has acknowledged all bytes.
    let row = until("the keepalive timer", || {
        let row = TcpRow::of_peer(peer);
        (row.timer == KEEPALIVE).then_some(row)
    });
    assert!((11_000..=12_000).contains(&row.expires), "{row:?}");
}

#[test]
fn r31_every_connection_that_can_stay_silent_is_probed_after_two_minutes() {
    let proxy = Proxy::open();
    let silent = dial(proxy.address());
    let (client, remote) = relayed_pair(proxy.address());
    let expected = by_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 21)));
    let binding = client::socks4::bind(dial(proxy.address()), &expected, b"").expect("listening");
    let peer = dial_from(
        (Ipv4Addr::LOCALHOST, 0).into(),
        (Ipv4Addr::LOCALHOST, binding.address.port()).into(),
    );
    let (bound, _) = binding.wait().expect("granted");
    let waiting = dial(proxy.address());
    write(&waiting, &request(Command::Bind, &expected, b""));
    read_exactly(&waiting, 8);
    let control = dial(proxy.address());
    write(&control, &[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read_exactly(&control, 12)[..4], [5, 0, 5, 0]);
    let all = [silent, client, remote, bound, peer, waiting, control];
    all.iter().for_each(assert_is_probed);
    drop(all);
    proxy.finish();
}

#[test]
fn r10_unacknowledged_data_to_an_unreachable_peer_ends_at_the_idle_timeout() {
    in_own_network(|network| {
        let proxy = Proxy::start(PERMIT_ALL, &["-v", "--idle-timeout", "1s"]);
        let (client, second_host, _remote) = relay_to_second_host(network, &proxy);
        second_host.disconnect();
        // More than the socket buffers and the relay buffer hold together.
        let _ = (&client).write_all(&random_bytes(10, 32 << 20));
        // TCP retransmits for minutes (tcp_retries2), so the idle timeout ends this.
        proxy.stderr_line("ending=\"idle for too long\"");
        drop(client);
        proxy.finish();
    });
}
