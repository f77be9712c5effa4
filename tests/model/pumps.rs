//! Two pumps between ends that finish, reset and stall: no end is passed on that was none.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::pumping::{RelayState, RelayStream};
use crate::sync::{self, Condvar, Guard, Mutex, any, lock, one_in, pause, runs_out, thread};

/// One end, as the system shows it to the pumps.
#[derive(Debug, Default)]
struct End {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    // What the other side has done.
    coming: Vec<usize>,
    sent: usize,
    has_finished: bool,
    has_reset: bool,
    /// How many more messages it takes.
    room: usize,
    // What the pumps have done.
    delivered: usize,
    /// A reset is told only once; afterwards there is just no connection.
    told: bool,
    finished: bool,
    woken: bool,
    abandoned: bool,
}

impl End {
    /// Waits until this finds what it looks for.
    fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = look(&mut state) {
                return found;
            }
            state = sync::wait(&self.changed, state);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.state))
    }
}

impl State {
    /// An error, if the connection was reset and nobody has been told. Behind a
    /// proper end the system calls it a broken pipe.
    fn tell(&mut self) -> Option<io::ErrorKind> {
        let is_news = self.has_reset && !self.told;
        self.told |= is_news;
        is_news.then_some(match self.has_finished {
            true => io::ErrorKind::BrokenPipe,
            false => io::ErrorKind::ConnectionReset,
        })
    }
}

impl RelayStream for End {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|state| {
            if !state.coming.is_empty() {
                return Some(Ok(state.coming.remove(0).min(buffer.len())));
            }
            if state.has_finished || state.told || state.woken {
                return Some(Ok(0));
            }
            state.tell().map(|error| Err(error.into()))
        })
    }

    fn wait_readable(&self, _: Duration) -> io::Result<bool> {
        Ok(!runs_out())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Where there is no room, others go on, and some may appear.
        thread::yield_now();
        let mut state = lock(&self.state);
        if let Some(error) = state.tell() {
            return Err(error.into());
        }
        if state.told {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        assert!(!state.finished, "written behind an end");
        let Some(less) = state.room.checked_sub(1) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        state.room = less;
        state.delivered += bytes.len();
        Ok(bytes.len())
    }

    fn shutdown_write(&self) {
        self.change(|state| state.finished = true);
    }

    fn interrupt_read(&self) {
        self.change(|state| state.woken = true);
    }

    fn reset(&self) {
        self.change(|state| {
            state.woken = true;
            state.abandoned = true;
        });
    }

    fn is_gone(&self) -> bool {
        self.look(|state| state.has_reset)
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Both ends and both pumps, which run from the start.
struct Scene {
    client: Arc<End>,
    remote: Arc<End>,
    state: Arc<RelayState>,
    up: thread::JoinHandle<io::Result<()>>,
    down: thread::JoinHandle<io::Result<()>>,
}

impl Scene {
    fn new(limits: bool) -> Scene {
        sync::begin(limits);
        let (client, remote) = (Arc::<End>::default(), Arc::<End>::default());
        let state = Arc::<RelayState>::default();
        let up = thread::spawn({
            let (from, to, state) = (client.clone(), remote.clone(), state.clone());
            move || state.upstream().run(&*from, &*to)
        });
        let down = thread::spawn({
            let (from, to, state) = (remote.clone(), client.clone(), state.clone());
            move || state.downstream().run(&*from, &*to)
        });
        Scene {
            client,
            remote,
            state,
            up,
            down,
        }
    }

    /// Waits for both pumps. None of them may wait for somebody to cut it.
    fn end(self) {
        let results = [self.up.join().unwrap(), self.down.join().unwrap()];
        check(&self.client, &self.remote, &results[0]);
        check(&self.remote, &self.client, &results[1]);
        let was_reset = |result: &io::Result<()>| {
            let kind = result.as_ref().map_err(io::Error::kind);
            kind == Err(io::ErrorKind::ConnectionReset)
        };
        if results.iter().any(was_reset) {
            for end in [&self.client, &self.remote] {
                assert!(end.look(|end| end.abandoned), "it takes a cut for an end");
            }
        }
        assert!(self.state.up.has_ended() && self.state.down.has_ended());
    }
}

/// Was an end that was passed on a proper one, behind everything else?
fn check(from: &End, to: &End, result: &io::Result<()>) {
    let (has_finished, sent) = from.look(|from| (from.has_finished, from.sent));
    let (finished, delivered) = to.look(|to| (to.finished, to.delivered));
    assert!(delivered <= sent);
    if finished {
        assert!(has_finished, "an end that was none was passed on");
        assert_eq!(delivered, sent, "an end was passed on too early");
        assert!(result.is_ok());
    }
}

/// A message: a byte, or so much that larger buffers are used.
fn send(end: &End) {
    let bytes = any(&[1, 1, 2 << 10]);
    end.change(|state| {
        state.coming.push(bytes);
        state.sent += bytes;
    });
}

/// Says a few things, takes some, and then finishes or resets. Who has finished
/// takes all that comes, and may reset after all.
fn talk(end: &End, may_reset: bool) {
    for _ in 0..any(&[0, 1, 2, 3]) {
        match one_in(2) {
            true => send(end),
            false => end.change(|state| state.room += 1),
        }
    }
    if may_reset && one_in(2) {
        return end.change(|state| state.has_reset = true);
    }
    end.change(|state| {
        state.has_finished = true;
        state.room = usize::MAX;
    });
    if may_reset && one_in(2) {
        pause();
        end.change(|state| state.has_reset = true);
    }
}

/// Both sides talk as they like.
pub(crate) fn no_end_that_was_none() {
    let scene = Scene::new(true);
    let talking = [&scene.client, &scene.remote].map(|end| {
        let end = end.clone();
        thread::spawn(move || talk(&end, true))
    });
    for side in talking {
        side.join().unwrap();
    }
    scene.end();
}

/// Somebody else ends it all, while both sides talk, read little, and may reset.
/// An end is passed on only where nothing was on its way; whoever did not get
/// everything learns of it.
pub(crate) fn a_cut_is_an_end_only_at_rest() {
    let scene = Scene::new(true);
    let talking = [&scene.client, &scene.remote].map(|end| {
        let end = end.clone();
        thread::spawn(move || {
            for _ in 0..any(&[0, 1, 2]) {
                match one_in(2) {
                    true => send(&end),
                    false => end.change(|state| state.room += 1),
                }
            }
            if one_in(8) {
                end.change(|state| state.has_reset = true);
            }
        })
    });
    pause();
    let is_at_rest = one_in(2);
    scene
        .state
        .terminate(&*scene.client, &*scene.remote, is_at_rest);
    for side in talking {
        side.join().unwrap();
    }
    for pump in [scene.up, scene.down] {
        let _ = pump.join().unwrap();
    }
    for (from, to) in [
        (&scene.client, &scene.remote),
        (&scene.remote, &scene.client),
    ] {
        let taken = from.look(|end| end.sent - end.coming.iter().sum::<usize>());
        to.look(|end| {
            assert!(end.finished || end.abandoned, "left open");
            assert!(end.delivered == taken || end.abandoned && !end.finished);
            assert!(is_at_rest || !end.finished, "cut amid a transfer");
        });
    }
}

/// One side never reads and never ends; the other resets amid its words. Some
/// pump hears of it, since the first side goes on sending, and takes the other
/// pump along, out of a write that would last for ever.
pub(crate) fn an_error_ends_both() {
    let scene = Scene::new(true);
    let (silent, leaving) = match any(&[true, false]) {
        true => (&scene.client, &scene.remote),
        false => (&scene.remote, &scene.client),
    };
    let stubborn = thread::spawn({
        let end = silent.clone();
        move || {
            while !end.look(|end| end.abandoned) {
                send(&end);
                pause();
            }
        }
    });
    let leaving = thread::spawn({
        let end = leaving.clone();
        move || {
            end.change(|state| state.room = any(&[0, 1, 2]));
            for _ in 0..any(&[0, 1, 2]) {
                send(&end);
            }
            end.change(|state| state.has_reset = true);
        }
    });
    leaving.join().unwrap();
    stubborn.join().unwrap();
    scene.end();
}

/// The remote says something and closes for good, while the client goes on
/// sending and is slow to read: it gets everything, if no limit runs out.
pub(crate) fn last_words_are_delivered() {
    let scene = Scene::new(false);
    let leaving = thread::spawn({
        let remote = scene.remote.clone();
        move || {
            remote.change(|state| state.room = any(&[0, 1, 2]));
            for _ in 0..2 {
                send(&remote);
            }
            remote.change(|state| state.has_finished = true);
            pause();
            remote.change(|state| state.has_reset = true);
        }
    });
    let client = scene.client.clone();
    while !client.look(|state| state.finished) {
        assert!(
            !client.look(|state| state.abandoned),
            "reset amid last words"
        );
        send(&client);
        pause();
        client.change(|state| state.room += 1);
    }
    client.change(|state| state.has_finished = true);
    leaving.join().unwrap();
    scene.end();
    let unread = client.look(|state| state.coming.len());
    assert_eq!(
        unread, 0,
        "the system resets what is closed with unread bytes"
    );
}
