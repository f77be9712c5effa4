//! An end of a connection that follows a script, and tells what it came to.
//!
//! Every byte an end sends follows from its place. So the other end need not be
//! told what to expect, and the first wrong, missing or doubled byte is told by
//! its place, where a checksum would only say that there is one.

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

/// One thing after the other; the end of the script closes the connection. An
/// end that finds it broken follows its script no further.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends so many bytes.
    Send(u64, Pacing),
    /// Receives at least so many bytes, and less only if the end comes before.
    Receive(u64, Pacing),
    /// Receives to the end.
    ReceiveAll(Pacing),
    /// Neither reads nor writes until the sender of this channel is dropped.
    Stall(Receiver<()>),
    /// Says that it sends no more.
    HalfClose,
    /// Breaks the connection instead of closing it.
    Reset,
    /// Goes on with the script, and does this at the same time.
    Meanwhile(Vec<Step>),
}

/// How an end sends and receives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pacing {
    /// As fast as it can.
    Steady,
    /// In pieces of all sizes.
    Choppy,
    /// Far below what the relay could.
    Slow,
    /// As fast as it can, and not at all now and then, after so many bytes.
    Stalling(u64),
}

impl Pacing {
    /// Pause of a slow peer before each piece of 256 KiB: 250 MB/s at most.
    const SLOW_PAUSE: Duration = Duration::from_millis(1);

    /// Longer than the relay keeps a pipe or a large buffer for nothing.
    const STALL: Duration = Duration::from_millis(150);

    /// Waits as the pacing demands, and returns the size of the next piece in bytes.
    fn next_piece(self, done: u64) -> usize {
        match self {
            Pacing::Steady => 256 << 10,
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

/// Sends so many bytes and says so, and receives to the end meanwhile.
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

/// How the other end has taken its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not at all, as far as this end has listened.
    Open,
    /// It said that it sends no more.
    Proper,
    /// By a reset. The system tells of it once: who reads, or who writes, and
    /// then the other one reads an end.
    Reset,
}

/// What a script has come to. All bytes received are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) end: End,
}

impl Outcome {
    /// Everything went both ways, to a proper end.
    pub(crate) fn whole(count: u64) -> Outcome {
        Outcome {
            sent: count,
            received: count,
            end: End::Proper,
        }
    }
}

/// An end that follows its script on a thread of its own.
pub(crate) struct Peer {
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Peer {
    /// The end of a client.
    pub(crate) fn client(stream: TcpStream, script: Vec<Step>) -> Peer {
        Peer::start(stream, (&CLIENT_PATTERN, &REMOTE_PATTERN), script)
    }

    /// The end that the client asked for.
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

    /// How many bytes it has sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// What it came to, once its script is over.
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
