//! A network link with a fault, between two endpoints.
//!
//! ```text
//!   dialler ──> link ──> destination
//! ```
//!
//! The link accepts one connection and dials one to its destination. One of the
//! two directions has a [`Fault`]. A FIN is forwarded as a FIN and a reset as a
//! reset. One thread moves both directions: it sees a reset whichever call reports
//! it. With two threads, one could receive the error and the other read EOF.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
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

/// The fault of one direction. Positions count the bytes that entered the link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Delays all bytes by this time on average, at random between half and three
    /// halves of it.
    Latency(Duration),
    /// Forwards this many bytes per second.
    Bandwidth(u64),
    /// Delays the FIN by this time.
    SlowClose(Duration),
    /// Stops once for this time, at this position; loses nothing.
    Stall(u64, Duration),
    /// Resets both connections at this position.
    Reset(u64),
    /// Forwards segments of one to seven bytes with short gaps.
    Slicing,
    /// Closes both connections at this position.
    LimitedData(u64),
    /// Drops everything after this position, the FIN included. The receiver is reset
    /// when the other direction has ended, as TCP does after too many retries.
    Down(u64),
}

/// The direction that has the fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Toward {
    Destination,
    Dialler,
}

/// Starts a link for one connection to `destination`, and returns the address to
/// dial. `seed` determines all random delays and sizes.
pub(crate) fn network(
    destination: SocketAddr,
    toward: Toward,
    fault: Fault,
    seed: u64,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (dialler, _) = listener.accept().expect("a connection");
        drop(listener);
        // If the destination refuses, the dialler's connection is closed.
        let Ok(destination) = TcpStream::connect(destination) else {
            return;
        };
        let mut directions = [
            Direction::new(None, Rng::new(seed)),
            Direction::new(None, Rng::new(seed)),
        ];
        directions[toward as usize].fault = Some(fault);
        for socket in [&dialler, &destination] {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        let mut link = Link {
            sockets: [dialler, destination],
            directions,
        };
        link.run();
    });
    address
}

/// An item in transit.
enum Item {
    Bytes(Vec<u8>),
    Fin,
    Reset,
    Close,
}

/// The reason why a link stops.
#[derive(Clone, Copy, Debug)]
enum LinkError {
    /// A connection failed, or the fault resets both.
    Reset,
    /// Both directions have ended, or the fault closes both connections.
    Closed,
}

impl Display for LinkError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            LinkError::Reset => "the link is reset",
            LinkError::Closed => "the link is closed",
        })
    }
}

impl Error for LinkError {}

impl From<io::Error> for LinkError {
    fn from(_: io::Error) -> LinkError {
        LinkError::Reset
    }
}

/// Two connections and two directions. Direction 0 leads from socket 0, the
/// dialler's, to socket 1; direction 1 leads back.
struct Link {
    sockets: [TcpStream; 2],
    directions: [Direction; 2],
}

impl Link {
    fn run(&mut self) {
        let reason = loop {
            match self.round() {
                Ok(()) => {}
                Err(reason) => break reason,
            }
        };
        for (number, direction) in self.directions.iter().enumerate() {
            if direction.is_down || matches!(reason, LinkError::Reset) {
                reset_on_close(&self.sockets[1 - number]);
            }
        }
    }

    /// Moves all bytes that can move, then waits for a socket or the next due time.
    fn round(&mut self) -> Result<(), LinkError> {
        for (number, direction) in self.directions.iter_mut().enumerate() {
            direction.receive(&self.sockets[number])?;
            direction.deliver(&self.sockets[1 - number])?;
        }
        if self.directions.iter().all(Direction::has_ended) {
            return Err(LinkError::Closed);
        }
        let mut fds = Vec::new();
        for (number, socket) in self.sockets.iter().enumerate() {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, self.directions[number].can_receive());
            events.set(PollFlags::POLLOUT, self.directions[1 - number].is_blocked);
            // Without events, poll would still report POLLHUP of a closed socket, and
            // this loop would spin.
            if !events.is_empty() {
                fds.push(PollFd::new(socket.as_fd(), events));
            }
        }
        let next = self.directions.iter().filter_map(Direction::next_due).min();
        let pause = next.map_or(TIMEOUT, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let ready = ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None);
        assert!(
            ready != Ok(0) || pause < TIMEOUT,
            "no event on a link within {TIMEOUT:?}"
        );
        Ok(())
    }
}

/// One direction of a link.
struct Direction {
    fault: Option<Fault>,
    rng: Rng,
    /// The items in transit with the times at which they are due, in order.
    items: VecDeque<(Instant, Item)>,
    /// Bytes that entered and left the link.
    received: u64,
    sent: u64,
    /// The end of a stall that has begun.
    stalled_until: Option<Instant>,
    /// The FIN has entered the link.
    has_fin: bool,
    /// The link drops everything from now on; see [`Fault::Down`].
    is_down: bool,
    /// The first item is due, but the receiver's buffer is full.
    is_blocked: bool,
}

impl Direction {
    /// Bytes in transit at most: backpressure reaches the sender beyond that.
    const MAX_IN_TRANSIT: u64 = 256 << 10;

    /// Longest gap between two segments of [`Fault::Slicing`].
    const MAX_GAP: Duration = Duration::from_micros(40);

    fn new(fault: Option<Fault>, rng: Rng) -> Direction {
        Direction {
            fault,
            rng,
            items: VecDeque::new(),
            received: 0,
            sent: 0,
            stalled_until: None,
            has_fin: false,
            is_down: false,
            is_blocked: false,
        }
    }

    fn can_receive(&self) -> bool {
        !self.has_fin && (self.is_down || self.received - self.sent < Self::MAX_IN_TRANSIT)
    }

    fn has_ended(&self) -> bool {
        self.has_fin && self.items.is_empty()
    }

    /// When the next item is due; `None` if only a socket event can lead on.
    fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.items.front()?;
        (!self.is_blocked).then_some(*due)
    }

    /// Reads what the sender has sent, as far as there is room.
    fn receive(&mut self, mut from: &TcpStream) -> Result<(), LinkError> {
        let mut buffer = [0; 16 << 10];
        while self.can_receive() {
            match from.read(&mut buffer) {
                Ok(0) => self.schedule_fin(),
                Ok(count) => self.schedule(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn schedule_fin(&mut self) {
        self.has_fin = true;
        let due = match self.fault {
            Some(Fault::SlowClose(delay)) => Instant::now() + delay,
            _ => Instant::now(),
        };
        self.push(due, Item::Fin);
    }

    /// Queues these bytes with the due times that the fault gives them.
    fn schedule(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        match self.fault {
            None | Some(Fault::SlowClose(_)) => self.push_bytes(now, bytes),
            Some(Fault::Latency(mean)) => {
                let delay = mean / 2 + self.rng.duration_up_to(mean);
                self.push_bytes(now + delay, bytes);
            }
            Some(Fault::Bandwidth(rate)) => {
                let takes = Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
                self.push_bytes(self.last_due().max(now) + takes, bytes);
            }
            Some(Fault::Slicing) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let size = 1 + self.rng.below(7) as usize;
                    let (segment, later) = rest.split_at(size.min(rest.len()));
                    let gap = self.rng.duration_up_to(Self::MAX_GAP);
                    self.push_bytes(self.last_due().max(now) + gap, segment);
                    rest = later;
                }
            }
            Some(Fault::Stall(position, lasts)) => {
                let (before, after) = self.split(bytes, position);
                self.push_bytes(now, before);
                if !after.is_empty() {
                    let until = *self.stalled_until.get_or_insert(now + lasts);
                    self.push_bytes(until.max(now), after);
                }
            }
            Some(Fault::Reset(position)) => self.cut_at(position, bytes, Some(Item::Reset)),
            Some(Fault::LimitedData(position)) => self.cut_at(position, bytes, Some(Item::Close)),
            Some(Fault::Down(position)) => self.cut_at(position, bytes, None),
        }
    }

    /// Queues the bytes before this position. At the position it queues `last`, or
    /// without one takes the link down.
    fn cut_at(&mut self, position: u64, bytes: &[u8], last: Option<Item>) {
        if self.is_down {
            return;
        }
        let (before, after) = self.split(bytes, position);
        self.push_bytes(Instant::now(), before);
        if after.is_empty() {
            return;
        }
        match last {
            Some(item) => self.push(Instant::now(), item),
            None => self.is_down = true,
        }
    }

    /// Splits the bytes that have just entered the link at this position.
    fn split<'a>(&self, bytes: &'a [u8], position: u64) -> (&'a [u8], &'a [u8]) {
        let before = position
            .saturating_sub(self.received)
            .min(bytes.len() as u64);
        bytes.split_at(before as usize)
    }

    fn push_bytes(&mut self, due: Instant, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        self.push(due, Item::Bytes(bytes.to_vec()));
    }

    /// Queues an item, due no earlier than the item before it: TCP keeps the order.
    fn push(&mut self, due: Instant, item: Item) {
        let is_empty = matches!(&item, Item::Bytes(bytes) if bytes.is_empty());
        if !self.is_down && !is_empty {
            self.items.push_back((due.max(self.last_due()), item));
        }
    }

    /// When the last queued item is due; now, if none is queued.
    fn last_due(&self) -> Instant {
        let last = self.items.back().map(|(due, _)| *due);
        last.unwrap_or_else(Instant::now)
    }

    /// Sends all items that are due, until the receiver's buffer is full.
    fn deliver(&mut self, mut to: &TcpStream) -> Result<(), LinkError> {
        self.is_blocked = false;
        while let Some((due, item)) = self.items.front_mut()
            && *due <= Instant::now()
        {
            match item {
                Item::Bytes(bytes) => match to.write(bytes) {
                    Ok(count) => {
                        self.sent += count as u64;
                        bytes.drain(..count);
                        if !bytes.is_empty() {
                            continue;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.is_blocked = true;
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                },
                Item::Fin => to.shutdown(Shutdown::Write)?,
                Item::Reset => return Err(LinkError::Reset),
                Item::Close => return Err(LinkError::Closed),
            }
            self.items.pop_front();
        }
        Ok(())
    }
}
