//! A network that misbehaves, to put between two ends.
//!
//! ```text
//!   who dials ──> network ──> target
//! ```
//!
//! It takes one connection and makes one to its target. In one of the two
//! directions it has a [`Fault`]. One thread moves both, so that no reset can
//! look like an end to one of two: an end is passed on as an end, a reset as a
//! reset.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::support::endpoints::reset_on_close;
use crate::support::random::Rng;
use crate::support::wait::TIMEOUT;

/// What goes wrong in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Everything comes later by this, half as much more or less.
    Latency(Duration),
    /// So many bytes get through in a second.
    Bandwidth(u64),
    /// The end comes later by this.
    SlowClose(Duration),
    /// After so many bytes nothing moves for a while, then all goes on.
    Stall(u64, Duration),
    /// After so many bytes both sides are reset.
    Reset(u64),
    /// Pieces of one to seven bytes, with tiny gaps.
    Slicing,
    /// After so many bytes both sides are closed.
    LimitedData(u64),
    /// After so many bytes the line is dead: nothing gets through any more, not
    /// even an end. Who waits behind it is reset once all the rest is over, as
    /// a system does that hears nothing for long.
    Down(u64),
}

/// The direction that has the fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Toward {
    Destination,
    Dialler,
}

/// Begins a network for one connection, and gives the address to dial.
pub(crate) fn network(target: SocketAddr, toward: Toward, fault: Fault, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (dialler, _) = listener.accept().expect("who dials");
        drop(listener);
        // Refused there, it is closed here.
        let Ok(target) = TcpStream::connect(target) else {
            return;
        };
        let mut ways = [
            Way::new(None, Rng::new(seed)),
            Way::new(None, Rng::new(seed)),
        ];
        ways[toward as usize].fault = Some(fault);
        for end in [&dialler, &target] {
            end.set_nonblocking(true).unwrap();
            end.set_nodelay(true).unwrap();
        }
        let mut link = Link {
            ends: [dialler, target],
            ways,
        };
        link.run();
    });
    address
}

/// What is on its way.
enum Load {
    Bytes(Vec<u8>),
    End,
    Reset,
    Close,
}

/// Why there is nothing left to do.
enum Over {
    /// Both sides learn that something is missing.
    Broken,
    /// Both sides are just closed.
    Closed,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over::Broken
    }
}

/// Both connections, and the two ways between them: the first way leads from
/// the first end to the second.
struct Link {
    ends: [TcpStream; 2],
    ways: [Way; 2],
}

impl Link {
    fn run(&mut self) {
        let over = loop {
            match self.round() {
                Ok(()) => {}
                Err(over) => break over,
            }
        };
        for (number, way) in self.ways.iter().enumerate() {
            if way.is_dead || matches!(over, Over::Broken) {
                reset_on_close(&self.ends[1 - number]);
            }
        }
    }

    /// Moves what can be moved, then waits until more can.
    fn round(&mut self) -> Result<(), Over> {
        for (number, way) in self.ways.iter_mut().enumerate() {
            way.take(&self.ends[number])?;
            way.give(&self.ends[1 - number])?;
        }
        if self.ways.iter().all(Way::is_over) {
            return Err(Over::Closed);
        }
        let mut fds = Vec::new();
        for (number, end) in self.ends.iter().enumerate() {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, self.ways[number].has_room());
            events.set(PollFlags::POLLOUT, self.ways[1 - number].is_stuck);
            // One that is gone would be told again and again.
            if !events.is_empty() {
                fds.push(PollFd::new(end.as_fd(), events));
            }
        }
        let next = self.ways.iter().filter_map(Way::next).min();
        let pause = next.map_or(TIMEOUT, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let woken = ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None);
        // Both ends have forgotten this connection.
        assert!(woken != Ok(0) || pause < TIMEOUT, "nothing ever happens");
        Ok(())
    }
}

/// One direction.
struct Way {
    fault: Option<Fault>,
    rng: Rng,
    /// What is on its way, and when it arrives.
    loads: VecDeque<(Instant, Load)>,
    /// Bytes that have come in, and those that have gone out.
    taken: u64,
    given: u64,
    /// Until then a stall lasts.
    stalled: Option<Instant>,
    has_ended: bool,
    /// Nothing gets through any more.
    is_dead: bool,
    /// The next load is due, and its receiver has no room.
    is_stuck: bool,
}

impl Way {
    /// Bytes on their way at a time; more wait at their sender's.
    const ROOM: u64 = 256 << 10;

    /// Between two pieces of a slicing network, at most.
    const GAP: Duration = Duration::from_micros(40);

    fn new(fault: Option<Fault>, rng: Rng) -> Way {
        Way {
            fault,
            rng,
            loads: VecDeque::new(),
            taken: 0,
            given: 0,
            stalled: None,
            has_ended: false,
            is_dead: false,
            is_stuck: false,
        }
    }

    fn has_room(&self) -> bool {
        !self.has_ended && (self.is_dead || self.taken - self.given < Self::ROOM)
    }

    fn is_over(&self) -> bool {
        self.has_ended && self.loads.is_empty()
    }

    /// When there is something to do without being woken.
    fn next(&self) -> Option<Instant> {
        let (due, _) = self.loads.front()?;
        (!self.is_stuck).then_some(*due)
    }

    /// Takes in what has come.
    fn take(&mut self, mut from: &TcpStream) -> Result<(), Over> {
        let mut buffer = [0; 16 << 10];
        while self.has_room() {
            match from.read(&mut buffer) {
                Ok(0) => self.ends(),
                Ok(count) => self.load(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn ends(&mut self) {
        self.has_ended = true;
        let due = match self.fault {
            Some(Fault::SlowClose(late)) => Instant::now() + late,
            _ => Instant::now(),
        };
        self.push(due, Load::End);
    }

    /// Puts bytes on their way, as the fault has it.
    fn load(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        match self.fault {
            None | Some(Fault::SlowClose(_)) => self.push_bytes(now, bytes),
            Some(Fault::Latency(mean)) => {
                let late = mean / 2 + self.rng.duration_up_to(mean);
                self.push_bytes(now + late, bytes);
            }
            Some(Fault::Bandwidth(rate)) => {
                let takes = Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
                self.push_bytes(self.last().max(now) + takes, bytes);
            }
            Some(Fault::Slicing) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let size = 1 + self.rng.below(7) as usize;
                    let (piece, later) = rest.split_at(size.min(rest.len()));
                    let gap = self.rng.duration_up_to(Self::GAP);
                    self.push_bytes(self.last().max(now) + gap, piece);
                    rest = later;
                }
            }
            Some(Fault::Stall(after, lasts)) => {
                let (before, behind) = self.split(bytes, after);
                self.push_bytes(now, before);
                if !behind.is_empty() {
                    let until = *self.stalled.get_or_insert(now + lasts);
                    self.push_bytes(until.max(now), behind);
                }
            }
            Some(Fault::Reset(after)) => self.load_up_to(after, bytes, Some(Load::Reset)),
            Some(Fault::LimitedData(after)) => self.load_up_to(after, bytes, Some(Load::Close)),
            Some(Fault::Down(after)) => self.load_up_to(after, bytes, None),
        }
    }

    /// Bytes as far as they come; then this, and nothing more.
    fn load_up_to(&mut self, after: u64, bytes: &[u8], then: Option<Load>) {
        if self.is_dead {
            return;
        }
        let (before, behind) = self.split(bytes, after);
        self.push_bytes(Instant::now(), before);
        if behind.is_empty() {
            return;
        }
        match then {
            Some(load) => self.push(Instant::now(), load),
            None => self.is_dead = true,
        }
    }

    /// What of these bytes comes before this place, and what behind it.
    fn split<'a>(&self, bytes: &'a [u8], place: u64) -> (&'a [u8], &'a [u8]) {
        let before = place.saturating_sub(self.taken).min(bytes.len() as u64);
        bytes.split_at(before as usize)
    }

    fn push_bytes(&mut self, due: Instant, bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        self.push(due, Load::Bytes(bytes.to_vec()));
    }

    /// Nothing overtakes what is already on its way.
    fn push(&mut self, due: Instant, load: Load) {
        let is_nothing = matches!(&load, Load::Bytes(bytes) if bytes.is_empty());
        if !self.is_dead && !is_nothing {
            self.loads.push_back((due.max(self.last()), load));
        }
    }

    /// When the last of it arrives.
    fn last(&self) -> Instant {
        let last = self.loads.back().map(|(due, _)| *due);
        last.unwrap_or_else(Instant::now)
    }

    /// Hands over what is due.
    fn give(&mut self, mut to: &TcpStream) -> Result<(), Over> {
        self.is_stuck = false;
        while let Some((due, load)) = self.loads.front_mut()
            && *due <= Instant::now()
        {
            match load {
                Load::Bytes(bytes) => match to.write(bytes) {
                    Ok(count) => {
                        self.given += count as u64;
                        bytes.drain(..count);
                        if !bytes.is_empty() {
                            continue;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.is_stuck = true;
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                },
                Load::End => to.shutdown(Shutdown::Write)?,
                Load::Reset => return Err(Over::Broken),
                Load::Close => return Err(Over::Closed),
            }
            self.loads.pop_front();
        }
        Ok(())
    }
}
