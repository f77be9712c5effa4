//! The queue between the threads that report events and the logger thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::config::Verbosity;
use crate::events::{CloseReason, Event};
use crate::sync::AtomicU64;
use crate::trace::{self, Mark};

/// Events that may wait to be printed: those of nearly one second at 10,000 requests per
/// second, and at most a few MB.
const CAPACITY: usize = 8192;

/// A handle to report events. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Log {
    sender: Sender<Event>,
    dropped: Arc<DroppedCounts>,
    verbosity: Verbosity,
    has_screen: bool,
}

/// The receiving end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) events: Receiver<Event>,
    dropped: Arc<DroppedCounts>,
}

/// Events that found the queue full, since they were reported last.
#[derive(Debug, Default)]
struct DroppedCounts {
    messages: AtomicU64,
    lines: AtomicU64,
}

impl Log {
    /// A queue and its first handle. `has_screen` says whether screen messages are printed.
    pub(crate) fn new(verbosity: Verbosity, has_screen: bool) -> (Log, Queue) {
        let (sender, events) = bounded(CAPACITY);
        let dropped = Arc::new(DroppedCounts::default());
        let log = Log {
            sender,
            dropped: Arc::clone(&dropped),
            verbosity,
            has_screen,
        };
        (log, Queue { events, dropped })
    }

    /// Reports an event. Never waits: if the queue is full, the event is dropped and
    /// counted. For events other than screen messages, the main output, it is full at half
    /// its capacity.
    pub fn send(&self, event: Event) {
        if !self.is_printed(&event) {
            return;
        }
        let (has_room, dropped) = match event {
            Event::RequestAnswered(_) => (true, &self.dropped.messages),
            _ => (self.sender.len() < CAPACITY / 2, &self.dropped.lines),
        };
        if !has_room || self.sender.try_send(event).is_err() {
            // Relaxed: a mere count, from which no thread concludes anything else.
            let earlier = dropped.fetch_add(1, Ordering::Relaxed);
            if earlier == 0 {
                // Only the first: thousands of marks would fill the trace.
                trace::mark(|| Mark::QueueFull);
            }
        }
    }

    /// Would the logger print this event?
    fn is_printed(&self, event: &Event) -> bool {
        match event {
            Event::StartMessage { even_if_quiet, .. } => {
                *even_if_quiet || self.verbosity >= Verbosity::Normal
            }
            Event::RequestAnswered(_) => self.has_screen,
            Event::Rejected(_) | Event::FileReloaded { .. } | Event::Status(_) => true,
            Event::SessionClosed(closed) => match closed.reason {
                CloseReason::HandshakeFailed(_)
                | CloseReason::Refused(_)
                | CloseReason::PermitWithdrawn(_) => self.verbosity >= Verbosity::Normal,
                _ => self.verbosity >= Verbosity::Sessions,
            },
            Event::ClientPort { .. } | Event::ForeignDatagram { .. } => {
                self.verbosity >= Verbosity::Sessions
            }
            Event::Listening(_) | Event::FileUnchanged { .. } | Event::Stopping { .. } => {
                self.verbosity >= Verbosity::Normal
            }
        }
    }
}

impl Queue {
    /// How many screen messages and other events were dropped since the last call.
    pub(super) fn take_dropped(&self) -> (u64, u64) {
        (
            self.dropped.messages.swap(0, Ordering::Relaxed),
            self.dropped.lines.swap(0, Ordering::Relaxed),
        )
    }
}
