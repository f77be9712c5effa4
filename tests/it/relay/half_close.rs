//! Both directions to their very end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};

use crate::support::endpoints::{
    Origin, connect_through, random_bytes, read_all, read_exactly, relayed_pair, reset,
    shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::wait::until;

const MEGABYTE: usize = 1 << 20;

#[test]
fn r01_the_client_ends_first_and_still_gets_its_answer() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    write(&client, b"question");
    shutdown_write(&client);
    assert_eq!(read_all(&remote), b"question");
    let answer = random_bytes(1, MEGABYTE);
    thread::scope(|scope| {
        scope.spawn(|| {
            write(&remote, &answer);
            shutdown_write(&remote);
        });
        assert!(read_all(&client) == answer);
    });
    proxy.finish();
}

#[test]
fn r02_the_remote_ends_first_and_still_gets_the_upload() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    shutdown_write(&remote);
    assert_eq!(read_all(&client), b"");
    let upload = random_bytes(2, MEGABYTE);
    thread::scope(|scope| {
        scope.spawn(|| {
            write(&client, &upload);
            shutdown_write(&client);
        });
        assert!(read_all(&remote) == upload);
    });
    proxy.finish();
}

#[test]
fn r03_both_end_at_once() {
    let proxy = Proxy::open();
    for round in 0..300 {
        let (client, remote) = relayed_pair(proxy.address());
        let start = Barrier::new(2);
        let end = |stream: &TcpStream, seed| {
            let sent = random_bytes(seed, 3000);
            start.wait();
            write(stream, &sent);
            shutdown_write(stream);
            (sent, read_all(stream))
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| end(&remote, round + 1000));
            let (sent_up, got_down) = end(&client, round);
            let (sent_down, got_up) = other.join().unwrap();
            assert!(sent_up == got_up && sent_down == got_down);
        });
    }
    proxy.finish();
}

#[test]
fn r04_half_closed_and_silent_for_too_long() {
    let proxy = Proxy::start(PERMIT_ALL, &["--half-closed-timeout", "500ms", "-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    // A whole connection may be silent for longer than that.
    client
        .set_read_timeout(Some(Duration::from_millis(900)))
        .unwrap();
    let error = (&client).read(&mut [0]).expect_err("silence");
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    let began = Instant::now();
    shutdown_write(&client);
    assert_eq!(read_all(&remote), b"");
    client
        .set_read_timeout(Some(crate::support::wait::TIMEOUT))
        .unwrap();
    assert_eq!(read_all(&client), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    proxy.stderr_line("half-closed and silent");
    proxy.finish();
}

#[test]
fn r05_a_broken_connection_is_not_taken_for_an_ended_one() {
    let proxy = Proxy::open();
    for _ in 0..20 {
        let (client, remote) = relayed_pair(proxy.address());
        write(&remote, b"half a page");
        assert_eq!(read_exactly(&client, 11), b"half a page");
        reset(remote);
        let error = (&client).read(&mut [0]).expect_err("a reset, no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        let (client, remote) = relayed_pair(proxy.address());
        reset(client);
        let error = (&remote).read(&mut [0]).expect_err("a reset, no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    proxy.finish();
}

/// The system tells of a reset only once, and may tell the pump that writes.
#[test]
fn r05_s10_a_reset_among_writes_is_not_taken_for_an_end() {
    let proxy = Proxy::open();
    for _ in 0..200 {
        let (client, remote) = relayed_pair(proxy.address());
        let reading = client.try_clone().unwrap();
        let writing = thread::spawn(move || while (&client).write_all(b"an upload").is_ok() {});
        read_exactly(&remote, 9);
        reset(remote);
        // Whoever only reads must not see a proper end. (This end's own reset
        // may have been told to the thread that writes; so it is asked after.)
        let end = (&reading).read(&mut [0]);
        let was_reset = matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset);
        assert!(was_reset || reading.peer_addr().is_err(), "{end:?}");
        writing.join().unwrap();
    }
    proxy.finish();
}

#[test]
fn r05_a_reset_is_not_called_finished() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    for round in 1..=20 {
        let (client, remote) = relayed_pair(proxy.address());
        if round % 2 == 0 {
            reset(client)
        } else {
            reset(remote)
        }
        proxy.wait_for_stderr("ending=\"broken: Connection reset", round);
    }
    proxy.finish();
}

#[test]
fn r05_a_reset_ends_a_pump_that_is_stuck_writing() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    // The remote sends more than all buffers hold, and nobody reads it. It must
    // not end its half before it resets, which would be a proper end.
    let junk = random_bytes(3, MEGABYTE);
    remote.set_nonblocking(true).unwrap();
    until("full buffers", || {
        while (&remote).write(&junk).is_ok() {}
        (client.peek(&mut [0; 60_000]).unwrap() == 60_000).then_some(())
    });
    let before = proxy.resources();
    reset(remote);
    // The pump upwards meets the reset, and takes the stuck one along.
    write(&client, b"x");
    until("the session's end", || {
        (proxy.resources().threads < before.threads).then_some(())
    });
    drop(client);
    proxy.finish();
}

#[test]
fn r06_idle_for_too_long_ends_without_a_byte() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "500ms", "-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    write(&client, b"hello");
    assert_eq!(read_exactly(&remote, 5), b"hello");
    let began = Instant::now();
    assert_eq!(read_all(&client), b"");
    assert_eq!(read_all(&remote), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    proxy.stderr_line("idle for too long");
    proxy.finish();
}

#[test]
fn r07_one_busy_direction_keeps_the_other_alive() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "400ms"]);
    let (client, remote) = relayed_pair(proxy.address());
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        write(&client, b"tick");
        assert_eq!(read_exactly(&remote, 4), b"tick");
        thread::park_timeout(Duration::from_millis(50));
    }
    write(&remote, b"after a long silence");
    assert_eq!(read_exactly(&client, 20), b"after a long silence");
    drop((client, remote));
    proxy.finish();
}

#[test]
fn r08_a_reader_that_stops_costs_no_memory_and_ends_at_the_limit() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "1s"]);
    let memory = proxy.status("VmRSS");
    let (client, remote) = relayed_pair(proxy.address());
    let stuffing = thread::spawn(move || {
        let junk = random_bytes(4, MEGABYTE);
        while (&remote).write_all(&junk).is_ok() {}
    });
    // The other direction still works while this one is stuck.
    write(&client, b"still here");
    // The limit ends the session even though a pump is blocked in a write.
    stuffing.join().unwrap();
    let memory_now = proxy.status("VmRSS");
    assert!(
        memory_now < memory + 4096,
        "{memory} kB, then {memory_now} kB"
    );
    drop(client);
    proxy.finish();
}

#[test]
fn r14_a_byte_goes_round_without_delay() {
    let proxy = Proxy::open();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let began = Instant::now();
    let rounds = 500;
    for _ in 0..rounds {
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
    }
    // Nagle's algorithm against delayed acknowledgements costs 40 ms a round.
    let mean = began.elapsed() / rounds;
    assert!(mean < Duration::from_millis(5), "{mean:?}");
    drop(client);
    proxy.finish();
}

#[test]
fn r17_a_remote_that_closes_for_good_still_gets_its_last_words_through() {
    let proxy = Proxy::open();
    // As much as the buffers on the way hold, so that the remote can be done
    // with it before the client reads a byte.
    let answer = random_bytes(7, 300_000);
    for _ in 0..10 {
        let (client, remote) = relayed_pair(proxy.address());
        write(&remote, &answer);
        shutdown_write(&remote);
        // Everything has arrived at the proxy, the end included.
        until("the remote's last byte", || {
            (state(&remote) == FIN_WAIT2).then_some(())
        });
        drop(remote);
        // What the client still uploads makes the remote's system break the
        // connection.
        for _ in 0..20 {
            write(&client, b"who wants this?");
            thread::park_timeout(Duration::from_millis(1));
        }
        shutdown_write(&client);
        assert!(read_all(&client) == answer);
    }
    proxy.finish();
}

/// The same with an end that reads slowly, through full buffers.
#[test]
fn r17_last_words_to_a_slow_reader_that_goes_on_uploading() {
    let proxy = Proxy::open();
    let answer = random_bytes(9, 3 * MEGABYTE);
    let (client, remote) = relayed_pair(proxy.address());
    let answering = thread::spawn({
        let answer = answer.clone();
        move || {
            write(&remote, &answer);
            shutdown_write(&remote);
            until("the remote's last byte", || {
                (state(&remote) == FIN_WAIT2).then_some(())
            });
        }
    });
    let uploading = thread::spawn({
        let client = client.try_clone().unwrap();
        move || {
            while (&client).write_all(&[0; 10_000]).is_ok() {
                thread::park_timeout(Duration::from_millis(20));
            }
        }
    });
    let mut got = Vec::new();
    let mut piece = vec![0; 200_000];
    // Some eight seconds for all of it.
    while let Ok(count @ 1..) = (&client).read(&mut piece) {
        got.extend_from_slice(&piece[..count]);
        thread::park_timeout(Duration::from_millis(500));
    }
    answering.join().unwrap();
    assert_eq!(got.len(), answer.len());
    assert!(got == answer);
    client.shutdown(Shutdown::Both).unwrap();
    uploading.join().unwrap();
    drop(client);
    proxy.finish();
}

/// A client that has left cleanly does not make the server download for ever:
/// it takes what comes at a trickle, and not for long where the client has sent
/// little that could still be on its way.
#[test]
fn r17_a_remote_that_never_stops_is_hardly_listened_to() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    let sending = thread::spawn(move || {
        let mut sent = 0;
        let junk = random_bytes(8, 10_000);
        while (&remote).write_all(&junk).is_ok() {
            sent += junk.len();
        }
        sent
    });
    read_exactly(&client, 100_000);
    shutdown_write(&client);
    // More than all buffers hold: the server has begun to write anew since the
    // end came. (An end and a reset within one splice(2) look like a reset.)
    read_exactly(&client, 16 * MEGABYTE);
    let began = Instant::now();
    drop(client);
    // The buffers on the way hold most of the rest; some passes meanwhile.
    let sent = sending.join().unwrap();
    assert!(sent < 64 * MEGABYTE, "{sent}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    proxy.stderr_line("broken: Broken pipe");
    proxy.finish();
}

/// Our end has been acknowledged, the other end's has not come (/proc/net/tcp).
const FIN_WAIT2: &str = "05";

/// The state of this connection, as the kernel tells it.
fn state(stream: &TcpStream) -> String {
    let (SocketAddr::V4(own), SocketAddr::V4(other)) =
        (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
    else {
        panic!("IPv4 only");
    };
    let shown = |address: SocketAddrV4| {
        let ip = u32::from_ne_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let row = format!("{} {}", shown(own), shown(other));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let found = table.lines().find_map(|line| line.split_once(&row));
    let (_, rest) = found.expect("a row for the connection");
    rest.split_whitespace().next().unwrap().to_owned()
}

/// The issue's own measure: a hundred clients at once, megabytes both ways,
/// every byte right, and nothing left behind.
#[test]
fn l06_a_hundred_clients_at_once() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let start = Arc::new(Barrier::new(100));
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let (address, target) = (proxy.address(), origin.destination());
            let start = Arc::clone(&start);
            thread::spawn(move || {
                let client = connect_through(address, &target);
                let bytes = random_bytes(number, 2 * MEGABYTE);
                start.wait();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        write(&client, &bytes);
                        shutdown_write(&client);
                    });
                    assert!(read_all(&client) == bytes, "client {number}");
                });
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every byte right");
    }
    assert_eq!(proxy.screen_messages(100).len(), 100);
    proxy.finish();
}

/// What comes in bulk goes through a pipe of the system's. The pipe is held only
/// as long as more comes, and holds nothing back.
#[test]
fn r21_a_pipe_is_taken_for_bulk_and_given_back() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    proxy.wait_for_thread("s1-down");
    let at_rest = proxy.resources().descriptors;
    let data = random_bytes(7, 20 * MEGABYTE);
    let sending = thread::spawn({
        let (remote, data) = (remote.try_clone().unwrap(), data.clone());
        move || write(&remote, &data)
    });
    // Nobody reads yet, so it stays in the middle of it.
    until("a pipe", || {
        (proxy.resources().descriptors > at_rest).then_some(())
    });
    assert!(read_exactly(&client, data.len()) == data);
    sending.join().unwrap();
    until("no pipe", || {
        (proxy.resources().descriptors == at_rest).then_some(())
    });
    // And again, in the other direction, up to the very end.
    let receiving = thread::spawn(move || read_all(&remote));
    write(&client, &data);
    shutdown_write(&client);
    assert!(receiving.join().unwrap() == data);
    drop(client);
    proxy.finish();
}

/// An urgent byte (MSG_OOB) is not passed on, as ever when streams are copied;
/// what stands around it is.
#[test]
fn r15_r25_an_urgent_byte_amid_bulk_ends_nothing() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    let data = random_bytes(8, 20 * MEGABYTE);
    let (before, behind) = data.split_at(8 * MEGABYTE);
    thread::scope(|scope| {
        scope.spawn(|| {
            write(&client, before);
            send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
            write(&client, behind);
            shutdown_write(&client);
        });
        assert!(read_all(&remote) == data);
    });
    drop((client, remote));
    proxy.finish();
}

#[test]
fn r22_without_pipes_or_splice_bulk_is_copied() {
    for injection in [
        "pipe2:error=EMFILE",
        "pipe2:error=ENFILE",
        "splice:error=EINVAL",
        "splice:error=EPERM",
    ] {
        let proxy = Proxy::open();
        let Some(syscall_faults) = SyscallFaults::with(&proxy, injection) else {
            return proxy.finish();
        };
        let (client, remote) = relayed_pair(proxy.address());
        let data = random_bytes(22, 8 * MEGABYTE);
        thread::scope(|scope| {
            scope.spawn(|| {
                write(&remote, &data);
                shutdown_write(&remote);
            });
            assert!(read_all(&client) == data, "{injection}");
        });
        drop((client, remote, syscall_faults));
        proxy.finish();
    }
}

/// There are 32 pipes for all. Whoever finds none is served without.
#[test]
fn r22_more_in_bulk_than_there_are_pipes() {
    const SESSIONS: u64 = 24;
    let proxy = Proxy::open();
    let both_ways = |seed| {
        let (client, remote) = relayed_pair(proxy.address());
        let (up, down) = (
            random_bytes(seed, 3 * MEGABYTE),
            random_bytes(seed + 100, 3 * MEGABYTE),
        );
        thread::scope(|scope| {
            scope.spawn(|| write(&client, &up));
            scope.spawn(|| write(&remote, &down));
            // One of the two reads late, so that pipes are held.
            let late = scope.spawn(|| {
                until("a full buffer", || {
                    (client.peek(&mut [0; 60_000]).unwrap() == 60_000).then_some(())
                });
                assert!(read_exactly(&client, down.len()) == down);
            });
            assert!(read_exactly(&remote, up.len()) == up);
            late.join().unwrap();
        });
    };
    thread::scope(|scope| {
        for seed in 0..SESSIONS {
            scope.spawn(move || both_ways(seed));
        }
    });
    proxy.finish();
}
