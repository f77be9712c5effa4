//! 13. Uninterruptible call: what if nothing can wake a thread?
//!
//! New: `select!` waits for several channels, and returns when the first of them is ready.
//! A lookup of a host name, getaddrinfo(3), returns when the resolver answers, perhaps
//! after half a minute; no call ends it earlier. So another thread makes the call and sends
//! the result into a channel. The session waits for the result, for the end of its
//! connection, and for a deadline at the same time.
//!
//! In the server: `PendingRequest::look_up` in `src/server/access/name_lookup.rs`.
//!
//! Explained in `docs/tour/13-uninterruptible-call.md`.
//!
//! Output:
//!
//! ```text
//! broken, a call, and a termination: the session still waits
//! fixed, select, and a termination: the session has ended, terminated
//! fixed, select, and a deadline: the session has ended, no answer in time
//! fixed, select, and an answer: the session has ended, 192.0.2.7
//! ```

use std::convert::Infallible;
use std::time::Duration;
use std::{process, thread};

use crossbeam_channel::{Receiver, bounded, select};
use lessons::ends;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

/// What a session waits for.
struct Session {
    resolver: Receiver<&'static str>,
    /// Disconnected when the session is terminated (lesson 11).
    terminated: Receiver<Infallible>,
    deadline: Duration,
}

/// Stands for getaddrinfo(3).
fn look_up(resolver: &Receiver<&'static str>) -> &'static str {
    resolver.recv().unwrap_or("no address")
}

/// Broken: the session looks at nothing else until the call returns.
fn broken_call(session: Session) -> &'static str {
    look_up(&session.resolver)
}

/// Fixed: the session ends in time. The other thread stays until the call returns: it still
/// costs memory, so a server limits the number of such threads.
fn fixed_thread_and_select(session: Session) -> &'static str {
    // A channel for one message: `send` never waits, also after the session has ended.
    let (sender, result) = bounded(1);
    let resolver = session.resolver;
    thread::spawn(move || sender.send(look_up(&resolver)));
    select! {
        recv(result) -> address => address.unwrap(),
        recv(session.terminated) -> _ => "terminated",
        default(session.deadline) => "no answer in time",
    }
}

#[derive(PartialEq)]
enum Case {
    Termination,
    Deadline,
    Answer,
}

fn run(serve: fn(Session) -> &'static str, case: Case) -> String {
    let (answer, resolver) = bounded(1);
    let (token, terminated) = bounded(0);
    let deadline = if case == Case::Deadline { SHORT } else { LONG };
    let thread = thread::spawn(move || serve(Session { resolver, terminated, deadline }));
    match case {
        Case::Termination => drop(token),
        Case::Deadline => {}
        Case::Answer => answer.send("192.0.2.7").unwrap(),
    }
    match ends(&thread) {
        true => format!("the session has ended, {}", thread.join().unwrap()),
        false => "the session still waits".to_owned(),
    }
}

fn main() {
    println!("broken, a call, and a termination: {}", run(broken_call, Case::Termination));
    let fixed = fixed_thread_and_select;
    println!("fixed, select, and a termination: {}", run(fixed, Case::Termination));
    println!("fixed, select, and a deadline: {}", run(fixed, Case::Deadline));
    println!("fixed, select, and an answer: {}", run(fixed, Case::Answer));
    process::exit(0); // A thread still waits.
}
