//! SOCKS5 replies: the reply codes, and bound addresses of IPv4 and IPv6.

use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use threadsocks::client::ClientError;
use threadsocks::client::socks5::{self, Binding};
use threadsocks::protocol::socks5::{MethodSelection, Reply, Request};
use threadsocks::protocol::{Command, Destination, Host, ReplyError};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    CLOSED, Origin, UnresponsiveListener, accept, by_address, by_name, dial, dial_from, read_all,
    read_exactly, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Sends `request` after the greeting, reads the reply, and requires EOF after it.
fn reply_to_request(proxy: &Proxy, request: &[u8]) -> Reply {
    let client = dial(proxy.address());
    write(&client, &[&[5, 1, 0], request].concat());
    let mut stream = BufReader::with_capacity(1, &client);
    MethodSelection::read(&mut stream).expect("a method selection");
    let reply = Reply::read(&mut stream).expect("a reply");
    assert_eq!(read_all(&client), b"", "{request:02x?}");
    reply
}

/// An error reply has ten bytes (an IPv4 address), because some clients always read
/// ten.
fn error_reply(error: ReplyError) -> Reply {
    Reply {
        outcome: Err(error),
        bound: by_address((Ipv4Addr::UNSPECIFIED, 0).into()),
    }
}

/// The error of a CONNECT that the server must refuse.
fn connect_error(proxy: &Proxy, target: &Destination) -> ReplyError {
    match socks5::connect(dial(proxy.address()), None, target) {
        Err(ClientError::Refused(error)) => error,
        other => panic!("{target}: {other:?}"),
    }
}

fn connect_granted(proxy: &Proxy, target: &Destination) -> TcpStream {
    let granted = socks5::connect(dial(proxy.address()), None, target);
    granted.expect("granted").0
}

#[test]
fn v08_each_invalid_field_has_its_own_reply_code() {
    let proxy = Proxy::open();
    let request_with = |position: usize, byte: u8| {
        let mut request = [5, 1, 0, 1, 127, 0, 0, 1, 0, 1];
        request[position] = byte;
        request
    };
    for (position, bytes, code) in [
        (0, &[0, 1, 4, 6, 0xFF][..], ReplyError::Rejected),
        (1, &[0, 4, 0xF0, 0xFF], ReplyError::CommandNotSupported),
        (2, &[1, 0xFF], ReplyError::Rejected),
        (3, &[0, 2, 5, 0xFF], ReplyError::AddressTypeNotSupported),
    ] {
        for &byte in bytes {
            let reply = reply_to_request(&proxy, &request_with(position, byte));
            assert_eq!(reply, error_reply(code), "{byte:#x} at {position}");
        }
    }
    assert_eq!(
        proxy.screen_messages(0),
        [],
        "invalid requests are not reported"
    );
    proxy.finish();
}

#[test]
fn v09_invalid_names_are_refused_as_in_socks4a() {
    let proxy = Proxy::open();
    let reply_to_name = |name: &[u8]| {
        let length = u8::try_from(name.len()).unwrap();
        reply_to_request(&proxy, &[&[5, 1, 0, 3, length], name, &[0, 80]].concat())
    };
    let invalid_names = [
        &b""[..],
        b"a\0b",
        b"\0",
        &[b'a'; 255],
        b"127.1",
        b"2130706433",
        b"0x7f000001",
        b"[127.0.0.1]",
        b"fe80::1%lo",
        b"host:80",
        b"a b",
        b"\xff\xfe",
    ];
    for name in invalid_names {
        assert_eq!(
            reply_to_name(name),
            error_reply(ReplyError::HostUnreachable),
            "{name:?}"
        );
    }
    for message in proxy.screen_messages(invalid_names.len()) {
        assert_eq!(message.summary(), "-:80 CONNECT Reject");
    }
    // A literal address in the field of a name is judged as that address.
    for address in [&b"0.0.0.0"[..], b"::", b"[::]", b"::127.0.0.1"] {
        assert_eq!(
            reply_to_name(address),
            error_reply(ReplyError::Rejected),
            "{address:?}"
        );
    }
    proxy.finish();
}

#[test]
fn v10_the_reply_code_names_the_error() {
    in_own_network(|network| {
        for (kind, address) in [
            ("unreachable", "10.1.0.1/32"),
            ("prohibit", "10.2.0.1/32"),
            ("blackhole", "10.3.0.1/32"),
        ] {
            network.ip(&format!("route add {kind} {address}"));
        }
        let _names = NameServer::start(|query| match query.name.as_str() {
            "meta.test" => addresses(&["169.254.169.254"]),
            _ => addresses(&[]),
        });
        let unresponsive = UnresponsiveListener::new();
        let rules = "deny c 169.254.0.0/16\npermit - -\n";
        let proxy = Proxy::start(rules, &["--connect-timeout", "500ms"]);
        for (host, code) in [
            ("10.1.0.1:80", ReplyError::HostUnreachable),
            ("10.2.0.1:80", ReplyError::NotAllowed),
            ("10.3.0.1:80", ReplyError::NetworkUnreachable),
            ("10.4.0.1:80", ReplyError::NetworkUnreachable),
            ("[2001:db8::1]:80", ReplyError::NetworkUnreachable),
            ("169.254.169.254:80", ReplyError::NotAllowed),
            ("127.0.0.1:0", ReplyError::Rejected),
            ("224.0.0.1:80", ReplyError::Rejected),
        ] {
            assert_eq!(
                connect_error(&proxy, &by_address(host.parse().unwrap())),
                code,
                "{host}"
            );
        }
        let refused = connect_error(&proxy, &by_address(CLOSED.into()));
        assert_eq!(refused, ReplyError::ConnectionRefused);
        assert_eq!(
            connect_error(&proxy, &by_address(unresponsive.address())),
            ReplyError::TimedOut
        );
        for (name, code) in [
            ("none.test", ReplyError::HostUnreachable),
            ("meta.test", ReplyError::NotAllowed),
        ] {
            assert_eq!(connect_error(&proxy, &by_name(name, 80)), code, "{name}");
        }
        proxy.finish();
    });
}

#[test]
fn v10_the_reply_has_the_local_address_of_the_connection() {
    let proxy = Proxy::open();
    for ip in [IpAddr::V4(LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let target = by_address(listener.local_addr().unwrap());
        let client = dial(proxy.address());
        let request = Request {
            command: Command::Connect,
            destination: target,
        };
        write(&client, &[vec![5, 1, 0], request.encode()].concat());
        let remote = accept(&listener);
        let mut stream = BufReader::with_capacity(1, &client);
        MethodSelection::read(&mut stream).expect("a method selection");
        let reply = Reply::read(&mut stream).expect("a reply");
        assert_eq!(reply.outcome, Ok(()));
        assert_eq!(reply.bound, by_address(remote.peer_addr().unwrap()));
    }
    proxy.finish();
}

#[test]
fn v11_ipv6_is_reached_by_address_and_by_name() {
    in_own_network(|network| {
        network.write_hosts("::1 six.test\n127.0.0.2 both.test\n::1 both.test\n");
        let proxy = Proxy::start(PERMIT_ALL, &[]);
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let literal = by_address(listener.local_addr().unwrap());
        // The listener is bound to ::1 only, so 127.0.0.2 of both.test refuses.
        for target in [
            literal,
            by_name("six.test", port),
            by_name("both.test", port),
        ] {
            let client = dial(proxy.address());
            let client_address = client.local_addr().unwrap();
            let (client, _) = socks5::connect(client, None, &target).expect("granted");
            let remote = accept(&listener);
            write(&client, b"up");
            assert_eq!(read_exactly(&remote, 2), b"up");
            let message = proxy.screen_message_for(client_address);
            assert_eq!(message.summary(), format!("::1:{port} CONNECT Accept"));
        }
        // A link-local address without a zone names no network interface.
        let link_local = by_address("[fe80::1]:80".parse().unwrap());
        assert_eq!(
            connect_error(&proxy, &link_local),
            ReplyError::NetworkUnreachable
        );
        proxy.finish();
    });
}

/// The address in the first reply: the peer must connect there.
fn bound_address(binding: &Binding<TcpStream>) -> SocketAddr {
    let address = binding.address.host.address().expect("an address");
    SocketAddr::new(address, binding.address.port)
}

/// Starts a BIND that expects a peer at this address.
fn bind(proxy: &Proxy, expected: IpAddr) -> Binding<TcpStream> {
    let expected = by_address(SocketAddr::new(expected, 21));
    socks5::bind(dial(proxy.address()), None, &expected).expect("listening")
}

#[test]
fn v12_bind_has_two_replies_in_both_address_families() {
    let proxy = Proxy::open();
    for expected in [
        IpAddr::V4(LOCALHOST),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        let binding = bind(&proxy, expected);
        let port = bound_address(&binding).port();
        let from = match expected {
            IpAddr::V4(_) => IpAddr::V4(LOCALHOST),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let peer = dial((from, port).into());
        let (client, reported) = binding.wait().expect("granted");
        assert_eq!(reported, by_address(peer.local_addr().unwrap()));
        write(&peer, b"down");
        assert_eq!(read_exactly(&client, 4), b"down");
    }
    // Failures: an unexpected peer, no peer before the timeout, a denied peer.
    let binding = bind(&proxy, [127, 0, 0, 9].into());
    let _unexpected_peer = dial_from((LOCALHOST, 0).into(), bound_address(&binding));
    let refused = binding.wait().expect_err("an unexpected peer");
    assert!(
        matches!(refused, ClientError::Refused(ReplyError::NotAllowed)),
        "{refused:?}"
    );
    proxy.finish();
    let rules = "permit b - - 127.0.0.0/8 -\n";
    let proxy = Proxy::start(rules, &["--bind-timeout", "300ms"]);
    let timed_out = bind(&proxy, LOCALHOST.into())
        .wait()
        .expect_err("a timeout");
    assert!(
        matches!(timed_out, ClientError::Refused(ReplyError::TimedOut)),
        "{timed_out:?}"
    );
    let binding = bind(&proxy, Ipv6Addr::UNSPECIFIED.into());
    let _denied = dial((Ipv6Addr::LOCALHOST, bound_address(&binding).port()).into());
    let denied = binding.wait().expect_err("a denial");
    assert!(
        matches!(denied, ClientError::Refused(ReplyError::NotAllowed)),
        "{denied:?}"
    );
    proxy.finish();
}

#[test]
fn x04_ipv6_forms_of_ipv4_are_judged_as_ipv4_or_refused() {
    let proxy = Proxy::start("deny - 127.0.0.2\npermit - -\n", &[]);
    let origin = Origin::echo();
    let port = origin.port();
    let at_port = |text: &str| by_address(SocketAddr::new(text.parse().unwrap(), port));
    let client = connect_granted(&proxy, &at_port("::ffff:127.0.0.1"));
    let client_address = client.local_addr().unwrap();
    let shown = proxy.screen_message_for(client_address).summary();
    assert_eq!(shown, format!("127.0.0.1:{port} CONNECT Accept"));
    for denied in ["::ffff:127.0.0.2", "64:ff9b::127.0.0.2"] {
        let error = connect_error(&proxy, &at_port(denied));
        assert_eq!(error, ReplyError::NotAllowed, "{denied}");
    }
    for literal in [
        "::127.0.0.1",
        "::ffff:0.0.0.0",
        "64:ff9b::0.0.0.0",
        "::ffff:0:127.0.0.1",
        "fe80::5efe:127.0.0.1",
        "64:ff9b:1::127.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::1",
        "::",
        "ff02::1",
    ] {
        assert_eq!(
            connect_error(&proxy, &at_port(literal)),
            ReplyError::Rejected,
            "{literal}"
        );
    }
    drop(client);
    proxy.finish();
}

#[test]
fn b16_the_first_reply_has_the_address_the_peer_can_reach() {
    in_own_network(|network| {
        let _peer_host = network.second_host();
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", "0.0.0.0"]);
        // The client reaches the server on loopback, the peer on another interface.
        let client = || dial((LOCALHOST, proxy.port()).into());
        let expected = by_address(([10, 9, 0, 2], 21).into());
        let binding = socks5::bind(client(), None, &expected).expect("listening");
        let outer_address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(binding.address.host, Host::Address(outer_address));
        drop(binding);
        // For any peer, the reply has the address that the client connected to.
        let any_peer = by_address((Ipv4Addr::UNSPECIFIED, 0).into());
        let binding = socks5::bind(client(), None, &any_peer).expect("listening");
        assert_eq!(binding.address.host, Host::Address(LOCALHOST.into()));
        drop(binding);
        proxy.finish();
    });
}

#[test]
fn x10_socks4_hides_whether_a_rule_or_a_closed_port_refuses_and_socks5_tells() {
    let proxy = Proxy::start("deny - - 9\npermit - -\n", &[]);
    for (port, code) in [(9, 2), (CLOSED.port(), 5)] {
        let [p1, p0] = port.to_be_bytes();
        let client = dial(proxy.address());
        write(&client, &[4, 1, p1, p0, 127, 0, 0, 1, 0]);
        assert_eq!(read_all(&client), [0, 91, p1, p0, 127, 0, 0, 1]);
        let client = dial(proxy.address());
        write(&client, &[5, 1, 0]);
        assert_eq!(read_exactly(&client, 2), [5, 0]);
        write(&client, &[5, 1, 0, 1, 127, 0, 0, 1, p1, p0]);
        assert_eq!(read_all(&client)[..2], [5, code]);
    }
    proxy.finish();
}
