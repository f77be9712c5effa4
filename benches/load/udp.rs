//! Datagrams there and back: how many, how long one takes, and how many are lost.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::ends::datagrams;
use crate::latency::{percentiles, repeat};
use crate::peers::{Peer, Way};
use crate::results::Outcome;
use crate::span::Span;

/// How many of an association are on their way at once. The buffers of a socket
/// hold some ninety of 1,400 bytes, so that whoever loses some has itself to
/// blame; as many as possible at once would measure nothing but losses.
const WINDOW: u64 = 32;

/// Who has not come back by then is lost. Nobody who keeps up needs a
/// hundredth of it.
pub(crate) const LOST: Duration = Duration::from_millis(100);

/// Those of a round trip, and of the tests for many small ones.
pub(crate) const SMALL: usize = 64;

/// What fits into a packet of the Ethernet, with headers and some room.
pub(crate) const LARGE: usize = 1400;

/// Datagrams per second, CPU microseconds of each, and the percentage that came
/// back. There is one and back, so two for each that came back. Nothing of whom
/// has no UDP.
pub(crate) fn measure(peer: &Peer, count: usize, size: usize, window: Duration) -> Outcome {
    let Some(flows) = open(peer, count)? else {
        return Ok(Vec::new());
    };
    let busy = Busy::default();
    let (at_work, all_back) = (&busy, &AtomicBool::new(false));
    let span = thread::scope(|scope| {
        let keep_busy = |flow| {
            scope.spawn(move || Flow::echo(flow, all_back));
            scope.spawn(move || at_work.keep(flow, size))
        };
        let near_ends: Vec<_> = flows.iter().map(keep_busy).collect();
        let span = Span::watch(peer, window, || busy.back.load(Ordering::Relaxed));
        busy.over.store(true, Ordering::Relaxed);
        for near_end in near_ends {
            near_end.join().expect("whole");
        }
        all_back.store(true, Ordering::Relaxed);
        span
    });
    if let Some(error) = busy.failure.into_inner().expect("whole") {
        return Err(format!("one of {count} associations: {error}"));
    }
    if span.count == 0.0 {
        return Err(format!("no datagram of {count} associations came back"));
    }
    let [rate, cpu, back] = match (count, size) {
        (1, SMALL) => ["udp_small", "udp_small_cpu", "udp_small_back"],
        (1, _) => ["udp_large", "udp_large_cpu", "udp_large_back"],
        _ => ["udp_eight", "udp_eight_cpu", "udp_eight_back"],
    };
    let passed = 2.0 * span.count;
    let returned = busy.back.into_inner() as f64 / busy.sent.into_inner() as f64;
    let mut numbers = vec![(rate, passed / span.seconds), (back, 100.0 * returned)];
    numbers.extend(span.cpu.map(|seconds| (cpu, 1e6 * seconds / passed)));
    Ok(numbers)
}

/// Microseconds of a round trip, one datagram at a time.
pub(crate) fn round_trip(peer: &Peer, window: Duration) -> Outcome {
    let Some(flows) = open(peer, 1)? else {
        return Ok(Vec::new());
    };
    let (flow, over) = (&flows[0], AtomicBool::new(false));
    let times = thread::scope(|scope| {
        scope.spawn(|| flow.echo(&over));
        let mut number = 0;
        let mut datagrams = Datagrams::new(flow, SMALL);
        let times = repeat(window, || {
            number += 1;
            datagrams.there_and_back(number)
        });
        over.store(true, Ordering::Relaxed);
        times
    });
    let times = times.map_err(|error| format!("round trip of a datagram: {error}"))?;
    let [p50, p99] = percentiles(times);
    Ok(vec![("udp_trip_p50", p50), ("udp_trip_p99", p99)])
}

/// As many associations; nothing if the contender has no UDP.
fn open(peer: &Peer, count: usize) -> Result<Option<Vec<Flow>>, String> {
    let flows = (0..count).map(|_| Flow::open(peer));
    let flows: io::Result<Option<Vec<Flow>>> = flows.collect::<io::Result<_>>();
    flows.map_err(|error| format!("association: {error}"))
}

/// A way through the contender, with a socket at either end.
struct Flow {
    near: UdpSocket,
    far: UdpSocket,
    way: Way,
}

impl Flow {
    fn open(peer: &Peer) -> io::Result<Option<Flow>> {
        let (near, far) = (datagrams(LOST)?, datagrams(LOST)?);
        let Some(way) = peer.way(near.local_addr()?, far.local_addr()?)? else {
            return Ok(None);
        };
        near.connect(way.stop)?;
        Ok(Some(Flow { near, far, way }))
    }

    /// Sends back what comes to the far end.
    fn echo(&self, over: &AtomicBool) {
        let mut buffer = [0; 2048];
        while !over.load(Ordering::Relaxed) {
            if let Ok((count, from)) = self.far.recv_from(&mut buffer) {
                // One that cannot be sent is lost, and counted as such.
                let _ = self.far.send_to(&buffer[..count], from);
            }
        }
    }
}

/// The near end of a flow, whose datagrams have numbers.
struct Datagrams<'a> {
    flow: &'a Flow,
    bytes: Vec<u8>,
    buffer: [u8; 2048],
}

impl Datagrams<'_> {
    fn new(flow: &Flow, size: usize) -> Datagrams<'_> {
        Datagrams {
            flow,
            bytes: [&flow.way.header[..], &vec![0x55; size]].concat(),
            buffer: [0; 2048],
        }
    }

    fn send(&mut self, number: u64) -> io::Result<()> {
        let place = self.flow.way.header.len();
        self.bytes[place..place + 8].copy_from_slice(&number.to_be_bytes());
        self.flow.near.send(&self.bytes).map(|_| ())
    }

    /// The number of the next that comes back; nothing if none does in time.
    fn receive(&mut self) -> io::Result<Option<u64>> {
        let count = match self.flow.near.recv(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            count => count?,
        };
        let place = self.flow.way.header.len();
        let number = self.buffer[..count].get(place..place + 8);
        let number = number.and_then(|it| it.try_into().ok());
        let number = number.ok_or_else(|| io::Error::other(format!("{count} bytes came")))?;
        Ok(Some(u64::from_be_bytes(number)))
    }

    /// This one, and again if it is lost: that takes its time.
    fn there_and_back(&mut self, number: u64) -> io::Result<()> {
        for _ in 0..20 {
            self.send(number)?;
            while let Some(back) = self.receive()? {
                if back == number {
                    return Ok(());
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// Associations that are kept busy, and how far they have come.
#[derive(Default)]
struct Busy {
    over: AtomicBool,
    sent: AtomicU64,
    back: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl Busy {
    fn keep(&self, flow: &Flow, size: usize) {
        let mut datagrams = Datagrams::new(flow, size);
        if let Err(error) = self.keep_going(&mut datagrams) {
            *self.failure.lock().expect("whole") = Some(error);
        }
    }

    /// Sends the next whenever one comes back; in the end waits for the rest.
    fn keep_going(&self, datagrams: &mut Datagrams<'_>) -> io::Result<()> {
        let (mut sent, mut settled) = (0, 0);
        while !self.over.load(Ordering::Relaxed) {
            while sent < settled + WINDOW {
                datagrams.send(sent)?;
                sent += 1;
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            settled = match datagrams.receive()? {
                // Those before it have come, or are lost.
                Some(number) => {
                    self.back.fetch_add(1, Ordering::Relaxed);
                    settled.max(number + 1)
                }
                None => sent,
            };
        }
        while settled < sent
            && let Some(number) = datagrams.receive()?
        {
            self.back.fetch_add(1, Ordering::Relaxed);
            settled = settled.max(number + 1);
        }
        Ok(())
    }
}
