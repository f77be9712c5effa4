//! 04. Interrupting a blocked read: how do you end a thread that waits?
//!
//! New: `AtomicBool`, a flag that threads share without a lock; and why a flag is not
//! enough. A thread that is blocked in `read` looks at no flag. So first set the flag, and
//! then wake the thread: `shutdown` of its socket makes the `read` return.
//!
//! In the server: `Session::terminate` in `src/server/session/mod.rs`,
//! `RelayState::abort` in `src/relay/state.rs`.
//!
//! Explained in `docs/tour/04-interrupt-a-read.md`.
//!
//! Output:
//!
//! ```text
//! broken, only a flag: the thread still waits
//! fixed, a flag and shutdown: the thread has ended
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lessons::{connection, ends};

struct Session {
    stream: TcpStream,
    is_stopped: AtomicBool,
}

/// An echo server: it looks at the flag after each read.
fn serve(session: &Session) {
    let mut byte = [0];
    while let Ok(1) = (&session.stream).read(&mut byte) {
        // SeqCst is the strictest ordering. Use it until you can say why less is enough.
        if session.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        (&session.stream).write_all(&byte).unwrap();
    }
}

/// Broken: the thread would see the flag only after one more byte.
fn broken_flag(session: &Session) {
    session.is_stopped.store(true, Ordering::SeqCst);
}

/// Fixed: `read` returns 0, as if the client had sent EOF. The flag tells the difference.
fn fixed_flag_and_shutdown(session: &Session) {
    session.is_stopped.store(true, Ordering::SeqCst);
    session.stream.shutdown(Shutdown::Read).unwrap();
}

fn try_to_stop(stop: fn(&Session)) -> &'static str {
    let (stream, mut client) = connection();
    let is_stopped = AtomicBool::new(false);
    let session = Arc::new(Session { stream, is_stopped });
    let shared = Arc::clone(&session);
    let thread = thread::spawn(move || serve(&shared));
    // After this echo the thread looks at the flag no more: its next call is `read`.
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    stop(&session);
    match ends(&thread) {
        true => "the thread has ended",
        false => "the thread still waits",
    }
}

fn main() {
    println!("broken, only a flag: {}", try_to_stop(broken_flag));
    println!("fixed, a flag and shutdown: {}", try_to_stop(fixed_flag_and_shutdown));
}
