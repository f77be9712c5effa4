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
    /// What a slow end does before each piece: 250 MB/s at most.
    const NAP: Duration = Duration::from_millis(1);

    /// Longer than the relay keeps a pipe or a large buffer for nothing.
    const STALL: Duration = Duration::from_millis(150);

    /// How many bytes to move next, after so many.
    fn next(self, done: u64) -> usize {
        match self {
            Pacing::Steady => 256 << 10,
            Pacing::Choppy => 1 + (done.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 47) as usize,
            Pacing::Slow => {
                thread::sleep(Self::NAP);
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

/// What one of two ends sends, and the other one expects.
struct Source {
    bytes: Vec<u8>,
}

/// What clients send.
static UP: LazyLock<Source> = LazyLock::new(|| Source::new(1));

/// What remotes send.
static DOWN: LazyLock<Source> = LazyLock::new(|| Source::new(2));

impl Source {
    /// A prime number, so that nothing repeats in step with a buffer.
    const PERIOD: usize = 1_048_573;

    fn new(seed: u64) -> Source {
        let bytes = random_bytes(seed, Self::PERIOD);
        Source { bytes }
    }

    /// The bytes from this place on, at most so many.
    fn at(&self, place: u64, most: usize) -> &[u8] {
        let start = (place % Self::PERIOD as u64) as usize;
        &self.bytes[start..Self::PERIOD.min(start + most)]
    }

    /// These bytes have been received, behind so many others.
    fn check(&self, place: u64, mut seen: &[u8]) {
        let mut place = place;
        while !seen.is_empty() {
            let expected = self.at(place, seen.len());
            let (now, rest) = seen.split_at(expected.len());
            assert!(now == expected, "wrong bytes from {place} on");
            place += now.len() as u64;
            seen = rest;
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
    playing: Arc<Playing>,
    thread: JoinHandle<()>,
}

impl Peer {
    /// The end of a client.
    pub(crate) fn client(stream: TcpStream, script: Vec<Step>) -> Peer {
        Peer::plays(stream, (&UP, &DOWN), script)
    }

    /// The end that the client asked for.
    pub(crate) fn remote(stream: TcpStream, script: Vec<Step>) -> Peer {
        Peer::plays(stream, (&DOWN, &UP), script)
    }

    fn plays(
        stream: TcpStream,
        (says, hears): (&'static Source, &'static Source),
        script: Vec<Step>,
    ) -> Peer {
        let playing = Arc::new(Playing {
            says,
            hears,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            end: Mutex::new(End::Open),
        });
        let thread = thread::spawn({
            let playing = Arc::clone(&playing);
            move || playing.follow(&stream, &script)
        });
        Peer { playing, thread }
    }

    /// How many bytes it has sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.playing.sent.load(Ordering::Relaxed)
    }

    /// What it came to, once its script is over.
    pub(crate) fn outcome(self) -> Outcome {
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
        Outcome {
            sent: self.playing.sent.load(Ordering::Relaxed),
            received: self.playing.received.load(Ordering::Relaxed),
            end: *self.playing.end.lock().unwrap(),
        }
    }
}

/// How far a script has come.
struct Playing {
    says: &'static Source,
    hears: &'static Source,
    sent: AtomicU64,
    received: AtomicU64,
    end: Mutex<End>,
}

impl Playing {
    fn follow(&self, stream: &TcpStream, script: &[Step]) {
        thread::scope(|scope| {
            for step in script {
                match step {
                    Step::Meanwhile(other) => {
                        scope.spawn(|| self.follow(stream, other));
                    }
                    step => {
                        if let Err(error) = self.take(stream, step) {
                            return self.breaks(&error);
                        }
                    }
                }
            }
        });
    }

    fn take(&self, stream: &TcpStream, step: &Step) -> io::Result<()> {
        match step {
            Step::Send(count, pacing) => return self.send(stream, *count, *pacing),
            Step::Receive(count, pacing) => return self.receive(stream, *count, *pacing),
            Step::ReceiveAll(pacing) => return self.receive(stream, u64::MAX, *pacing),
            Step::Stall(told) => drop(told.recv()),
            // Where nothing is left to end, reading tells.
            Step::HalfClose => drop(stream.shutdown(Shutdown::Write)),
            Step::Reset => reset_on_close(stream),
            Step::Meanwhile(_) => {}
        }
        Ok(())
    }

    fn send(&self, mut to: &TcpStream, count: u64, pacing: Pacing) -> io::Result<()> {
        let mut done = 0;
        while done < count {
            let piece = pacing.next(done).min((count - done) as usize);
            let piece = self.says.at(done, piece);
            to.write_all(piece)?;
            done += piece.len() as u64;
            self.sent.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn receive(&self, mut from: &TcpStream, most: u64, pacing: Pacing) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < most {
            let room = pacing.next(done).min(buffer.len());
            let count = match from.read(&mut buffer[..room])? {
                0 => {
                    self.read_line(End::Proper);
                    return Ok(());
                }
                count => count,
            };
            self.hears.check(done, &buffer[..count]);
            done += count as u64;
            self.received.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn breaks(&self, error: &io::Error) {
        match error.kind() {
            ErrorKind::ConnectionReset => self.read_line(End::Reset),
            // The reader is told how it ended.
            ErrorKind::BrokenPipe => {}
            _ => panic!("{error}"),
        }
    }

    fn read_line(&self, new: End) {
        let mut end = self.end.lock().unwrap();
        if *end != End::Reset {
            *end = new;
        }
    }
}
