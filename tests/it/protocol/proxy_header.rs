//! The PROXY protocol (`--proxy-from`): headers on the wire, and what the server answers.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    Origin, dial, dial_from, read_all, read_exactly, request, reset, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};

/// A header of version 1: the client 203.0.113.9 on port 50000.
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.2 50000 1080\r\n";

const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with this command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE_V2, &[command, family, high, low], body].concat()
}

/// The same client as in [`V1`], with extensions of this many bytes.
fn v2_client(extensions: usize) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 192, 0, 2, 2, 0xC3, 0x50, 4, 56];
    v2(
        0x21,
        0x11,
        &[&addresses[..], &vec![0x04; extensions]].concat(),
    )
}

/// The command LOCAL: the proxy itself is the client.
fn local() -> Vec<u8> {
    v2(0x20, 0, &[])
}

/// A server with the listed proxy 127.0.0.9.
fn server(options: &[&str]) -> Proxy {
    Proxy::start(
        PERMIT_ALL,
        &[&["--proxy-from", "127.0.0.9"], options].concat(),
    )
}

/// A connection from 127.0.0.`host`.
fn dial_as(proxy: &Proxy, host: u8) -> TcpStream {
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    dial_from(from, proxy.address())
}

/// Bytes of a client that connects and sends "hello" early.
fn connect_and_hello(destination: &Destination) -> Vec<u8> {
    [&request(Command::Connect, destination, b"")[..], b"hello"].concat()
}

/// Reads what the client of [`connect_and_hello`] receives.
fn assert_hello(client: &TcpStream) {
    assert_eq!(read_exactly(client, 8)[..2], [0, 90]);
    assert_eq!(read_exactly(client, 5), b"hello");
    shutdown_write(client);
    assert_eq!(read_all(client), b"");
}

#[test]
fn x30_a_header_split_at_any_byte_is_followed_by_the_request() {
    let proxy = server(&["--log", "none"]);
    let origin = Origin::echo();
    let rest = connect_and_hello(&origin.destination());
    let v6: Vec<u8> = [&[0x20, 1, 0xD, 0xB8][..], &[0; 28], &[0xC3, 0x50, 4, 56]].concat();
    for header in [
        V1.to_vec(),
        b"PROXY TCP6 2001:db8::9 ::1 50000 1080\r\n".to_vec(),
        v2_client(0),
        v2(0x21, 0x21, &v6),
        local(),
    ] {
        let bytes = [&header[..], &rest].concat();
        for split in 1..=header.len() + 1 {
            let client = dial_as(&proxy, 9);
            write(&client, &bytes[..split]);
            thread::yield_now();
            write(&client, &bytes[split..]);
            assert_hello(&client);
        }
        let client = dial_as(&proxy, 9);
        for byte in &bytes {
            write(&client, &[*byte]);
            thread::yield_now();
        }
        assert_hello(&client);
    }
    // More than one look of the server at the socket shows.
    for extensions in [1, 1000, 1100, 4096] {
        let client = dial_as(&proxy, 9);
        write(&client, &[&v2_client(extensions)[..], &rest].concat());
        assert_hello(&client);
    }
    proxy.finish();
}

#[test]
fn x30_header_and_request_share_the_handshake_timeout() {
    let proxy = server(&["--handshake-timeout", "1s"]);
    for part in [
        &V1[..9],
        &v2_client(9)[..17],
        &[V1, b"\x05"].concat(),
        &[V1, b"\x05\x01\x00\x05"].concat(),
        &[&local()[..], b"\x04\x01"].concat(),
    ] {
        let client = dial_as(&proxy, 9);
        let began = Instant::now();
        write(&client, part);
        read_all(&client);
        let elapsed = began.elapsed();
        assert!(elapsed > Duration::from_millis(900), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    }
    proxy.finish();
}

/// Sends this as the proxy, and reads EOF without a byte. Returns the line of the session.
fn refused(bytes: &[u8]) -> String {
    let proxy = server(&["-v"]);
    let client = dial_as(&proxy, 9);
    write(&client, bytes);
    assert_eq!(read_all(&client), b"", "{}", bytes.escape_ascii());
    let own = client.local_addr().unwrap().to_string();
    drop(client);
    let line = proxy.stderr_line(&own);
    proxy.finish();
    line
}

#[test]
fn x31_an_invalid_header_is_answered_with_eof_only() {
    const INVALID: &str = "not a valid PROXY header: ";
    let after = b"\x05\x01\0";
    for (header, why) in [
        (
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"[..],
            "the line has another form",
        ),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "the line has another form",
        ),
        (
            b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
            "the line has another form",
        ),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "the line has another form"),
        (
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "the line has another form",
        ),
        (
            b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "the line has another form",
        ),
        (
            &[&b"PROXY "[..], &[b'x'; 101]].concat(),
            "no line end within 107 bytes",
        ),
        (&v2(0x31, 0x11, &[0; 12]), "invalid version 3"),
        (&v2(0x22, 0x11, &[0; 12]), "invalid command 2"),
        (
            &v2(0x21, 0x41, &[0; 12]),
            "invalid family and protocol 0x41",
        ),
        (&v2(0x21, 0x11, &[0; 11]), "invalid length 11"),
        (&v2(0x21, 0x21, &[0; 35]), "invalid length 35"),
        (&v2_client(4097)[..16], "invalid length 4109"),
    ] {
        let line = refused(&[header, after].concat());
        assert!(line.contains(&format!("{INVALID}{why}")), "{line}");
    }
}

#[test]
fn x31_a_header_without_a_client_ends_the_session() {
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ::1 ::1 1 2\r\n",
        &v2(0x21, 0, &[]),
        &v2(0x21, 0x12, &[0; 12]),
        &v2(0x21, 0x31, &[0; 216]),
    ] {
        let line = refused(&[header, b"\x05\x01\0"].concat());
        assert!(
            line.contains("the proxy does not say who its client is"),
            "{line}"
        );
    }
}

#[test]
fn x31_a_header_that_ends_too_early_is_a_line_and_no_reply() {
    for header in [V1, &v2_client(3)] {
        let proxy = server(&["-v"]);
        for length in 1..header.len() {
            let client = dial_as(&proxy, 9);
            write(&client, &header[..length]);
            shutdown_write(&client);
            assert_eq!(read_all(&client), b"");
            let line = format!("the PROXY header is incomplete after {length} bytes");
            proxy.stderr_line(&line);
        }
        proxy.finish();
    }
}

#[test]
fn x36_socks_at_once_from_a_proxy_and_a_header_from_elsewhere_say_what_to_set() {
    for first in [
        &b"\x05\x01\0"[..],
        b"\x04\x01\0\x50",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        let line = refused(first);
        let why = "its address is in --proxy-from, but it sends no PROXY header; turn";
        assert!(line.contains(why), "{line}");
    }
    for header in [V1, &v2_client(0), &local()] {
        let proxy = server(&["-v"]);
        let client = dial(proxy.address());
        write(&client, header);
        assert_eq!(read_all(&client), b"");
        drop(client);
        proxy.stderr_line(
            "the PROXY protocol, not SOCKS; if it is your load balancer, set --proxy-from",
        );
        proxy.finish();
    }
}

#[test]
fn x36_health_checks_of_a_proxy_write_nothing() {
    let proxy = server(&["--log", "json"]);
    let own = b"PROXY TCP4 127.0.0.9 127.0.0.1 50000 1080\r\n".to_vec();
    let checks = [&b""[..], b"\x05\x01\0"];
    for (header, check) in [vec![], local(), own]
        .iter()
        .flat_map(|header| checks.map(|check| (header, check)))
    {
        if header.is_empty() && !check.is_empty() {
            continue;
        }
        for ends_with_reset in [false, true] {
            let client = dial_as(&proxy, 9);
            write(&client, &[header, check].concat());
            if !check.is_empty() {
                assert_eq!(read_exactly(&client, 2), [5, 0]);
            }
            match ends_with_reset {
                true => reset(client),
                false => drop(client),
            }
        }
    }
    proxy.assert_resources_released();
    let last = proxy.stderr_lines().pop().unwrap();
    assert!(last.contains("listening on"), "{last}");
    let mut proxy = proxy;
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.wait().success());
    let lines = proxy.stdout_lines();
    let closed = lines
        .iter()
        .filter(|line| line.contains("\"closed\""))
        .count();
    assert_eq!(closed, 10, "{lines:#?}");
}
