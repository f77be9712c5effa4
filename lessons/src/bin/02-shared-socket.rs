//! 02. Shared ownership: how do two threads use one socket?
//!
//! New: `Arc` gives a value several owners, in several threads; and `shutdown` ends a
//! connection while other threads still use its socket. `try_clone` seems easier, but a
//! clone is a second handle of the same connection. The connection closes when the last
//! handle is dropped, and a thread that is blocked in `read` drops nothing.
//!
//! In the server: `Session` in `src/server/session/mod.rs` owns the sockets, and its
//! threads share it; `send_fin` in `src/net/options.rs` ends a direction. A test checks
//! that the server never calls try_clone.
//!
//! Explained in `docs/tour/02-shared-socket.md`.
//!
//! Output:
//!
//! ```text
//! broken, try_clone and drop: the peer still waits
//! fixed, Arc and shutdown: the peer sees the end
//! ```

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use lessons::{WAIT, connection};

/// Does the peer read EOF (a count of 0)?
fn what_the_peer_sees(mut peer: TcpStream) -> &'static str {
    peer.set_read_timeout(Some(WAIT)).unwrap();
    match peer.read(&mut [0]) {
        Ok(0) => "the peer sees the end",
        _ => "the peer still waits",
    }
}

/// Broken: each thread has a handle of its own, and this thread drops only its own.
fn broken_clone_and_drop() -> &'static str {
    let (ours, peer) = connection();
    let mut clone = ours.try_clone().unwrap();
    // The closure owns the clone; it is blocked until the peer sends something.
    thread::spawn(move || clone.read(&mut [0]));
    drop(ours);
    what_the_peer_sees(peer)
}

/// Fixed: one handle with two owners, and a call that says when the connection ends.
fn fixed_arc_and_shutdown() -> &'static str {
    let (ours, peer) = connection();
    let ours = Arc::new(ours);
    let reader = Arc::clone(&ours);
    // A `&TcpStream` can be read from, so many threads can use a socket that they share.
    thread::spawn(move || (&*reader).read(&mut [0]));
    // Sends FIN, the mark of TCP for EOF, whatever other threads do with the socket.
    ours.shutdown(Shutdown::Write).unwrap();
    what_the_peer_sees(peer)
}

fn main() {
    let broken = broken_clone_and_drop();
    println!("broken, try_clone and drop: {broken}");
    let fixed = fixed_arc_and_shutdown();
    println!("fixed, Arc and shutdown: {fixed}");
}
