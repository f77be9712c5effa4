//! A pool of OS threads: a thread that has finished a job waits a few seconds for the next.
//!
//! Starting and ending a thread costs the system more than the rest of a short session:
//! a stack and a signal stack to map and to guard, and the clone. So the pool keeps
//! threads that are idle, and starts one only if none is idle. It has no queue: the
//! limit on sessions bounds the number of threads.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::lock::{OrderedMutex, Rank};
use super::primitives::{Condvar, name_thread, thread};
use crate::trace::{self, HandOver, Wait};

/// Stack of a pool thread in bytes. The frames of this program need a few KiB, the system resolver
/// tens of KiB, and with some name service modules a hundred or more. Only pages that
/// are touched take memory; the rest is address space.
pub const STACK_SIZE: usize = 256 << 10;

/// How long an idle thread waits for its next job. Clients come in bursts (a page with
/// its images, a script): within a burst threads are reused, and a few seconds after
/// it their memory is free again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Threads that run jobs. Dropping the pool ends its idle threads; a busy or reserved
/// thread ends after its job.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<PoolShared>,
}

/// What the pool and its threads share.
#[derive(Debug)]
struct PoolShared {
    idle: OrderedMutex<IdleThreads>,
}

/// The threads that are idle and not reserved.
#[derive(Debug, Default)]
struct IdleThreads {
    /// A stack: the thread that became idle last is reserved first. After a burst the
    /// threads at the bottom are not reserved any more, and end. If all were used in
    /// turn, a few clients would keep them all.
    slots: Vec<Arc<JobSlot>>,
    /// The pool was dropped: no more jobs will come.
    closed: bool,
}

/// Where one thread receives its next message. The mutex is a leaf in the lock order.
#[derive(Debug)]
struct JobSlot {
    message: OrderedMutex<Message>,
    /// Notified after `message` is set.
    arrived: Condvar,
}

#[derive(Debug, Default)]
enum Message {
    #[default]
    None,
    Job(Job),
    /// The thread is to end.
    End,
}

/// What a thread runs, and the name under which it runs it.
struct Job {
    name: String,
    work: Box<dyn FnOnce() + Send>,
    /// For the trace: the moment at which the job was started.
    hand_over: Option<HandOver>,
}

impl Default for ThreadPool {
    fn default() -> ThreadPool {
        let idle = OrderedMutex::new(Rank::IdleThreads, IdleThreads::default());
        let shared = Arc::new(PoolShared { idle });
        ThreadPool { shared }
    }
}

impl ThreadPool {
    /// Runs this job on a thread; see [`ReservedThread::start`].
    ///
    /// # Errors
    ///
    /// The system has no thread left; the job was dropped.
    pub fn start(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.reserve()?.start(name, work);
        Ok(())
    }

    /// Reserves an idle thread, without waking it, or else a new one.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn reserve(&self) -> io::Result<ReservedThread> {
        let idle = self.shared.idle.lock().slots.pop();
        let slot = match idle {
            Some(slot) => slot,
            None => self.shared.start_thread()?,
        };
        Ok(ReservedThread {
            shared: Arc::clone(&self.shared),
            slot,
            has_job: false,
        })
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut idle = self.shared.idle.lock();
        idle.closed = true;
        for slot in idle.slots.drain(..) {
            slot.send(Message::End);
        }
    }
}

impl PoolShared {
    /// Starts a thread, which is reserved for the caller.
    fn start_thread(self: &Arc<PoolShared>) -> io::Result<Arc<JobSlot>> {
        let (shared, slot) = (Arc::clone(self), Arc::new(JobSlot::new()));
        // No thread joins it. A job that must be waited for holds a token of a wait group.
        let builder = thread::Builder::new().name("worker".to_owned());
        builder.stack_size(STACK_SIZE).spawn({
            let slot = Arc::clone(&slot);
            move || {
                name_thread(c"idle");
                while let Some(job) = shared.next_job(&slot) {
                    job.run();
                    name_thread(c"idle");
                    shared.add_idle(Arc::clone(&slot));
                }
            }
        })?;
        Ok(slot)
    }

    /// Waits for a job. `None` says that the thread is to end: the pool was dropped, or
    /// no job came for [`KEEP_ALIVE`].
    fn next_job(&self, slot: &Arc<JobSlot>) -> Option<Job> {
        loop {
            let message = slot.message.lock();
            let wait = trace::wait(|| Wait::Job);
            let mut message = message.wait_timeout_while(&slot.arrived, KEEP_ALIVE, |message| {
                matches!(message, Message::None)
            });
            drop(wait);
            match std::mem::take(&mut *message) {
                Message::Job(job) => return Some(job),
                Message::End => return None,
                Message::None => drop(message),
            }
            // The time is over. A thread that was reserved meanwhile is not in the list: it
            // waits again, for the job or until its reservation is dropped.
            let slots = &mut self.idle.lock().slots;
            if let Some(place) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) {
                slots.remove(place);
                return None;
            }
        }
    }

    /// Adds the thread of this slot to the idle threads. It has no job and is not
    /// reserved.
    fn add_idle(&self, slot: Arc<JobSlot>) {
        let mut idle = self.idle.lock();
        match idle.closed {
            true => slot.send(Message::End),
            false => idle.slots.push(slot),
        }
    }
}

impl JobSlot {
    fn new() -> JobSlot {
        JobSlot {
            message: OrderedMutex::new(Rank::Leaf, Message::None),
            arrived: Condvar::new(),
        }
    }

    /// Sets the message first and notifies then: a notification before it would be a
    /// lost wake-up.
    fn send(&self, message: Message) {
        *self.message.lock() = message;
        self.arrived.notify_one();
    }
}

/// A thread that waits for a job of the holder. Dropped without a job, it is idle again.
#[derive(Debug)]
pub struct ReservedThread {
    shared: Arc<PoolShared>,
    slot: Arc<JobSlot>,
    has_job: bool,
}

impl ReservedThread {
    /// Starts the job under this name, of which `ps -T` and `top -H` show the first 15
    /// bytes.
    pub fn start(mut self, name: String, work: impl FnOnce() + Send + 'static) {
        let work = Box::new(work);
        self.has_job = true;
        let hand_over = trace::hand_over();
        self.slot.send(Message::Job(Job {
            name,
            work,
            hand_over,
        }));
    }
}

impl Drop for ReservedThread {
    fn drop(&mut self) {
        if !self.has_job {
            self.shared.add_idle(Arc::clone(&self.slot));
        }
    }
}

impl Job {
    /// Runs the job under its name. A panic ends this thread and no other: panic
    /// isolation. The pool starts a new thread when one is needed.
    fn run(self) {
        let _job = trace::job(&self.name, self.hand_over);
        // Fails only for a name with a zero byte, which no job has.
        name_thread(&CString::new(self.name).unwrap_or_default());
        (self.work)();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn every_job_runs_once_with_many_callers() {
        const CALLERS: usize = 8;
        const JOBS: usize = 300;
        let threads = ThreadPool::default();
        let (done, all) = unbounded();
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (threads, done) = (&threads, done.clone());
                scope.spawn(move || {
                    for job in 0..JOBS {
                        // Beside each thread that gets a job, one is reserved and gets none.
                        let unused = threads.reserve();
                        let used = threads.reserve().expect("a thread");
                        let done = done.clone();
                        used.start("job".to_owned(), move || {
                            let _ = done.send((caller, job));
                        });
                        drop(unused);
                    }
                });
            }
        });
        drop(done);
        let mut jobs: Vec<(usize, usize)> = all.iter().collect();
        jobs.sort_unstable();
        let expected = (0..CALLERS).flat_map(|it| (0..JOBS).map(move |job| (it, job)));
        assert!(jobs.into_iter().eq(expected));
    }

    #[test]
    fn s12_a_panic_ends_one_thread_and_no_other_job() {
        let threads = ThreadPool::default();
        let (done, all) = unbounded();
        for job in 0..20 {
            let done = done.clone();
            let start = threads.start("job".to_owned(), move || {
                assert!(job % 2 == 0, "on purpose");
                let _ = done.send(job);
            });
            start.expect("a thread");
        }
        drop(done);
        let mut jobs: Vec<i32> = all.iter().collect();
        jobs.sort_unstable();
        assert!(jobs.into_iter().eq((0..20).step_by(2)));
    }

    #[test]
    fn idle_threads_end_when_the_pool_is_dropped() {
        let threads = ThreadPool::default();
        let shared = Arc::downgrade(&threads.shared);
        let (start, started) = unbounded();
        for _ in 0..3 {
            let start = start.clone();
            let job = move || {
                let _ = start.send(());
            };
            threads.start("job".to_owned(), job).expect("a thread");
            started.recv_timeout(TIMEOUT).expect("done");
        }
        drop(threads);
        let began = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(
                began.elapsed() < KEEP_ALIVE / 2,
                "idle threads are still there"
            );
            thread::yield_now();
        }
    }
}
