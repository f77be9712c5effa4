//! The thread pool: each job runs once, and no thread is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::control::{self, any, one_in, pause};
use crate::sync::thread;
use crate::sync::thread_pool::ThreadPool;

/// Two threads start jobs, and reserve further threads that get none, while timeouts run
/// out.
pub(crate) fn every_job_runs_once() {
    control::begin(any(&[true, false]));
    let pool = Arc::new(ThreadPool::default());
    let started = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let start_jobs = |jobs| {
        let (pool, started, done) = (pool.clone(), started.clone(), done.clone());
        thread::spawn(move || {
            for _ in 0..jobs {
                let unused = pool.reserve();
                let Ok(reserved) = pool.reserve() else {
                    continue;
                };
                pause();
                started.fetch_add(1, Ordering::SeqCst);
                let done = done.clone();
                reserved.start("job".to_owned(), move || {
                    thread::yield_now();
                    done.fetch_add(1, Ordering::SeqCst);
                });
                drop(unused);
            }
        })
    };
    for starting in [start_jobs(2), start_jobs(1)] {
        starting.join().unwrap();
    }
    let pool = Arc::into_inner(pool).expect("no other thread holds the pool");
    // No thread may need a timeout to end.
    control::disable_timeouts();
    drop(pool);
    control::wait_for_all_threads();
    let (done, started) = (done.load(Ordering::SeqCst), started.load(Ordering::SeqCst));
    assert_eq!(
        done, started,
        "jobs that were done, and jobs that were started"
    );
}

/// A job may start another one and wait for it: no busy thread is reserved.
pub(crate) fn a_job_waits_for_another() {
    control::begin(any(&[true, false]));
    let pool = Arc::new(ThreadPool::default());
    for _ in 0..2 {
        let inner_pool = pool.clone();
        // Fails if the system has no thread.
        let _ = pool.start("job".to_owned(), move || {
            let done = Arc::new(AtomicBool::new(false));
            let set_done = done.clone();
            let job = move || set_done.store(true, Ordering::SeqCst);
            let started = inner_pool.start("another".to_owned(), job);
            while started.is_ok() && !done.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        });
        pause();
    }
    control::disable_timeouts();
    drop(pool);
    control::wait_for_all_threads();
}

/// A reserved thread runs its job even if the pool is dropped before.
pub(crate) fn a_reserved_thread_outlives_the_pool() {
    control::begin(any(&[true, false]));
    let pool = ThreadPool::default();
    let done = Arc::new(AtomicUsize::new(0));
    let mut started = 0;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let Ok(reserved) = pool.reserve() else {
            continue;
        };
        let is_unused = one_in(2);
        started += usize::from(!is_unused);
        let done = done.clone();
        holders.push(thread::spawn_named("holder", move || {
            pause();
            match is_unused {
                true => drop(reserved),
                false => reserved.start("job".to_owned(), move || {
                    done.fetch_add(1, Ordering::SeqCst);
                }),
            }
        }));
    }
    pause();
    control::disable_timeouts();
    drop(pool);
    holders
        .into_iter()
        .for_each(|holder| holder.join().unwrap());
    control::wait_for_all_threads();
    let done = done.load(Ordering::SeqCst);
    assert_eq!(
        done, started,
        "jobs that were done, and jobs that were started"
    );
}
