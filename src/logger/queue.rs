//! The queue between the threads that report events and the logger thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::config::{LogFormat, Verbosity};
use super::json;
use crate::events::Event;
use crate::metrics::{Counters, Output};
use crate::sync::AtomicU64;
use crate::trace::{self, Mark};

/// Events that may wait to be printed, unless there is little memory: those of nearly one second
/// at 10,000 requests per second.
pub const MAX_QUEUED_EVENTS: usize = 8192;

/// The most memory in bytes of an event that a client can cause again and again: a user id, a name,
/// and a reason that has one of them with all its bytes escaped.
pub const MEMORY_PER_EVENT: u64 = 3584;

/// An event and its moment. The logger may print it seconds later.
#[derive(Debug)]
pub(crate) struct TimedEvent {
    pub(super) time: SystemTime,
    pub(crate) event: Event,
}

impl TimedEvent {
    /// An event of this moment.
    pub(super) fn now(event: Event) -> TimedEvent {
        let time = SystemTime::now();
        TimedEvent { time, event }
    }
}

/// A handle to report events. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Log {
    counters: Arc<Counters>,
    sender: Sender<TimedEvent>,
    /// Events that may wait.
    capacity: usize,
    dropped: Arc<DroppedCounts>,
    verbosity: Verbosity,
    format: LogFormat,
}

/// The receiving end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) events: Receiver<TimedEvent>,
    dropped: Arc<DroppedCounts>,
}

/// Events that found the queue full, since they were reported last.
#[derive(Debug, Default)]
struct DroppedCounts {
    messages: AtomicU64,
    lines: AtomicU64,
}

impl Log {
    /// A queue of so many events, and its first handle. `format` says what stdout gets.
    pub(crate) fn new(verbosity: Verbosity, format: LogFormat, capacity: usize) -> (Log, Queue) {
        let (sender, events) = bounded(capacity);
        let dropped = Arc::new(DroppedCounts::default());
        let log = Log {
            counters: Arc::default(),
            sender,
            capacity,
            dropped: Arc::clone(&dropped),
            verbosity,
            format,
        };
        (log, Queue { events, dropped })
    }

    /// Reports an event. Never waits: if the queue is full, the event is dropped and
    /// counted. For events other than screen messages, the main output, it is full at half
    /// its capacity. The metrics count each event before that.
    pub fn send(&self, event: Event) {
        self.counters.count(&event);
        let outputs = self.outputs(&event);
        if outputs == [None, None] {
            return;
        }
        let (has_room, dropped) = match self.is_main_output(&event) {
            true => (true, &self.dropped.messages),
            false => (self.sender.len() < self.capacity / 2, &self.dropped.lines),
        };
        if !has_room || self.sender.try_send(TimedEvent::now(event)).is_err() {
            // Relaxed: a mere count, from which no thread concludes anything else.
            let earlier = dropped.fetch_add(1, Ordering::Relaxed);
            if earlier == 0 {
                // Only the first: thousands of marks would fill the trace.
                trace::mark(|| Mark::QueueFull);
            }
            for output in outputs.into_iter().flatten() {
                self.counters.count_dropped_message(output);
            }
        }
    }

    /// Does stdout get JSON objects? Then events have what only these print.
    pub fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// What the metrics count.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Where the logger would print this event.
    fn outputs(&self, event: &Event) -> [Option<Output>; 2] {
        let is_on_stdout = match self.format {
            LogFormat::Json => json::has_object(event),
            LogFormat::Screen => is_message(event),
            LogFormat::None => false,
        };
        [
            is_on_stdout.then_some(Output::Stdout),
            self.verbosity.prints(event).then_some(Output::Stderr),
        ]
    }

    /// Is the event part of the main output? Others must leave room for these.
    fn is_main_output(&self, event: &Event) -> bool {
        is_message(event) || (self.is_json() && matches!(event, Event::SessionClosed(_)))
    }
}

/// Is this a screen message?
fn is_message(event: &Event) -> bool {
    matches!(event, Event::RequestAnswered(_))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{ClientRequest, RequestDetails, SessionClosed};

    /// Bytes of a user id of SOCKS4.
    const USER: usize = 512;
    /// Bytes of the longest name, and of an identd's reply as far as an event has it.
    const NAME: usize = 255;
    /// Bytes of the words around it in a reason.
    const WORDS: usize = 120;

    #[test]
    fn s52_the_largest_event_has_the_size_that_the_memory_limit_counts() {
        // With the counter of the channel, and what the allocator adds to a block.
        let slot = size_of::<TimedEvent>() + 8;
        let block = |bytes: usize| bytes.next_multiple_of(16) + 16;
        let request = block(USER) + block(NAME);
        let reason = block(4 * NAME + WORDS);
        let answered = slot + block(size_of::<RequestDetails>()) + request + reason;
        // Formatted, the text had up to twice its length.
        let closed = slot + block(size_of::<SessionClosed>()) + request + block(8 * NAME + WORDS);
        assert!(size_of::<ClientRequest>() < size_of::<RequestDetails>());
        for size in [answered, closed] {
            assert!(size as u64 <= MEMORY_PER_EVENT, "{size}");
        }
    }
}
