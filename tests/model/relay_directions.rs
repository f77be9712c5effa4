//! Both directions of a relay between ends that close, reset and stall: no EOF is passed on that is not one.

use std::io;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::control::{self, any, one_in, pause, times_out};
use crate::real_relay::{Direction, RelayState, RelayStream};
use crate::steps::{self, Event, Object};
use crate::sync::{Condvar, OrderedMutex, Rank, thread};

/// One end, as the system shows it to the relay. Its lock ranks before the relay's.
#[derive(Debug)]
struct End {
    state: OrderedMutex<State>,
    changed: Condvar,
    /// The end in a report, whose steps are those of a socket.
    object: Object,
}

#[derive(Debug, Default)]
struct State {
    // What the peer has done.
    incoming: Vec<usize>,
    sent: usize,
    has_sent_fin: bool,
    has_sent_reset: bool,
    /// How many more messages the peer takes.
    room: usize,
    // What the relay has done.
    delivered: usize,
    /// The system reports a reset only once; after that there is just no connection.
    reset_reported: bool,
    got_fin: bool,
    interrupted: bool,
}

impl End {
    fn new(name: &'static str) -> Arc<End> {
        let object = steps::named(name);
        steps::hide_parts(object, || {
            Arc::new(End {
                state: OrderedMutex::new(Rank::SessionState, State::default()),
                changed: Condvar::new(),
                object,
            })
        })
    }

    /// Waits until `look` finds something.
    #[track_caller]
    fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut found = None;
        let state = self.state.lock();
        drop(state.wait_while(&self.changed, |state| {
            found = look(state);
            found.is_none()
        }));
        found.unwrap()
    }

    /// Changes the state, which is this step in a report.
    #[track_caller]
    fn change(&self, event: Event, change: impl FnOnce(&mut State)) {
        self.change_to(|state| {
            change(state);
            event
        });
    }

    /// The same for a change that decides which step it is.
    #[track_caller]
    fn change_to(&self, change: impl FnOnce(&mut State) -> Event) {
        let mut state = self.state.lock();
        let event = change(&mut state);
        steps::note(event, Some(Location::caller()));
        drop(state);
        self.changed.notify_all();
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }
}

impl State {
    /// The error of a reset that was not reported yet. After a FIN the system calls it a
    /// broken pipe.
    fn report_reset(&mut self) -> Option<io::ErrorKind> {
        let is_new = self.has_sent_reset && !self.reset_reported;
        self.reset_reported |= is_new;
        is_new.then_some(match self.has_sent_fin {
            true => io::ErrorKind::BrokenPipe,
            false => io::ErrorKind::ConnectionReset,
        })
    }

    /// What a read returns: at most so many bytes; `None` if it waits.
    fn next(&mut self, limit: usize) -> Option<io::Result<usize>> {
        if !self.incoming.is_empty() {
            return Some(Ok(self.incoming.remove(0).min(limit)));
        }
        if self.has_sent_fin || self.reset_reported || self.interrupted {
            return Some(Ok(0));
        }
        self.report_reset().map(|error| Err(error.into()))
    }

    /// The peer takes one message, if it has room.
    fn take(&mut self, count: usize) -> io::Result<usize> {
        if let Some(error) = self.report_reset() {
            return Err(error.into());
        }
        if self.reset_reported {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        assert!(!self.got_fin, "written after FIN");
        let Some(less) = self.room.checked_sub(1) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.room = less;
        self.delivered += count;
        Ok(count)
    }
}

impl RelayStream for End {
    #[track_caller]
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let place = Location::caller();
        self.wait(|state| {
            let result = state.next(buffer.len())?;
            let event = match &result {
                Ok(count) => Event::Read(self.object, *count),
                Err(error) => Event::ReadError(self.object, error.kind()),
            };
            steps::note(event, Some(place));
            Some(result)
        })
    }

    fn wait_readable(&self, _: Duration) -> io::Result<bool> {
        Ok(!times_out())
    }

    #[track_caller]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Where there is no room, other threads run, and some may make room.
        thread::yield_now();
        let mut state = self.state.lock();
        let result = state.take(bytes.len());
        let event = match &result {
            Ok(count) => Event::Write(self.object, *count),
            Err(error) => Event::WriteError(self.object, error.kind()),
        };
        steps::note(event, Some(Location::caller()));
        drop(state);
        result
    }

    #[track_caller]
    fn shutdown_write(&self) {
        let event = Event::OnSocket("sends FIN on", self.object);
        self.change(event, |state| state.got_fin = true);
    }

    #[track_caller]
    fn interrupt(&self) {
        let event = Event::OnSocket("interrupts the reads of", self.object);
        self.change(event, |state| state.interrupted = true);
    }

    #[track_caller]
    fn is_disconnected(&self) -> bool {
        let place = Location::caller();
        self.look(|state| {
            let what = match state.has_sent_reset {
                true => "finds a reset of",
                false => "finds no reset of",
            };
            steps::note(Event::OnSocket(what, self.object), Some(place));
            state.has_sent_reset
        })
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Both ends, and the threads of both directions, which run from the start.
struct Scene {
    client: Arc<End>,
    remote: Arc<End>,
    relay: Arc<RelayState>,
    up: thread::JoinHandle<io::Result<()>>,
    down: thread::JoinHandle<io::Result<()>>,
}

impl Scene {
    fn new(timeouts: bool) -> Scene {
        control::begin(timeouts);
        let (client, remote) = (End::new("client's socket"), End::new("remote's socket"));
        let relay = Arc::<RelayState>::default();
        let up = thread::spawn({
            let (from, to, relay) = (client.clone(), remote.clone(), relay.clone());
            move || relay.direction(Direction::Up).run(&*from, &*to)
        });
        let down = thread::spawn({
            let (from, to, relay) = (remote.clone(), client.clone(), relay.clone());
            move || relay.direction(Direction::Down).run(&*from, &*to)
        });
        Scene {
            client,
            remote,
            relay,
            up,
            down,
        }
    }

    /// Waits for both directions, which end without a termination.
    fn end(self) {
        let results = [self.up.join().unwrap(), self.down.join().unwrap()];
        check(&self.client, &self.remote, &results[0]);
        check(&self.remote, &self.client, &results[1]);
        assert!(self.relay.has_ended(Direction::Up) && self.relay.has_ended(Direction::Down));
    }
}

/// Does each FIN that was passed on come from a FIN, after all the data?
fn check(from: &End, to: &End, result: &io::Result<()>) {
    let (has_sent_fin, sent) = from.look(|from| (from.has_sent_fin, from.sent));
    let (got_fin, delivered) = to.look(|to| (to.got_fin, to.delivered));
    assert!(delivered <= sent);
    if got_fin {
        assert!(has_sent_fin, "a FIN was invented");
        assert_eq!(delivered, sent, "a FIN was passed on too early");
        assert!(result.is_ok());
    }
}

const TAKES: Event = Event::Other("has room for more bytes");
const SENDS_FIN: Event = Event::Other("sends FIN");
const RESETS: Event = Event::Other("sends RST");

/// Sends one byte, or so many that larger buffers are used.
fn send(end: &End) {
    let bytes = any(&[1, 1, 2 << 10]);
    end.change(Event::Other("sends bytes"), |state| {
        state.incoming.push(bytes);
        state.sent += bytes;
    });
}

/// Sends and takes some messages, and then closes or resets. A peer that has sent FIN takes
/// all that comes, and may still reset.
fn exchange(end: &End, may_reset: bool) {
    for _ in 0..any(&[0, 1, 2, 3]) {
        match one_in(2) {
            true => send(end),
            false => end.change(TAKES, |state| state.room += 1),
        }
    }
    if may_reset && one_in(2) {
        return end.change(RESETS, |state| state.has_sent_reset = true);
    }
    end.change(SENDS_FIN, |state| {
        state.has_sent_fin = true;
        state.room = usize::MAX;
    });
    if may_reset && one_in(2) {
        pause();
        end.change(RESETS, |state| state.has_sent_reset = true);
    }
}

/// Both peers do as they like.
pub(crate) fn no_fin_is_invented() {
    let scene = Scene::new(true);
    let peers = [("client", &scene.client), ("remote", &scene.remote)].map(|(name, end)| {
        let end = end.clone();
        thread::spawn_named(name, move || exchange(&end, true))
    });
    for peer in peers {
        peer.join().unwrap();
    }
    scene.end();
}

/// Another thread terminates the relay while both peers send, take little, and may end
/// their direction or reset. Only a direction that has ended sends FIN, and both end.
pub(crate) fn a_termination_sends_no_fin() {
    let scene = Scene::new(true);
    let peers = [("client", &scene.client), ("remote", &scene.remote)].map(|(name, end)| {
        let end = end.clone();
        thread::spawn_named(name, move || {
            for _ in 0..any(&[0, 1, 2]) {
                match one_in(2) {
                    true => send(&end),
                    false => end.change(TAKES, |state| state.room += 1),
                }
            }
            end.change_to(|state| match any(&[0, 1, 2, 3]) {
                0 => {
                    state.has_sent_reset = true;
                    RESETS
                }
                1 => {
                    state.has_sent_fin = true;
                    SENDS_FIN
                }
                _ => Event::Other("neither closes nor resets"),
            });
        })
    });
    pause();
    scene.relay.abort(&*scene.client, &*scene.remote);
    for peer in peers {
        peer.join().unwrap();
    }
    scene.end();
}

/// One peer takes nothing and never closes; the other one resets while data are on their
/// way. One direction is told of the reset, since the first peer continues to send, and it
/// ends the other direction, which is in a write that would never return.
pub(crate) fn an_error_ends_both_directions() {
    let scene = Scene::new(true);
    let (silent, leaving) = match any(&[true, false]) {
        true => (&scene.client, &scene.remote),
        false => (&scene.remote, &scene.client),
    };
    let sending = thread::spawn({
        let end = silent.clone();
        move || {
            while !end.look(|end| end.interrupted) {
                send(&end);
                pause();
            }
        }
    });
    let leaving = thread::spawn({
        let end = leaving.clone();
        move || {
            end.change(TAKES, |state| state.room = any(&[0, 1, 2]));
            for _ in 0..any(&[0, 1, 2]) {
                send(&end);
            }
            end.change(RESETS, |state| state.has_sent_reset = true);
        }
    });
    leaving.join().unwrap();
    sending.join().unwrap();
    scene.end();
}

/// The remote sends its last data and closes both directions, while the client continues to send
/// and takes slowly: the client gets everything, if no timeout runs out.
pub(crate) fn the_last_data_are_delivered() {
    let scene = Scene::new(false);
    let leaving = thread::spawn({
        let remote = scene.remote.clone();
        move || {
            remote.change(TAKES, |state| state.room = any(&[0, 1, 2]));
            for _ in 0..2 {
                send(&remote);
            }
            remote.change(SENDS_FIN, |state| state.has_sent_fin = true);
            pause();
            remote.change(RESETS, |state| state.has_sent_reset = true);
        }
    });
    let client = scene.client.clone();
    while !client.look(|state| state.got_fin) {
        assert!(
            !client.look(|state| state.interrupted),
            "reset before the last data"
        );
        send(&client);
        pause();
        client.change(TAKES, |state| state.room += 1);
    }
    client.change(SENDS_FIN, |state| state.has_sent_fin = true);
    leaving.join().unwrap();
    scene.end();
    let unread = client.look(|state| state.incoming.len());
    assert_eq!(
        unread, 0,
        "the system resets a socket that is closed with unread bytes"
    );
}
