//! Test `connections`: short connections (connect, request, reply, one byte each way, reset).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{self, Shutdown};

use crate::endpoints::{listen, prepare};
use crate::interval::Interval;
use crate::results::TestResult;
use crate::running_contender::RunningContender;

/// Connections per second and CPU microseconds per connection, with `clients`
/// threads that open one connection after the other.
pub(crate) fn measure(
    contender: &RunningContender,
    clients: usize,
    window: Duration,
) -> TestResult {
    // Twice as many threads as clients: some still wait for the contender to close
    // the previous connection.
    let origin = OriginServer::start(2 * clients + 2);
    // Relaxed suffices for both: neither publishes other data.
    let (completed, is_stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let client = || {
        while !is_stopped.load(Ordering::Relaxed) {
            match connect_and_exchange(contender, origin.address) {
                Ok(()) => completed.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    return *failure.lock().expect("the mutex is not poisoned") = Some(error);
                }
            };
        }
    };
    let interval = thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(client);
        }
        let interval = Interval::measure(contender, window, || completed.load(Ordering::Relaxed));
        is_stopped.store(true, Ordering::Relaxed);
        interval
    });
    if let Some(error) = failure.into_inner().expect("the mutex is not poisoned") {
        return Err(format!("one of {clients} clients: {error}"));
    }
    if interval.count == 0.0 {
        return Err(format!("completed no connection of {clients} clients"));
    }
    let (rate, cpu) = match clients {
        1 => ("rate_1", "rate_1_cpu"),
        8 => ("rate_8", "rate_8_cpu"),
        _ => ("rate_64", "rate_64_cpu"),
    };
    let mut numbers = vec![(rate, interval.count / interval.seconds)];
    numbers.extend(
        interval
            .cpu_seconds
            .map(|seconds| (cpu, 1e6 * seconds / interval.count)),
    );
    Ok(numbers)
}

/// Opens a connection and exchanges one byte each way. The client then resets it,
/// the contender closes its side, and the origin server resets that side: no port
/// stays in TIME_WAIT.
pub(crate) fn connect_and_exchange(
    contender: &RunningContender,
    origin: SocketAddr,
) -> io::Result<()> {
    let mut stream = contender.connect(origin)?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// Reads one byte from each connection and sends one back.
pub(crate) struct OriginServer {
    pub(crate) address: SocketAddr,
    listener: Arc<TcpListener>,
}

impl OriginServer {
    /// Starts `threads` threads, each of which serves one connection at a time.
    pub(crate) fn start(threads: usize) -> OriginServer {
        let listener = Arc::new(listen());
        for _ in 0..threads {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    // The client reports a failed connection.
                    let _ = serve_connection(&stream);
                }
            });
        }
        OriginServer {
            address: listener.local_addr().expect("the address of the listener"),
            listener,
        }
    }
}

fn serve_connection(mut stream: &TcpStream) -> io::Result<()> {
    prepare(stream)?;
    stream.read_exact(&mut [0])?;
    stream.write_all(b"!")?;
    let _eof = stream.read(&mut [0])?;
    Ok(())
}

impl Drop for OriginServer {
    /// On Linux, shutdown(2) of a listener ends every accept(2) that waits on it.
    /// The threads are not joined: once in many thousand connections, microsocks
    /// does not close its socket, and a thread waits until its read times out.
    fn drop(&mut self) {
        let _ = socket::shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}
