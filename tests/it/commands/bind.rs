//! BIND: two replies, and who may come.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use threadsocks::client::socks4::Binding;
use threadsocks::client::{self, ClientError};
use threadsocks::protocol::socks4::Reply;
use threadsocks::protocol::{Command, Destination, ReplyError};

use crate::support::endpoints::{
    by_address, by_name, connect_through, dial, dial_from, free_ports, random_bytes, read_all,
    read_exactly, request, reset, shutdown_write, with_timeout, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::until;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// An address to expect a peer from; the port serves only the rules.
fn expecting(ip: Ipv4Addr) -> Destination {
    by_address(SocketAddr::from((ip, 21)))
}

fn bind(proxy: &Proxy, target: &Destination) -> Binding<TcpStream> {
    client::socks4::bind(dial(proxy.address()), target, b"").expect("listening")
}

/// Where the peer must connect to.
fn listening(binding: &Binding<TcpStream>) -> SocketAddr {
    assert_eq!(*binding.address.ip(), Ipv4Addr::UNSPECIFIED);
    assert_ne!(binding.address.port(), 0);
    (LOCALHOST, binding.address.port()).into()
}

fn refused(result: Result<(TcpStream, SocketAddrV4), ClientError>) {
    match result {
        Err(ClientError::Refused(ReplyError::Rejected)) => {}
        other => panic!("{other:?}"),
    }
}

/// The server stops listening there, long before the limit of two minutes.
fn closes(proxy: &Proxy, port: u16) {
    let began = Instant::now();
    until("the listener's end", || {
        (!proxy.listens_on(port)).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn b01_two_replies_then_data_both_ways() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &expecting(LOCALHOST));
    let peer = dial(listening(&binding));
    let (client, told) = binding.wait().expect("granted");
    assert_eq!(SocketAddr::V4(told), peer.local_addr().unwrap());
    write(&peer, b"from the peer");
    assert_eq!(read_exactly(&client, 13), b"from the peer");
    write(&client, b"to the peer");
    shutdown_write(&client);
    assert_eq!(read_all(&peer), b"to the peer");
    drop(peer);
    assert_eq!(read_all(&client), b"");
    let block = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(block.summary(), "127.0.0.1:21 BIND Accept");
    drop(client);
    assert_eq!(proxy.screen_messages(1).len(), 1);
    proxy.finish();
}

#[test]
fn b02_a_stranger_is_refused_and_nobody_else_let_in() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &expecting(LOCALHOST));
    let address = listening(&binding);
    let stranger = dial_from((NEIGHBOUR, 0).into(), address);
    refused(binding.wait());
    assert_eq!(read_all(&stranger), b"");
    closes(&proxy, address.port());
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "127.0.0.1:21 BIND Reject"
    );
    proxy.stderr_line("127.0.0.2:");
    proxy.finish();
}

#[test]
fn b03_any_peer_that_the_rules_permit() {
    let rules = "permit c -\npermit b 127.0.0.1\n";
    let proxy = Proxy::start(rules, &[]);
    let anyone = by_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let binding = bind(&proxy, &anyone);
    let peer = dial(listening(&binding));
    let (client, told) = binding.wait().expect("granted");
    assert_eq!(SocketAddr::V4(told), peer.local_addr().unwrap());
    let block = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(block.summary(), format!("{told} BIND Accept"));
    drop((peer, client));

    let binding = bind(&proxy, &anyone);
    let stranger = dial_from((NEIGHBOUR, 0).into(), listening(&binding));
    let came_from = stranger.local_addr().unwrap();
    refused(binding.wait());
    let last = proxy.screen_messages(2).pop().unwrap();
    assert_eq!(last.summary(), format!("{came_from} BIND Reject"));
    proxy.finish();
}

#[test]
fn b03_any_peer_is_not_even_awaited_if_the_rules_permit_none() {
    let proxy = Proxy::start("permit c -\npermit b 10. - - -\n", &[]);
    let anyone = by_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let result = client::socks4::bind(dial(proxy.address()), &anyone, b"");
    assert!(matches!(result, Err(ClientError::Refused(_))));
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "0.0.0.0:0 BIND Reject"
    );
    proxy.finish();
}

#[test]
fn b04_a_name_stands_for_its_addresses() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &by_name("localhost", 21));
    let peer = dial(listening(&binding));
    let (client, _) = binding.wait().expect("granted");
    let block = proxy.screen_message_for(client.local_addr().unwrap());
    assert_eq!(block.summary(), "127.0.0.1:21 BIND Accept");
    drop((peer, client));
    let binding = bind(&proxy, &by_name("localhost", 21));
    let _stranger = dial_from((NEIGHBOUR, 0).into(), listening(&binding));
    refused(binding.wait());
    proxy.finish();
}

#[test]
fn b05_nobody_comes() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-timeout", "500ms"]);
    let began = Instant::now();
    let binding = bind(&proxy, &expecting(LOCALHOST));
    let address = listening(&binding);
    refused(binding.wait());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    closes(&proxy, address.port());
    assert_eq!(
        proxy.screen_messages(1)[0].summary(),
        "127.0.0.1:21 BIND Reject"
    );
    proxy.finish();
}

#[test]
fn b06_the_listener_does_not_outlive_its_client() {
    let proxy = Proxy::open();
    for leave in [drop, reset] {
        let client = dial(proxy.address());
        write(&client, &request(Command::Bind, &expecting(LOCALHOST), b""));
        let reply = Reply::read(&mut &client).expect("listening");
        assert!(proxy.listens_on(reply.address.port()));
        leave(client);
        closes(&proxy, reply.address.port());
    }
    let client = dial(proxy.address());
    write(&client, &request(Command::Bind, &expecting(LOCALHOST), b""));
    let reply = Reply::read(&mut &client).expect("listening");
    shutdown_write(&client);
    closes(&proxy, reply.address.port());
    drop(client);
    let blocks = proxy.screen_messages(3);
    assert!(blocks.iter().all(|block| block.reply == "Reject"));
    proxy.finish();
}

#[test]
fn b07_b08_early_data_waits_for_the_peer_and_so_does_an_end_behind_it() {
    let proxy = Proxy::open();
    let early = random_bytes(1, 20_000);
    for ends in [false, true] {
        let client = dial(proxy.address());
        write(&client, &request(Command::Bind, &expecting(LOCALHOST), b""));
        let reply = Reply::read(&mut &client).expect("listening");
        write(&client, &early);
        if ends {
            shutdown_write(&client);
            // Time to notice, and to close the listener by mistake.
            let pause = Duration::from_millis(300);
            client.set_read_timeout(Some(pause)).unwrap();
            (&client).read(&mut [0]).expect_err("still waiting");
            client
                .set_read_timeout(Some(crate::support::wait::TIMEOUT))
                .unwrap();
        }
        let peer = dial((LOCALHOST, reply.address.port()).into());
        let second = Reply::read(&mut &client).expect("granted");
        assert_eq!(second.outcome, Ok(()));
        if !ends {
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
fn b08_a_reset_behind_early_data_frees_the_listener() {
    let proxy = Proxy::open();
    let client = dial(proxy.address());
    write(&client, &request(Command::Bind, &expecting(LOCALHOST), b""));
    let reply = Reply::read(&mut &client).expect("listening");
    write(&client, b"early");
    reset(client);
    closes(&proxy, reply.address.port());
    proxy.finish();
}

#[test]
fn b09_the_first_peer_decides() {
    let proxy = Proxy::open();
    for _ in 0..20 {
        let binding = bind(&proxy, &expecting(LOCALHOST));
        let address = listening(&binding);
        let first = dial(address);
        let second = TcpStream::connect(address);
        let (client, told) = binding.wait().expect("granted");
        assert_eq!(SocketAddr::V4(told), first.local_addr().unwrap());
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
fn b10_a_peer_that_breaks_off_at_once_hangs_nothing() {
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-timeout", "1s"]);
    for _ in 0..20 {
        let binding = bind(&proxy, &expecting(LOCALHOST));
        reset(TcpStream::connect(listening(&binding)).expect("listening"));
        // Either it counted, and the relay is broken, or nobody came.
        if let Ok((mut client, _)) = binding.wait() {
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest, b"");
        }
    }
    proxy.finish();
}

#[test]
fn b11_bind_ports_are_kept_to_and_run_out() {
    let first = free_ports(2);
    let second = first + 1;
    let range = format!("{first}-{second}");
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-ports", &range]);
    let one = bind(&proxy, &expecting(LOCALHOST));
    let two = bind(&proxy, &expecting(LOCALHOST));
    let mut ports = [one.address.port(), two.address.port()];
    ports.sort_unstable();
    assert_eq!(ports, [first, second]);
    let none = client::socks4::bind(dial(proxy.address()), &expecting(LOCALHOST), b"");
    assert!(matches!(none, Err(ClientError::Refused(_))));
    proxy.stderr_line("no port to listen on left");
    let address = listening(&one);
    drop(one);
    closes(&proxy, address.port());
    let again = bind(&proxy, &expecting(LOCALHOST));
    assert_eq!(again.address.port(), address.port());
    drop((again, two));
    proxy.finish();
}

/// However many are taken, whoever asks gets the one that is free.
#[test]
fn b11_the_last_port_of_a_range_is_found() {
    let first = free_ports(7);
    let free = first + 3;
    let others = (first..first + 7).filter(|port| *port != free);
    let _taken: Vec<_> = others
        .map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
        .collect();
    let range = format!("{first}-{}", first + 6);
    let proxy = Proxy::start(PERMIT_ALL, &["--bind-ports", &range]);
    for _ in 0..20 {
        let binding = bind(&proxy, &expecting(LOCALHOST));
        assert_eq!(binding.address.port(), free);
        drop(binding);
        closes(&proxy, free);
    }
    proxy.finish();
}

#[test]
fn b13_x09_what_the_rules_deny_opens_no_listener() {
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
    let listens = || {
        std::fs::read_to_string(&trace)
            .unwrap()
            .matches("listen(")
            .count()
    };
    let before = listens();
    let result = client::socks4::bind(dial(proxy.address()), &expecting(LOCALHOST), b"");
    assert!(matches!(result, Err(ClientError::Refused(_))));
    proxy.screen_messages(1);
    assert_eq!(listens(), before);
    proxy.finish();
}

#[test]
fn b14_limits_of_the_relay_hold_for_bind_too() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "400ms"]);
    let binding = bind(&proxy, &expecting(LOCALHOST));
    let peer = dial(listening(&binding));
    let (client, _) = binding.wait().expect("granted");
    for _ in 0..12 {
        write(&peer, b"tick");
        assert_eq!(read_exactly(&client, 4), b"tick");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let began = Instant::now();
    assert_eq!(read_all(&peer), b"");
    assert_eq!(read_all(&client), b"");
    assert!(began.elapsed() >= Duration::from_millis(300));
    proxy.finish();
}

#[test]
fn advertise_is_what_the_first_reply_says() {
    let proxy = Proxy::start(PERMIT_ALL, &["--advertise", "192.0.2.7"]);
    let binding = bind(&proxy, &expecting(LOCALHOST));
    assert_eq!(*binding.address.ip(), Ipv4Addr::new(192, 0, 2, 7));
    drop(binding);
    proxy.finish();
}

#[test]
fn b05_five_hundred_wait_at_once_and_leave_nothing() {
    let proxy = Proxy::open();
    let waiting: Vec<_> = (0..500)
        .map(|_| bind(&proxy, &expecting(LOCALHOST)))
        .collect();
    let mut peers = Vec::new();
    for binding in &waiting[..10] {
        peers.push(dial(listening(binding)));
    }
    for (binding, mut peer) in waiting.into_iter().zip(peers) {
        let (client, _) = binding.wait().expect("granted");
        peer.write_all(b"x").unwrap();
        assert_eq!(read_exactly(&client, 1), b"x");
    }
    proxy.finish();
}

/// The peer comes through the same server, which is no loop: the rules permit it
/// to connect there.
#[test]
fn b15_the_peer_may_be_the_server_itself() {
    let proxy = Proxy::open();
    let binding = bind(&proxy, &expecting(LOCALHOST));
    let peer = connect_through(proxy.address(), &by_address(listening(&binding)));
    let (client, _) = binding.wait().expect("granted");
    write(&peer, b"the long way");
    assert_eq!(read_exactly(&client, 12), b"the long way");
    drop((peer, client));
    proxy.finish();
}
