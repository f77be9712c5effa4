//! Datagrams to names: how many names wait, which address of a name is used, and for how long.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::dns_server::{DnsAnswer, DnsQuery, NameServer, addresses};
use crate::support::endpoints::{by_address, by_name, dial_from};
use crate::support::netns::in_own_network;
use crate::support::proxy::Proxy;
use crate::support::syscall_faults::SyscallFaults;
use crate::support::udp_client::{
    LOCALHOST, UdpClient, address_of, close_and_read_log, origin, receive, socket_on, verbose_proxy,
};
use crate::support::wait::{TIMEOUT, until};

/// Addresses that the system's resolver leaves in the order of DNS: all have as many leading
/// bits in common with 127.0.0.1, from which the system sends (RFC 6724, section 5, rule 9).
const HOSTS: [[u8; 4]; 3] = [[127, 0, 0, 9], [127, 0, 0, 10], [127, 0, 0, 11]];

/// An answer with these of [`HOSTS`].
fn hosts(order: &[usize]) -> DnsAnswer {
    DnsAnswer::Addresses(order.iter().map(|&host| HOSTS[host].into()).collect())
}

/// A socket with this port on another loopback address.
fn beside(origin: &UdpSocket, ip: [u8; 4]) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(ip), address_of(origin).port())).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// A client whose connection comes from this address.
fn client_from(proxy: &Proxy, ip: [u8; 4]) -> UdpClient {
    UdpClient::with_control(dial_from((ip, 0).into(), proxy.address()))
}

/// Every name has the address 127.0.0.1; some answers take a third of a second.
fn slow_names(query: &DnsQuery) -> DnsAnswer {
    let addresses = vec![IpAddr::V4(LOCALHOST)];
    match query.name.contains('7') {
        true => DnsAnswer::Delayed(Duration::from_millis(333), addresses),
        false => DnsAnswer::Addresses(addresses),
    }
}

/// The first datagram to a UDP tracker (BEP 15): protocol, action "connect", transaction.
fn connect_request(transaction: u32) -> Vec<u8> {
    let protocol = 0x0417_2710_1980_u64.to_be_bytes();
    [&protocol[..], &[0; 4], &transaction.to_be_bytes()].concat()
}

/// A torrent client announces itself to all its trackers, each by its name. It would repeat
/// a request after 15 seconds only.
#[test]
fn u17_a_torrent_client_reaches_fifty_trackers_at_once() {
    in_own_network(|_| {
        let _names = NameServer::start(slow_names);
        let proxy = verbose_proxy();
        let (client, tracker) = (UdpClient::new(&proxy), origin());
        let port = address_of(&tracker).port();
        for number in 0..50 {
            let name = by_name(&format!("tracker{number}.test"), port);
            client.send(&name, &connect_request(number));
        }
        let mut answered = HashSet::new();
        for _ in 0..50 {
            let (request, outer_address) = receive(&tracker);
            let transaction = &request[12..];
            let answer = [&[0; 4], transaction, b"conn. id"].concat();
            tracker.send_to(&answer, outer_address).unwrap();
            answered.insert(client.receive().1);
        }
        assert_eq!(answered.len(), 50);
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("denied=0 dropped=0 "), "{line}");
        proxy.finish();
    });
}

/// What exceeds the bounds is dropped and counted, and all that waits arrives.
#[test]
fn u17_of_a_thousand_names_those_that_do_not_fit_are_counted() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Delayed(Duration::from_secs(1), vec![IpAddr::V4(LOCALHOST)]),
        });
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), origin());
        let port = address_of(&origin).port();
        // Four lookups begin; 252 names wait, and the others are dropped.
        for number in 0..1000 {
            client.send(&by_name(&format!("slow{number}.test"), port), b"x");
            if number % 100 == 99 {
                client.send_and_receive_at(&origin, b"by address");
            }
        }
        // The next one waits for eight bytes too many.
        let large = vec![0; 60_000];
        client.send(&by_name("slow0.test", port), &large);
        client.send(&by_name("slow1.test", port), &large);
        client.send_and_receive_at(&origin, b"by address");
        assert!(names.query_count("good.test", false) == 0);
        let line = close_and_read_log(&proxy, client);
        let dropped = 1000 - 256 + 2;
        assert!(
            line.contains(&format!("denied=0 dropped={dropped} ")),
            "{line}"
        );
        proxy.finish();
    });
}

/// The system has no thread for lookups.
#[test]
fn u17_names_that_no_thread_can_look_up_are_counted() {
    in_own_network(|_| {
        let _names = NameServer::start(slow_names);
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), origin());
        let port = address_of(&origin).port();
        client.send_and_receive_at(&origin, b"by address");
        // The thread that has checked the rules file is idle then, and could look up names.
        until("the end of the idle threads", || {
            let threads = proxy.threads();
            let is_free = |name: &String| name == "idle" || name == "rules";
            (!threads.iter().any(is_free)).then_some(())
        });
        let Some(syscall_faults) = SyscallFaults::with(&proxy, "clone3:error=EAGAIN") else {
            return;
        };
        for number in 0..100 {
            client.send(&by_name(&format!("{number}.test"), port), b"lost");
        }
        client.send_and_receive_at(&origin, b"by address");
        drop(syscall_faults);
        for number in 0..100 {
            client.send(&by_name(&format!("{number}.test"), port), b"x");
            assert_eq!(receive(&origin).0, b"x");
        }
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("denied=0 dropped=100 "), "{line}");
        proxy.finish();
    });
}

#[test]
fn u18_thirty_associations_all_get_their_datagrams() {
    in_own_network(|_| {
        let _names = NameServer::start(slow_names);
        let proxy = verbose_proxy();
        let origin = origin();
        let port = address_of(&origin).port();
        let clients: Vec<UdpClient> = (0..30).map(|_| UdpClient::new(&proxy)).collect();
        let mut expected = HashSet::new();
        for (client, number) in clients.iter().zip(0..) {
            for name in 0..3 {
                let data = vec![number, name];
                client.send(&by_name(&format!("{number}-{name}.test"), port), &data);
                expected.insert(data);
            }
        }
        let arrived: HashSet<Vec<u8>> = (0..90).map(|_| receive(&origin).0).collect();
        assert_eq!(arrived, expected);
        for client in clients {
            let line = close_and_read_log(&proxy, client);
            assert!(line.contains("denied=0 dropped=0 "), "{line}");
        }
        proxy.finish();
    });
}

/// One association has two hundred names that no name server answers for. It has four lookups at
/// a time, even before another association waits: no lookup can be interrupted for that one later.
#[test]
fn u18_u31_names_that_hang_delay_no_other_association() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Silence,
        });
        let mut proxy = verbose_proxy();
        let busy = UdpClient::new(&proxy);
        let origin = origin();
        let port = address_of(&origin).port();
        for number in 0..200 {
            busy.send(&by_name(&format!("hangs{number}.test"), port), b"lost");
        }
        busy.send_and_receive_at(&origin, b"by address");
        // Another client, and another association of the same client.
        for client in [client_from(&proxy, [127, 0, 0, 2]), UdpClient::new(&proxy)] {
            client.send(&by_name("good.test", port), b"other");
            assert_eq!(receive(&origin).0, b"other");
            close_and_read_log(&proxy, client);
        }
        let hanging = names.queries();
        let hanging = hanging.iter().filter(|query| query.name != "good.test");
        let hanging: HashSet<_> = hanging.map(|query| query.name.clone()).collect();
        assert_eq!(hanging.len(), 4);
        drop(busy);
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}

/// The names of an association that has ended are not looked up, and delay no other names.
#[test]
fn u18_names_that_wait_end_with_their_association() {
    in_own_network(|_| {
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Delayed(Duration::from_millis(500), vec![IpAddr::V4(LOCALHOST)]),
        });
        let proxy = verbose_proxy();
        let origin = origin();
        let port = address_of(&origin).port();
        let clients: Vec<UdpClient> = (0..10).map(|_| UdpClient::new(&proxy)).collect();
        for (client, number) in clients.iter().zip(0..) {
            for name in 0..100 {
                client.send(&by_name(&format!("slow{number}-{name}.test"), port), b"x");
            }
            client.send_and_receive_at(&origin, b"by address");
        }
        clients
            .into_iter()
            .for_each(|client| drop(close_and_read_log(&proxy, client)));
        let client = UdpClient::new(&proxy);
        client.send(&by_name("good.test", port), b"other");
        assert_eq!(receive(&origin).0, b"other");
        close_and_read_log(&proxy, client);
        let asked: HashSet<_> = names
            .queries()
            .into_iter()
            .map(|query| query.name)
            .collect();
        assert!(asked.len() < 100, "{}", asked.len());
        proxy.finish();
    });
}

/// Sends to this name until a datagram arrives at `origin`, and returns after how long.
fn time_until_arrival(client: &UdpClient, name: &str, origin: &UdpSocket) -> Duration {
    let began = Instant::now();
    origin.set_nonblocking(true).unwrap();
    let (_, outer_address) = until("a datagram at the address that answers", || {
        client.send(&by_name(name, address_of(origin).port()), b"x");
        std::thread::park_timeout(Duration::from_millis(50));
        origin.recv_from(&mut [0; 10]).ok()
    });
    origin.send_to(b"answer", outer_address).unwrap();
    assert_eq!(client.receive().1, b"answer");
    began.elapsed()
}

/// After an answer, all datagrams go to the address that has answered.
fn assert_kept(client: &UdpClient, name: &str, origin: &UdpSocket) {
    while origin.recv_from(&mut [0; 10]).is_ok() {}
    origin.set_nonblocking(false).unwrap();
    for number in 0..10 {
        client.send(&by_name(name, address_of(origin).port()), &[number]);
        assert_eq!(receive(origin).0, [number]);
    }
}

/// No server listens at the first address.
#[test]
fn u19_a_refused_datagram_leads_to_the_next_address() {
    in_own_network(|network| {
        network.write_hosts("127.0.0.1 localhost\n::1 localhost\n");
        let _names = NameServer::start(|_| hosts(&[0, 1, 2]));
        let proxy = verbose_proxy();
        for (name, address) in [("localhost", LOCALHOST), ("several.test", HOSTS[2].into())] {
            let (client, origin) = (UdpClient::new(&proxy), socket_on(address));
            let waited = time_until_arrival(&client, name, &origin);
            // Silence alone would take two seconds for each address.
            assert!(waited < Duration::from_millis(1500), "{name}: {waited:?}");
            assert_kept(&client, name, &origin);
            close_and_read_log(&proxy, client);
        }
        proxy.finish();
    });
}

/// The first address takes all datagrams and answers none.
#[test]
fn u20_an_address_that_does_not_answer_is_left_after_two_seconds() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| hosts(&[0, 1]));
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[1]));
        let silent = beside(&origin, HOSTS[0]);
        let waited = time_until_arrival(&client, "two.test", &origin);
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
        while silent.recv_from(&mut [0; 10]).is_ok() {}
        assert_kept(&client, "two.test", &origin);
        assert!(silent.recv_from(&mut [0; 10]).is_err());
        // Another port of the name is another flow: there the first address answers.
        let elsewhere = socket_on(HOSTS[0]);
        time_until_arrival(&client, "two.test", &elsewhere);
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// Datagrams to closed ports cause ICMP errors, and the system reports each of them at the
/// next send, whatever its destination.
#[test]
fn u21_icmp_errors_lose_no_datagram_to_another_host() {
    in_own_network(|_| {
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), origin());
        for round in 0..100 {
            for host in 0..30 {
                client.send(&by_address(([127, 9, round, host], 9).into()), b"x");
            }
            client.send_and_receive_at(&origin, &[round]);
        }
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// A flow lasts longer than its name is cached, and DNS returns the addresses in another
/// order each time. Waits for the real time, which no option changes.
#[test]
fn u16_a_flow_keeps_its_address_when_dns_returns_another() {
    const CACHED: Duration = Duration::from_secs(31);
    in_own_network(|_| {
        let names = NameServer::start(|query| match query.before % 2 {
            0 => hosts(&[0, 1]),
            _ => hosts(&[1, 0]),
        });
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[0]));
        let other = beside(&origin, HOSTS[1]);
        let (port, began) = (address_of(&origin).port(), Instant::now());
        let mut exchange = |number: u8| {
            client.send(&by_name("rotating.test", port), &[number]);
            let (data, outer_address) = receive(&origin);
            assert_eq!(data, [number]);
            origin.send_to(b"answer", outer_address).unwrap();
            assert_eq!(client.receive().1, b"answer");
        };
        while began.elapsed() < CACHED {
            exchange(0);
            std::thread::park_timeout(Duration::from_millis(250));
        }
        // Another flow makes the server look the name up again.
        until("the second lookup", || {
            client.send(&by_name("rotating.test", 9), b"x");
            (names.query_count("rotating.test", false) > 1).then_some(())
        });
        // A new flow begins at the address that has answered, which refuses this port.
        let elsewhere = socket_on(HOSTS[1]);
        let waited = time_until_arrival(&client, "rotating.test", &elsewhere);
        assert!(waited < Duration::from_millis(1500), "{waited:?}");
        (1..100).for_each(&mut exchange);
        assert!(other.recv_from(&mut [0; 10]).is_err());
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// While the system has no route to the address of a flow, its datagrams are dropped, and
/// the flow stays there. A new flow uses the next address at once.
#[test]
fn u16_a_flow_keeps_its_address_without_a_route() {
    in_own_network(|network| {
        let _names = NameServer::start(|_| hosts(&[0, 1]));
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[0]));
        let beside = beside(&origin, HOSTS[1]);
        let target = by_name("two.test", address_of(&origin).port());
        let new_flow = socket_on(HOSTS[1]);
        time_until_arrival(&client, "two.test", &origin);
        network.ip("route add unreachable 127.0.0.9/32 table local");
        client.send(&target, b"lost");
        let new_target = by_name("two.test", address_of(&new_flow).port());
        client.send(&new_target, b"arrives");
        assert_eq!(receive(&new_flow).0, b"arrives");
        network.ip("route del unreachable 127.0.0.9/32 table local");
        assert_kept(&client, "two.test", &origin);
        assert!(beside.recv_from(&mut [0; 10]).is_err());
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("denied=0 dropped=1 "), "{line}");
        proxy.finish();
    });
}

/// A protocol uses two ports of a host. Another host, which DNS returns first, takes datagrams at
/// the second port too.
#[test]
fn u24_two_ports_of_a_name_reach_the_same_host() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| hosts(&[0, 1]));
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[1]));
        time_until_arrival(&client, "two.test", &origin);
        let second = socket_on(HOSTS[1]);
        let beside = beside(&second, HOSTS[0]);
        let target = by_name("two.test", address_of(&second).port());
        client.send(&target, b"second port");
        assert_eq!(receive(&second).0, b"second port");
        assert!(beside.recv_from(&mut [0; 20]).is_err());
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// The other ports are answered by another host.
#[test]
fn u25_a_flow_keeps_its_address_while_twenty_other_ports_are_used() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| hosts(&[1, 0]));
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[0]));
        time_until_arrival(&client, "two.test", &origin);
        let beside = beside(&origin, HOSTS[1]);
        let others: Vec<UdpSocket> = (0..20).map(|_| socket_on(HOSTS[1])).collect();
        for other in &others {
            time_until_arrival(&client, "two.test", other);
        }
        assert_kept(&client, "two.test", &origin);
        assert!(beside.recv_from(&mut [0; 10]).is_err());
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// The server starts again while the client has had no answer for ten seconds. Waits for the
/// real time, which no option changes.
#[test]
fn u26_a_flow_outlives_a_restart_of_its_server() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| hosts(&[0, 1]));
        let proxy = verbose_proxy();
        let (client, origin) = (UdpClient::new(&proxy), socket_on(HOSTS[0]));
        let (beside, witness) = (beside(&origin, HOSTS[1]), socket_on(LOCALHOST));
        time_until_arrival(&client, "two.test", &origin);
        let target = by_name("two.test", address_of(&origin).port());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(11) {
            client.send(&target, b"x");
            std::thread::park_timeout(Duration::from_millis(250));
        }
        let address = address_of(&origin);
        drop(origin);
        client.send(&target, b"refused");
        client.send_and_receive_at(&witness, b"by address");
        let origin = UdpSocket::bind(address).unwrap();
        origin.set_read_timeout(Some(TIMEOUT)).unwrap();
        origin.set_nonblocking(true).unwrap();
        assert_kept(&client, "two.test", &origin);
        assert!(beside.recv_from(&mut [0; 10]).is_err());
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// A host that receives logs: it never answers, and no server listens at the first address.
/// Waits for the real time, which no option changes.
#[test]
fn u26_a_one_way_flow_does_not_return_to_an_address_that_refuses() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| hosts(&[0, 1]));
        let proxy = verbose_proxy();
        let (client, sink) = (UdpClient::new(&proxy), socket_on(HOSTS[1]));
        let (began, mut sent) = (Instant::now(), 0_u32);
        while began.elapsed() < Duration::from_secs(9) {
            sent += 1;
            let target = by_name("two.test", address_of(&sink).port());
            client.send(&target, &sent.to_be_bytes());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let last = sent.to_be_bytes();
        let arrived = (1..).find(|_| receive(&sink).0 == last).unwrap();
        assert!(sent - arrived <= 2, "{arrived} of {sent}");
        close_and_read_log(&proxy, client);
        proxy.finish();
    });
}

/// The rules deny the first fifteen addresses.
#[test]
fn u27_the_sixteenth_address_of_a_name_is_reached() {
    in_own_network(|_| {
        // The resolver leaves them in their order, like HOSTS.
        let all = (16..32).map(|last| IpAddr::from([127, 0, 0, last]));
        let all: Vec<IpAddr> = all.collect();
        let _names = NameServer::start(move |_| DnsAnswer::Addresses(all.clone()));
        let proxy = Proxy::start("permit u - - 127.0.0.31 -\n", &["-v"]);
        let (client, origin) = (UdpClient::new(&proxy), socket_on([127, 0, 0, 31]));
        time_until_arrival(&client, "many.test", &origin);
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("denied=0 dropped=0 "), "{line}");
        proxy.finish();
    });
}
