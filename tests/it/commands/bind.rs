//! SOCKS4 BIND: both replies, which peers are admitted, and when the listener closes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use threadsocks::client::socks4::Binding;
use threadsocks::client::{self, ClientError};
use threadsocks::protocol::socks4::Reply;
use threadsocks::protocol::{Command, Destination, ReplyError};

use crate::support::endpoints::{
    by_address, by_name, connect_through, dial, dial_from, free_ports, random_bytes, read_all,
    read_exactly, read_until_reset, request, reset, shutdown_write, with_timeout, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::wait::until;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// An address that no BIND here expects.
const OTHER_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A BIND destination that expects a peer at `ip`. Only the rules use the port:
/// the peer may connect from any.
fn peer_at(ip: Ipv4Addr) -> Destination {
    by_address(SocketAddr::from((ip, 21)))
}

fn bind(proxy: &Proxy, target: &Destination) -> Binding<TcpStream> {
    client::socks4::bind(dial(proxy.address()), target, b"").expect("listening")
}

/// The address that the peer must connect to. The first reply has 0.0.0.0, which
/// means "the address of the server" (SOCKS4.protocol, section 2).
fn bound_address(binding: &Binding<TcpStream>) -> SocketAddr {
    assert_eq!(*binding.address.ip(), Ipv4Addr::UNSPECIFIED);
    assert_ne!(binding.address.port(), 0);
    (LOCALHOST, binding.address.port()).into()
}

/// The second reply must be 91.
fn assert_refused(result: Result<(TcpStream, SocketAddrV4), ClientError>) {
    match result {
        Err(ClientError::Refused(ReplyError::Rejected)) => {}
        other => panic!("{other:?}"),
    }
}

/// The server must close its listener well before the default --bind-timeout of
/// two minutes.
fn assert_stops_listening(proxy: &Proxy, port: u16) {
    let began = Instant::now();
    until("the listener to close", || {
        (!proxy.listens_on(port)).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn b01_two_replies_then_data_both_ways() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let peer = dial(bound_address(&binding));
    let (client, reported) = binding.wait().expect("granted");
    assert_eq!(SocketAddr::V4(reported), peer.local_addr().unwrap());
    write(&peer, b"from the peer");
    assert_eq!(read_exactly(&client, 13), b"from the peer");
    write(&client, b"to the peer");
    shutdown_write(&client);
    assert_eq!(read_all(&peer), b"to the peer");
    drop(peer);
    assert_eq!(read_all(&client), b"");
    let message = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(message.summary(), "127.0.0.1:21 BIND Accept");
    drop(client);
    assert_eq!(proxy.screen_messages(1).len(), 1);
    proxy.finish();
}

#[test]
fn b02_an_unexpected_peer_is_refused_and_the_listener_closes() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let address = bound_address(&binding);
    let unexpected_peer = dial_from((OTHER_HOST, 0).into(), address);
    assert_refused(binding.wait());
    assert_eq!(read_all(&unexpected_peer), b"");
    assert_stops_listening(&proxy, address.port());
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "127.0.0.1:21 BIND Reject"
    );
    proxy.stderr_line("127.0.0.2:");
    proxy.finish();
}

#[test]
fn b03_bind_for_any_peer_admits_each_permitted_address() {
    let rules = "permit c -\npermit b 127.0.0.1\n";
    let proxy = Proxy::start(rules, &[]);
    let any_peer = by_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let binding = bind(&proxy, &any_peer);
    let peer = dial(bound_address(&binding));
    let (client, reported) = binding.wait().expect("granted");
    assert_eq!(SocketAddr::V4(reported), peer.local_addr().unwrap());
    let message = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(message.summary(), format!("{reported} BIND Accept"));
    drop((peer, client));

    let binding = bind(&proxy, &any_peer);
    let unexpected_peer = dial_from((OTHER_HOST, 0).into(), bound_address(&binding));
    let peer_address = unexpected_peer.local_addr().unwrap();
    assert_refused(binding.wait());
    let last = proxy.screen_messages(2).pop().unwrap();
    assert_eq!(last.summary(), format!("{peer_address} BIND Reject"));
    proxy.finish();
}

#[test]
fn b03_bind_for_any_peer_is_refused_if_the_rules_permit_none() {
    let proxy = Proxy::start("permit c -\npermit b 10. - - -\n", &[]);
    let any_peer = by_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let result = client::socks4::bind(dial(proxy.address()), &any_peer, b"");
    assert!(matches!(result, Err(ClientError::Refused(_))));
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "0.0.0.0:0 BIND Reject"
    );
    proxy.finish();
}

#[test]
fn b04_bind_to_a_name_expects_its_addresses() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &by_name("localhost", 21));
    let peer = dial(bound_address(&binding));
    let (client, _) = binding.wait().expect("granted");
    let message = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(message.summary(), "127.0.0.1:21 BIND Accept");
    drop((peer, client));
    let binding = bind(&proxy, &by_name("localhost", 21));
    let _unexpected_peer = dial_from((OTHER_HOST, 0).into(), bound_address(&binding));
    assert_refused(binding.wait());
    proxy.finish();
}

#[test]
fn b05_bind_without_a_peer_ends_at_the_timeout() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-timeout", "500ms"]);
    let began = Instant::now();
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let address = bound_address(&binding);
    assert_refused(binding.wait());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_stops_listening(&proxy, address.port());
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "127.0.0.1:21 BIND Reject"
    );
    proxy.finish();
}

#[test]
fn b06_the_listener_closes_when_the_client_connection_ends() {
    let proxy = Proxy::open();
    for close in [drop, reset] {
        let client = dial(proxy.address());
        write(&client, &request(Command::Bind, &peer_at(LOCALHOST), b""));
        let reply = Reply::read(&mut &client).expect("listening");
        assert!(proxy.listens_on(reply.address.port()));
        close(client);
        assert_stops_listening(&proxy, reply.address.port());
    }
    let client = dial(proxy.address());
    write(&client, &request(Command::Bind, &peer_at(LOCALHOST), b""));
    let reply = Reply::read(&mut &client).expect("listening");
    shutdown_write(&client);
    assert_stops_listening(&proxy, reply.address.port());
    drop(client);
    let messages = proxy.screen_messages(3);
    assert!(messages.iter().all(|message| message.reply == "Reject"));
    proxy.finish();
}

#[test]
fn b07_b08_early_data_and_a_following_eof_wait_for_the_peer() {
    let proxy = Proxy::open();
    let early = random_bytes(1, 20_000);
    for eof_before_peer in [false, true] {
        let client = dial(proxy.address());
        write(&client, &request(Command::Bind, &peer_at(LOCALHOST), b""));
        let reply = Reply::read(&mut &client).expect("listening");
        write(&client, &early);
        if eof_before_peer {
            shutdown_write(&client);
            // EOF must not close the listener: gives the server time to read it.
            let pause = Duration::from_millis(300);
            client.set_read_timeout(Some(pause)).unwrap();
            (&client).read(&mut [0]).expect_err("no second reply yet");
            client
                .set_read_timeout(Some(crate::support::wait::TIMEOUT))
                .unwrap();
        }
        let peer = dial((LOCALHOST, reply.address.port()).into());
        let second = Reply::read(&mut &client).expect("granted");
        assert_eq!(second.outcome, Ok(()));
        if !eof_before_peer {
            shutdown_write(&client);
        }
        assert!(read_all(&peer) == early);
        write(&peer, b"thanks");
        drop(peer);
        assert_eq!(read_all(&client), b"thanks");
    }
    proxy.finish();
}

#[test]
fn b08_a_reset_after_early_data_closes_the_listener() {
    let proxy = Proxy::open();
    let client = dial(proxy.address());
    write(&client, &request(Command::Bind, &peer_at(LOCALHOST), b""));
    let reply = Reply::read(&mut &client).expect("listening");
    write(&client, b"early");
    reset(client);
    assert_stops_listening(&proxy, reply.address.port());
    proxy.finish();
}

#[test]
fn b09_only_the_first_peer_is_relayed() {
    let proxy = Proxy::open();
    for _ in 0..20 {
        let binding = bind(&proxy, &peer_at(LOCALHOST));
        let address = bound_address(&binding);
        let first = dial(address);
        let second = TcpStream::connect(address);
        let (client, reported) = binding.wait().expect("granted");
        assert_eq!(SocketAddr::V4(reported), first.local_addr().unwrap());
        write(&client, b"for the first");
        assert_eq!(read_exactly(&first, 13), b"for the first");
        if let Ok(second) = second {
            let second = with_timeout(second);
            assert!(matches!((&second).read(&mut [0]), Ok(0) | Err(_)));
        }
    }
    proxy.finish();
}

#[test]
fn b10_a_peer_that_resets_at_once_does_not_hang_the_session() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-timeout", "1s"]);
    for _ in 0..20 {
        let binding = bind(&proxy, &peer_at(LOCALHOST));
        reset(TcpStream::connect(bound_address(&binding)).expect("listening"));
        // The server either accepts the peer and relays its reset, or never gets the
        // connection from accept(2), and the BIND times out.
        if let Ok((mut client, _)) = binding.wait() {
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest, b"");
        }
    }
    proxy.finish();
}

#[test]
fn b11_bind_uses_only_the_configured_ports_until_none_is_free() {
    let first = free_ports(2);
    let second = first + 1;
    let range = format!("{first}-{second}");
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-ports", &range]);
    let first_binding = bind(&proxy, &peer_at(LOCALHOST));
    let second_binding = bind(&proxy, &peer_at(LOCALHOST));
    let mut ports = [first_binding.address.port(), second_binding.address.port()];
    ports.sort_unstable();
    assert_eq!(ports, [first, second]);
    let third = client::socks4::bind(dial(proxy.address()), &peer_at(LOCALHOST), b"");
    assert!(matches!(third, Err(ClientError::Refused(_))));
    proxy.stderr_line("no port to listen on left");
    let address = bound_address(&first_binding);
    drop(first_binding);
    assert_stops_listening(&proxy, address.port());
    let third_binding = bind(&proxy, &peer_at(LOCALHOST));
    assert_eq!(third_binding.address.port(), address.port());
    drop((third_binding, second_binding));
    proxy.finish();
}

/// The server tries all ports of the range, from any starting point.
#[test]
fn b11_the_only_free_port_of_a_range_is_found() {
    let first = free_ports(7);
    let free = first + 3;
    let others = (first..first + 7).filter(|port| *port != free);
    let _occupied: Vec<_> = others
        .map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
        .collect();
    let range = format!("{first}-{}", first + 6);
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-ports", &range]);
    for _ in 0..20 {
        let binding = bind(&proxy, &peer_at(LOCALHOST));
        assert_eq!(binding.address.port(), free);
        drop(binding);
        assert_stops_listening(&proxy, free);
    }
    proxy.finish();
}

#[test]
fn b13_x09_a_denied_bind_opens_no_listener() {
    if !crate::support::tools::is_installed("strace", "strace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let proxy = Proxy::with(crate::support::proxy::Setup {
        rules: "permit c -\n",
        wrapper: &[
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=listen",
            "-o",
            trace.to_str().unwrap(),
        ],
        ..Default::default()
    });
    let listen_calls = || {
        std::fs::read_to_string(&trace)
            .unwrap()
            .matches("listen(")
            .count()
    };
    let before = listen_calls();
    let result = client::socks4::bind(dial(proxy.address()), &peer_at(LOCALHOST), b"");
    assert!(matches!(result, Err(ClientError::Refused(_))));
    proxy.screen_messages(1);
    assert_eq!(listen_calls(), before);
    proxy.finish();
}

#[test]
fn b14_the_idle_timeout_applies_to_bind() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "400ms"]);
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let peer = dial(bound_address(&binding));
    let (client, _) = binding.wait().expect("granted");
    for _ in 0..12 {
        write(&peer, b"tick");
        assert_eq!(read_exactly(&client, 4), b"tick");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let began = Instant::now();
    assert_eq!(read_until_reset(&peer), b"");
    assert_eq!(read_until_reset(&client), b"");
    assert!(began.elapsed() >= Duration::from_millis(300));
    proxy.finish();
}

/// The client of a BIND whose first reply it has read.
fn waiting_client(proxy: &Proxy) -> (TcpStream, SocketAddr) {
    let client = dial(proxy.address());
    write(&client, &request(Command::Bind, &peer_at(LOCALHOST), b""));
    let reply = Reply::read(&mut &client).expect("listening");
    (client, (LOCALHOST, reply.address.port()).into())
}

#[test]
fn b17_a_killed_process_resets_a_client_that_waits_for_its_peer() {
    for early in [&b""[..], b"early"] {
        let mut proxy = Proxy::open();
        let (client, _) = waiting_client(&proxy);
        write(&client, early);
        proxy.signal(Signal::SIGKILL);
        proxy.wait();
        assert_eq!(read_until_reset(&client), b"");
    }
}

/// Whatever refuses a BIND after its first reply, the second one arrives, and then EOF: also
/// at a client that reads both after the server has closed (which takes two seconds).
#[test]
fn b18_a_refusal_after_the_first_reply_ends_with_eof() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-timeout", "300ms"]);
    let mut clients = Vec::new();
    for unexpected_peer in [true, false] {
        for early in [&b""[..], b"early"] {
            let (client, address) = waiting_client(&proxy);
            write(&client, early);
            if unexpected_peer {
                let peer = dial_from((OTHER_HOST, 0).into(), address);
                assert_eq!(read_all(&peer), b"");
            }
            clients.push(client);
        }
    }
    proxy.assert_resources_released();
    for client in &clients {
        assert!(client.peer_addr().is_ok(), "reset by the close");
        assert_eq!(read_all(client)[..2], [0, 91]);
    }
    proxy.finish();
}

#[test]
fn b19_a_stop_sends_the_second_reply_to_a_client_that_waits() {
    for (options, signals) in [(["--grace", "100ms"], 1), (["--grace", "1m"], 2)] {
        let mut proxy = Proxy::start(PERMIT_ALL, &options);
        let (client, _) = waiting_client(&proxy);
        for _ in 0..signals {
            proxy.signal(Signal::SIGTERM);
            proxy.stderr_line("stopping");
        }
        let second = read_all(&client);
        assert_eq!((second.len(), &second[..2]), (8, &[0, 91][..]));
        proxy.wait();
    }
}

#[test]
fn b20_an_urgent_byte_of_the_peer_stays_in_its_place() {
    let proxy = Proxy::open();
    for _ in 0..20 {
        let (client, address) = waiting_client(&proxy);
        let peer = dial(address);
        for _ in 0..2 {
            let sent = send(peer.as_raw_fd(), b"hello!", MsgFlags::MSG_OOB);
            assert_eq!(sent, Ok(6));
        }
        assert_eq!(read_exactly(&client, 8)[..2], [0, 90]);
        shutdown_write(&peer);
        assert_eq!(read_all(&client), b"hello!hello!");
    }
    proxy.finish();
}

#[test]
fn the_first_reply_has_the_advertised_address() {
    let proxy = Proxy::start(PERMIT_ALL, &["--advertise", "192.0.2.7"]);
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    assert_eq!(*binding.address.ip(), Ipv4Addr::new(192, 0, 2, 7));
    drop(binding);
    proxy.finish();
}

#[test]
fn b05_five_hundred_pending_binds_are_released() {
    let proxy = Proxy::open();
    let pending: Vec<_> = (0..500)
        .map(|_| bind(&proxy, &peer_at(LOCALHOST)))
        .collect();
    let mut peers = Vec::new();
    for binding in &pending[..10] {
        peers.push(dial(bound_address(binding)));
    }
    for (binding, mut peer) in pending.into_iter().zip(peers) {
        let (client, _) = binding.wait().expect("granted");
        peer.write_all(b"x").unwrap();
        assert_eq!(read_exactly(&client, 1), b"x");
    }
    proxy.finish();
}

/// The peer connects through the same server. That is not a loop, because the
/// rules permit the destination.
#[test]
fn s20_a_bind_whose_accept_always_fails_is_refused() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "accept4:error=EPERM") else {
        return proxy.finish();
    };
    let _peer = dial(bound_address(&binding));
    assert_refused(binding.wait());
    drop(syscall_faults);
    proxy.finish();
}

#[test]
fn b15_the_peer_may_connect_through_the_server_itself() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &peer_at(LOCALHOST));
    let peer = connect_through(proxy.address(), &by_address(bound_address(&binding)));
    let (client, _) = binding.wait().expect("granted");
    write(&peer, b"the long way");
    assert_eq!(read_exactly(&client, 12), b"the long way");
    drop((peer, client));
    proxy.finish();
}
