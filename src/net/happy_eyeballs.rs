//! Connecting to one of several addresses of a host (RFC 8305, "Happy Eyeballs").
//!
//! The next attempt begins while the previous one has not failed yet, so an address that does not
//! answer costs 250 ms. All attempts are non-blocking sockets in one poll(2), on the thread
//! of the session.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::slice;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use super::connect::{self, is_shortage};
use super::deadline::Deadline;
use super::poll::wait;
use crate::trace::{self, Wait};

/// The next attempt begins this long after the one before it (RFC 8305, section 5:
/// Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// If there is no room for one more attempt, the oldest one ends after this time to make
/// room. It is enough for a second SYN, which TCP sends after one second (RFC 6298).
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(2);

/// An attempt beside an older one ends after this time, since other sessions may need its
/// slot. It is enough for four SYNs: TCP repeats them after 1, 3 and 7 seconds (RFC 6298).
const EXTRA_ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Blocking, with the options of a relayed connection.
    pub(crate) stream: TcpStream,
    pub(crate) local: SocketAddr,
    /// The address that was reached.
    pub(crate) remote: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The client's connection is gone: the result is not needed any more.
    ClientLeft,
    /// The deadline has come before the first attempt.
    TimedOut,
    /// All attempts have failed: the address and the error of the one that tells most.
    Failed(SocketAddr, io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::ClientLeft => out.write_str("the client has disconnected"),
            DialError::TimedOut => out.write_str("no time is left for an attempt"),
            DialError::Failed(address, error) => write!(out, "{address}: {error}"),
        }
    }
}

impl std::error::Error for DialError {}

/// Orders the addresses of a host for the attempts (RFC 8305, section 4): the families
/// alternate, beginning with the family of the first address. Within a family the order
/// stays.
pub(crate) fn interleave<T>(addresses: Vec<T>, is_ipv6: impl Fn(&T) -> bool) -> Vec<T> {
    let begins_with_ipv6 = addresses.first().is_some_and(&is_ipv6);
    let (first, second): (Vec<T>, Vec<T>) = addresses
        .into_iter()
        .partition(|address| is_ipv6(address) == begins_with_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        ordered.extend(first.next().into_iter().chain(second.next()));
    }
    ordered
}

/// Connects to the first of these addresses that can be reached, before the deadline, for
/// as long as the client stays. All other attempts are closed.
///
/// Only a client whose connection is gone counts as having left: one that has sent EOF
/// still waits for the reply.
///
/// The oldest attempt needs no slot, and has the time until the deadline unless others wait
/// for room. Each further one takes a slot from `extra_slot` and gives it back at its end,
/// after 10 s at most, or when it is the oldest one. If there is no slot, it begins later.
pub(crate) fn dial<S>(
    addresses: &[SocketAddr],
    deadline: Deadline,
    client: &TcpStream,
    extra_slot: impl Fn() -> Option<S>,
) -> Result<Connection, DialError> {
    let mut schedule = Schedule::new(addresses, Instant::now());
    while !deadline.is_over() {
        schedule.begin_due(Instant::now(), |address, running| {
            begin(address, running, &extra_slot)
        });
        let Some(oldest) = schedule.running.first_mut() else {
            break;
        };
        // The oldest attempt needs no slot: another session can have this one.
        oldest.socket.1 = None;
        let has_ended = wait_for_attempts(&schedule, deadline, client)?;
        if let Some(connection) = take_connection(&mut schedule, has_ended) {
            return Ok(connection);
        }
    }
    Err(schedule.into_error())
}

/// The socket of an attempt, and its slot, if it needs one.
type Socket<S> = (TcpStream, Option<S>);

/// Begins an attempt beside those that are running. It gets the slot of the oldest one, if
/// that still has one: another session could take a slot that was given back.
fn begin<S>(
    address: SocketAddr,
    running: &mut [Attempt<Socket<S>>],
    extra_slot: impl Fn() -> Option<S>,
) -> AttemptStart<Socket<S>> {
    let slot = match running.first_mut() {
        Some(oldest) => oldest.socket.1.take().or_else(extra_slot),
        None => None,
    };
    if slot.is_none() && !running.is_empty() {
        return AttemptStart::NoRoom;
    }
    match connect::begin(address) {
        Ok(stream) => AttemptStart::Running((stream, slot)),
        Err(error) if is_shortage(&error) && !running.is_empty() => AttemptStart::NoRoom,
        Err(error) => AttemptStart::Failed(error),
    }
}

/// Waits until an attempt has ended, the next one is due, or the deadline has come. Returns
/// which of the running attempts have ended.
fn wait_for_attempts<S>(
    schedule: &Schedule<'_, Socket<S>>,
    deadline: Deadline,
    client: &TcpStream,
) -> Result<Vec<bool>, DialError> {
    let running = &schedule.running;
    let oldest = || running.first().map(|attempt| attempt.address);
    let _wait = trace::wait(|| Wait::Connect(oldest()));
    let mut fds = vec![PollFd::new(client.as_fd(), PollFlags::empty())];
    fds.extend(
        running
            .iter()
            .map(|attempt| PollFd::new(attempt.socket.0.as_fd(), PollFlags::POLLOUT)),
    );
    let deadline = match schedule.next_due() {
        Some(due) => deadline.min_after(due.saturating_duration_since(Instant::now())),
        None => deadline,
    };
    if let Err(error) = wait(&mut fds, deadline) {
        // At least one attempt is running: the caller waits for nothing else.
        let address = running.first().map(|attempt| attempt.address);
        return Err(address.map_or(DialError::TimedOut, |it| DialError::Failed(it, error)));
    }
    let mut reported = fds.iter().map(|fd| fd.any().unwrap_or(true));
    if reported.next() == Some(true) {
        return Err(DialError::ClientLeft);
    }
    Ok(reported.collect())
}

/// The connection of the first attempt that has succeeded. An attempt that has failed makes
/// the next one due.
fn take_connection<S>(
    schedule: &mut Schedule<'_, Socket<S>>,
    has_ended: Vec<bool>,
) -> Option<Connection> {
    for Attempt {
        address, socket, ..
    } in schedule.take_ended(has_ended)
    {
        let (stream, _slot) = socket;
        match finish(&stream, address) {
            Ok(local) => {
                // Closes the other sockets before this attempt gives its slot back.
                schedule.running.clear();
                return Some(Connection {
                    stream,
                    local,
                    remote: address,
                });
            }
            Err(error) => schedule.failed(address, error, Instant::now()),
        }
    }
    None
}

/// Completes an attempt that has ended. Returns the local address of the connection.
fn finish(stream: &TcpStream, address: SocketAddr) -> io::Result<SocketAddr> {
    connect::finish(stream)?;
    let local = stream.local_addr()?;
    // The system can choose the destination's port as the local port if it is free. Then
    // the socket connects to itself (TCP simultaneous open): no server listens there.
    if local == address {
        return Err(Errno::ECONNREFUSED.into());
    }
    Ok(local)
}

/// Which attempt begins when. It is pure data: the time and the sockets come from the
/// caller.
struct Schedule<'a, T> {
    /// The addresses that were not tried yet.
    waiting: slice::Iter<'a, SocketAddr>,
    /// The attempts that have not ended, the oldest first.
    running: Vec<Attempt<T>>,
    failures: Vec<(SocketAddr, io::Error)>,
    /// When the next attempt is due while others are running.
    next: Instant,
}

/// An attempt that has not ended.
struct Attempt<T> {
    address: SocketAddr,
    began: Instant,
    socket: T,
}

/// The result of starting an attempt.
enum AttemptStart<T> {
    Running(T),
    Failed(io::Error),
    /// It can begin only when another one has ended. Never the result for the only attempt.
    NoRoom,
}

impl<'a, T> Schedule<'a, T> {
    fn new(addresses: &'a [SocketAddr], now: Instant) -> Schedule<'a, T> {
        Schedule {
            waiting: addresses.iter(),
            running: Vec::new(),
            failures: Vec::new(),
            next: now,
        }
    }

    /// Ends each attempt beside an older one after [`EXTRA_ATTEMPT_TIME`], and begins those that
    /// are due. Afterwards at least one is running, or all addresses were tried.
    fn begin_due(
        &mut self,
        now: Instant,
        mut begin: impl FnMut(SocketAddr, &mut [Attempt<T>]) -> AttemptStart<T>,
    ) {
        while self.end_overdue(1, EXTRA_ATTEMPT_TIME, now) {}
        while let Some(&address) = self.waiting.as_slice().first()
            && (self.running.is_empty() || self.next <= now)
        {
            match begin(address, &mut self.running) {
                AttemptStart::Running(socket) => {
                    self.running.push(Attempt {
                        address,
                        began: now,
                        socket,
                    });
                    self.next = now + ATTEMPT_DELAY;
                }
                // The next one is due at once.
                AttemptStart::Failed(error) => self.failures.push((address, error)),
                AttemptStart::NoRoom => {
                    if !self.end_overdue(0, MIN_ATTEMPT_TIME, now) {
                        self.next = now + ATTEMPT_DELAY;
                    }
                    continue;
                }
            }
            self.waiting.next();
        }
    }

    /// Ends the attempt at this position (the oldest is 0) if it has run for this time. False if
    /// there is none, or it has not.
    fn end_overdue(&mut self, position: usize, time: Duration, now: Instant) -> bool {
        let is_overdue =
            |attempt: &Attempt<T>| now.saturating_duration_since(attempt.began) >= time;
        if !self.running.get(position).is_some_and(is_overdue) {
            return false;
        }
        let overdue = self.running.remove(position);
        self.failures
            .push((overdue.address, io::ErrorKind::TimedOut.into()));
        true
    }

    /// When an attempt is to begin or to end next; `None` if only the last one is running.
    fn next_due(&self) -> Option<Instant> {
        let begins = (!self.waiting.as_slice().is_empty()).then_some(self.next);
        let extra = self.running.get(1);
        let ends = extra.map(|attempt| attempt.began + EXTRA_ATTEMPT_TIME);
        begins.into_iter().chain(ends).min()
    }

    /// Removes the attempts that have ended from those that are running.
    fn take_ended(&mut self, has_ended: Vec<bool>) -> Vec<Attempt<T>> {
        let mut has_ended = has_ended.into_iter();
        self.running
            .extract_if(.., |_| has_ended.next().unwrap_or(false))
            .collect()
    }

    /// Notes that an attempt has failed: the next one is due at once.
    fn failed(&mut self, address: SocketAddr, error: io::Error, now: Instant) {
        self.failures.push((address, error));
        self.next = now;
    }

    /// The failure that tells most; attempts that are still running have timed out.
    fn into_error(self) -> DialError {
        let timed_out = |attempt: Attempt<T>| (attempt.address, io::ErrorKind::TimedOut.into());
        let failures = self
            .failures
            .into_iter()
            .chain(self.running.into_iter().map(timed_out));
        // Of several equal ones the last.
        match failures.max_by_key(|(_, error)| rank(error)) {
            Some((address, error)) => DialError::Failed(address, error),
            None => DialError::TimedOut,
        }
    }
}

/// How much a failure tells about the host, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FailureRank {
    /// This machine has no route to the address: often it has no IPv6.
    NoRoute,
    /// Nothing has answered.
    NoAnswer,
    /// A router or a firewall has answered.
    AnswerOfRouter,
    /// The host has answered.
    AnswerOfHost,
    /// The address was not tried, for lack of descriptors or memory. The operator must know.
    Shortage,
}

fn rank(error: &io::Error) -> FailureRank {
    match error.kind() {
        _ if is_shortage(error) => FailureRank::Shortage,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            FailureRank::AnswerOfHost
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => {
            FailureRank::AnswerOfRouter
        }
        io::ErrorKind::TimedOut => FailureRank::NoAnswer,
        _ => FailureRank::NoRoute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `6a` is an IPv6 address, `4a` an IPv4 address.
    #[test]
    fn c15_the_families_alternate_and_each_keeps_its_order() {
        for (given, ordered) in [
            ("", ""),
            ("4a", "4a"),
            ("6a 4a", "6a 4a"),
            ("4a 6a", "4a 6a"),
            ("6a 6b 6c 4a", "6a 4a 6b 6c"),
            ("6a 6b 4a 4b 4c", "6a 4a 6b 4b 4c"),
            ("4a 4b 6a 6b", "4a 6a 4b 6b"),
            ("4a 6a 4b 6b 6c", "4a 6a 4b 6b 6c"),
            ("6a 6b 6c", "6a 6b 6c"),
        ] {
            let addresses: Vec<&str> = given.split_whitespace().collect();
            let result = interleave(addresses, |address| address.starts_with('6'));
            assert_eq!(result.join(" "), ordered);
        }
    }

    /// How an address behaves, in milliseconds after the start of the attempt.
    #[derive(Clone, Copy)]
    enum Behaviour {
        Connects(u64),
        Fails(u64, Errno),
        /// No answer.
        Silent,
        /// connect(2) itself fails.
        FailsAtOnce(Errno),
    }
    use Behaviour::{Connects, Fails, FailsAtOnce, Silent};

    /// The address that connects and when, or the address and the error that are reported.
    type Outcome = Result<(usize, u64), (usize, Errno)>;

    /// Runs a schedule without sockets, with room for so many attempts, to a connection or a
    /// deadline of 20 s. Returns when each attempt has begun, and the result, in milliseconds.
    fn simulate(behaviours: &[Behaviour], room: usize) -> (Vec<u64>, Outcome) {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let millis = |instant: Instant| instant.duration_since(start).as_millis() as u64;
        let address = |index: usize| SocketAddr::from(([127, 0, 0, 1], index as u16));
        let addresses: Vec<SocketAddr> = (0..behaviours.len()).map(address).collect();
        let (mut schedule, mut now) = (Schedule::new(&addresses, start), start);
        let mut begins = Vec::new();
        while now < at(20_000) {
            schedule.begin_due(now, |address, running| {
                if running.len() >= room {
                    return AttemptStart::NoRoom;
                }
                begins.push(millis(now));
                match behaviours[usize::from(address.port())] {
                    Connects(after) => AttemptStart::Running((millis(now) + after, None)),
                    Fails(after, error) => {
                        AttemptStart::Running((millis(now) + after, Some(error)))
                    }
                    Silent => AttemptStart::Running((u64::MAX, None)),
                    FailsAtOnce(error) => AttemptStart::Failed(error.into()),
                }
            });
            if schedule.running.is_empty() {
                break;
            }
            let ends = schedule.running.iter().map(|attempt| attempt.socket.0);
            let next = schedule.next_due().map_or(20_000, millis);
            now = at(ends.chain([next]).min().unwrap());
            let has_ended = schedule.running.iter();
            let has_ended = has_ended
                .map(|attempt| attempt.socket.0 <= millis(now))
                .collect();
            for attempt in schedule.take_ended(has_ended) {
                match attempt.socket.1 {
                    None => return (begins, Ok((attempt.address.port().into(), millis(now)))),
                    Some(error) => schedule.failed(attempt.address, error.into(), now),
                }
            }
        }
        match schedule.into_error() {
            DialError::Failed(address, error) => {
                let error = error
                    .raw_os_error()
                    .map_or(Errno::ETIMEDOUT, Errno::from_raw);
                (begins, Err((address.port().into(), error)))
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn c16_the_next_attempt_begins_after_250_ms_or_at_once_after_a_failure() {
        let (refused, no_route) = (Errno::ECONNREFUSED, Errno::ENETUNREACH);
        for (behaviours, room, begins, result) in [
            (&[Connects(3)][..], 8, &[0][..], Ok((0, 3))),
            // A fast first address is the only one that is dialled.
            (&[Connects(249), Connects(1)], 8, &[0], Ok((0, 249))),
            (&[Silent, Connects(20)], 8, &[0, 250], Ok((1, 270))),
            // A slow address may still win.
            (&[Connects(300), Silent], 8, &[0, 250], Ok((0, 300))),
            (&[Connects(600), Connects(500)], 8, &[0, 250], Ok((0, 600))),
            (
                &[FailsAtOnce(no_route), Connects(5)],
                8,
                &[0, 0],
                Ok((1, 5)),
            ),
            (&[Fails(40, refused), Connects(5)], 8, &[0, 40], Ok((1, 45))),
            // After the failure of a later attempt the next one is due at once as well.
            (
                &[Silent, Fails(10, refused), Connects(5)],
                8,
                &[0, 250, 260],
                Ok((2, 265)),
            ),
            (
                &[Silent, Silent, Silent, Connects(1)],
                8,
                &[0, 250, 500, 750],
                Ok((3, 751)),
            ),
            // Without room the oldest attempt ends after two seconds.
            (&[Silent, Connects(5)], 1, &[0, 2000], Ok((1, 2005))),
            (&[Connects(1900), Connects(5)], 1, &[0], Ok((0, 1900))),
            (
                &[Silent, Silent, Silent, Connects(5)],
                2,
                &[0, 250, 2000, 2250],
                Ok((3, 2255)),
            ),
            // The last address has the time that is left.
            (&[Silent, Connects(9000)], 1, &[0, 2000], Ok((1, 11_000))),
        ] {
            let expected = (begins.to_vec(), result);
            assert_eq!(simulate(behaviours, room), expected);
        }
    }

    #[test]
    fn c24_an_attempt_beside_an_older_one_ends_after_ten_seconds() {
        let refused = Errno::ECONNREFUSED;
        for (behaviours, room, begins, result) in [
            // The oldest one has the time that is left.
            (
                &[Connects(19_000), Silent][..],
                8,
                &[0, 250][..],
                Ok((0, 19_000)),
            ),
            (&[Silent, Connects(9_999)], 8, &[0, 250], Ok((1, 10_249))),
            (
                &[Silent, Connects(10_001)],
                8,
                &[0, 250],
                Err((0, Errno::ETIMEDOUT)),
            ),
            // So has one that is left alone, and one that has become the oldest.
            (
                &[Fails(5_000, refused), Connects(12_000)],
                8,
                &[0, 250],
                Ok((1, 12_250)),
            ),
            (
                &[Fails(5_000, refused), Connects(12_000), Connects(11_000)],
                8,
                &[0, 250, 500],
                Ok((1, 12_250)),
            ),
        ] {
            let expected = (begins.to_vec(), result);
            assert_eq!(simulate(behaviours, room), expected);
        }
    }

    /// Each attempt ends at its own time, and the schedule says when the next one ends.
    #[test]
    fn c24_only_the_oldest_attempt_is_left_after_ten_seconds() {
        let start = Instant::now();
        let addresses: Vec<SocketAddr> = (0..8)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        let mut schedule = Schedule::new(&addresses, start);
        for number in 0..8 {
            schedule.begin_due(start + number * ATTEMPT_DELAY, |_, _| {
                AttemptStart::Running(())
            });
        }
        for number in 1..8 {
            let ends = start + number * ATTEMPT_DELAY + EXTRA_ATTEMPT_TIME;
            assert_eq!(schedule.next_due(), Some(ends));
            schedule.begin_due(ends, |_, _| AttemptStart::NoRoom);
            assert_eq!(schedule.running.len(), 8 - number as usize);
        }
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.running[0].address, addresses[0]);
    }

    #[test]
    fn c17_the_failure_that_tells_most_is_reported() {
        let [refused, no_route, no_host, no_memory, timed_out] = [
            Errno::ECONNREFUSED,
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::ENOBUFS,
            Errno::ETIMEDOUT,
        ];
        for (behaviours, result) in [
            (&[FailsAtOnce(no_route), Silent][..], (1, timed_out)),
            (&[Silent, FailsAtOnce(no_route)], (0, timed_out)),
            (&[Fails(9, no_host), Silent], (0, no_host)),
            (&[Fails(9, refused), Silent], (0, refused)),
            (&[Fails(9, refused), Fails(9, no_host)], (0, refused)),
            // Of several equal ones the last.
            (&[Fails(9, refused), Fails(9, refused)], (1, refused)),
            (&[FailsAtOnce(no_memory), Fails(9, refused)], (0, no_memory)),
        ] {
            assert_eq!(simulate(behaviours, 8).1, Err(result));
        }
    }
}
