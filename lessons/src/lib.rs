//! What several lessons need: a connection, and a limit for what does not happen.

use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a lesson waits for something that, as it claims, does not happen. What happens
/// comes within milliseconds, also on a busy machine.
pub const WAIT: Duration = Duration::from_secs(1);

/// Both ends of a new TCP connection: ours, and that of the peer.
pub fn connection() -> (TcpStream, TcpStream) {
    // Port 0: the system chooses a free port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours, peer)
}

/// Does this thread end? If not, the answer takes as long as [`WAIT`].
pub fn ends<T>(thread: &JoinHandle<T>) -> bool {
    is_true_in_time(|| thread.is_finished())
}

/// Does this become true? If not, the answer takes as long as [`WAIT`].
pub fn is_true_in_time(mut is_true: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < WAIT {
        if is_true() {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    is_true()
}
