//! Channels in the place of crossbeam's, as far as the server uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, lock, one_in, runs_out, thread};

/// What both ends know. The lock is where the scheduler steps in.
#[derive(Debug)]
struct Channel<T> {
    messages: Vec<T>,
    senders: usize,
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<Channel<T>>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Source<T>);

#[derive(Debug)]
enum Source<T> {
    Channel(Arc<Mutex<Channel<T>>>),
    /// A clock, by what says that it strikes.
    Clock(fn() -> Option<T>),
}

/// The other end is gone, or nothing came in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over;

/// Nobody here waits for room.
pub(crate) fn bounded<T>(_capacity: usize) -> (Sender<T>, Receiver<T>) {
    unbounded()
}

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Mutex::new(Channel {
        messages: Vec::new(),
        senders: 1,
    }));
    let receiver = Receiver(Source::Channel(Arc::clone(&channel)));
    (Sender(channel), receiver)
}

/// Strikes now and then.
pub(crate) fn tick(_: Duration) -> Receiver<Instant> {
    Receiver(Source::Clock(|| one_in(8).then(Instant::now)))
}

/// Strikes when limits run out.
pub(crate) fn after(_: Duration) -> Receiver<Instant> {
    Receiver(Source::Clock(|| runs_out().then(Instant::now)))
}

pub(crate) fn never<T>() -> Receiver<T> {
    Receiver(Source::Clock(|| None))
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), Over> {
        lock(&self.0).messages.insert(0, message);
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        lock(&self.0).senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0).senders -= 1;
    }
}

impl<T> Receiver<T> {
    /// What there is now: a message, or that no more will come.
    pub(crate) fn look(&self) -> Option<Result<T, Over>> {
        match &self.0 {
            Source::Channel(channel) => {
                let mut channel = lock(channel);
                let none_left = (channel.senders == 0).then_some(Err(Over));
                channel.messages.pop().map(Ok).or(none_left)
            }
            Source::Clock(strikes) => strikes().map(Ok),
        }
    }

    pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, Over> {
        loop {
            if let Some(result) = self.look() {
                return result;
            }
            if runs_out() {
                return Err(Over);
            }
            thread::yield_now();
        }
    }
}

/// As crossbeam's: what is ready first, or by chance one of several.
macro_rules! select {
    (@arms [$($arm:tt)*] recv($from:expr) -> $got:pat => $then:expr, $($rest:tt)*) => {
        match &$from {
            from => $crate::channel::select!(@arms [$($arm)* (from, $got, $then)] $($rest)*),
        }
    };
    (@arms [$($arm:tt)*] default($limit:expr) => $otherwise:expr, ) => {{
        let _ = $limit;
        $crate::channel::select!(@loop [$($arm)*] $otherwise)
    }};
    (@arms [$($arm:tt)*]) => {
        $crate::channel::select!(@loop [$($arm)*])
    };
    (@loop [$(($from:ident, $got:pat, $then:expr))+] $($otherwise:expr)?) => {
        loop {
            $(
                if !$crate::sync::one_in(3) && let Some(result) = $from.look() {
                    let $got = result;
                    break $then;
                }
            )+
            $(
                if $crate::sync::runs_out() {
                    break $otherwise;
                }
            )?
            $crate::sync::thread::yield_now();
        }
    };
    (recv $($arms:tt)+) => {
        $crate::channel::select!(@arms [] recv $($arms)+)
    };
}

pub(crate) use select;
