//! Many bytes both ways at once, between ends that behave badly.
//!
//! Every byte follows from its place, so the first wrong, missing or doubled
//! one is told by its place.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::ends::{finish, noise, relayed, reset};
use crate::proxy::{PERMIT_ALL, Proxy};

const MEGABYTE: u64 = 1 << 20;

/// The source of all bytes: a prime number of them, so that nothing repeats in
/// step with a buffer.
const PERIOD: usize = 1_048_573;

/// Longer than the relay keeps a pipe or a large buffer for nothing.
const STALL: Duration = Duration::from_millis(150);

/// How an end sends and receives.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As fast as it can.
    Steady,
    /// In pieces of all sizes.
    Choppy,
    /// Far below what the relay could.
    Slow,
    /// As fast as it can, and now and then not at all.
    Stalling,
}

use Manner::{Choppy, Slow, Stalling, Steady};

const MANNERS: [Manner; 4] = [Steady, Choppy, Slow, Stalling];

/// What a slow end does before each piece: 250 MB/s at most.
const NAP: Duration = Duration::from_millis(1);

impl Manner {
    /// How many bytes to move next, after so many.
    fn next(self, done: u64, stall_every: u64) -> usize {
        match self {
            Steady => 256 << 10,
            Choppy => 1 + (done.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 47) as usize,
            Slow => {
                thread::sleep(NAP);
                256 << 10
            }
            Stalling => {
                let piece = 64 << 10;
                if done % stall_every < piece {
                    thread::sleep(STALL);
                }
                piece as usize
            }
        }
    }
}

/// What one end sends.
struct Source {
    bytes: Vec<u8>,
}

impl Source {
    fn new(seed: u64) -> Source {
        let bytes = noise(seed, PERIOD);
        Source { bytes }
    }

    /// The bytes from this place on, at most so many.
    fn at(&self, place: u64, most: usize) -> &[u8] {
        let start = (place % PERIOD as u64) as usize;
        &self.bytes[start..PERIOD.min(start + most)]
    }

    fn send(&self, mut to: &TcpStream, count: u64, manner: Manner) -> std::io::Result<()> {
        let mut done = 0;
        while done < count {
            let piece = manner
                .next(done, count / 5 + 1)
                .min((count - done) as usize);
            let piece = self.at(done, piece);
            to.write_all(piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Receives to the end or an error: how many bytes came, all of them right,
    /// and whether there was a proper end.
    fn receive(&self, mut from: &TcpStream, most: u64, manner: Manner) -> (u64, bool) {
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < most {
            let room = manner.next(done, most / 5 + 1).min(buffer.len());
            let count = match from.read(&mut buffer[..room]) {
                Ok(0) => return (done, true),
                Ok(count) => count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    return (done, false);
                }
            };
            let mut seen = &buffer[..count];
            while !seen.is_empty() {
                let expected = self.at(done, seen.len());
                let (now, rest) = seen.split_at(expected.len());
                assert!(now == expected, "wrong bytes from {done} on");
                done += now.len() as u64;
                seen = rest;
            }
        }
        (done, false)
    }
}

/// This many bytes each way, with each manner of sending against each of
/// receiving.
fn both_ways(count: u64) {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let (up, down) = (Source::new(1), Source::new(2));
    for client_manner in MANNERS {
        for remote_manner in MANNERS {
            let (client, remote) = relayed(proxy.address());
            thread::scope(|scope| {
                for (end, source, manner) in [
                    (&client, &up, client_manner),
                    (&remote, &down, remote_manner),
                ] {
                    scope.spawn(move || {
                        source.send(end, count, manner).expect("sent");
                        finish(end);
                    });
                }
                // One more than will come, so that the end is seen.
                let sink = scope.spawn(|| up.receive(&remote, count + 1, remote_manner));
                let back = down.receive(&client, count + 1, client_manner);
                assert_eq!(back, (count, true), "down");
                assert_eq!(sink.join().unwrap(), (count, true), "up");
            });
            proxy.says(&format!("up={count} down={count} "));
        }
    }
    proxy.finish();
}

/// Bulk both ways, until one end breaks the connection: the other end gets what
/// is right as far as it goes, and no proper end.
fn resets(rounds: u64, least: u64) {
    let proxy = Proxy::open();
    let (up, down) = (Source::new(3), Source::new(4));
    for round in 0..rounds {
        let (client, remote) = relayed(proxy.address());
        let (breaker, other) = match round % 2 {
            0 => (client, remote),
            _ => (remote, client),
        };
        let manner = [Steady, Choppy][round as usize / 2 % 2];
        // Somewhere in the middle, each time somewhere else.
        let place = least + round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % MEGABYTE;
        thread::scope(|scope| {
            let flood = scope.spawn(|| up.send(&other, u64::MAX, Steady).expect_err("broken"));
            let sink = scope.spawn(|| down.receive(&other, u64::MAX, Steady));
            thread::scope(|scope| {
                scope.spawn(|| down.send(&breaker, least, manner).expect("sent"));
                let (received, _) = up.receive(&breaker, place, manner);
                assert!(received >= place, "round {round}: {received} of {place}");
            });
            reset(breaker);
            let (received, ended) = sink.join().unwrap();
            // The system tells of a reset once: who reads, or who writes.
            let told = flood.join().unwrap().kind() == ErrorKind::ConnectionReset;
            assert!(told || !ended, "round {round}: an end after {received}");
        });
    }
    proxy.finish();
}

#[test]
fn r23_every_byte_between_choppy_slow_and_stalling_ends() {
    both_ways(8 * MEGABYTE);
}

#[test]
fn r24_a_reset_amid_bulk_is_never_taken_for_an_end() {
    resets(40, 4 * MEGABYTE);
}

#[test]
#[ignore = "a minute with all optimizations"]
fn gigabytes_between_choppy_slow_and_stalling_ends() {
    both_ways(1 << 30);
}

#[test]
#[ignore = "a quarter of a minute with all optimizations"]
fn gigabytes_broken_off_by_resets() {
    resets(400, 16 * MEGABYTE);
}
