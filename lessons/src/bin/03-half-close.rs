//! 03. Half-close: when is a conversation over?
//!
//! New: a TCP connection has two directions, and each has an end of its own. A relay has
//! a loop, and a thread, for each direction. A client may send EOF and still wait for the
//! answer (half-close): so the end of one direction must not end the other one.
//!
//! In the server: `RelayDirection::run` in `src/relay/direction.rs`, `copy` in
//! `src/relay/copy.rs`.
//!
//! Explained in `docs/tour/03-half-close.md`.
//!
//! Output:
//!
//! ```text
//! broken, the first end closes both directions: the client gets ""
//! fixed, an end is passed on alone: the client gets "olleh"
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use lessons::connection;

/// A server that can answer only after EOF, as `sort` does: it reverses the text.
fn remote(mut stream: TcpStream) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let reversed: String = text.chars().rev().collect();
    let _ = stream.write_all(reversed.as_bytes());
}

/// Sends "hello" and EOF, and then reads the answer until EOF.
fn client(mut stream: TcpStream) -> String {
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Broken: EOF of `from` closes both connections, before the answer has come.
fn broken_close_both(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Fixed: EOF of `from` becomes EOF for `to`. The other direction has its own thread.
fn fixed_half_close(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A client, a relay with two directions, and a remote. What does the client get?
fn relay(direction: fn(&TcpStream, &TcpStream)) -> String {
    let (to_client, client_end) = connection();
    let (to_remote, remote_end) = connection();
    thread::spawn(move || remote(remote_end));
    let client = thread::spawn(move || client(client_end));
    // The threads of a scope may borrow: the scope ends after both of them have ended.
    thread::scope(|scope| {
        scope.spawn(|| direction(&to_client, &to_remote));
        scope.spawn(|| direction(&to_remote, &to_client));
    });
    // `join` waits for the end of a thread, and returns the result of its closure.
    client.join().unwrap()
}

fn main() {
    let broken = relay(broken_close_both);
    println!("broken, the first end closes both directions: the client gets {broken:?}");
    let fixed = relay(fixed_half_close);
    println!("fixed, an end is passed on alone: the client gets {fixed:?}");
}
