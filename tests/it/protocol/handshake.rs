//! SOCKS requests that are split, truncated, too long, slow or followed by early data.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use threadsocks::protocol::Command;

use crate::support::endpoints::{
    self, CLOSED, Origin, accept, by_address, by_name, dial, random_bytes, read_all, read_exactly,
    request, reset, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup};
use crate::support::wait::until;

/// SOCKS4 reply 91 without port and address, as for an unreadable request.
const REJECTED: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// The reply to a granted SOCKS4A CONNECT to this origin.
fn granted_reply_by_name(origin: &Origin) -> Vec<u8> {
    let [p1, p0] = origin.port().to_be_bytes();
    vec![0, 90, p1, p0, 0, 0, 0, 1]
}

/// An origin that reads until EOF and then sends back all bytes.
fn echo_after_eof() -> Origin {
    Origin::start(|stream| {
        let got = read_all(&stream);
        write(&stream, &got);
    })
}

#[test]
fn h01_a_request_split_at_any_byte_is_granted() {
    let proxy = Proxy::open();
    let origin = echo_after_eof();
    let message = request(
        Command::Connect,
        &by_name("localhost", origin.port()),
        b"me",
    );
    let with_data = [&message[..], b"early"].concat();
    for split in 1..with_data.len() {
        let client = dial(proxy.address());
        write(&client, &with_data[..split]);
        // The first segment is in the receive buffer of the server already:
        // loopback delivers within write(2). The yield lets the server read it.
        thread::yield_now();
        write(&client, &with_data[split..]);
        shutdown_write(&client);
        assert_eq!(read_exactly(&client, 8), granted_reply_by_name(&origin));
        assert_eq!(read_all(&client), b"early", "split at {split}");
    }
    let client = dial(proxy.address());
    for byte in &with_data {
        write(&client, &[*byte]);
        thread::park_timeout(Duration::from_millis(2));
    }
    shutdown_write(&client);
    assert_eq!(read_exactly(&client, 8), granted_reply_by_name(&origin));
    assert_eq!(read_all(&client), b"early");
    proxy.finish();
}

#[test]
fn h02_h15_early_data_arrives_once_and_in_order() {
    let proxy = Proxy::open();
    let origin = echo_after_eof();
    for target in [origin.destination(), by_name("localhost", origin.port())] {
        let message = request(Command::Connect, &target, b"");
        let second_request = request(Command::Connect, &by_address(endpoints::CLOSED.into()), b"");
        for early in [
            b"".to_vec(),
            b"x".to_vec(),
            b"\0\0\0\0\0\0\0".to_vec(),
            second_request,
            random_bytes(1, 1460),
            random_bytes(2, 65_536),
        ] {
            let client = dial(proxy.address());
            write(&client, &[&message[..], &early].concat());
            shutdown_write(&client);
            assert_eq!(read_exactly(&client, 8)[..2], [0, 90]);
            assert_eq!(read_all(&client), early);
        }
    }
    proxy.finish();
}

#[test]
fn h02_c12_the_reply_precedes_the_banner_of_the_origin() {
    let proxy = Proxy::open();
    let origin = Origin::start(|stream| write(&stream, b"220 hello"));
    for _ in 0..50 {
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b""),
        );
        let all = read_all(&client);
        assert_eq!(all[..2], [0, 90]);
        assert_eq!(&all[8..], b"220 hello");
    }
    proxy.finish();
}

#[test]
fn h03_a_half_close_before_the_reply_loses_no_data() {
    let proxy = Proxy::open();
    let origin = echo_after_eof();
    let client = dial(proxy.address());
    let message = request(Command::Connect, &origin.destination(), b"");
    write(&client, &[&message[..], b"all of it"].concat());
    shutdown_write(&client);
    let all = read_all(&client);
    assert_eq!(&all[8..], b"all of it");
    proxy.finish();
}

#[test]
fn h04_a_truncated_request_then_eof_is_rejected() {
    let proxy = Proxy::open();
    let message = request(Command::Connect, &by_name("localhost", 1), b"me");
    for length in 0..message.len() {
        let client = dial(proxy.address());
        write(&client, &message[..length]);
        shutdown_write(&client);
        let expected = if length == 0 { &[][..] } else { &REJECTED };
        assert_eq!(read_all(&client), expected, "after {length} bytes");
    }
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h05_a_truncated_request_then_a_reset_is_not_reported() {
    let proxy = Proxy::open();
    let message = request(Command::Connect, &by_name("localhost", 1), b"me");
    for length in 0..message.len() {
        let client = dial(proxy.address());
        write(&client, &message[..length]);
        reset(client);
    }
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h06_h07_h08_fields_over_their_limit_are_refused_at_once() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let head = [4, 1, 0, 80, 0, 0, 0, 1];
    let endless_user = [&head[..], &vec![b'u'; 1 << 20]].concat();
    let long_user = [&head[..], &[b'u'; 513]].concat();
    let long_name = [&head[..], &[0], &[b'n'; 256]].concat();
    let memory = proxy.status("VmRSS");
    for message in [long_user, long_name] {
        let client = dial(proxy.address());
        write(&client, &message);
        assert_eq!(read_all(&client), REJECTED);
    }
    // The server closes while the client still writes, so the write may fail.
    let client = dial(proxy.address());
    let _ = (&client).write_all(&endless_user);
    let mut reply = [0; 8];
    (&client).read_exact(&mut reply).expect("a reply");
    assert_eq!(reply, REJECTED);
    drop(client);
    assert!(proxy.status("VmRSS") < memory + 4096, "resident set in kB");
    proxy.stderr_line("user id over 512 bytes");
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h09_l01_a_user_id_is_opaque_and_escaped() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let origin = echo_after_eof();
    let user: Vec<u8> = (1..=255).collect();
    let client = dial(proxy.address());
    write(
        &client,
        &request(Command::Connect, &origin.destination(), &user),
    );
    shutdown_write(&client);
    assert_eq!(read_all(&client)[..2], [0, 90]);
    let line = proxy.stderr_line("user=");
    assert!(line.contains(r#"user="\x01\x02"#), "{line}");
    assert!(line.bytes().all(|byte| (0x20..0x7F).contains(&byte)));
    proxy.finish();
}

#[test]
fn h10_another_protocol_gets_eof_and_no_bytes() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let tls_hello = [
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC][..],
        &random_bytes(3, 500),
    ]
    .concat();
    for (message, named) in [
        (&tls_hello[..], "the client speaks TLS, not SOCKS"),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the client speaks SSH, not SOCKS",
        ),
        (
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n\x05\x01\0",
            "the client speaks the PROXY protocol, not SOCKS",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
            "the client speaks the PROXY protocol, not SOCKS",
        ),
        (b"HELO example.org\r\n", "invalid version 0x48"),
        (&[0xFF], "invalid version 0xff"),
    ] {
        let client = dial(proxy.address());
        write(&client, message);
        assert_eq!(read_all(&client), b"", "EOF, not a reset");
        let own = format!("client={} ", client.local_addr().unwrap());
        // The line comes when the lingering close ends.
        drop(client);
        let line = proxy.stderr_line(&own);
        assert!(line.contains(named), "{line}");
    }
    for version in (0..=255).filter(|version| ![4, 5].contains(version)) {
        let client = dial(proxy.address());
        write(&client, &[version]);
        // The other bytes are refused at once; these begin a protocol that is recognized.
        if version.is_ascii_alphabetic() || b"\x16\r\n".contains(&version) {
            shutdown_write(&client);
        }
        assert_eq!(read_all(&client), b"", "version {version}");
    }
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

/// The whole reply to HTTP: a status line, a header, and a short text.
fn assert_is_http_refusal(reply: &[u8], proxy: &str) {
    let reply = std::str::from_utf8(reply).expect("text");
    let status = "HTTP/1.0 501 This is a SOCKS proxy, not an HTTP proxy\r\n";
    assert!(reply.starts_with(status), "{reply:?}");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a header");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{reply}");
    assert!(head.ends_with("\r\nConnection: close"), "{reply}");
    assert!(body.contains(proxy), "{reply}");
}

#[test]
fn h21_an_http_request_gets_an_http_reply_that_says_what_the_port_is() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let large = [
        &b"POST http://example.org/secret HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"[..],
        &random_bytes(5, 60_000),
    ]
    .concat();
    for request in [
        &b"GET /secret HTTP/1.1\r\nHost: example.org\r\n\r\n"[..],
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        b"PROPFIND /secret HTTP/1.1\r\n\r\n",
        b"\r\nQUERY http://example.org/secret HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &large,
    ] {
        let client = dial(proxy.address());
        write(&client, request);
        let reply = read_all(&client);
        assert_is_http_refusal(&reply, "socks5h://HOST:PORT");
        assert!(!reply.windows(6).any(|part| part == b"secret"));
        let own = format!("client={} ", client.local_addr().unwrap());
        // The line comes when the lingering close ends.
        drop(client);
        let line = proxy.stderr_line(&own);
        assert!(line.contains("the client speaks HTTP, not SOCKS"), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h21_an_http_request_is_recognized_in_any_pieces_until_the_timeout() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v", "--handshake-timeout", "1s"]);
    let request = b"CONNECT example.org:443 HTTP/1.1\r\n\r\n";
    for split in 1..12 {
        let client = dial(proxy.address());
        write(&client, &request[..split]);
        thread::yield_now();
        write(&client, &request[split..]);
        assert_is_http_refusal(&read_all(&client), "socks5h://HOST:PORT");
    }
    let began = Instant::now();
    let client = dial(proxy.address());
    write(&client, b"CONNECT");
    assert_eq!(read_all(&client), b"");
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(client);
    proxy.stderr_line("invalid version 0x43");
    proxy.finish();
}

#[test]
fn h25_h26_an_http_request_with_any_method_and_target_gets_the_http_reply() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    for start in [
        "PROPFIND /",
        "M-SEARCH *",
        "X_FOO2 ftp://",
        "Get ws://",
        "POST coap+tcp://",
        "\r\nCONNECT ",
        "get /",
        "\nGET http://",
        "GET  /",
    ] {
        let request = format!("{start}a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let whole = dial(proxy.address());
        write(&whole, request.as_bytes());
        let bytes = dial(proxy.address());
        for byte in start.bytes() {
            write(&bytes, &[byte]);
            thread::yield_now();
        }
        // The bytes until the host suffice: the rest of the request may never come.
        for client in [whole, bytes] {
            assert_is_http_refusal(&read_all(&client), "socks5h://HOST:PORT");
        }
    }
    // Bytes that cannot be HTTP any more end the session, and not the handshake timeout.
    for start in [
        "HELO mail\r",
        "MAIL FROM:<",
        "USER bob ",
        "GET http:/e",
        "get host/",
        "\n\nGET /",
        "\n\x05",
    ] {
        let client = dial(proxy.address());
        write(&client, start.as_bytes());
        assert_eq!(read_all(&client), b"", "{start}");
    }
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h22_socks4_that_is_off_is_refused_after_its_request_with_a_message() {
    // The rule would ask identd, and the name would be looked up.
    let rules = "permit - - - - - ident\n";
    let proxy = Proxy::start(rules, &["-v", "--socks", "5"]);
    let origin = Origin::echo();
    for (destination, shown) in [
        (origin.destination(), "127.0.0.1"),
        (by_name("name.example", origin.port()), "-"),
    ] {
        for command in [Command::Connect, Command::Bind] {
            let message = request(command, &destination, b"me");
            for split in [1, message.len() - 1] {
                let client = dial(proxy.address());
                let own = client.local_addr().unwrap();
                write(&client, &message[..split]);
                thread::yield_now();
                write(&client, &message[split..]);
                let reply = read_all(&client);
                assert_eq!(reply[..2], [0, 91]);
                assert_eq!(reply[2..4], origin.port().to_be_bytes());
                assert_eq!(reply.len(), 8);
                let summary = format!("{shown}:{} {command} Reject", origin.port());
                assert_eq!(proxy.screen_message_for(own).summary(), summary);
                drop(client);
                let line = proxy.stderr_line(&format!("client={own} "));
                assert!(line.contains(" user=\"me\" rule=- "), "{line}");
                assert!(line.contains("SOCKS4 is turned off (--socks 5)"), "{line}");
            }
        }
    }
    // SOCKS5 is served: the rule decides.
    let client = dial(proxy.address());
    write(&client, &[5, 1, 0]);
    assert_eq!(read_exactly(&client, 2), [5, 0]);
    drop(client);
    proxy.finish();
}

#[test]
fn h22_socks5_that_is_off_is_refused_after_its_greeting() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v", "--socks", "4"]);
    let origin = Origin::echo();
    for greeting in [&[5, 1, 0][..], &[5, 1, 2], &[5, 3, 0, 1, 2], &[5, 0]] {
        let client = dial(proxy.address());
        let own = client.local_addr().unwrap();
        write(&client, &greeting[..1]);
        thread::yield_now();
        write(&client, &greeting[1..]);
        assert_eq!(read_all(&client), [5, 0xFF]);
        drop(client);
        let line = proxy.stderr_line(&format!("client={own} "));
        assert!(line.contains("SOCKS5 is turned off (--socks 4)"), "{line}");
    }
    let client = dial(proxy.address());
    write(&client, b"GET / HTTP/1.1\r\n\r\n");
    assert_is_http_refusal(&read_all(&client), "socks4a://HOST:PORT");
    drop(client);
    assert_eq!(proxy.screen_messages(0), []);
    drop(endpoints::connect_through(
        proxy.address(),
        &origin.destination(),
    ));
    proxy.finish();
}

#[test]
fn h11_socks5_without_an_acceptable_method_gets_method_ff() {
    let proxy = Proxy::open();
    for greeting in [&[5, 1, 1][..], &[5, 2, 0x80, 0xFF], &[5, 0]] {
        let client = dial(proxy.address());
        write(&client, greeting);
        assert_eq!(read_all(&client), [5, 0xFF]);
    }
    // A truncated greeting gets the same reply.
    let client = dial(proxy.address());
    write(&client, &[5, 2, 0]);
    shutdown_write(&client);
    assert_eq!(read_all(&client), [5, 0xFF]);
    proxy.finish();
}

#[test]
fn h12_slow_and_silent_clients_end_at_the_timeout_and_delay_no_other_client() {
    let proxy = Proxy::start(PERMIT_ALL, &["--handshake-timeout", "1s"]);
    let origin = Origin::echo();
    let message = request(Command::Connect, &by_name("localhost", 1), b"");
    let began = Instant::now();
    let slow: Vec<TcpStream> = (0..100).map(|_| dial(proxy.address())).collect();
    let silent = dial(proxy.address());
    // The timeout covers the whole handshake: single bytes must not extend it.
    let slow_writer = thread::spawn({
        let slow: Vec<TcpStream> = slow
            .iter()
            .map(|client| client.try_clone().unwrap())
            .collect();
        move || {
            for byte in &message[..4] {
                for mut client in &slow {
                    let _ = client.write_all(&[*byte]);
                }
                thread::park_timeout(Duration::from_millis(150));
            }
        }
    });
    let connect_began = Instant::now();
    let normal = endpoints::connect_through(proxy.address(), &origin.destination());
    assert!(connect_began.elapsed() < Duration::from_millis(500));
    drop(normal);
    slow_writer.join().unwrap();
    for client in &slow {
        assert_eq!(read_all(client), REJECTED);
    }
    assert_eq!(read_all(&silent), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    proxy.finish();
}

#[test]
fn h13_an_unknown_command_is_refused_after_the_whole_request() {
    let proxy = Proxy::open();
    for command in [0, 3, 255] {
        let client = dial(proxy.address());
        write(&client, &[4, command, 0, 80, 127, 0, 0, 1, b'u']);
        client
            .set_read_timeout(Some(Duration::from_millis(30)))
            .unwrap();
        let early = (&client)
            .read(&mut [0])
            .expect_err("no reply before the final zero byte");
        assert!(matches!(
            early.kind(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut
        ));
        let client = endpoints::with_timeout(client);
        write(&client, &[0]);
        assert_eq!(read_all(&client), REJECTED);
    }
    proxy.stderr_line("invalid command");
    assert_eq!(proxy.screen_messages(0), []);
    proxy.finish();
}

#[test]
fn h14_ten_thousand_empty_connections_do_not_fill_stderr() {
    let proxy = Proxy::open();
    for round in 0..10_000 {
        drop(TcpStream::connect(proxy.address()).expect("a connection"));
        if round % 500 == 0 {
            // Keeps the number of pending connections below the listen backlog.
            proxy.assert_resources_released();
        }
    }
    proxy.assert_resources_released();
    assert!(
        proxy.stderr_lines().len() < 10,
        "{:?}",
        proxy.stderr_lines()
    );
    proxy.finish();
}

/// A reply of eight bytes always fits the send buffer of the server, so writing
/// it cannot block, not even with the smallest receive buffer of a client.
#[test]
fn h16_a_client_that_never_reads_delays_no_reply() {
    let proxy = Proxy::open();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for target in [by_address(address), by_address(CLOSED.into())] {
        let client = dial(proxy.address());
        setsockopt(&client, sockopt::RcvBuf, &1).unwrap();
        write(&client, &request(Command::Connect, &target, b""));
        proxy.screen_message_for(client.local_addr().unwrap());
    }
    assert_eq!(proxy.screen_messages(2)[0].reply, "Accept");
    assert_eq!(proxy.screen_messages(2)[1].reply, "Reject");
    drop(accept(&listener));
    proxy.finish();
}

#[test]
fn h17_an_urgent_byte_of_the_request_belongs_to_it() {
    use std::os::fd::AsRawFd;
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let bytes = request(Command::Connect, &origin.destination(), b"user");
    let urgent = nix::sys::socket::MsgFlags::MSG_OOB;
    // The last byte of the first part is urgent.
    for length in 1..=bytes.len() {
        let client = dial(proxy.address());
        let (first, second) = bytes.split_at(length);
        nix::sys::socket::send(client.as_raw_fd(), first, urgent).unwrap();
        write(&client, second);
        assert_eq!(read_exactly(&client, 8)[1], 90, "{length}");
        write(&client, b"data");
        assert_eq!(read_exactly(&client, 4), b"data");
    }
    proxy.finish();
}

#[test]
fn h18_resets_right_after_connect_do_not_harm_the_server() {
    let proxy = Proxy::open();
    for _ in 0..500 {
        reset(TcpStream::connect(proxy.address()).expect("a connection"));
    }
    endpoints::connect_through(proxy.address(), &Origin::echo().destination());
    proxy.finish();
}

/// The first call peeks, the second one consumes exactly the request.
#[test]
fn a_request_in_one_segment_takes_two_recv_calls() {
    if !crate::support::tools::is_installed("strace", "strace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let proxy = Proxy::with(Setup {
        wrapper: &[
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=recvfrom,read,accept4",
            "-o",
            trace.to_str().unwrap(),
        ],
        ..Setup::default()
    });
    let client = dial(proxy.address());
    // Port 0 is refused at once, so the session makes no further reads.
    write(
        &client,
        &request(
            Command::Connect,
            &by_address((Ipv4Addr::LOCALHOST, 0).into()),
            b"me",
        ),
    );
    assert_eq!(read_all(&client)[..2], [0, 91]);
    let client_address = client.local_addr().unwrap();
    proxy.screen_message_for(client_address);
    drop(client);
    let reads = until("two reads in the trace", || {
        let text = std::fs::read_to_string(&trace).unwrap();
        let reads_request = |line: &&str| line.contains(r#""\4\1"#);
        let reads: Vec<String> = text
            .lines()
            .filter(reads_request)
            .map(str::to_owned)
            .collect();
        (reads.len() >= 2).then_some(reads)
    });
    assert_eq!(reads.len(), 2, "{reads:#?}");
    assert!(reads[0].contains("MSG_PEEK"), "{reads:#?}");
    assert!(reads[1].contains(" = 11"), "{reads:#?}");
    proxy.finish();
}
