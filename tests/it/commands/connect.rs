//! CONNECT: addresses, and everything that can fail.

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
    let own = client.local_addr().unwrap();
    let shown = proxy.screen_message_for(own).summary();
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
fn c03_a_black_hole_is_left_at_the_limit() {
    let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "700ms"]);
    let hole = UnresponsiveListener::new();
    let began = Instant::now();
    let shown = proxy.refusal_of(&by_address(hole.address()));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(shown.ends_with("CONNECT Reject"), "{shown}");
    proxy.finish();
}

#[test]
fn c04_a_client_that_breaks_off_ends_the_dialling() {
    let proxy = Proxy::open();
    let hole = UnresponsiveListener::new();
    let base = proxy.resources();
    let client = dial(proxy.address());
    let own = client.local_addr().unwrap();
    write(
        &client,
        &request(Command::Connect, &by_address(hole.address()), b""),
    );
    // It dials: a thread and two descriptors more than at first.
    until("the dialling", || {
        (proxy.resources().descriptors >= base.descriptors + 2).then_some(())
    });
    reset(client);
    let began = Instant::now();
    assert_eq!(proxy.screen_message_for(own).reply, "Reject");
    proxy.assert_resources_released();
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.stderr_line("the client left");
    proxy.finish();
}

#[test]
fn c04_a_client_that_only_ends_its_half_is_still_served() {
    let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "700ms"]);
    let hole = UnresponsiveListener::new();
    let client = dial(proxy.address());
    write(
        &client,
        &request(Command::Connect, &by_address(hole.address()), b""),
    );
    shutdown_write(&client);
    let began = Instant::now();
    assert_eq!(read_all(&client)[..2], [0, 91]);
    assert!(began.elapsed() >= Duration::from_millis(600));
    proxy.finish();
}

#[test]
fn c05_c11_d02_nobodys_addresses_are_refused_whatever_the_rules_say() {
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

/// This machine lacks something: the answer is no, and the next is served.
#[test]
fn c07_what_the_system_denies_is_told_and_forgotten() {
    for (injection, words) in [
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
        assert!(line.contains(words), "{injection}: {line}");
        drop(syscall_faults);
        drop(connect_through(proxy.address(), &origin.destination()));
        proxy.finish();
    }
}

#[test]
fn c09_a_loop_through_ourselves_ends_after_one_turn() {
    // Whatever address the server listens on, and reaches itself at.
    for listening in ["127.0.0.1", "0.0.0.0", "::"] {
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", listening]);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), proxy.port()));
        for ourselves in [address, elsewhere] {
            if listening == "127.0.0.1" && ourselves == elsewhere {
                continue;
            }
            // The outer request is fine: we may connect to ourselves. The inner
            // one comes from ourselves.
            let tunnel = connect_through(address, &by_address(ourselves));
            let inner = tunnel.local_addr().unwrap();
            write(
                &tunnel,
                &request(Command::Connect, &by_address(ourselves), b""),
            );
            assert_eq!(read_all(&tunnel)[..2], [0, 91]);
            assert_eq!(proxy.screen_message_for(inner).reply, "Accept");
        }
        proxy.stderr_line("a loop");
        let blocks = proxy.screen_messages(2);
        let summary = format!("{}:{} CONNECT Reject", blocks[0].destination, proxy.port());
        assert!(
            blocks.iter().any(|block| block.summary() == summary),
            "{blocks:?}"
        );
        proxy.finish();
    }
}

#[test]
fn c10_without_a_second_thread_the_answer_is_no() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    // After a visitor who asks for nothing, one thread is there for the session.
    drop(dial(proxy.address()));
    proxy.wait_for_thread("idle");
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "clone3:error=EAGAIN") else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    let own = client.local_addr().unwrap();
    write(
        &client,
        &request(Command::Connect, &origin.destination(), b""),
    );
    assert_eq!(read_all(&client)[..2], [0, 91]);
    assert_eq!(proxy.screen_message_for(own).reply, "Reject");
    proxy.stderr_line("no thread left");
    drop(syscall_faults);
    drop(connect_through(proxy.address(), &origin.destination()));
    proxy.finish();
}

#[test]
fn c13_an_origin_that_breaks_off_at_once() {
    let proxy = Proxy::open();
    let origin = Origin::start(reset);
    for _ in 0..50 {
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b""),
        );
        let mut got = Vec::new();
        let _ = (&client).read_to_end(&mut got);
        assert!(
            got.is_empty() || got[..2] == [0, 90] || got[..2] == [0, 91],
            "{got:?}"
        );
    }
    proxy.finish();
}

#[test]
fn s03_without_a_thread_a_client_still_gets_its_refusal() {
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

/// Everything that can end otherwise than in a relay, a thousand times each.
#[test]
fn s08_every_way_to_fail_a_thousand_times_leaves_nothing() {
    const TIMES: usize = 1000;
    let proxy = Proxy::start("deny cb 127.0.0.9\npermit cb -\n", &[]);
    let local = |last, port| by_address(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)));
    let connect = |target: &Destination| request(Command::Connect, target, b"");
    let bind = |target: &Destination| request(Command::Bind, target, b"");
    let refused = &[0, 91][..];
    // What is sent, and how the answer begins.
    let ways: [(Vec<u8>, &[u8]); 14] = [
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
        // Granted at first, and left at once.
        (bind(&local(1, 80)), &[0, 90]),
    ];
    thread::scope(|scope| {
        for half in 0..2 {
            let (ways, proxy) = (&ways, &proxy);
            scope.spawn(move || {
                for _ in (half..TIMES).step_by(2) {
                    for (message, answer) in ways {
                        let client = dial(proxy.address());
                        write(&client, message);
                        shutdown_write(&client);
                        assert!(read_all(&client).starts_with(answer), "{message:?}");
                    }
                }
            });
        }
    });
    // One message for every whole request.
    assert_eq!(proxy.screen_messages(8 * TIMES).len(), 8 * TIMES);
    proxy.finish();
}
