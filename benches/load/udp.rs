//! Test `udp`: datagrams to an echo server and back (rate, loss and round-trip time).

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::endpoints::datagram_socket;
use crate::interval::Interval;
use crate::latency::time_repeatedly;
use crate::results::TestResult;
use crate::running_contender::{DatagramPath, RunningContender};
use crate::statistics::p50_p99_micros;

/// Datagrams in flight per association. The buffer of a socket holds some ninety of
/// 1,400 bytes, so a contender that loses some is too slow. Without a limit the test
/// would measure only losses.
const MAX_IN_FLIGHT: u64 = 32;

/// A datagram that has not returned after this time counts as lost. A contender that
/// keeps up needs less than a hundredth of it.
const LOSS_TIMEOUT: Duration = Duration::from_millis(100);

/// Bytes of payload, for round trips and for the tests of many small datagrams.
pub(crate) const SMALL_PAYLOAD: usize = 64;

/// Bytes of payload that fit into an Ethernet frame (MTU 1,500) with all headers.
pub(crate) const LARGE_PAYLOAD: usize = 1400;

/// Datagrams per second, CPU microseconds per datagram, and the percentage that
/// returned. Each one that returns counts as two, one for each direction. The result
/// is empty if the contender does not relay UDP.
pub(crate) fn measure(
    contender: &RunningContender,
    count: usize,
    size: usize,
    window: Duration,
) -> TestResult {
    let Some(flows) = open_flows(contender, count)? else {
        return Ok(Vec::new());
    };
    let load = FlowLoad::default();
    let (shared_load, stop_echo) = (&load, &AtomicBool::new(false));
    let interval = thread::scope(|scope| {
        let start_flow = |flow| {
            scope.spawn(move || UdpFlow::echo(flow, stop_echo));
            scope.spawn(move || shared_load.run(flow, size))
        };
        let senders: Vec<_> = flows.iter().map(start_flow).collect();
        let interval =
            Interval::measure(contender, window, || load.returned.load(Ordering::Relaxed));
        load.is_stopped.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().expect("the thread did not panic");
        }
        stop_echo.store(true, Ordering::Relaxed);
        interval
    });
    if let Some(error) = load
        .failure
        .into_inner()
        .expect("the mutex is not poisoned")
    {
        return Err(format!("one of {count} associations: {error}"));
    }
    if interval.count == 0.0 {
        return Err(format!("no datagram of {count} associations returned"));
    }
    let [rate_key, cpu_key, back_key] = match (count, size) {
        (1, SMALL_PAYLOAD) => ["udp_small", "udp_small_cpu", "udp_small_back"],
        (1, _) => ["udp_large", "udp_large_cpu", "udp_large_back"],
        _ => ["udp_eight", "udp_eight_cpu", "udp_eight_back"],
    };
    let passed = 2.0 * interval.count;
    let share = load.returned.into_inner() as f64 / load.sent.into_inner() as f64;
    let mut numbers = vec![
        (rate_key, passed / interval.seconds),
        (back_key, 100.0 * share),
    ];
    numbers.extend(
        interval
            .cpu_seconds
            .map(|seconds| (cpu_key, 1e6 * seconds / passed)),
    );
    Ok(numbers)
}

/// Microseconds of a round trip, one datagram at a time: p50 and p99.
pub(crate) fn round_trip(contender: &RunningContender, window: Duration) -> TestResult {
    let Some(flows) = open_flows(contender, 1)? else {
        return Ok(Vec::new());
    };
    let (flow, is_stopped) = (&flows[0], AtomicBool::new(false));
    let times = thread::scope(|scope| {
        scope.spawn(|| flow.echo(&is_stopped));
        let mut number = 0;
        let mut datagrams = NumberedDatagrams::new(flow, SMALL_PAYLOAD);
        let times = time_repeatedly(window, || {
            number += 1;
            datagrams.round_trip(number)
        });
        is_stopped.store(true, Ordering::Relaxed);
        times
    });
    let times = times.map_err(|error| format!("round trip of a datagram: {error}"))?;
    let [p50, p99] = p50_p99_micros(times);
    Ok(vec![("udp_trip_p50", p50), ("udp_trip_p99", p99)])
}

/// Opens `count` associations. Returns `None` if the contender does not relay UDP.
fn open_flows(contender: &RunningContender, count: usize) -> Result<Option<Vec<UdpFlow>>, String> {
    let flows = (0..count).map(|_| UdpFlow::open(contender));
    let flows: io::Result<Option<Vec<UdpFlow>>> = flows.collect::<io::Result<_>>();
    flows.map_err(|error| format!("association: {error}"))
}

/// A path through the contender, with a socket at either end.
struct UdpFlow {
    client: UdpSocket,
    origin: UdpSocket,
    path: DatagramPath,
}

impl UdpFlow {
    fn open(contender: &RunningContender) -> io::Result<Option<UdpFlow>> {
        let (client, origin) = (
            datagram_socket(LOSS_TIMEOUT)?,
            datagram_socket(LOSS_TIMEOUT)?,
        );
        let Some(path) = contender.datagram_path(client.local_addr()?, origin.local_addr()?)?
        else {
            return Ok(None);
        };
        client.connect(path.next_hop)?;
        Ok(Some(UdpFlow {
            client,
            origin,
            path,
        }))
    }

    /// Sends each datagram back that the origin socket receives.
    fn echo(&self, is_stopped: &AtomicBool) {
        let mut buffer = [0; 2048];
        while !is_stopped.load(Ordering::Relaxed) {
            if let Ok((count, from)) = self.origin.recv_from(&mut buffer) {
                // A datagram that cannot be sent counts as lost.
                let _ = self.origin.send_to(&buffer[..count], from);
            }
        }
    }
}

/// The client end of a flow. Each datagram carries its number in the first 8 bytes
/// of payload.
struct NumberedDatagrams<'a> {
    flow: &'a UdpFlow,
    bytes: Vec<u8>,
    buffer: [u8; 2048],
}

impl NumberedDatagrams<'_> {
    fn new(flow: &UdpFlow, size: usize) -> NumberedDatagrams<'_> {
        NumberedDatagrams {
            flow,
            bytes: [&flow.path.header[..], &vec![0x55; size]].concat(),
            buffer: [0; 2048],
        }
    }

    fn send(&mut self, number: u64) -> io::Result<()> {
        let start = self.flow.path.header.len();
        self.bytes[start..start + 8].copy_from_slice(&number.to_be_bytes());
        self.flow.client.send(&self.bytes).map(|_| ())
    }

    /// The number of the next datagram that returns; `None` after [`LOSS_TIMEOUT`].
    fn receive(&mut self) -> io::Result<Option<u64>> {
        let count = match self.flow.client.recv(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            count => count?,
        };
        let start = self.flow.path.header.len();
        let number = self.buffer[..count].get(start..start + 8);
        let number = number.and_then(|bytes| bytes.try_into().ok());
        let number = number.ok_or_else(|| {
            io::Error::other(format!("a datagram of {count} bytes without a number"))
        })?;
        Ok(Some(u64::from_be_bytes(number)))
    }

    /// Sends a datagram and waits until it returns. Repeats it if it is lost, so a loss
    /// shows as a long round trip.
    fn round_trip(&mut self, number: u64) -> io::Result<()> {
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

/// Counters and stop flag that the sending threads share. Relaxed suffices for the
/// atomics: they publish no other data.
#[derive(Default)]
struct FlowLoad {
    is_stopped: AtomicBool,
    sent: AtomicU64,
    returned: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl FlowLoad {
    fn run(&self, flow: &UdpFlow, size: usize) {
        let mut datagrams = NumberedDatagrams::new(flow, size);
        if let Err(error) = self.send_until_stopped(&mut datagrams) {
            *self.failure.lock().expect("the mutex is not poisoned") = Some(error);
        }
    }

    /// Keeps [`MAX_IN_FLIGHT`] datagrams in flight until it is stopped, then waits for
    /// the rest.
    fn send_until_stopped(&self, datagrams: &mut NumberedDatagrams<'_>) -> io::Result<()> {
        let (mut sent, mut settled) = (0, 0);
        while !self.is_stopped.load(Ordering::Relaxed) {
            while sent < settled + MAX_IN_FLIGHT {
                datagrams.send(sent)?;
                sent += 1;
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            settled = match datagrams.receive()? {
                // All datagrams with lower numbers have returned or are lost.
                Some(number) => {
                    self.returned.fetch_add(1, Ordering::Relaxed);
                    settled.max(number + 1)
                }
                None => sent,
            };
        }
        while settled < sent
            && let Some(number) = datagrams.receive()?
        {
            self.returned.fetch_add(1, Ordering::Relaxed);
            settled = settled.max(number + 1);
        }
        Ok(())
    }
}
