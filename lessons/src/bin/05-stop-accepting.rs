//! 05. Graceful shutdown, first part: how does a server stop accepting clients?
//!
//! New: two steps whose order matters. `accept` returns only when a client comes, so a
//! flag alone does not stop the loop: we wake it by a connection of our own. The flag comes
//! first: otherwise the loop takes this connection for a client and calls `accept` again.
//!
//! In the server: `Server::run` in `src/server/run.rs` wakes the thread, joins it, and only
//! then ends the sessions. There one step is enough: the accept loop polls a pipe together
//! with the listener (`wait_for_clients` in `src/net/accept.rs`), and a closed pipe is both
//! the flag and the event.
//!
//! Explained in `docs/tour/05-stop-accepting.md`.
//!
//! Output:
//!
//! ```text
//! broken, only a flag: accept still waits
//! broken, wake, then set the flag: accept still waits
//! fixed, set the flag, then wake: the loop has ended
//! ```

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use lessons::ends;

struct Server {
    address: SocketAddr,
    is_stopping: AtomicBool,
    /// How many clients were accepted.
    clients: AtomicUsize,
}

impl Server {
    fn accept_clients(&self, listener: &TcpListener) {
        while let Ok((_client, _)) = listener.accept() {
            if self.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            self.clients.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Broken: while no client comes, the loop does not look at the flag.
    fn broken_flag(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Broken: the loop can be back in `accept` when the flag is set.
    fn broken_wake_then_flag(&self) {
        let _ = TcpStream::connect(self.address);
        // The worst moment: the loop has looked at the flag already.
        while self.clients.load(Ordering::SeqCst) == 0 {
            thread::yield_now(); // Lets other threads run.
        }
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Fixed: the flag is set before `accept` returns.
    fn fixed_flag_then_wake(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn try_to_stop(stop: fn(&Server)) -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Arc::new(Server {
        address: listener.local_addr().unwrap(),
        is_stopping: AtomicBool::new(false),
        clients: AtomicUsize::new(0),
    });
    let shared = Arc::clone(&server);
    let accepting = thread::spawn(move || shared.accept_clients(&listener));
    stop(&server);
    match ends(&accepting) {
        true => "the loop has ended",
        false => "accept still waits",
    }
}

fn main() {
    println!("broken, only a flag: {}", try_to_stop(Server::broken_flag));
    println!("broken, wake, then set the flag: {}", try_to_stop(Server::broken_wake_then_flag));
    println!("fixed, set the flag, then wake: {}", try_to_stop(Server::fixed_flag_then_wake));
}
