//! A server process that is killed: a peer reads EOF only of a direction that has ended.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use threadsocks::client;

use crate::support::endpoints::{
    by_address, dial, read_all, read_exactly, read_until_reset, relayed_pair, shutdown_write, write,
};
use crate::support::proxy::Proxy;
use crate::support::syscall_faults::SyscallFaults;
use crate::support::wait::until;

/// What the session does when the process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Traffic {
    /// No byte has moved in the open directions.
    None,
    /// Some bytes have moved, and all have arrived.
    Few,
    /// A thread is blocked in splice(2), with bytes in its pipe.
    Spliced,
    /// A thread is blocked in write(2), with bytes in its buffer.
    Copied,
}

/// Which direction has ended before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Neither,
    Up,
    Down,
}

/// Kills the server amid a session and looks at both peers.
fn kill_amid(signal: Signal, traffic: Traffic, ended: Ended) {
    println!("{signal}, {traffic:?}, {ended:?}");
    let mut proxy = Proxy::open();
    let _syscall_faults = match traffic {
        Traffic::Copied => match SyscallFaults::with(&proxy, "pipe2:error=EMFILE") {
            None => return proxy.finish(),
            attached => attached,
        },
        _ => None,
    };
    let (client, remote) = relayed_pair(proxy.address());
    proxy.wait_for_thread("s1-down");
    let (sender, receiver) = match ended {
        Ended::Down => (client, remote),
        Ended::Neither | Ended::Up => (remote, client),
    };
    if ended != Ended::Neither {
        write(&receiver, b"all of it");
        shutdown_write(&receiver);
        assert_eq!(read_all(&sender), b"all of it");
    }
    match traffic {
        Traffic::None => {}
        Traffic::Few => {
            write(&sender, b"a part of it");
            assert_eq!(read_exactly(&receiver, 12), b"a part of it");
        }
        Traffic::Spliced | Traffic::Copied => {
            let descriptors = proxy.resources().descriptors;
            fill(&sender, &receiver);
            let has_pipe = proxy.resources().descriptors > descriptors;
            assert_eq!(has_pipe, traffic == Traffic::Spliced);
        }
    }
    proxy.signal(signal);
    proxy.wait();
    read_until_reset(&receiver);
    match ended {
        Ended::Neither => assert_eq!(read_until_reset(&sender), b""),
        // What has ended stays ended.
        Ended::Up | Ended::Down => assert_eq!(read_all(&sender), b""),
    }
}

/// Sends until all buffers on the way are full.
fn fill(mut sender: &TcpStream, receiver: &TcpStream) {
    let bytes = vec![7; 1 << 20];
    sender.set_nonblocking(true).unwrap();
    until("full buffers", || {
        let mut sent = false;
        while sender.write(&bytes).is_ok() {
            sent = true;
        }
        std::thread::park_timeout(Duration::from_millis(100));
        let arrived = receiver.peek(&mut [0; 60_000]).unwrap();
        (!sent && arrived == 60_000).then_some(())
    });
    sender.set_nonblocking(false).unwrap();
}

#[test]
fn r27_a_killed_process_resets_every_direction_that_has_not_ended() {
    for traffic in [
        Traffic::None,
        Traffic::Few,
        Traffic::Spliced,
        Traffic::Copied,
    ] {
        for ended in [Ended::Neither, Ended::Up, Ended::Down] {
            kill_amid(Signal::SIGKILL, traffic, ended);
        }
    }
    // As a failed allocation ends it.
    kill_amid(Signal::SIGABRT, Traffic::Spliced, Ended::Up);
}

/// The second connection of a BIND is relayed like that of a CONNECT.
#[test]
fn r27_a_killed_process_resets_both_sides_of_a_bind() {
    let mut proxy = Proxy::open();
    let expected = by_address(([127, 0, 0, 1], 21).into());
    let binding = client::socks4::bind(dial(proxy.address()), &expected, b"").expect("listening");
    let peer = dial(([127, 0, 0, 1], binding.address.port()).into());
    let (client, _) = binding.wait().expect("granted");
    write(&peer, b"a part of it");
    assert_eq!(read_exactly(&client, 12), b"a part of it");
    proxy.signal(Signal::SIGKILL);
    proxy.wait();
    assert_eq!(read_until_reset(&client), b"");
    assert_eq!(read_until_reset(&peer), b"");
}
