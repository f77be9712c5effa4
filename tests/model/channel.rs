//! Channels in place of crossbeam's, as far as the program uses them.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::sync::Mutex;

use crate::control::{one_in, times_out};
use crate::steps::{self, Awaited, Event, Object};
use crate::sync::thread;

/// What both ends share. The lock is where the scheduler can switch threads.
#[derive(Debug)]
struct Channel<T> {
    messages: Vec<T>,
    senders: usize,
    object: Object,
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<Channel<T>>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Source<T>);

#[derive(Debug)]
enum Source<T> {
    Channel(Arc<Mutex<Channel<T>>>),
    /// A clock: a function that says whether it ticks now.
    Clock(fn() -> Option<T>),
}

/// All senders are dropped and no message is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecvError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvTimeoutError {
    Timeout,
    Disconnected,
}

/// No send fails here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendError;

/// The capacity does not matter: no model fills a channel.
#[track_caller]
pub(crate) fn bounded<T>(_capacity: usize) -> (Sender<T>, Receiver<T>) {
    unbounded()
}

#[track_caller]
pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Mutex::new(Channel {
        messages: Vec::new(),
        senders: 1,
        // The channel has the name of its receiver.
        object: steps::object(Location::caller(), 1),
    }));
    let receiver = Receiver(Source::Channel(Arc::clone(&channel)));
    (Sender(channel), receiver)
}

/// Ticks at random.
pub(crate) fn tick(_: Duration) -> Receiver<Instant> {
    Receiver(Source::Clock(|| one_in(8).then(Instant::now)))
}

/// Ticks when timeouts run out.
pub(crate) fn after(_: Duration) -> Receiver<Instant> {
    Receiver(Source::Clock(|| times_out().then(Instant::now)))
}

pub(crate) fn never<T>() -> Receiver<T> {
    Receiver(Source::Clock(|| None))
}

impl<T> Sender<T> {
    #[track_caller]
    pub(crate) fn send(&self, message: T) -> Result<(), SendError> {
        let mut channel = self.0.lock().unwrap();
        channel.messages.insert(0, message);
        steps::note(Event::Send(channel.object), Some(Location::caller()));
        Ok(())
    }

    #[track_caller]
    pub(crate) fn try_send(&self, message: T) -> Result<(), SendError> {
        self.send(message)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().messages.len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.lock().unwrap().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut channel = self.0.lock().unwrap();
        channel.senders -= 1;
        steps::note(Event::DropSender(channel.object, channel.senders), None);
    }
}

impl<T> Receiver<T> {
    /// What can be received now: a message, or that the channel is disconnected.
    #[track_caller]
    pub(crate) fn poll(&self) -> Option<Result<T, RecvError>> {
        match &self.0 {
            Source::Channel(channel) => {
                let place = Location::caller();
                let mut channel = channel.lock().unwrap();
                let disconnected = (channel.senders == 0).then_some(Err(RecvError));
                let result = channel.messages.pop().map(Ok).or(disconnected);
                match result {
                    Some(Ok(_)) => steps::note(Event::Receive(channel.object), Some(place)),
                    Some(Err(_)) => {
                        steps::note(Event::FindDisconnected(channel.object), Some(place));
                    }
                    None => steps::polls(place, || Awaited::Message(channel.object)),
                }
                result
            }
            Source::Clock(ticks) => ticks().map(Ok),
        }
    }

    #[track_caller]
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        loop {
            if let Some(result) = self.poll() {
                return result;
            }
            thread::yield_now();
        }
    }

    #[track_caller]
    pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
        loop {
            if let Some(result) = self.poll() {
                return result.map_err(|RecvError| RecvTimeoutError::Disconnected);
            }
            if times_out() {
                return Err(RecvTimeoutError::Timeout);
            }
            thread::yield_now();
        }
    }

    /// The messages that are there now.
    #[track_caller]
    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.poll()?.ok())
    }

    /// All messages until the channel is disconnected.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv_timeout(Duration::MAX).ok())
    }

    /// How many senders there are.
    pub(crate) fn senders(&self) -> usize {
        match &self.0 {
            Source::Channel(channel) => channel.lock().unwrap().senders,
            Source::Clock(_) => 0,
        }
    }
}

/// As crossbeam's: the arm that is ready, or a random one of several.
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
                if !$crate::control::one_in(3) && let Some(result) = $from.poll() {
                    let $got = result;
                    break $then;
                }
            )+
            $(
                if $crate::control::times_out() {
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
