//! The thread on which a changed file is read and parsed.
//!
//! glibc's allocator keeps freed memory in the arena of the thread that allocated it. If
//! sessions parsed the file on their own threads, each arena would keep the memory of a
//! former version.

use std::fmt;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sync::thread;
use crate::sync::thread_pool::STACK_SIZE;
use crate::trace::{self, Wait};

type Job = Box<dyn FnOnce() + Send>;

/// One thread, which starts with the first job and ends when this is dropped.
#[derive(Default)]
pub(super) struct FileThread {
    jobs: Option<Sender<Job>>,
}

impl fmt::Debug for FileThread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("FileThread")
    }
}

impl FileThread {
    /// Runs the job and waits for its result. `None` if it panics. If the system has no
    /// thread, the job runs on that of the caller.
    pub(super) fn run<R: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        self.jobs = self.jobs.take().or_else(start);
        let Some(jobs) = &self.jobs else {
            return Some(job());
        };
        let _wait = trace::wait(|| Wait::Files);
        let (reply, replies) = bounded(1);
        let is_sent = jobs.send(Box::new(move || {
            let _ = reply.send(job());
        }));
        let result = is_sent.ok().and_then(|()| replies.iter().next());
        if result.is_none() {
            // The thread has ended; the next job starts another.
            self.jobs = None;
        }
        result
    }
}

fn start() -> Option<Sender<Job>> {
    let (sender, jobs): (_, Receiver<Job>) = bounded(1);
    let builder = thread::Builder::new().name("files".to_owned());
    let run_all = move || {
        let _job = trace::job("files", None);
        jobs.iter().for_each(|job| job());
    };
    builder.stack_size(STACK_SIZE).spawn(run_all).ok()?;
    Some(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s42_all_jobs_run_on_one_thread_until_one_panics() {
        let mut thread = FileThread::default();
        let id = || std::thread::current().id();
        let first = thread.run(id).expect("a result");
        assert_ne!(first, id());
        assert_eq!(thread.run(id), Some(first));
        assert_eq!(thread.run(|| panic!("in a job")), None::<()>);
        let next = thread.run(id).expect("a result");
        assert!(next != first && next != id());
    }
}
