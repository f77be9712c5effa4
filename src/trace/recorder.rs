//! Recording: each thread sends its events into one bounded queue and never waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::event::{Event, Mark, Wait, What};

/// Events of a trace: those of some thousand sessions, and at most some 23 MB while it is
/// written. When the queue is full, later events are counted and not kept. So a trace shows how
/// the server began.
pub(super) const CAPACITY: usize = 100_000;

/// The most memory in bytes of a full trace while it is written: 27 MB were measured, with names of
/// 253 bytes. Sessions cannot have it.
pub const MEMORY_OF_TRACE: u64 = 32 << 20;

/// Waits that last less than this are not recorded: in nanoseconds. A switch to another thread
/// takes some microseconds, so a shorter wait shows nothing of the program.
const SHORT_WAIT: u64 = 20_000;

/// Bits of an open wait that hold the number of the wait; the others hold when it began.
const NUMBER_BITS: u32 = 5;

/// In place of an open wait: the thread does not wait.
const NO_WAIT: u64 = 0;

/// Set if this process records a trace.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// The events so far.
#[derive(Debug)]
pub(super) struct Recorder {
    began: Instant,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// Events that found the queue full.
    missing: AtomicU64,
    /// When the first of them came.
    full_since: AtomicU64,
    threads: AtomicU32,
    hand_overs: AtomicU64,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) events: Vec<Event>,
    /// Events that came when the queue was full.
    pub(super) missing: u64,
    /// When the trace ends: now, or when the first event found the queue full.
    pub(super) end: u64,
}

impl Recorder {
    pub(super) fn new(capacity: usize) -> Recorder {
        let (sender, events) = bounded(capacity);
        Recorder {
            began: Instant::now(),
            sender,
            events,
            missing: AtomicU64::new(0),
            full_since: AtomicU64::new(u64::MAX),
            threads: AtomicU32::new(0),
            hand_overs: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the start of the trace.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds an event, or counts it if the queue is full. Never waits.
    pub(super) fn add(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            // Relaxed, both: mere numbers, from which no thread concludes anything else.
            self.full_since.fetch_min(self.now(), Ordering::Relaxed);
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes all events.
    pub(super) fn take(&self) -> Recorded {
        let now = self.now();
        Recorded {
            events: self.events.try_iter().take(CAPACITY).collect(),
            missing: self.missing.load(Ordering::Relaxed),
            end: self.full_since.load(Ordering::Relaxed).min(now),
        }
    }

    /// Adds an event of the calling thread that happens now.
    fn add_now(&self, what: What) {
        let at = self.now();
        // Fails only while the thread itself ends.
        let _ = THREAD.try_with(|thread| {
            let thread = thread.number;
            self.add(Event { thread, at, what });
        });
    }
}

/// Starts to record. False if this process records already.
pub(super) fn start() -> bool {
    RECORDER.set(Recorder::new(CAPACITY)).is_ok()
}

/// Everything that was recorded.
pub(super) fn take() -> Option<Recorded> {
    RECORDER.get().map(Recorder::take)
}

/// What the recorder knows of a thread.
struct Thread {
    number: u32,
    /// The wait of this thread that is not over: [`NO_WAIT`], or its number and when it began.
    /// At the end of the trace the main thread reads it, so no wait is missing.
    open: Arc<AtomicU64>,
}

thread_local! {
    /// Begun with the first event of the thread.
    static THREAD: Thread = {
        let open = Arc::new(AtomicU64::new(NO_WAIT));
        let mut number = 0;
        if let Some(recorder) = RECORDER.get() {
            number = recorder.threads.fetch_add(1, Ordering::Relaxed);
            recorder.add(Event {
                thread: number,
                at: recorder.now(),
                what: What::Thread(Arc::clone(&open)),
            });
        }
        Thread { number, open }
    };
}

/// A wait that is going on; its drop records it.
#[derive(Debug)]
pub(crate) struct WaitGuard {
    /// Taken by the drop.
    wait: Option<Wait>,
    began: u64,
}

/// From now on the thread waits, until the result is dropped. `None` without a trace, and inside
/// another wait: only the outer one is recorded.
#[inline]
pub(crate) fn wait(describe: impl FnOnce() -> Wait) -> Option<WaitGuard> {
    let recorder = RECORDER.get()?;
    begin_wait(recorder, describe)
}

#[cold]
fn begin_wait(recorder: &Recorder, describe: impl FnOnce() -> Wait) -> Option<WaitGuard> {
    // Fails only while the thread itself ends.
    let is_waiting = THREAD.try_with(|it| it.open.load(Ordering::Relaxed) != NO_WAIT);
    if is_waiting.unwrap_or(true) {
        return None;
    }
    let wait = describe();
    let began = recorder.now();
    let number = u64::try_from(wait.number()).unwrap_or(0);
    // Relaxed: one number, which publishes no other data.
    let open = pack(began, number);
    let _ = THREAD.try_with(|it| it.open.store(open, Ordering::Relaxed));
    let wait = Some(wait);
    Some(WaitGuard { wait, began })
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let (Some(recorder), Some(wait)) = (RECORDER.get(), self.wait.take()) else {
            return;
        };
        let (at, ended) = (self.began, recorder.now());
        let _ = THREAD.try_with(|thread| {
            if ended.saturating_sub(at) >= SHORT_WAIT {
                let (thread, what) = (thread.number, What::Wait(wait, ended));
                recorder.add(Event { thread, at, what });
            }
            // After the event: at the end of the trace a wait may be there twice, and is never
            // missing.
            thread.open.store(NO_WAIT, Ordering::Relaxed);
        });
    }
}

/// An open wait as one number, which is never [`NO_WAIT`].
fn pack(began: u64, number: u64) -> u64 {
    (began.max(1) << NUMBER_BITS) | number
}

/// When an open wait began, and its number; `None` if the thread does not wait.
pub(super) fn unpack(open: &AtomicU64) -> Option<(u64, usize)> {
    let open = open.load(Ordering::Relaxed);
    let number = usize::try_from(open & ((1 << NUMBER_BITS) - 1)).ok()?;
    (open != NO_WAIT).then_some((open >> NUMBER_BITS, number))
}

/// A job that is going on; its drop records the end.
#[derive(Debug)]
pub(crate) struct JobGuard(());

/// A job that one thread starts on another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver(u64);

/// The calling thread starts a job on another one.
#[inline]
pub(crate) fn hand_over() -> Option<HandOver> {
    let recorder = RECORDER.get()?;
    let number = recorder.hand_overs.fetch_add(1, Ordering::Relaxed);
    recorder.add_now(What::HandOver(number));
    Some(HandOver(number))
}

/// From now on the calling thread runs the job of this name, until the result is dropped.
#[inline]
pub(crate) fn job(name: &str, from: Option<HandOver>) -> Option<JobGuard> {
    let recorder = RECORDER.get()?;
    let from = from.map(|HandOver(number)| number);
    recorder.add_now(What::JobBegin(name.into(), from));
    Some(JobGuard(()))
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        if let Some(recorder) = RECORDER.get() {
            recorder.add_now(What::JobEnd);
        }
    }
}

/// Something happens on the calling thread at this moment.
#[inline]
pub(crate) fn mark(describe: impl FnOnce() -> Mark) {
    if let Some(recorder) = RECORDER.get() {
        recorder.add_now(What::Mark(describe()));
    }
}

/// One session more.
#[inline]
pub(crate) fn session_began() {
    if let Some(recorder) = RECORDER.get() {
        recorder.add_now(What::Sessions(1));
    }
}

/// One session less.
#[inline]
pub(crate) fn session_ended() {
    if let Some(recorder) = RECORDER.get() {
        recorder.add_now(What::Sessions(-1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o24_events_above_the_bound_are_counted_and_end_the_trace() {
        let recorder = Recorder::new(3);
        let event = |at| Event {
            thread: 0,
            at,
            what: What::JobEnd,
        };
        (0..3).for_each(|at| recorder.add(event(at)));
        let before = recorder.now();
        (3..8).for_each(|at| recorder.add(event(at)));
        let first_missing = recorder.full_since.load(Ordering::Relaxed);
        assert!((before..=recorder.now()).contains(&first_missing));
        let recorded = recorder.take();
        assert_eq!((recorded.events.len(), recorded.missing), (3, 5));
        assert_eq!(recorded.end, first_missing);
        let times: Vec<u64> = recorded.events.iter().map(|event| event.at).collect();
        assert_eq!(times, [0, 1, 2]);
    }

    #[test]
    fn an_open_wait_is_one_number() {
        for (began, number) in [(1, 0), (1, 31), (7, 3), (u64::MAX >> NUMBER_BITS, 20)] {
            let open = AtomicU64::new(pack(began, number));
            assert_eq!(unpack(&open), Some((began, number as usize)));
        }
        assert!(pack(0, 0) != NO_WAIT);
        assert_eq!(unpack(&AtomicU64::new(NO_WAIT)), None);
    }

    #[test]
    fn o21_nothing_is_recorded_without_a_trace() {
        assert!(wait(|| panic!("the words are not made")).is_none());
        mark(|| panic!("the words are not made"));
        assert!(hand_over().is_none() && job("s1", None).is_none() && take().is_none());
    }
}
