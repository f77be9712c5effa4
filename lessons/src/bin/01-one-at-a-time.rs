//! 01. Thread per connection: why does a server need threads?
//!
//! New: `thread::spawn` starts a new thread, which runs a closure, and returns at once. A
//! call that waits (a blocking call, such as `accept` and `read`) stops only the thread
//! that makes the call. With one thread, a client that sends nothing stops the server.
//!
//! In the server: `accept_clients` in `src/server/accept.rs`.
//!
//! Explained in `docs/tour/01-one-at-a-time.md`.
//!
//! Output:
//!
//! ```text
//! broken, one thread for all clients: the second client gets no answer
//! fixed, one thread for each client: the second client gets "hello"
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use lessons::WAIT;

/// Sends back all bytes that a client sends, until the client closes its connection.
fn echo(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        // Blocks: returns after bytes have come. A count of 0 means EOF, "end of file".
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..count])?;
    }
}

/// Broken: while `echo` waits for bytes of one client, no other client is accepted.
fn broken_one_thread(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        let _ = echo(client);
    }
}

/// Fixed: the new thread waits for the client, and this thread accepts the next one.
fn fixed_thread_per_client(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        // `move`: the closure owns the client, since it may run after this function ends.
        thread::spawn(move || echo(client));
    }
}

/// Connects two clients. The first one sends nothing; what does the second one get?
fn try_server(server: fn(TcpListener)) -> String {
    // Port 0: the system chooses a free port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || server(listener));

    // `connect` does not wait for `accept`: the system keeps new connections in a queue, the
    // backlog, and `accept` takes the oldest one.
    let _silent = TcpStream::connect(address).unwrap();
    let mut second = TcpStream::connect(address).unwrap();
    second.write_all(b"hello").unwrap();
    second.set_read_timeout(Some(WAIT)).unwrap();
    let mut answer = [0; 5];
    match second.read_exact(&mut answer) {
        Ok(()) => format!("{:?}", String::from_utf8_lossy(&answer)),
        Err(_) => "no answer".to_owned(),
    }
}

fn main() {
    let broken = try_server(broken_one_thread);
    println!("broken, one thread for all clients: the second client gets {broken}");
    let fixed = try_server(fixed_thread_per_client);
    println!("fixed, one thread for each client: the second client gets {fixed}");
    // The end of `main` ends the process and all its threads, also those that wait.
}
