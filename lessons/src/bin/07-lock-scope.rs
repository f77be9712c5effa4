//! 07. Lock scope: what may a thread do while it holds a lock?
//!
//! New: copy what you need out of the lock, release the lock, and then act. A call that
//! waits for something outside the program must not happen under a lock. Here a client
//! does not read, so the `write` to it never returns; all that need the lock wait too.
//!
//! In the server: `Registry::live` in `src/server/session/registry.rs` copies, and
//! `terminate_idle` in `src/server/session/sweep.rs` acts.
//!
//! Explained in `docs/tour/07-lock-scope.md`.
//!
//! Output:
//!
//! ```text
//! broken, write under the lock: the new client waits for the lock
//! fixed, copy and write after the lock: the new client is registered
//! ```

use std::io::Write;
use std::net::TcpStream;
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;

use lessons::{connection, ends};

/// More bytes than the buffers of a connection hold.
const MESSAGE_BYTES: usize = 64 << 20;

#[derive(Default)]
struct Registry {
    clients: Mutex<Vec<Arc<TcpStream>>>,
}

impl Registry {
    fn add(&self, client: TcpStream) {
        self.clients.lock().unwrap().push(Arc::new(client));
    }

    /// Broken: `clients` holds the lock until the last write has returned.
    fn broken_write_under_lock(&self, message: &[u8]) {
        let clients = self.clients.lock().unwrap();
        for client in clients.iter() {
            let _ = (&**client).write_all(message);
        }
    }

    /// Fixed: a clone of the `Vec` costs little, since it clones each `Arc` and no socket.
    fn fixed_copy_then_write(&self, message: &[u8]) {
        // The lock is released at the end of this statement.
        let clients = self.clients.lock().unwrap().clone();
        for client in clients {
            let _ = (&*client).write_all(message);
        }
    }
}

/// A client that does not read gets a long message. Can a new client be registered?
fn try_to_add(write_to_all: fn(&Registry, &[u8])) -> &'static str {
    let (blocked, blocked_end) = connection();
    let (new, _new_end) = connection();
    let registry = Arc::new(Registry::default());
    registry.add(blocked);
    let shared = Arc::clone(&registry);
    thread::spawn(move || write_to_all(&shared, &vec![b'x'; MESSAGE_BYTES]));
    // The first byte has come, so the thread is in `write_all`. `peek` takes no byte.
    blocked_end.peek(&mut [0]).unwrap();

    let adding = thread::spawn(move || registry.add(new));
    match ends(&adding) {
        true => "the new client is registered",
        false => "the new client waits for the lock",
    }
}

fn main() {
    let broken = try_to_add(Registry::broken_write_under_lock);
    println!("broken, write under the lock: {broken}");
    let fixed = try_to_add(Registry::fixed_copy_then_write);
    println!("fixed, copy and write after the lock: {fixed}");
    process::exit(0); // Some threads still wait.
}
