//! OS threads for sessions, kept for a while for the next one.
//!
//! To start a thread and to end it costs the system more than all the rest of a
//! short session: a stack to map and to guard, a signal stack, the clone. So a
//! thread that has done its job waits a few seconds for another.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Condvar, Mutex, lock, thread, wait_while};

/// Stack of a session's thread in bytes. Our own frames need a few KiB, the
/// system resolver tens of them, and with some name service modules a hundred
/// or more: servers of this kind have crashed with less. Only what is touched
/// becomes memory; the rest is address space.
pub const STACK_SIZE: usize = 256 << 10;

/// How long a thread waits for its next job. Clients come in bursts (a page
/// with its pictures, a script): within one, leaving is never worth it, and
/// after it the memory goes back soon.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The threads that wait for a job. When it is dropped, they leave.
#[derive(Debug, Default)]
pub(crate) struct ThreadPool {
    waiting_room: Arc<PoolShared>,
}

/// Where threads without a job wait.
#[derive(Debug, Default)]
struct PoolShared(Mutex<IdleThreads>);

/// Who waits there that nobody has reserved.
#[derive(Debug, Default)]
struct IdleThreads {
    /// The last one to come is the first to be called: after a burst, those at
    /// the bottom are called no more, and leave. If all were called in turn, a
    /// trickle of clients would keep them all.
    slots: Vec<Arc<Slot>>,
    /// Nobody will bring any more jobs.
    closed: bool,
}

/// Where one thread finds its next job.
#[derive(Debug, Default)]
struct Slot {
    call: Mutex<Message>,
    called: Condvar,
}

#[derive(Debug, Default)]
enum Message {
    #[default]
    None,
    Job(Job),
    /// No job will come.
    Leave,
}

/// What a thread does under which name.
struct Job {
    name: String,
    work: Box<dyn FnOnce() + Send>,
}

impl ThreadPool {
    /// Gives this job to a thread; see [`ReservedThread::start`].
    ///
    /// # Errors
    ///
    /// The system has no thread left; the job has been dropped.
    pub(crate) fn start(
        &self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.reserve()?.start(name, work);
        Ok(())
    }

    /// Reserves a thread that waits, without waking it, or else a new one.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(crate) fn reserve(&self) -> io::Result<ReservedThread> {
        let waiting = lock(&self.waiting_room.0).slots.pop();
        let slot = match waiting {
            Some(slot) => slot,
            None => self.waiting_room.start_thread()?,
        };
        Ok(ReservedThread {
            waiting_room: Arc::clone(&self.waiting_room),
            slot,
            has_job: false,
        })
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting_room.0);
        waiting.closed = true;
        for slot in waiting.slots.drain(..) {
            slot.call(Message::Leave);
        }
    }
}

impl PoolShared {
    /// Starts a thread, which is reserved for who calls this.
    fn start_thread(self: &Arc<PoolShared>) -> io::Result<Arc<Slot>> {
        let (room, slot) = (Arc::clone(self), Arc::<Slot>::default());
        // Nobody joins it: the session it works for tells when it is over.
        let builder = thread::Builder::new().name("worker".to_owned());
        builder.stack_size(STACK_SIZE).spawn({
            let slot = Arc::clone(&slot);
            move || {
                name_thread(c"idle");
                while let Some(job) = room.next_job(&slot) {
                    job.run();
                    name_thread(c"idle");
                    room.enter(Arc::clone(&slot));
                }
            }
        })?;
        Ok(slot)
    }

    /// Waits for a job at this slot; `None` says that it is time to leave.
    fn next_job(&self, slot: &Arc<Slot>) -> Option<Job> {
        loop {
            let call = lock(&slot.call);
            let mut call = wait_while(&slot.called, call, KEEP_ALIVE, |call| {
                matches!(call, Message::None)
            });
            match std::mem::take(&mut *call) {
                Message::Job(job) => return Some(job),
                Message::Leave => return None,
                Message::None => drop(call),
            }
            // Who is reserved stays, however long it takes.
            let slots = &mut lock(&self.0).slots;
            if let Some(place) = slots.iter().position(|it| Arc::ptr_eq(it, slot)) {
                slots.remove(place);
                return None;
            }
        }
    }

    /// The thread of this slot has no job, and nobody has reserved it.
    fn enter(&self, slot: Arc<Slot>) {
        let mut waiting = lock(&self.0);
        match waiting.closed {
            true => slot.call(Message::Leave),
            false => waiting.slots.push(slot),
        }
    }
}

impl Slot {
    fn call(&self, call: Message) {
        *lock(&self.call) = call;
        self.called.notify_one();
    }
}

/// A thread that waits for its job. DropReason without one, it is free again.
#[derive(Debug)]
pub(crate) struct ReservedThread {
    waiting_room: Arc<PoolShared>,
    slot: Arc<Slot>,
    has_job: bool,
}

impl ReservedThread {
    /// Starts the job, under a name of which 15 bytes show up in `ps -T` and
    /// `top -H`.
    pub(crate) fn start(mut self, name: String, work: impl FnOnce() + Send + 'static) {
        let work = Box::new(work);
        self.has_job = true;
        self.slot.call(Message::Job(Job { name, work }));
    }
}

impl Drop for ReservedThread {
    fn drop(&mut self) {
        if !self.has_job {
            self.waiting_room.enter(Arc::clone(&self.slot));
        }
    }
}

impl Job {
    /// Does it, under its name. A panic ends the thread too.
    fn run(self) {
        // A name with a zero byte within is none; ours are there for people.
        name_thread(&CString::new(self.name).unwrap_or_default());
        (self.work)();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

/// Tells the system what the calling thread is called from now on.
#[cfg(target_os = "linux")]
fn name_thread(name: &CStr) {
    // The only error is an address that is none.
    let _ = nix::sys::prctl::set_name(name);
}

/// Elsewhere it goes on being a `thread`.
#[cfg(not(target_os = "linux"))]
fn name_thread(_: &CStr) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn every_job_is_done_once_whoever_brings_it() {
        const BRINGERS: usize = 8;
        const JOBS: usize = 300;
        let threads = ThreadPool::default();
        let (done, all) = unbounded();
        thread::scope(|scope| {
            for bringer in 0..BRINGERS {
                let (threads, done) = (&threads, done.clone());
                scope.spawn(move || {
                    for job in 0..JOBS {
                        // One that is reserved in vain beside each that is used.
                        let in_vain = threads.reserve();
                        let used = threads.reserve().expect("a thread");
                        let done = done.clone();
                        used.start("job".to_owned(), move || {
                            let _ = done.send((bringer, job));
                        });
                        drop(in_vain);
                    }
                });
            }
        });
        drop(done);
        let mut jobs: Vec<(usize, usize)> = all.iter().collect();
        jobs.sort_unstable();
        let expected = (0..BRINGERS).flat_map(|it| (0..JOBS).map(move |job| (it, job)));
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
    fn who_waits_leaves_when_nobody_can_bring_a_job() {
        let threads = ThreadPool::default();
        let waiting_room = Arc::downgrade(&threads.waiting_room);
        let (start, started) = unbounded();
        for _ in 0..3 {
            let start = start.clone();
            let job = move || {
                let _ = start.send(());
            };
            threads.start("job".to_owned(), job).expect("a thread");
            started.recv_timeout(PATIENCE).expect("done");
        }
        drop(threads);
        let began = std::time::Instant::now();
        while waiting_room.strong_count() > 0 {
            assert!(began.elapsed() < KEEP_ALIVE / 2, "they wait on");
            thread::yield_now();
        }
    }
}
