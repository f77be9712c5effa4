//! Urgent bytes (MSG_OOB): each stays in the stream, in its place.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};
use threadsocks::protocol::Command;

use crate::support::endpoints::{
    Origin, by_address, dial, random_bytes, read_all, read_exactly, relayed_pair, request,
    shutdown_write, write,
};
use crate::support::proxy::Proxy;

const MEGABYTE: usize = 1 << 20;

/// Sends these bytes; the last one is urgent.
fn send_urgent(stream: &TcpStream, bytes: &[u8]) {
    let sent = send(stream.as_raw_fd(), bytes, MsgFlags::MSG_OOB);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Telnet's interrupt, and then a command: IAC IP IAC DM, of which DM is urgent (RFC 854).
#[test]
fn r15_r32_an_urgent_byte_stays_in_its_place() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    for (from, to) in [(&client, &remote), (&remote, &client)] {
        send_urgent(from, b"\xff\xf4\xff\xf2");
        assert_eq!(read_exactly(to, 4), b"\xff\xf4\xff\xf2");
        write(from, b"ls\r\n");
        assert_eq!(read_exactly(to, 4), b"ls\r\n");
        // The second one comes before the first one was read.
        for _ in 0..100 {
            send_urgent(from, b"!");
            send_urgent(from, b"a?");
        }
        shutdown_write(from);
        assert_eq!(read_all(to), b"!a?".repeat(100));
    }
    drop((client, remote));
    proxy.finish();
}

/// splice(2) stops at an urgent byte.
#[test]
fn r15_r25_r32_an_urgent_byte_stays_in_its_place_amid_bulk_data() {
    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    let data = random_bytes(8, 20 * MEGABYTE);
    let (before, after) = data.split_at(8 * MEGABYTE);
    for (from, to) in [(&client, &remote), (&remote, &client)] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write(from, before);
                send_urgent(from, b"!");
                write(from, after);
                shutdown_write(from);
            });
            assert!(read_all(to) == [before, b"!", after].concat());
        });
    }
    drop((client, remote));
    proxy.finish();
}

#[test]
fn r32_urgent_bytes_before_the_relay_begins_stay_in_their_place() {
    let proxy = Proxy::open();
    // The remote sends before the request is granted.
    let origin = Origin::start(|stream| {
        send_urgent(&stream, b"!");
        send_urgent(&stream, b"hello?");
        assert_eq!(read_all(&stream), b"!early?");
    });
    let client = dial(proxy.address());
    let request = request(Command::Connect, &by_address(origin.address()), b"user");
    // One of the request, and two of what follows at once.
    let (head, tail) = request.split_at(request.len() / 2);
    send_urgent(&client, head);
    write(&client, tail);
    send_urgent(&client, b"!");
    send_urgent(&client, b"early?");
    shutdown_write(&client);
    assert_eq!(read_exactly(&client, 2), [0, 90]);
    read_exactly(&client, 6);
    assert_eq!(read_all(&client), b"!hello?");
    drop(client);
    proxy.finish();
}
