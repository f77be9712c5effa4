//! CONNECT to a name with several addresses: an address that does not answer does not delay the others.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use threadsocks::client::{ClientError, socks4, socks5};
use threadsocks::protocol::{Command, Destination, ReplyError};

use crate::support::dns_server::{DnsAnswer, NameServer};
use crate::support::endpoints::{
    UnresponsiveListener, accept, by_name, connect_through, dial, dial_from, read_exactly, request,
    reset, write,
};
use crate::support::netns::{Network, in_own_network};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// The server's delay between two attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// An address that is up and has no listener: its ports refuse connections.
fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Addresses of the loopback interface, which the resolver sorts before IPv4 addresses.
fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

/// Hosts of the name `many.test` in a network of the test's own.
struct ManyHosts {
    port: u16,
    /// They answer no SYN.
    _silent: Vec<UnresponsiveListener>,
}

impl ManyHosts {
    /// All these addresses belong to the name, in this order within each family. Those in
    /// `silent` do not answer.
    fn new(network: &Network, addresses: &[IpAddr], silent: &[IpAddr]) -> ManyHosts {
        for address in addresses.iter().filter(|address| address.is_ipv6()) {
            network.add_ipv6(*address);
        }
        let lines = addresses
            .iter()
            .map(|address| format!("{address} many.test\n"));
        network.write_hosts(&lines.collect::<String>());
        let mut port = 0;
        let silent = silent.iter().map(|&address| {
            let listener = UnresponsiveListener::at(SocketAddr::new(address, port));
            port = listener.address().port();
            listener
        });
        let silent = silent.collect();
        ManyHosts {
            port,
            _silent: silent,
        }
    }

    fn listen_at(&self, address: IpAddr) -> TcpListener {
        TcpListener::bind((address, self.port)).expect("a listener")
    }

    fn destination(&self) -> Destination {
        by_name("many.test", self.port)
    }
}

/// Connects and returns how long that took.
fn time_to_connect(proxy: &Proxy, destination: &Destination) -> (TcpStream, Duration) {
    let began = Instant::now();
    let client = connect_through(proxy.address(), destination);
    (client, began.elapsed())
}

/// The address in the screen message of this client's request.
fn shown_address(proxy: &Proxy, client: &TcpStream) -> String {
    let client = client.local_addr().unwrap();
    proxy.screen_message_for(client).destination
}

#[test]
fn c15_a_silent_ipv6_address_costs_a_quarter_of_a_second() {
    in_own_network(|network| {
        let hosts = ManyHosts::new(
            network,
            &[v6(1), v6(2), v6(3), v4(9)],
            &[v6(1), v6(2), v6(3)],
        );
        let listener = hosts.listen_at(v4(9));
        let proxy = Proxy::open();
        let (client, elapsed) = time_to_connect(&proxy, &hosts.destination());
        assert!(elapsed >= ATTEMPT_DELAY, "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
        assert_eq!(shown_address(&proxy, &client), "127.0.0.9");
        let remote = accept(&listener);
        write(&client, b"up");
        assert_eq!(read_exactly(&remote, 2), b"up");
        drop((client, remote));
        proxy.finish();
    });
}

#[test]
fn c15_a_silent_ipv4_address_costs_a_quarter_of_a_second() {
    in_own_network(|network| {
        // Without a second IPv6 address, the second IPv4 address is the third attempt.
        let hosts = ManyHosts::new(network, &[v6(1), v4(8), v4(9)], &[v6(1), v4(8)]);
        let listener = hosts.listen_at(v4(9));
        let proxy = Proxy::open();
        let (client, elapsed) = time_to_connect(&proxy, &hosts.destination());
        assert!(elapsed >= 2 * ATTEMPT_DELAY, "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(1250), "{elapsed:?}");
        assert_eq!(shown_address(&proxy, &client), "127.0.0.9");
        drop((client, accept(&listener)));
        proxy.finish();
    });
}

#[test]
fn c15_many_silent_addresses_cost_a_quarter_of_a_second_each() {
    in_own_network(|network| {
        let silent: Vec<IpAddr> = (1..=3).map(v6).chain((5..=8).map(v4)).collect();
        let hosts = ManyHosts::new(network, &[&silent[..], &[v4(9)]].concat(), &silent);
        let listener = hosts.listen_at(v4(9));
        let proxy = Proxy::open();
        let idle = proxy.resources().descriptors;
        let (client, elapsed) = time_to_connect(&proxy, &hosts.destination());
        // Closed before the reply: all other attempts. The session has two connections.
        assert_eq!(proxy.resources().descriptors, idle + 2);
        assert!(elapsed >= 7 * ATTEMPT_DELAY, "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
        assert_eq!(shown_address(&proxy, &client), "127.0.0.9");
        drop((client, accept(&listener)));
        proxy.finish();
    });
}

#[test]
fn c15_an_address_without_a_route_costs_no_time() {
    in_own_network(|network| {
        // TCP has no route to the first address. UDP has one, so that the resolver does not
        // sort this address to the end.
        let unreachable = "2001:db8:9::1";
        network.add_ipv6(v6(1));
        network.ip(&format!("-6 route add {unreachable} dev lo"));
        network.ip(&format!(
            "-6 rule add pref 1 ipproto tcp to {unreachable} unreachable"
        ));
        network.write_hosts(&format!(
            "{unreachable} both.test\n127.0.0.9 both.test\n{unreachable} six.test\n"
        ));
        let listener = TcpListener::bind((v4(9), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::open();
        let shown = proxy.refusal_of(&by_name("six.test", port));
        assert_eq!(shown, format!("{unreachable}:{port} CONNECT Reject"));
        proxy.stderr_line("Network is unreachable");
        // The minimum of three runs: other tests run at the same time.
        let quickest = (0..3).map(|_| {
            let (client, elapsed) = time_to_connect(&proxy, &by_name("both.test", port));
            drop((client, accept(&listener)));
            elapsed
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < ATTEMPT_DELAY / 2, "{quickest:?}");
        proxy.finish();
    });
}

/// The system calls connect(2) of the server to this port, as strace prints them.
fn connects_to(trace: &str, port: u16) -> Vec<String> {
    let port = format!("htons({port})");
    let address = |line: &str| {
        let is_connect = line.contains("connect(") && line.contains(&port);
        let quoted = line.split('"').nth(1)?;
        is_connect.then(|| quoted.to_owned())
    };
    trace.lines().filter_map(address).collect()
}

#[test]
fn c16_attempts_alternate_between_the_families_and_have_one_time_limit() {
    if !is_installed("strace", "strace") {
        return;
    }
    in_own_network(|network| {
        let addresses = [v6(1), v6(2), v6(3), v4(7), v4(8)];
        let hosts = ManyHosts::new(network, &addresses, &addresses);
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let proxy = Proxy::with(Setup {
            options: &["--connect-timeout", "1500ms"],
            wrapper: &[
                "strace",
                "-f",
                "-e",
                "trace=connect",
                "-o",
                trace.to_str().unwrap(),
            ],
            ..Setup::default()
        });
        let began = Instant::now();
        let shown = proxy.refusal_of(&hosts.destination());
        let elapsed = began.elapsed();
        assert!(shown.ends_with("CONNECT Reject"), "{shown}");
        assert!(elapsed >= Duration::from_millis(1500), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
        proxy.finish();
        let trace = fs::read_to_string(trace).unwrap();
        let order = [v6(1), v4(7), v6(2), v4(8), v6(3)];
        let order = order.map(|address| address.to_string());
        assert_eq!(connects_to(&trace, hosts.port), order);
    });
}

#[test]
fn c16_a_thousand_requests_with_several_attempts_leave_nothing_open() {
    in_own_network(|network| {
        let hosts = ManyHosts::new(network, &[v6(1), v4(9)], &[v6(1)]);
        let listener = hosts.listen_at(v4(9));
        let proxy = Proxy::open();
        // Of one client at most 16 requests have an extra attempt at a time.
        let in_turn = || {
            for _ in 0..10 {
                drop(connect_through(proxy.address(), &hosts.destination()));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|_| drop(accept(&listener))));
            (0..100).for_each(|_| drop(scope.spawn(in_turn)));
        });
        assert_eq!(proxy.screen_messages(1000).len(), 1000);
        proxy.finish();
    });
}

#[test]
fn c17_if_all_attempts_fail_the_error_that_tells_most_is_reported() {
    in_own_network(|network| {
        // No answer, and a refusal.
        let hosts = ManyHosts::new(network, &[v6(1), v4(8), v4(9)], &[v6(1), v4(9)]);
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "1s"]);
        let client = dial(proxy.address());
        let own = client.local_addr().unwrap();
        let refused = socks5::connect(client, None, &hosts.destination());
        assert!(
            matches!(
                refused,
                Err(ClientError::Refused(ReplyError::ConnectionRefused))
            ),
            "{refused:?}"
        );
        let port = hosts.port;
        let shown = proxy.screen_message_for(own).summary();
        assert_eq!(shown, format!("127.0.0.8:{port} CONNECT Reject"));
        proxy.stderr_line(&format!("127.0.0.8:{port}: Connection refused"));
        proxy.finish();

        // No answer, and no route.
        network.write_hosts("127.0.0.9 far.test\n2001:db8:9::1 far.test\n");
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "500ms"]);
        let refused = socks5::connect(dial(proxy.address()), None, &by_name("far.test", port));
        assert!(
            matches!(refused, Err(ClientError::Refused(ReplyError::TimedOut))),
            "{refused:?}"
        );
        proxy.finish();
    });
}

/// Sends so many requests and waits until they have so many attempts.
fn begin_requests(
    proxy: &Proxy,
    hosts: &ManyHosts,
    requests: usize,
    attempts: usize,
) -> Vec<TcpStream> {
    let before = proxy.resources().descriptors;
    let message = request(Command::Connect, &hosts.destination(), b"");
    let begin = |_| {
        let client = dial(proxy.address());
        write(&client, &message);
        client
    };
    let clients: Vec<TcpStream> = (0..requests).map(begin).collect();
    until("all attempts", || {
        (proxy.resources().descriptors == before + requests + attempts).then_some(())
    });
    clients
}

#[test]
fn c18_the_end_of_the_client_or_of_the_session_ends_all_attempts() {
    in_own_network(|network| {
        let silent = [v6(1), v6(2), v4(8), v4(9)];
        let hosts = ManyHosts::new(network, &silent, &silent);
        let proxy = Proxy::open();
        let client = begin_requests(&proxy, &hosts, 1, silent.len()).remove(0);
        let own = client.local_addr().unwrap();
        let began = Instant::now();
        reset(client);
        proxy.assert_resources_released();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(proxy.screen_message_for(own).reply, "Reject");
        proxy.stderr_line("the client disconnected before the reply");

        let mut proxy = proxy;
        let clients = begin_requests(&proxy, &hosts, 1, silent.len());
        let began = Instant::now();
        // The second signal terminates all sessions.
        proxy.signal(Signal::SIGTERM);
        proxy.stderr_line("stopping");
        proxy.signal(Signal::SIGTERM);
        proxy.wait();
        assert!(began.elapsed() < Duration::from_secs(3));
        drop(clients);
    });
}

#[test]
fn c19_of_a_hundred_addresses_eight_are_tried_and_both_families_among_them() {
    in_own_network(|network| {
        let listener = TcpListener::bind((v4(40), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        // The first fifty refuse the connection.
        (1..=50).for_each(|last| network.add_ipv6(v6(last)));
        let names = |first: u8| {
            let v4 = (first..first + 50).map(v4);
            DnsAnswer::Addresses((1..=50).map(v6).chain(v4).collect())
        };
        let _names = NameServer::start(move |query| match query.name.as_str() {
            "fourth.test" => names(37),
            _ => names(36),
        });
        let proxy = Proxy::open();
        drop(connect_through(
            proxy.address(),
            &by_name("fourth.test", port),
        ));
        drop(accept(&listener));
        let refused = proxy.refusal_of(&by_name("fifth.test", port));
        assert!(refused.ends_with("CONNECT Reject"), "{refused}");
        proxy.finish();
    });
}

#[test]
fn c20_a_lack_of_descriptors_fails_no_request_while_an_attempt_is_running() {
    in_own_network(|network| {
        let hosts = ManyHosts::new(network, &[v6(1), v4(9)], &[v6(1)]);
        let listener = hosts.listen_at(v4(9));
        let proxy = Proxy::open();
        // strace counts the calls of each thread: the second is the second attempt.
        let Some(faults) = SyscallFaults::with(&proxy, "socket:error=EMFILE:when=2") else {
            return proxy.finish();
        };
        let (client, elapsed) = time_to_connect(&proxy, &hosts.destination());
        assert!(elapsed >= 2 * ATTEMPT_DELAY, "{elapsed:?}");
        assert_eq!(shown_address(&proxy, &client), "127.0.0.9");
        drop((client, accept(&listener), faults));
        proxy.finish();
    });
}

/// Takes some six seconds of real delays: an attempt without a slot begins after two.
#[test]
fn c21_a_client_that_uses_all_its_extra_attempts_delays_itself_only() {
    in_own_network(|network| {
        let mut silent: Vec<IpAddr> = (1..=4).map(v6).chain((11..=14).map(v4)).collect();
        let hosts = ManyHosts::new(network, &silent, &silent);
        // Another name: its first address does not answer, its second one does.
        silent.truncate(1);
        let lines = format!("{} one.test\n127.0.0.9 one.test\n", silent[0]);
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "20s"]);
        // One attempt of each request needs no slot; 16 have those of the client.
        let busy = begin_requests(&proxy, &hosts, 3, 3 + 16);
        network.write_hosts(&lines);
        let listener = hosts.listen_at(v4(9));
        let target = by_name("one.test", hosts.port);
        let (client, elapsed) = time_to_connect(&proxy, &target);
        assert!(elapsed >= Duration::from_secs(2), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        drop((client, accept(&listener)));
        let began = Instant::now();
        let other = dial_from(([127, 0, 0, 2], 0).into(), proxy.address());
        let other = socks4::connect(other, &target, b"").expect("granted");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        drop((other, accept(&listener)));
        busy.into_iter().for_each(reset);
        proxy.finish();
    });
}

/// Takes some twelve seconds of real delays.
#[test]
fn c24_after_ten_seconds_the_oldest_attempt_is_left_and_needs_no_slot() {
    in_own_network(|network| {
        let silent: Vec<IpAddr> = (1..=4).map(v6).chain((11..=14).map(v4)).collect();
        let hosts = ManyHosts::new(network, &silent, &silent);
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "60s"]);
        let began = Instant::now();
        let idle = proxy.resources().descriptors;
        let mut busy = begin_requests(&proxy, &hosts, 3, 3 + 16);
        until("one attempt of each request", || {
            (proxy.resources().descriptors == idle + 3 + 3).then_some(())
        });
        let elapsed = began.elapsed();
        assert!(elapsed >= Duration::from_secs(10), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(18), "{elapsed:?}");
        // All 16 slots of the client are free again.
        busy.extend(begin_requests(&proxy, &hosts, 3, 3 + 16));
        busy.into_iter().for_each(reset);
        proxy.finish();
    });
}

#[test]
fn c22_an_address_that_the_rules_deny_is_never_dialled() {
    in_own_network(|network| {
        let hosts = ManyHosts::new(network, &[v6(1), v6(2), v4(8)], &[v6(1), v4(8)]);
        let listener = hosts.listen_at(v6(2));
        let rules = "deny c - - 2001:db8::2 -\npermit c - - - -\n";
        let proxy = Proxy::start(rules, &["--connect-timeout", "1s"]);
        let shown = proxy.refusal_of(&hosts.destination());
        assert!(shown.ends_with("CONNECT Reject"), "{shown}");
        listener.set_nonblocking(true).unwrap();
        let failed = listener.accept().expect_err("no connection");
        assert_eq!(failed.kind(), ErrorKind::WouldBlock);
        proxy.finish();
    });
}
