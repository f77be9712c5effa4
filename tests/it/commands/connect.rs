//! CONNECT: the reply, and each way in which a connection can fail.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    CLOSED, Origin, UnresponsiveListener, by_address, by_name, connect_through, dial, read_all,
    read_exactly, request, reset, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::wait::until;

#[test]
fn the_reply_repeats_port_and_address() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let [p1, p0] = origin.port().to_be_bytes();
    let client = dial(proxy.address());
    write(
        &client,
        &request(Command::Connect, &origin.destination(), b""),
    );
    assert_eq!(read_exactly(&client, 8), [0, 90, p1, p0, 127, 0, 0, 1]);
    drop(client);
    let client = dial(proxy.address());
    write(
        &client,
        &[&[4, 1, p1, p0, 0, 0, 0, 77, 0], &b"localhost"[..], &[0]].concat(),
    );
    assert_eq!(read_exactly(&client, 8), [0, 90, p1, p0, 0, 0, 0, 77]);
    let client_address = client.local_addr().unwrap();
    let shown = proxy.screen_message_for(client_address).summary();
    assert_eq!(shown, format!("{} CONNECT Accept", origin.address()));
    drop(client);
    proxy.finish();
}

#[test]
fn c01_a_closed_port_is_refused_at_once() {
    let proxy = Proxy::open();
    let began = Instant::now();
    let shown = proxy.refusal_of(&by_address(CLOSED.into()));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(shown, "127.0.0.1:1 CONNECT Reject");
    proxy.stderr_line("Connection refused");
    proxy.finish();
}

#[test]
fn c03_an_unresponsive_destination_is_refused_at_the_timeout() {
    let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "700ms"]);
    let unresponsive = UnresponsiveListener::new();
    let began = Instant::now();
    let shown = proxy.refusal_of(&by_address(unresponsive.address()));
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_millis(700), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    assert!(shown.ends_with("CONNECT Reject"), "{shown}");
    proxy.finish();
}

#[test]
fn c04_a_client_reset_aborts_the_connect() {
    let proxy = Proxy::open();
    let unresponsive = UnresponsiveListener::new();
    let at_start = proxy.resources();
    let client = dial(proxy.address());
    let client_address = client.local_addr().unwrap();
    write(
        &client,
        &request(Command::Connect, &by_address(unresponsive.address()), b""),
    );
    // While connect(2) is pending the session holds two descriptors: client, remote.
    until("the pending connect", || {
        (proxy.resources().descriptors >= at_start.descriptors + 2).then_some(())
    });
    reset(client);
    let began = Instant::now();
    assert_eq!(proxy.screen_message_for(client_address).reply, "Reject");
    proxy.assert_resources_released();
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.stderr_line("the client disconnected before the reply");
    proxy.finish();
}

#[test]
fn c04_a_client_half_close_does_not_abort_the_connect() {
    let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "700ms"]);
    let unresponsive = UnresponsiveListener::new();
    let client = dial(proxy.address());
    write(
        &client,
        &request(Command::Connect, &by_address(unresponsive.address()), b""),
    );
    shutdown_write(&client);
    let began = Instant::now();
    assert_eq!(read_all(&client)[..2], [0, 91]);
    assert!(began.elapsed() >= Duration::from_millis(600));
    proxy.finish();
}

#[test]
fn c05_c11_d02_unusable_addresses_are_refused_even_if_the_rules_permit_all() {
    let proxy = Proxy::open();
    for address in [
        "127.0.0.1:0",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
    ] {
        let target = by_address(address.parse().unwrap());
        assert_eq!(
            proxy.refusal_of(&target),
            format!("{address} CONNECT Reject")
        );
    }
    proxy.finish();
}

/// A failed system call refuses one request and leaves no state behind.
#[test]
fn c07_a_failed_system_call_is_reported_and_the_next_request_succeeds() {
    for (injection, error_text) in [
        ("socket:error=EMFILE", "Too many open files"),
        ("socket:error=ENFILE", "Too many open files in system"),
        ("socket:error=ENOBUFS", "No buffer space available"),
        ("socket:error=ENOMEM", "Cannot allocate memory"),
        ("connect:error=ENOBUFS", "No buffer space available"),
        ("connect:error=EAGAIN", "Resource temporarily unavailable"),
        (
            "connect:error=EADDRNOTAVAIL",
            "Cannot assign requested address",
        ),
        ("ioctl:error=EIO", "Input/output error"),
        ("setsockopt:error=ENOPROTOOPT", "Protocol not available"),
        ("getsockname:error=ENOBUFS", "No buffer space available"),
    ] {
        let proxy = Proxy::open();
        let origin = Origin::echo();
        let Some(syscall_faults) = SyscallFaults::with(&proxy, injection) else {
            return proxy.finish();
        };
        assert!(
            proxy
                .refusal_of(&origin.destination())
                .ends_with("CONNECT Reject")
        );
        let line = proxy.stderr_line("refused");
        assert!(line.contains(error_text), "{injection}: {line}");
        drop(syscall_faults);
        drop(connect_through(proxy.address(), &origin.destination()));
        proxy.finish();
    }
}

#[test]
fn c09_a_loop_through_the_server_is_refused_at_the_inner_request() {
    // Each listening address with each loopback address that reaches it.
    for bind_address in ["127.0.0.1", "0.0.0.0", "::"] {
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", bind_address]);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        let other_loopback = SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), proxy.port()));
        for own_address in [address, other_loopback] {
            if bind_address == "127.0.0.1" && own_address == other_loopback {
                continue;
            }
            // The outer request is permitted: its client is not the server. The
            // inner one comes from a socket of the server and is a loop.
            let tunnel = connect_through(address, &by_address(own_address));
            let inner = tunnel.local_addr().unwrap();
            write(
                &tunnel,
                &request(Command::Connect, &by_address(own_address), b""),
            );
            assert_eq!(read_all(&tunnel)[..2], [0, 91]);
            assert_eq!(proxy.screen_message_for(inner).reply, "Accept");
        }
        proxy.stderr_line("a loop");
        let messages = proxy.screen_messages(2);
        let summary = format!(
            "{}:{} CONNECT Reject",
            messages[0].destination,
            proxy.port()
        );
        assert!(
            messages.iter().any(|message| message.summary() == summary),
            "{messages:?}"
        );
        proxy.finish();
    }
}

#[test]
fn c10_connect_is_refused_if_no_second_thread_starts() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    // An empty session leaves one idle thread, enough for the next session but not
    // for its second direction.
    drop(dial(proxy.address()));
    proxy.wait_for_thread("idle");
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "clone3:error=EAGAIN") else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    let client_address = client.local_addr().unwrap();
    write(
        &client,
        &request(Command::Connect, &origin.destination(), b""),
    );
    assert_eq!(read_all(&client)[..2], [0, 91]);
    assert_eq!(proxy.screen_message_for(client_address).reply, "Reject");
    proxy.stderr_line("no thread left");
    drop(syscall_faults);
    drop(connect_through(proxy.address(), &origin.destination()));
    proxy.finish();
}

#[test]
fn c13_an_origin_that_resets_at_once_ends_the_session() {
    let proxy = Proxy::open();
    let origin = Origin::start(reset);
    for _ in 0..50 {
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b""),
        );
        let mut received = Vec::new();
        let _ = (&client).read_to_end(&mut received);
        assert!(
            received.is_empty() || received[..2] == [0, 90] || received[..2] == [0, 91],
            "{received:?}"
        );
    }
    proxy.finish();
}

#[test]
fn s03_a_client_without_a_thread_still_gets_a_refusal() {
    let proxy = Proxy::open();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "clone3:error=EAGAIN:when=1") else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    assert_eq!(read_all(&client), [0, 91, 0, 0, 0, 0, 0, 0]);
    proxy.stderr_line("no thread for a client");
    drop(syscall_faults);
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
}

/// `finish` compares threads, descriptors and mappings with those at the start.
#[test]
fn s08_a_thousand_failures_of_each_kind_leak_nothing() {
    const TIMES: usize = 1000;
    let proxy = Proxy::start("deny cb 127.0.0.9\npermit cb -\n", &[]);
    let local = |last, port| by_address(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)));
    let connect = |target: &Destination| request(Command::Connect, target, b"");
    let bind = |target: &Destination| request(Command::Bind, target, b"");
    let refused = &[0, 91][..];
    // Bytes that the client sends, and the first bytes of the reply.
    let cases: [(Vec<u8>, &[u8]); 14] = [
        (connect(&by_address(CLOSED.into())), refused),
        (connect(&local(9, 80)), refused),
        (connect(&local(1, 0)), refused),
        (connect(&by_name("localhost", 1)), refused),
        (b"\x04\x01\0\x50\0\0\0\x01\0a b\0".to_vec(), refused),
        (b"\x04\x01\0\x50\0\0\0\x01\0\0".to_vec(), refused),
        (b"\x04\x09\0\0\0\0\0\0\0".to_vec(), refused),
        (b"\x04\x01\0".to_vec(), refused),
        (vec![b'u'; 0], b""),
        (b"GET / HTTP/1.1\r\n".to_vec(), b""),
        (b"\x05\x01\x01".to_vec(), &[5, 0xFF]),
        (
            [b"\x04\x01\0\x50\x7f\0\0\x01".to_vec(), vec![b'u'; 513]].concat(),
            refused,
        ),
        (bind(&local(9, 80)), refused),
        // Granted by the first reply; the client closes before a peer connects.
        (bind(&local(1, 80)), &[0, 90]),
    ];
    thread::scope(|scope| {
        for worker in 0..2 {
            let (cases, proxy) = (&cases, &proxy);
            scope.spawn(move || {
                for _ in (worker..TIMES).step_by(2) {
                    for (message, expected) in cases {
                        let client = dial(proxy.address());
                        write(&client, message);
                        shutdown_write(&client);
                        assert!(read_all(&client).starts_with(expected), "{message:?}");
                    }
                }
            });
        }
    });
    // Eight of the cases are complete requests, which are reported.
    assert_eq!(proxy.screen_messages(8 * TIMES).len(), 8 * TIMES);
    proxy.finish();
}
