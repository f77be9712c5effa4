//! The threads that wait for a job: each job is done once, and nobody stays behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sync::thread_pool::ThreadPool;
use crate::sync::{self, any, one_in, pause, thread};

/// Some bring jobs, and reserve threads in vain, while limits run out.
pub(crate) fn every_job_is_done_once() {
    sync::begin(any(&[true, false]));
    let workers = Arc::new(ThreadPool::default());
    let brought = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let bring = |jobs| {
        let (workers, brought, done) = (workers.clone(), brought.clone(), done.clone());
        thread::spawn(move || {
            for _ in 0..jobs {
                let in_vain = workers.reserve();
                let Ok(worker) = workers.reserve() else {
                    continue;
                };
                pause();
                brought.fetch_add(1, Ordering::SeqCst);
                let done = done.clone();
                worker.start("job".to_owned(), move || {
                    thread::yield_now();
                    done.fetch_add(1, Ordering::SeqCst);
                });
                drop(in_vain);
            }
        })
    };
    for bringer in [bring(2), bring(1)] {
        bringer.join().unwrap();
    }
    let workers = Arc::into_inner(workers).expect("nobody else brings any");
    // Nobody has to wait for a limit to leave.
    sync::no_limits();
    drop(workers);
    sync::all_threads_leave();
    assert_eq!(done.load(Ordering::SeqCst), brought.load(Ordering::SeqCst));
}

/// A job may bring another one and wait until it is done: nobody who is still
/// busy is reserved.
pub(crate) fn a_job_waits_for_another() {
    sync::begin(any(&[true, false]));
    let workers = Arc::new(ThreadPool::default());
    for _ in 0..2 {
        let others = workers.clone();
        // Fails if there is no thread.
        let _ = workers.start("job".to_owned(), move || {
            let done = Arc::new(AtomicBool::new(false));
            let tell = done.clone();
            let job = move || tell.store(true, Ordering::SeqCst);
            let started = others.start("another".to_owned(), job);
            while started.is_ok() && !done.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        });
        pause();
    }
    sync::no_limits();
    drop(workers);
    sync::all_threads_leave();
}

/// A thread that somebody has reserved does its job even if the server is gone.
pub(crate) fn who_is_reserved_outlives_it() {
    sync::begin(any(&[true, false]));
    let workers = ThreadPool::default();
    let done = Arc::new(AtomicUsize::new(0));
    let mut brought = 0;
    let mut others = Vec::new();
    for _ in 0..2 {
        let Ok(worker) = workers.reserve() else {
            continue;
        };
        let in_vain = one_in(2);
        brought += usize::from(!in_vain);
        let done = done.clone();
        others.push(thread::spawn(move || {
            pause();
            match in_vain {
                true => drop(worker),
                false => worker.start("job".to_owned(), move || {
                    done.fetch_add(1, Ordering::SeqCst);
                }),
            }
        }));
    }
    pause();
    sync::no_limits();
    drop(workers);
    others.into_iter().for_each(|it| it.join().unwrap());
    sync::all_threads_leave();
    assert_eq!(done.load(Ordering::SeqCst), brought);
}
