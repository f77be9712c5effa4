//! Destinations by name: which names are looked up, and which addresses are tried.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use simple_dns::RCODE;
use threadsocks::client::{socks4, socks5};
use threadsocks::protocol::Command;

use crate::support::dns_server::{DnsAnswer, NameServer, addresses};
use crate::support::endpoints::{
    Origin, UnresponsiveListener, accept, by_name, connect_through, dial, dial_from, read_all,
    read_exactly, request, reset, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::udp_client::{UdpClient, close_and_read_log, origin, verbose_proxy};
use crate::support::wait::until;

/// The test's clients have the address 127.0.0.1; these are others.
const OTHER_CLIENTS: [SocketAddr; 5] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4)), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5)), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), 0),
];

/// A server with room for eight lookups at a time, two of them for one client.
fn eight_lookups(options: &[&str]) -> Proxy {
    Proxy::with(Setup {
        options,
        // In KiB.
        wrapper: &["sh", "-c", "ulimit -d 74000; exec \"$0\" \"$@\""],
        ..Setup::default()
    })
}

/// A client that has sent a request for this name.
fn ask_from(address: SocketAddr, proxy: &Proxy, name: &str) -> TcpStream {
    let client = dial_from(address, proxy.address());
    let message = request(Command::Connect, &by_name(name, 80), b"");
    write(&client, &message);
    client
}

/// Waits until the resolver has asked for so many different names of this kind. The name of a
/// lookup is asked for again while it hangs.
fn wait_for_names(names: &NameServer, kind: &str, count: usize) {
    until(&format!("{count} names with {kind}"), || {
        (names_with(names, kind) >= count).then_some(())
    });
}

/// How many different names of this kind the resolver has asked for.
fn names_with(names: &NameServer, kind: &str) -> usize {
    let asked = names.queries().into_iter().map(|query| query.name);
    let asked: HashSet<String> = asked.filter(|name| name.contains(kind)).collect();
    asked.len()
}

/// Requires that a CONNECT with these bytes as the name is refused, and returns
/// the summary of its message.
fn refusal_of_raw_name(proxy: &Proxy, name: &[u8]) -> String {
    let client = dial(proxy.address());
    let client_address = client.local_addr().unwrap();
    let message = [&[4, 1, 0, 80, 0, 0, 0, 9, 0][..], name, &[0]].concat();
    write(&client, &message);
    assert_eq!(read_all(&client), [0, 91, 0, 80, 0, 0, 0, 9]);
    proxy.screen_message_for(client_address).summary()
}

/// Values of the name field that are not valid host names, among them literal
/// addresses in forms that only the C library accepts.
const INVALID_NAMES: [&[u8]; 18] = [
    b"",
    b"a b",
    b"a..b",
    b"127.1",
    b"0177.0.0.1",
    b"2130706433",
    b"0x7f000001",
    b"127.0.0.1.",
    b"::1.",
    b"[127.0.0.1]",
    b"[::1]:80",
    b"[fe80::1%lo]",
    b"user@localhost",
    b"localhost:80",
    b"b\xc3\xbccher.example",
    b"\xff\xfe",
    b"x\n<Reply>: Accept",
    &[b'n'; 255],
];

#[test]
fn d04_d05_d06_l01_invalid_names_are_refused() {
    let proxy = Proxy::open();
    for name in INVALID_NAMES {
        assert_eq!(refusal_of_raw_name(&proxy, name), "-:80 CONNECT Reject");
    }
    for line in proxy.stderr_lines() {
        assert!(
            line.bytes().all(|byte| (0x20..0x7F).contains(&byte)),
            "{line}"
        );
    }
    proxy.finish();
}

#[test]
fn d04_an_invalid_name_is_never_looked_up() {
    in_own_network(|_| {
        let names = NameServer::start(|_| addresses(&["127.0.0.1"]));
        let proxy = Proxy::open();
        for name in INVALID_NAMES {
            assert_eq!(refusal_of_raw_name(&proxy, name), "-:80 CONNECT Reject");
        }
        assert_eq!(names.queries(), []);
        proxy.finish();
    });
}

#[test]
fn d06_a_dotted_quad_as_name_is_an_address() {
    let proxy = Proxy::start("permit c 127.0.0.1\n", &[]);
    let origin = Origin::echo();
    let client = dial(proxy.address());
    let [p1, p0] = origin.port().to_be_bytes();
    write(
        &client,
        &[&[4, 1, p1, p0, 0, 0, 0, 1, 0], &b"127.0.0.1"[..], &[0]].concat(),
    );
    assert_eq!(read_exactly(&client, 2), [0, 90]);
    assert_eq!(
        refusal_of_raw_name(&proxy, b"127.0.0.2"),
        "127.0.0.2:80 CONNECT Reject"
    );
    drop(client);
    proxy.finish();
}

#[test]
fn d24_no_version_takes_an_address_with_a_final_dot() {
    const ADDRESS: &str = "127.0.0.1.";
    let proxy = verbose_proxy();
    assert_eq!(
        refusal_of_raw_name(&proxy, ADDRESS.as_bytes()),
        "-:80 CONNECT Reject"
    );
    let field = [&[3, ADDRESS.len() as u8], ADDRESS.as_bytes(), &[0, 80]].concat();
    let client = dial(proxy.address());
    write(&client, &[&[5, 1, 0, 5, 1, 0], &field[..]].concat());
    assert_eq!(read_all(&client)[..4], [5, 0, 5, 4]);
    let (client, origin) = (UdpClient::new(&proxy), origin());
    client.send_raw(&[&[0, 0, 0], &field[..], b"x"].concat());
    client.send_and_receive_at(&origin, b"still relayed");
    let line = close_and_read_log(&proxy, client);
    assert!(line.contains("denied=0 dropped=1 "), "{line}");
    let query = format!("c 10.0.0.1 {ADDRESS} 80");
    let explained = binary()
        .args(["--explain", &query, "-c"])
        .arg(proxy.config())
        .output()
        .expect("the program starts");
    let explained = String::from_utf8_lossy(&explained.stderr).into_owned();
    assert!(explained.contains("is not a host name"), "{explained}");
    proxy.finish();
}

#[test]
fn d07_a_name_that_does_not_exist_is_refused() {
    let proxy = Proxy::open();
    // RFC 6761, section 6.4, reserves .invalid: no such name is ever registered.
    assert_eq!(
        refusal_of_raw_name(&proxy, b"unknown.invalid"),
        "-:80 CONNECT Reject"
    );
    proxy.stderr_line("unknown.invalid was not found");
    proxy.finish();
}

#[test]
fn d07_every_negative_dns_answer_refuses_the_request_at_once() {
    in_own_network(|_| {
        let _names = NameServer::start(|query| match query.name.as_str() {
            "servfail.test" => DnsAnswer::Fails(RCODE::ServerFailure),
            "refused.test" => DnsAnswer::Fails(RCODE::Refused),
            "empty.test" => addresses(&[]),
            _ => DnsAnswer::Fails(RCODE::NameError),
        });
        let proxy = Proxy::open();
        for name in ["nx.test", "servfail.test", "refused.test", "empty.test"] {
            // The minimum of three runs: other tests run at the same time.
            let quickest = (0..3).map(|_| {
                let began = Instant::now();
                assert_eq!(proxy.refusal_of(&by_name(name, 80)), "-:80 CONNECT Reject");
                began.elapsed()
            });
            let quickest = quickest.min().unwrap();
            assert!(quickest < Duration::from_millis(50), "{name}: {quickest:?}");
        }
        proxy.stderr_line("nx.test was not found");
        proxy.finish();
    });
}

#[test]
fn d08_a_silent_name_server_ends_the_lookup_at_the_resolver_timeout() {
    in_own_network(|_| {
        let _names = NameServer::start(|query| match (query.name.as_str(), query.v6) {
            ("dropaaaa.test", false) => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Silence,
        });
        let proxy = Proxy::open();
        let origin = Origin::echo();
        // The resolv.conf of this network has `timeout:1 attempts:1`: one second.
        let began = Instant::now();
        assert_eq!(
            proxy.refusal_of(&by_name("drop.test", 80)),
            "-:80 CONNECT Reject"
        );
        assert!(began.elapsed() >= Duration::from_millis(900));
        assert!(began.elapsed() < Duration::from_secs(5));
        // The A record suffices if the AAAA query times out.
        let target = by_name("dropaaaa.test", origin.port());
        let client = connect_through(proxy.address(), &target);
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        drop(client);
        proxy.finish();
    });
}

#[test]
fn d09_pending_lookups_delay_no_other_session() {
    in_own_network(|network| {
        network.set_resolver_timeout(3);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Silence,
        });
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "3s"]);
        let origin = Origin::echo();
        let pending: Vec<_> = (0..200)
            .map(|_| {
                let client = dial(proxy.address());
                let target = by_name("drop.test", 80);
                write(&client, &request(Command::Connect, &target, b""));
                client
            })
            .collect();
        until("a query", || {
            (names.query_count("drop.test", false) > 0).then_some(())
        });
        for target in [origin.destination(), by_name("good.test", origin.port())] {
            let quickest = (0..5).map(|_| {
                let client = dial_from(OTHER_CLIENTS[0], proxy.address());
                let began = Instant::now();
                drop(socks4::connect(client, &target, b"").expect("granted"));
                began.elapsed()
            });
            let quickest = quickest.min().unwrap();
            assert!(quickest < Duration::from_millis(100), "{quickest:?}");
        }
        for client in &pending {
            assert_eq!(read_all(client)[..2], [0, 91]);
        }
        drop(pending);
        proxy.finish();
    });
}

#[test]
fn d28_slow_names_of_one_client_delay_no_other_client() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|query| match query.name.as_str() {
            "good.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Silence,
        });
        let mut proxy = eight_lookups(&["--grace", "0s"]);
        let origin = Origin::echo();
        let localhost = (Ipv4Addr::LOCALHOST, 0).into();
        let hanging: Vec<TcpStream> = (0..10)
            .map(|number| ask_from(localhost, &proxy, &format!("hangs{number}.test")))
            .collect();
        wait_for_names(&names, "hangs", 2);
        for other in OTHER_CLIENTS {
            let client = dial_from(other, proxy.address());
            let began = Instant::now();
            let target = by_name("good.test", origin.port());
            drop(socks4::connect(client, &target, b"").expect("granted"));
            assert!(began.elapsed() < Duration::from_secs(2), "{other}");
        }
        // The client that has its share still reaches addresses.
        drop(connect_through(proxy.address(), &origin.destination()));
        assert_eq!(names_with(&names, "hangs"), 2);
        proxy.signal(Signal::SIGTERM);
        proxy.wait();
        drop(hanging);
    });
}

/// Nothing interrupts a lookup: its slot stays in use after its session has ended.
#[test]
fn d29_the_wait_for_a_lookup_ends_with_the_client_and_at_the_deadline() {
    in_own_network(|network| {
        network.set_resolver_timeout(30);
        let names = NameServer::start(|_| DnsAnswer::Silence);
        let mut proxy = eight_lookups(&["--grace", "0s", "--connect-timeout", "5s", "-v"]);
        let mut hanging = Vec::new();
        for other in &OTHER_CLIENTS[..4] {
            for _ in 0..2 {
                let name = format!("hangs{}.test", hanging.len());
                hanging.push(ask_from(*other, &proxy, &name));
            }
        }
        wait_for_names(&names, "hangs", 8);
        let waits = ask_from(OTHER_CLIENTS[4], &proxy, "waits.test");
        let leaves = ask_from(OTHER_CLIENTS[4], &proxy, "leaves.test");
        let left = leaves.local_addr().unwrap();
        proxy.wait_for_thread("s10");
        let began = Instant::now();
        reset(leaves);
        assert_eq!(proxy.screen_message_for(left).reply, "Reject");
        assert!(began.elapsed() < Duration::from_secs(3));
        proxy.stderr_line("the client disconnected before the reply");
        // The deadline of all others.
        for client in hanging.iter().chain([&waits]) {
            assert_eq!(read_all(client)[..2], [0, 91]);
        }
        assert_eq!(
            names_with(&names, "waits") + names_with(&names, "leaves"),
            0
        );
        proxy.signal(Signal::SIGTERM);
        proxy.wait();
    });
}

#[test]
fn d29_names_that_wait_are_looked_up_one_after_the_other() {
    in_own_network(|_| {
        let delay = Duration::from_millis(100);
        let _names =
            NameServer::start(move |_| DnsAnswer::Delayed(delay, vec![Ipv4Addr::LOCALHOST.into()]));
        let proxy = eight_lookups(&[]);
        let origin = Origin::echo();
        let clients: Vec<TcpStream> = (0..20)
            .map(|number| {
                let client = dial(proxy.address());
                let target = by_name(&format!("slow{number}.test"), origin.port());
                write(&client, &request(Command::Connect, &target, b""));
                client
            })
            .collect();
        for client in &clients {
            assert_eq!(read_exactly(client, 8)[..2], [0, 90]);
        }
        drop(clients);
        proxy.finish();
    });
}

#[test]
fn d10_every_address_of_a_name_is_tried() {
    in_own_network(|network| {
        network.write_hosts("127.0.0.2 both.test\n127.0.0.1 both.test\n127.0.0.3 both.test\n");
        let proxy = Proxy::open();
        // Only 127.0.0.1 listens. The resolver decides the order of the addresses.
        let origin = Origin::echo();
        for _ in 0..5 {
            let client = connect_through(proxy.address(), &by_name("both.test", origin.port()));
            let shown = proxy
                .screen_message_for(client.local_addr().unwrap())
                .summary();
            assert_eq!(shown, format!("{} CONNECT Accept", origin.address()));
        }
        let shown = proxy.refusal_of(&by_name("both.test", 1));
        assert!(
            shown.starts_with("127.0.0."),
            "the message has the last address tried: {shown}"
        );
        proxy.finish();
    });
}

#[test]
fn d10_an_unresponsive_address_leaves_time_for_the_next() {
    in_own_network(|_| {
        let unresponsive = UnresponsiveListener::new();
        let port = unresponsive.address().port();
        // The second address listens on the same port as the unresponsive one.
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).unwrap();
        let _names = NameServer::start(|_| addresses(&["127.0.0.1", "127.0.0.2"]));
        let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "10s"]);
        let began = Instant::now();
        let client = connect_through(proxy.address(), &by_name("both.test", port));
        let elapsed = began.elapsed();
        assert!(elapsed < Duration::from_secs(9), "{elapsed:?}");
        let shown = proxy
            .screen_message_for(client.local_addr().unwrap())
            .summary();
        assert_eq!(shown, format!("127.0.0.2:{port} CONNECT Accept"));
        drop((client, accept(&listener)));
        proxy.finish();
    });
}

#[test]
fn d11_at_most_eight_addresses_of_a_name_are_tried() {
    in_own_network(|_| {
        // Of all these addresses only 127.0.1.20 listens: the eighth of one name
        // and the ninth of the other.
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, 20), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = |first: u8| {
            let all = (first..first + 30).map(|last| IpAddr::from([127, 0, 1, last]));
            DnsAnswer::Addresses(all.collect())
        };
        let _names = NameServer::start(move |query| match query.name.as_str() {
            "eighth.test" => from(13),
            _ => from(12),
        });
        let proxy = Proxy::open();
        drop(connect_through(
            proxy.address(),
            &by_name("eighth.test", port),
        ));
        drop(accept(&listener));
        let shown = proxy.refusal_of(&by_name("ninth.test", port));
        assert_eq!(shown, format!("127.0.1.19:{port} CONNECT Reject"));
        proxy.finish();
    });
}

#[test]
fn c23_the_rules_judge_64_addresses_of_a_name() {
    in_own_network(|_| {
        // The only address that the rules permit is the 64th of one name and the 65th of the
        // other.
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, 100), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = |first: u8| {
            let all = (first..first + 100).map(|last| IpAddr::from([127, 0, 1, last]));
            DnsAnswer::Addresses(all.collect())
        };
        let _names = NameServer::start(move |query| match query.name.as_str() {
            "within.test" => from(37),
            _ => from(36),
        });
        let proxy = Proxy::start("permit c 127.0.1.100\n", &["-v"]);
        let within = by_name("within.test", port);
        drop(connect_through(proxy.address(), &within));
        drop(accept(&listener));
        let shown = proxy.refusal_of(&by_name("beyond.test", port));
        assert_eq!(shown, format!("127.0.1.36:{port} CONNECT Reject"));
        proxy.stderr_line("no rule permits it");
        proxy.finish();
    });
}

#[test]
fn d12_socks4a_reaches_a_name_that_has_only_ipv6_addresses() {
    in_own_network(|network| {
        network.write_hosts("::1 six.test\n");
        let _names = NameServer::start(|_| addresses(&["::1"]));
        let origin = Origin::echo_at(Ipv6Addr::LOCALHOST.into());
        let proxy = Proxy::open();
        for name in ["six.test", "v6only.test"] {
            let client = dial(proxy.address());
            let message = request(Command::Connect, &by_name(name, origin.port()), b"");
            write(&client, &message);
            // The reply repeats the address that announces a name: SOCKS4 has no IPv6 addresses.
            let [p1, p0] = origin.port().to_be_bytes();
            assert_eq!(read_exactly(&client, 8), [0, 90, p1, p0, 0, 0, 0, 1]);
            write(&client, b"up");
            assert_eq!(read_exactly(&client, 2), b"up");
            let message = proxy.screen_message_for(client.local_addr().unwrap());
            let shown = format!("::1:{} CONNECT Accept", origin.port());
            assert_eq!(message.summary(), shown);
        }
        proxy.finish();
    });
}

#[test]
fn d18_a_bind_of_socks4a_waits_for_a_peer_with_an_ipv6_address() {
    in_own_network(|network| {
        network.write_hosts("::1 six.test\n");
        let proxy = Proxy::open();
        let target = by_name("six.test", 21);
        let binding = socks4::bind(dial(proxy.address()), &target, b"").expect("listening");
        let peer = dial((Ipv6Addr::LOCALHOST, binding.address.port()).into());
        let (client, reported) = binding.wait().expect("granted");
        // 0.0.0.0 stands for an address that SOCKS4 cannot express.
        let port = peer.local_addr().unwrap().port();
        assert_eq!(reported, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
        write(&peer, b"down");
        assert_eq!(read_exactly(&client, 4), b"down");
        drop((client, peer));
        proxy.finish();
    });
}

#[test]
fn d13_only_permitted_addresses_of_a_name_are_tried() {
    in_own_network(|network| {
        network.write_hosts("127.0.0.2 both.test\n127.0.0.1 both.test\n127.0.0.1 one.test\n");
        let proxy = Proxy::start("deny c 127.0.0.1\npermit c 127.0.0.2\n", &[]);
        let origin = Origin::echo();
        // 127.0.0.2 refuses the connection. 127.0.0.1 listens, but is denied.
        let shown = proxy.refusal_of(&by_name("both.test", origin.port()));
        assert_eq!(shown, format!("127.0.0.2:{} CONNECT Reject", origin.port()));
        let shown = proxy.refusal_of(&by_name("one.test", origin.port()));
        assert_eq!(shown, format!("127.0.0.1:{} CONNECT Reject", origin.port()));
        proxy.finish();
    });
}

/// DNS rebinding: the second query gets a denied address. One lookup per request
/// ensures that the server dials the address that the rules judged.
#[test]
fn d14_x02_a_name_is_looked_up_once_and_the_judged_address_is_dialled() {
    in_own_network(|_| {
        let names = NameServer::start(|query| match query.before {
            0 => addresses(&["127.0.0.1"]),
            _ => addresses(&["127.0.0.9"]),
        });
        let proxy = Proxy::start("deny c 127.0.0.9\npermit c -\n", &[]);
        let origin = Origin::echo();
        let target = by_name("rebind.test", origin.port());
        let client = connect_through(proxy.address(), &target);
        let shown = proxy
            .screen_message_for(client.local_addr().unwrap())
            .summary();
        assert_eq!(shown, format!("{} CONNECT Accept", origin.address()));
        let counts_by_family =
            |names: &NameServer| [false, true].map(|v6| names.query_count("rebind.test", v6));
        assert_eq!(counts_by_family(&names), [1, 1]);
        let shown = proxy.refusal_of(&target);
        assert_eq!(shown, format!("127.0.0.9:{} CONNECT Reject", origin.port()));
        assert_eq!(counts_by_family(&names), [2, 2]);
        drop(client);
        proxy.finish();
    });
}

#[test]
fn d15_a_short_name_follows_the_search_list_of_the_system() {
    in_own_network(|network| {
        network.write_file(
            "/etc/resolv.conf",
            "nameserver 127.0.0.1\nsearch inner.test\noptions timeout:1 attempts:1\n",
        );
        let names = NameServer::start(|query| match query.name.as_str() {
            "printer.inner.test" => addresses(&["127.0.0.1"]),
            _ => DnsAnswer::Fails(RCODE::NameError),
        });
        let proxy = Proxy::open();
        let origin = Origin::echo();
        drop(connect_through(
            proxy.address(),
            &by_name("printer", origin.port()),
        ));
        assert_eq!(names.query_count("printer.inner.test", false), 1);
        proxy.finish();
    });
}

#[test]
fn d19_no_search_list_applies_to_an_absolute_name() {
    in_own_network(|network| {
        network.write_file(
            "/etc/resolv.conf",
            "nameserver 127.0.0.1\nsearch inner.test\noptions timeout:1 attempts:1 ndots:5\n",
        );
        // Every name exists in the search domain, as with a wildcard record.
        let names = NameServer::start(|query| match query.name.as_str() {
            "www.shop.test" => addresses(&["127.0.0.1"]),
            name if name.ends_with(".inner.test") => addresses(&["127.0.0.66"]),
            _ => DnsAnswer::Fails(RCODE::NameError),
        });
        // The rules match a name with and without its final dot.
        let rules = "deny c denied.test\npermit c *.shop.test local\npermit c gone.test.\n";
        let proxy = Proxy::start(rules, &["-v"]);
        let origin = Origin::echo();
        let port = origin.port();
        let target = by_name("WWW.Shop.test.", port);
        let granted = [
            connect_through(proxy.address(), &target),
            socks5::connect(dial(proxy.address()), None, &target)
                .expect("granted")
                .0,
        ];
        for client in &granted {
            let shown = proxy.screen_message_for(client.local_addr().unwrap());
            assert_eq!(shown.destination, "127.0.0.1");
        }
        // Not found, and not looked for in the search domain.
        let shown = proxy.refusal_of(&by_name("gone.test.", port));
        assert_eq!(shown, format!("-:{port} CONNECT Reject"));
        proxy.stderr_line("gone.test. was not found");
        proxy.refusal_of(&by_name("denied.test.", port));
        proxy.stderr_line("rule on line 1 denies it");
        let asked = names.queries();
        let is_absolute = |name: &str| ["www.shop.test", "gone.test"].contains(&name);
        assert!(
            asked.iter().all(|query| is_absolute(&query.name)),
            "{asked:?}"
        );
        drop(granted);
        proxy.finish();
    });
}

#[test]
fn d19_an_absolute_name_is_found_in_the_hosts_file() {
    in_own_network(|network| {
        network.write_hosts("127.0.0.1 localhost other Shop.test # six.test\n");
        let names = NameServer::start(|_| DnsAnswer::Fails(RCODE::NameError));
        let proxy = Proxy::open();
        let origin = Origin::echo();
        for name in ["localhost.", "shop.test."] {
            let target = by_name(name, origin.port());
            drop(connect_through(proxy.address(), &target));
        }
        assert_eq!(names.queries(), []);
        proxy.refusal_of(&by_name("six.test.", origin.port()));
        assert_eq!(names.query_count("six.test", false), 1);
        proxy.finish();
    });
}

/// The resolver does not read the hosts file. Without the dot, it would find the name in the
/// search domain.
#[test]
fn d22_the_resolver_gets_an_absolute_name_with_its_dot_only() {
    in_own_network(|network| {
        network.write_file("/etc/nsswitch.conf", "hosts: dns\n");
        network.write_file(
            "/etc/resolv.conf",
            "nameserver 127.0.0.1\nsearch inner.test\noptions timeout:1 attempts:1 ndots:5\n",
        );
        network.write_hosts("127.0.0.9 www.shop.test # one\n127.0.0.1 www.shop.test\n");
        let names = NameServer::start(|_| addresses(&["127.0.0.66"]));
        let proxy = Proxy::open();
        let origin = Origin::echo();
        let target = by_name("www.shop.test.", origin.port());
        let client = connect_through(proxy.address(), &target);
        let shown = proxy.screen_message_for(client.local_addr().unwrap());
        assert_eq!(shown.destination, "127.0.0.1");
        assert_eq!(names.queries(), []);
        // The hosts file changes: it does not contain the name any more.
        network.write_hosts("127.0.0.1 localhost\n");
        proxy.refusal_of(&target);
        let asked = names.queries();
        assert!(
            asked.iter().all(|query| query.name == "www.shop.test"),
            "{asked:?}"
        );
        drop(client);
        proxy.finish();
    });
}

#[test]
fn d20_an_ipv6_address_as_name_is_an_address() {
    let proxy = Proxy::start("permit c ::1\n", &["-v"]);
    let origin = Origin::echo_at(Ipv6Addr::LOCALHOST.into());
    let [p1, p0] = origin.port().to_be_bytes();
    for name in ["::1", "[::1]", "[0:0::1]"] {
        let socks4a = dial(proxy.address());
        let head = [4, 1, p1, p0, 0, 0, 0, 1, 0];
        write(&socks4a, &[&head, name.as_bytes(), &[0]].concat());
        assert_eq!(read_exactly(&socks4a, 2), [0, 90], "{name}");
        let client = dial(proxy.address());
        let head = [5, 1, 0, 5, 1, 0, 3, name.len() as u8];
        write(&client, &[&head, name.as_bytes(), &[p1, p0]].concat());
        assert_eq!(read_exactly(&client, 4), [5, 0, 5, 0], "{name}");
        for client in [socks4a, client] {
            let message = proxy.screen_message_for(client.local_addr().unwrap());
            let shown = format!("::1:{} CONNECT Accept", origin.port());
            assert_eq!(message.summary(), shown);
        }
    }
    assert_eq!(
        refusal_of_raw_name(&proxy, b"[::2]"),
        "::2:80 CONNECT Reject"
    );
    assert_eq!(
        refusal_of_raw_name(&proxy, b"[fe80::1%lo]"),
        "-:80 CONNECT Reject"
    );
    proxy.stderr_line("the zone of an IPv6 address");
    proxy.finish();
}

#[test]
fn d16_a_client_reset_during_the_lookup_leaves_no_connection() {
    in_own_network(|_| {
        // The name server answers after the client reset: `recv` returns when the
        // test drops `allow_answer`.
        let (allow_answer, answer_allowed) = crossbeam_channel::bounded::<()>(0);
        let names = NameServer::start(move |query| {
            if !query.v6 {
                let _ = answer_allowed.recv();
            }
            addresses(&["127.0.0.1"])
        });
        let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = dial(proxy.address());
        let client_address = client.local_addr().unwrap();
        let target = by_name("slow.test", listener.local_addr().unwrap().port());
        write(&client, &request(Command::Connect, &target, b""));
        proxy.wait_for_thread("lookup");
        reset(client);
        drop(allow_answer);
        assert_eq!(proxy.screen_message_for(client_address).reply, "Reject");
        proxy.stderr_line("the client disconnected before the reply");
        proxy.assert_resources_released();
        // A connection that was already made must be closed without data.
        listener.set_nonblocking(true).unwrap();
        if let Ok((remote, _)) = listener.accept() {
            assert_eq!(read_all(&remote), b"");
        }
        drop(names);
        proxy.finish();
    });
}

#[test]
fn d17_a_changed_resolver_configuration_needs_no_restart() {
    in_own_network(|network| {
        let _names = NameServer::start(|_| addresses(&["127.0.0.1"]));
        // No name server listens on 127.0.0.9.
        network.write_file(
            "/etc/resolv.conf",
            "nameserver 127.0.0.9\noptions timeout:1 attempts:1\n",
        );
        let proxy = Proxy::open();
        let origin = Origin::echo();
        let target = by_name("late.test", origin.port());
        assert!(proxy.refusal_of(&target).starts_with("-:"));
        network.write_file("/etc/resolv.conf", "nameserver 127.0.0.1\n");
        drop(connect_through(proxy.address(), &target));
        network.write_hosts("127.0.0.7 late.test\n");
        let shown = proxy.refusal_of(&target);
        assert_eq!(shown, format!("127.0.0.7:{} CONNECT Reject", origin.port()));
        proxy.finish();
    });
}

#[test]
fn x01_the_refusal_of_a_name_shows_its_denied_address() {
    in_own_network(|_| {
        let _names = NameServer::start(|_| addresses(&["169.254.169.254"]));
        let proxy = Proxy::start("deny c 169.254.0.0/16\npermit c -\n", &[]);
        assert_eq!(
            proxy.refusal_of(&by_name("meta.test", 80)),
            "169.254.169.254:80 CONNECT Reject"
        );
        proxy.stderr_line("rule on line 1 denies it");
        proxy.finish();
    });
}

#[test]
fn x01_the_rules_judge_the_resolved_address_of_a_name() {
    // On other machines, localhost may also have an IPv6 address.
    in_own_network(|_| {
        let proxy = Proxy::start("deny c 127.0.0.0/8\npermit c - \n", &[]);
        let target = by_name("localhost", 80);
        assert_eq!(proxy.refusal_of(&target), "127.0.0.1:80 CONNECT Reject");
        proxy.stderr_line("rule on line 1 denies it");
        proxy.finish();
    });
}

#[test]
fn x02_a_name_is_looked_up_only_if_some_address_could_be_permitted() {
    let proxy = Proxy::start("permit c 10.0.0.0/8 - - -\n", &["-v"]);
    assert_eq!(
        proxy.refusal_of(&by_name("localhost", 80)),
        "-:80 CONNECT Reject"
    );
    proxy.stderr_line("no rule permits it");
    proxy.finish();
    // If a deny rule decides before any lookup, the log names that rule.
    let proxy = Proxy::start("permit b -\ndeny c localhost\npermit c -\n", &["-v"]);
    assert_eq!(
        proxy.refusal_of(&by_name("localhost", 80)),
        "-:80 CONNECT Reject"
    );
    let line = proxy.stderr_line("rule on line 2 denies it");
    assert!(line.contains(" rule=2 "), "{line}");
    proxy.finish();
}
