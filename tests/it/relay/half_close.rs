//! Both directions of a session until they end, by half-close, reset or timeout.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::endpoints::{
    Origin, connect_through, random_bytes, read_all, read_exactly, read_until_reset, relayed_pair,
    reset, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::tcp_table::{FIN_WAIT2, TcpRow};
use crate::support::wait::until;

const MEGABYTE: usize = 1 << 20;

#[test]
fn r01_a_client_that_half_closes_first_receives_the_whole_answer() {
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
fn r02_a_remote_that_half_closes_first_receives_the_whole_upload() {
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
fn r03_no_byte_is_lost_when_both_sides_half_close_at_once() {
    let proxy = Proxy::open();
    for round in 0..300 {
        let (client, remote) = relayed_pair(proxy.address());
        let start = Barrier::new(2);
        let send_and_receive = |stream: &TcpStream, seed| {
            let sent = random_bytes(seed, 3000);
            start.wait();
            write(stream, &sent);
            shutdown_write(stream);
            (sent, read_all(stream))
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| send_and_receive(&remote, round + 1000));
            let (sent_up, received_down) = send_and_receive(&client, round);
            let (sent_down, received_up) = other.join().unwrap();
            assert!(sent_up == received_up && sent_down == received_down);
        });
    }
    proxy.finish();
}

#[test]
fn r04_a_half_closed_and_silent_session_ends_at_its_limit() {
    let proxy = Proxy::start(PERMIT_ALL, &["--half-closed-timeout", "500ms", "-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    // A session that is not half-closed may be silent for longer than that.
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
    assert_eq!(read_until_reset(&client), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    proxy.stderr_line("half-closed and idle");
    proxy.finish();
}

#[test]
fn r05_a_reset_is_relayed_as_a_reset() {
    let proxy = Proxy::open();
    for _ in 0..20 {
        let (client, remote) = relayed_pair(proxy.address());
        write(&remote, b"half a page");
        assert_eq!(read_exactly(&client, 11), b"half a page");
        reset(remote);
        let error = (&client).read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        let (client, remote) = relayed_pair(proxy.address());
        reset(client);
        let error = (&remote).read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    proxy.finish();
}

/// The system reports a reset once, and may report it to the relay thread that writes.
#[test]
fn r05_s10_a_reset_during_writes_is_not_taken_for_eof() {
    let proxy = Proxy::open();
    for _ in 0..200 {
        let (client, remote) = relayed_pair(proxy.address());
        let reader = client.try_clone().unwrap();
        let writer = thread::spawn(move || while (&client).write_all(b"an upload").is_ok() {});
        read_exactly(&remote, 9);
        reset(remote);
        // A client that only reads must not read EOF. This client's writer may have
        // received the reset instead; then the socket is no longer connected.
        let result = (&reader).read(&mut [0]);
        let was_reset = matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset);
        assert!(was_reset || reader.peer_addr().is_err(), "{result:?}");
        writer.join().unwrap();
    }
    proxy.finish();
}

#[test]
fn r05_a_reset_is_logged_as_an_error_and_not_as_finished() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    for round in 1..=20 {
        let (client, remote) = relayed_pair(proxy.address());
        if round % 2 == 0 {
            reset(client)
        } else {
            reset(remote)
        }
        proxy.wait_for_stderr("ending=\"connection error: Connection reset", round);
    }
    proxy.finish();
}

#[test]
fn r05_a_reset_ends_a_relay_thread_that_is_blocked_in_a_write() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    // The remote sends more than all buffers hold, and the client reads nothing. A FIN
    // before the reset would make this a half-close, so the remote sends none.
    let junk = random_bytes(3, MEGABYTE);
    remote.set_nonblocking(true).unwrap();
    until("full buffers", || {
        while (&remote).write(&junk).is_ok() {}
        (client.peek(&mut [0; 60_000]).unwrap() == 60_000).then_some(())
    });
    let before = proxy.resources();
    reset(remote);
    // The thread of the direction to the remote gets the reset, and ends the blocked thread.
    // This write fails if the other thread was not blocked yet, and has got the reset itself.
    let _ = (&client).write(b"x");
    until("the end of the session", || {
        (proxy.resources().threads < before.threads).then_some(())
    });
    drop(client);
    proxy.finish();
}

#[test]
fn r06_an_idle_session_ends_at_its_limit_without_a_byte() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "500ms", "-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    write(&client, b"hello");
    assert_eq!(read_exactly(&remote, 5), b"hello");
    let began = Instant::now();
    assert_eq!(read_until_reset(&client), b"");
    assert_eq!(read_until_reset(&remote), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    proxy.stderr_line("idle for too long");
    proxy.finish();
}

#[test]
fn r07_a_busy_direction_keeps_the_idle_one_open() {
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
fn r08_a_stalled_reader_costs_no_memory_and_its_session_ends_at_the_limit() {
    let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "1s"]);
    let memory = proxy.status("VmRSS");
    let (client, remote) = relayed_pair(proxy.address());
    let sender = thread::spawn(move || {
        let junk = random_bytes(4, MEGABYTE);
        while (&remote).write_all(&junk).is_ok() {}
    });
    // The other direction is still open while this one is blocked.
    write(&client, b"still here");
    // The limit ends the session although a relay thread is blocked in a write.
    sender.join().unwrap();
    let memory_now = proxy.status("VmRSS");
    assert!(
        memory_now < memory + 4096,
        "{memory} kB, then {memory_now} kB"
    );
    drop(client);
    proxy.finish();
}

#[test]
fn r14_single_bytes_are_relayed_without_delay() {
    let proxy = Proxy::open();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let began = Instant::now();
    let rounds = 500;
    for _ in 0..rounds {
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
    }
    // Nagle's algorithm together with delayed acknowledgements would cost 40 ms a round.
    let mean = began.elapsed() / rounds;
    assert!(mean < Duration::from_millis(5), "{mean:?}");
    drop(client);
    proxy.finish();
}

#[test]
fn r17_the_last_bytes_of_a_remote_that_has_closed_reach_the_client() {
    let proxy = Proxy::open();
    // As much as the socket buffers hold, so that the remote can send everything before
    // the client reads a byte.
    let answer = random_bytes(7, 300_000);
    for _ in 0..10 {
        let (client, remote) = relayed_pair(proxy.address());
        write(&remote, &answer);
        shutdown_write(&remote);
        // All bytes and the FIN have arrived at the proxy.
        until("the acknowledgement of the remote's FIN", || {
            (TcpRow::of(&remote).state == FIN_WAIT2).then_some(())
        });
        drop(remote);
        // The remote's socket is closed: its system answers further uploads with RST.
        for _ in 0..20 {
            write(&client, b"who wants this?");
            thread::park_timeout(Duration::from_millis(1));
        }
        shutdown_write(&client);
        assert!(read_all(&client) == answer);
    }
    proxy.finish();
}

/// As before, with a client that reads slowly, through full buffers.
#[test]
fn r17_the_last_bytes_reach_a_slow_reader_that_continues_to_upload() {
    let proxy = Proxy::open();
    let answer = random_bytes(9, 3 * MEGABYTE);
    let (client, remote) = relayed_pair(proxy.address());
    let remote_thread = thread::spawn({
        let answer = answer.clone();
        move || {
            write(&remote, &answer);
            shutdown_write(&remote);
            until("the acknowledgement of the remote's FIN", || {
                (TcpRow::of(&remote).state == FIN_WAIT2).then_some(())
            });
        }
    });
    let uploader = thread::spawn({
        let client = client.try_clone().unwrap();
        move || {
            while (&client).write_all(&[0; 10_000]).is_ok() {
                thread::park_timeout(Duration::from_millis(20));
            }
        }
    });
    let mut received = Vec::new();
    let mut piece = vec![0; 200_000];
    // This takes some eight seconds.
    while let Ok(count @ 1..) = (&client).read(&mut piece) {
        received.extend_from_slice(&piece[..count]);
        thread::park_timeout(Duration::from_millis(500));
    }
    remote_thread.join().unwrap();
    assert_eq!(received.len(), answer.len());
    assert!(received == answer);
    client.shutdown(Shutdown::Both).unwrap();
    uploader.join().unwrap();
    drop(client);
    proxy.finish();
}

/// After the client has closed, the server drains the remote slowly and for a short time.
/// The time depends on how much the client has sent and may still be in transit; here it
/// is nothing.
#[test]
fn r17_a_remote_that_sends_without_end_is_drained_slowly_and_not_for_long() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let (client, remote) = relayed_pair(proxy.address());
    let sender = thread::spawn(move || {
        let mut sent = 0;
        let junk = random_bytes(8, 10_000);
        while (&remote).write_all(&junk).is_ok() {
            sent += junk.len();
        }
        sent
    });
    read_exactly(&client, 100_000);
    shutdown_write(&client);
    // More than all buffers hold, so the server has called splice(2) again since the FIN
    // came. (A FIN and a reset during one splice(2) look like a reset.)
    read_exactly(&client, 16 * MEGABYTE);
    let began = Instant::now();
    drop(client);
    // The socket buffers hold most of the rest; the server drains the other part.
    let sent = sender.join().unwrap();
    assert!(sent < 64 * MEGABYTE, "{sent}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    proxy.stderr_line("connection error: Broken pipe");
    proxy.finish();
}

/// The clients move two megabytes each way at once. Afterwards the server holds no
/// resources.
#[test]
fn l06_a_hundred_clients_at_once_lose_no_byte_and_no_message() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let start = Arc::new(Barrier::new(100));
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let (address, destination) = (proxy.address(), origin.destination());
            let start = Arc::clone(&start);
            thread::spawn(move || {
                let client = connect_through(address, &destination);
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
        client.join().expect("the same bytes back");
    }
    assert_eq!(proxy.screen_messages(100).len(), 100);
    proxy.finish();
}

/// Bulk data is spliced through a pipe. The session holds the pipe only while data keeps
/// coming, and no byte stays in it.
#[test]
fn r21_bulk_data_takes_a_pipe_and_gives_it_back() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    proxy.wait_for_thread("s1-down");
    let at_rest = proxy.resources().descriptors;
    let data = random_bytes(7, 20 * MEGABYTE);
    let sender = thread::spawn({
        let (remote, data) = (remote.try_clone().unwrap(), data.clone());
        move || write(&remote, &data)
    });
    // The client reads nothing yet, so the transfer blocks while it holds the pipe.
    until("a pipe", || {
        (proxy.resources().descriptors > at_rest).then_some(())
    });
    assert!(read_exactly(&client, data.len()) == data);
    sender.join().unwrap();
    until("no pipe", || {
        (proxy.resources().descriptors == at_rest).then_some(())
    });
    // Again in the other direction, until EOF.
    let receiver = thread::spawn(move || read_all(&remote));
    write(&client, &data);
    shutdown_write(&client);
    assert!(receiver.join().unwrap() == data);
    drop(client);
    proxy.finish();
}

#[test]
fn r22_without_pipes_or_splice_bulk_data_is_copied() {
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

/// All sessions share 32 pipes. A direction that finds none copies through a buffer.
#[test]
fn r22_more_bulk_transfers_than_pipes_lose_no_byte() {
    const SESSIONS: u64 = 24;
    let proxy = Proxy::open();
    let transfer = |seed| {
        let (client, remote) = relayed_pair(proxy.address());
        let (up, down) = (
            random_bytes(seed, 3 * MEGABYTE),
            random_bytes(seed + 100, 3 * MEGABYTE),
        );
        thread::scope(|scope| {
            scope.spawn(|| write(&client, &up));
            scope.spawn(|| write(&remote, &down));
            // The client reads late, so that pipes stay in use.
            let late_reader = scope.spawn(|| {
                until("a full buffer", || {
                    (client.peek(&mut [0; 60_000]).unwrap() == 60_000).then_some(())
                });
                assert!(read_exactly(&client, down.len()) == down);
            });
            assert!(read_exactly(&remote, up.len()) == up);
            late_reader.join().unwrap();
        });
    };
    thread::scope(|scope| {
        for seed in 0..SESSIONS {
            scope.spawn(move || transfer(seed));
        }
    });
    proxy.finish();
}
