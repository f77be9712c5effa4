//! A peer that follows a script on its end of a connection, and reports the outcome.
//!
//! The value of every byte follows from its position in the stream. So a receiver
//! knows what to expect without being told, and names the position of the first
//! wrong, missing or duplicated byte. A checksum would not show the position.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::support::endpoints::{random_bytes, reset_on_close};

pub(crate) const MEGABYTE: u64 = 1 << 20;

/// One step of a script. A peer takes the steps in order, and closes the connection
/// after the last one. After an I/O error it takes no further step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends this many bytes.
    Send(u64, Pacing),
    /// Receives at least this many bytes, or fewer if EOF comes earlier.
    Receive(u64, Pacing),
    /// Receives until EOF.
    ReceiveAll(Pacing),
    /// Neither reads nor writes until the sender of this channel is dropped.
    Stall(Receiver<()>),
    /// Sends FIN.
    HalfClose,
    /// Makes the close of the connection send RST.
    Reset,
    /// Takes these steps on a thread of their own, and goes on with the script.
    Meanwhile(Vec<Step>),
}

/// The speed at which a peer sends or receives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pacing {
    /// As fast as possible.
    Steady,
    /// In pieces of 1 byte to 128 KiB.
    Choppy,
    /// Far below the relay's own speed.
    Slow,
    /// As fast as possible, with a pause after each time this many bytes.
    Stalling(u64),
}

impl Pacing {
    /// Pause of a slow peer before each piece of 256 KiB: 250 MB/s at most.
    const SLOW_PAUSE: Duration = Duration::from_millis(1);

    /// Pause of a stalling peer. The relay releases an idle pipe or large buffer after
    /// 100 ms, so this pause makes it do so.
    const STALL: Duration = Duration::from_millis(150);

    /// Waits as the pacing demands, and returns the size of the next piece in bytes.
    fn next_piece(self, done: u64) -> usize {
        match self {
            Pacing::Steady => 256 << 10,
            // The upper 17 bits of a multiplicative hash.
            Pacing::Choppy => 1 + (done.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 47) as usize,
            Pacing::Slow => {
                thread::sleep(Self::SLOW_PAUSE);
                256 << 10
            }
            Pacing::Stalling(every) => {
                let piece = 64 << 10;
                if done % every < piece {
                    thread::sleep(Self::STALL);
                }
                piece as usize
            }
        }
    }
}

/// A script that sends this many bytes and FIN, and at the same time receives until
/// EOF.
pub(crate) fn exchange(count: u64, pacing: Pacing) -> Vec<Step> {
    let sending = vec![Step::Send(count, pacing), Step::HalfClose];
    vec![Step::Meanwhile(sending), Step::ReceiveAll(pacing)]
}

/// The endless byte stream that one side sends and the other side expects.
struct Pattern {
    /// One period of the stream.
    bytes: Vec<u8>,
}

/// The stream that clients send.
static CLIENT_PATTERN: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(1));

/// The stream that remotes send.
static REMOTE_PATTERN: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(2));

impl Pattern {
    /// Length of a period in bytes. It is a prime number, so that no buffer size is a
    /// multiple of it or divides it.
    const PERIOD: usize = 1_048_573;

    fn new(seed: u64) -> Pattern {
        let bytes = random_bytes(seed, Self::PERIOD);
        Pattern { bytes }
    }

    /// Bytes from this position to the end of the period, at most `max`.
    fn slice(&self, position: u64, max: usize) -> &[u8] {
        let start = (position % Self::PERIOD as u64) as usize;
        &self.bytes[start..Self::PERIOD.min(start + max)]
    }

    /// Checks bytes that were received at this position of the stream.
    fn check(&self, mut position: u64, mut received: &[u8]) {
        while !received.is_empty() {
            let expected = self.slice(position, received.len());
            let (piece, rest) = received.split_at(expected.len());
            assert!(
                piece == expected,
                "wrong bytes at or after position {position}"
            );
            position += piece.len() as u64;
            received = rest;
        }
    }
}

/// How the other side has ended its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not at all, as far as this peer has read.
    Open,
    /// By a FIN: this peer has read EOF.
    Proper,
    /// By a reset. The system reports it once, to a read or to a write. If a write
    /// receives the error, the next read returns EOF.
    Reset,
}

/// The result of a script. All received bytes had the expected values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) end: End,
}

impl Outcome {
    /// The outcome of [`exchange`] without a fault: all bytes both ways, then EOF.
    pub(crate) fn whole(count: u64) -> Outcome {
        Outcome {
            sent: count,
            received: count,
            end: End::Proper,
        }
    }
}

/// A peer that follows its script on a thread of its own.
pub(crate) struct Peer {
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Peer {
    /// Starts a peer on the client's end of a session.
    pub(crate) fn client(stream: TcpStream, script: Vec<Step>) -> Peer {
        Peer::start(stream, (&CLIENT_PATTERN, &REMOTE_PATTERN), script)
    }

    /// Starts a peer on the remote's end of a session.
    pub(crate) fn remote(stream: TcpStream, script: Vec<Step>) -> Peer {
        Peer::start(stream, (&REMOTE_PATTERN, &CLIENT_PATTERN), script)
    }

    fn start(
        stream: TcpStream,
        (outgoing, incoming): (&'static Pattern, &'static Pattern),
        script: Vec<Step>,
    ) -> Peer {
        let progress = Arc::new(Progress {
            outgoing,
            incoming,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            end: Mutex::new(End::Open),
        });
        let thread = thread::spawn({
            let progress = Arc::clone(&progress);
            move || progress.follow(&stream, &script)
        });
        Peer { progress, thread }
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Waits until the script is over, and returns its outcome. A panic of the peer's
    /// thread is raised again here.
    pub(crate) fn outcome(self) -> Outcome {
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
        Outcome {
            sent: self.progress.sent.load(Ordering::Relaxed),
            received: self.progress.received.load(Ordering::Relaxed),
            end: *self.progress.end.lock().unwrap(),
        }
    }
}

/// The progress of a script, shared by its threads.
///
/// Relaxed suffices for both counters: each has one writer, no other data depends on
/// them, and `join` orders the final values.
struct Progress {
    outgoing: &'static Pattern,
    incoming: &'static Pattern,
    sent: AtomicU64,
    received: AtomicU64,
    /// Written by the thread that reads and by the thread that writes.
    end: Mutex<End>,
}

impl Progress {
    fn follow(&self, stream: &TcpStream, script: &[Step]) {
        thread::scope(|scope| {
            for step in script {
                match step {
                    Step::Meanwhile(steps) => {
                        scope.spawn(|| self.follow(stream, steps));
                    }
                    step => {
                        if let Err(error) = self.run(stream, step) {
                            return self.record_error(&error);
                        }
                    }
                }
            }
        });
    }

    fn run(&self, stream: &TcpStream, step: &Step) -> io::Result<()> {
        match step {
            Step::Send(count, pacing) => return self.send(stream, *count, *pacing),
            Step::Receive(count, pacing) => return self.receive(stream, *count, *pacing),
            Step::ReceiveAll(pacing) => return self.receive(stream, u64::MAX, *pacing),
            Step::Stall(released) => drop(released.recv()),
            // This fails on a connection that was reset; the next read reports it.
            Step::HalfClose => drop(stream.shutdown(Shutdown::Write)),
            Step::Reset => reset_on_close(stream),
            Step::Meanwhile(_) => {}
        }
        Ok(())
    }

    fn send(&self, mut to: &TcpStream, count: u64, pacing: Pacing) -> io::Result<()> {
        let mut done = 0;
        while done < count {
            let size = pacing.next_piece(done).min((count - done) as usize);
            let piece = self.outgoing.slice(done, size);
            to.write_all(piece)?;
            done += piece.len() as u64;
            self.sent.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn receive(&self, mut from: &TcpStream, least: u64, pacing: Pacing) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < least {
            let size = pacing.next_piece(done).min(buffer.len());
            let count = match from.read(&mut buffer[..size])? {
                0 => {
                    self.record_end(End::Proper);
                    return Ok(());
                }
                count => count,
            };
            self.incoming.check(done, &buffer[..count]);
            done += count as u64;
            self.received.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn record_error(&self, error: &io::Error) {
        match error.kind() {
            ErrorKind::ConnectionReset => self.record_end(End::Reset),
            // EPIPE: the thread that reads records how the connection ended.
            ErrorKind::BrokenPipe => {}
            _ => panic!("{error}"),
        }
    }

    /// A reset counts even if one of the two threads has read EOF.
    fn record_end(&self, new: End) {
        let mut end = self.end.lock().unwrap();
        if *end != End::Reset {
            *end = new;
        }
    }
}
