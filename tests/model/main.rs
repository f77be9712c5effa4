//! The program's threads under a model checker, which chooses the order in which they run.
//!
//! The models compile the program's own source once more, on shuttle's mutexes, atomics,
//! condition variables and threads. All threads of a model run in turn on one thread of the
//! system. At each lock, atomic and channel a scheduler chooses the thread that continues.
//! So a model runs thousands of schedules that the system produces once a year, and the
//! same ones every time.
//!
//! What waits for the system is exchanged too: `net` and `relay` poll a socket instead of
//! blocking on it, the channels are ours, a name is resolved when the model permits it, and
//! a timeout runs out at random, never by the clock.
//!
//! - [`thread_pool`]: the pool of threads
//! - [`sessions`]: sessions and their registry: slots, remotes, terminations
//! - [`relay_directions`]: both directions of a relay, between ends that close, reset and
//!   stall
//! - [`whole_server`]: a server with clients, from start to stop
//!
//! The lock order of `src/sync/lock.rs` is checked at each lock, in every schedule.
//!
//! This target has no test harness: the unit tests in the source would run with it, and
//! their threads are not the model's. `cargo test --test model -- whole_server` runs the
//! models whose name contains that; `MODEL_ROUNDS=100` tries a hundred times as many
//! schedules. The schedules are the same in each run, so a failure can be repeated (in
//! `whole_server` perhaps not: sockets and hash maps of the system have an influence).
//!
//! A model that fails prints a report: what each thread waits for, the last steps in words,
//! and the command that repeats the schedule. `docs/tour/model-report.md` reads one. A
//! part of one, for `set` that does not notify:
//!
//! ```text
//! All threads wait: a deadlock.
//!
//! Threads:
//!   main: waits for the end of down (tests/model/relay_directions.rs:226)
//!   up: has ended
//!   down: waits since step 18 to be notified on RelayState.changed (src/relay/state.rs:148)
//!     No thread has notified RelayState.changed.
//! ```
//!
//! - [`steps`]: the record of the steps
//! - [`report`]: its words
//! - [`source_names`]: the names of threads and objects, from the source
//! - [`judge_words`]: models that fail on purpose, to compare their reports
//!
//! Do the models find errors? Each of these was put in, one at a time, and was found by the
//! random scheduler in the schedule of this number:
//!
//! | error | found by | in |
//! |---|---|---|
//! | `next_job` ends at a timeout without a look whether it is reserved | `thread_pool` | 9 |
//! | `next_job` ends at a timeout and stays in the list | `thread_pool` | 105 |
//! | `add_idle` reads `closed` under one lock and adds under another | `thread_pool` | 2 |
//! | `Slot::send` notifies before it sets the message | `thread_pool` | 1 |
//! | `ThreadPool::drop` does not set `closed` | `thread_pool` | 1 |
//! | a thread is idle before its job is done | `thread_pool` | 1 |
//! | `ReservedThread::drop` adds a thread that has a job | `thread_pool` | 31 |
//! | `Session::attach` does not test whether the session is closing | `sessions` | 2 |
//! | `Session::terminate` looks for the remote before it takes the lock | `sessions` | 6 |
//! | `CloseState::terminated` does not test whether the session is closing | `sessions` | 1 |
//! | the slot is dropped after the sockets | `sessions` | 3 |
//! | the token is dropped before the report | `sessions` | 2 |
//! | the semaphore tests and increments under two locks | `sessions` | 2 |
//! | `publish_and_recheck` does not look at the rules again | `sessions` | 54 |
//! | the enforcer does not wait for a check of the file that a session makes | `sessions` | 126 |
//! | `run` does not join `accept` | `whole_server` | 10 |
//! | `run` terminates all sessions before it joins `accept` | `whole_server` | 10 |
//! | a client that was dropped before its request goes on | `whole_server` | 47 |
//! | `abort` interrupts one end only | `sessions` | 1 |
//! | `abort` interrupts the ends before it sets the flag | `relay_directions` | 819 |
//! | `set` does not notify | `relay_directions` | 36 |
//! | after a failed write the direction does not count as writing | `relay_directions` | 237 |
//! | `write_all` never tests whether the relay is aborted | `relay_directions` | 1 |
//! | `was_aborted` does not wait | `relay_directions` | 1021 |
//! | `was_aborted` is always false | `relay_directions` | 5 |
//! | a broken pipe ends the relay at once | `relay_directions` | 1 |
//! | after a broken pipe the direction still counts as writing | `relay_directions` | 1 |
#![allow(
    dead_code,
    unreachable_code,
    unreachable_pub,
    unused_imports,
    reason = "the models use only a part of the source that they compile"
)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::diverging_sub_expression,
    clippy::duplicate_mod,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

// The source names its channels crossbeam_channel; here that is this crate.
extern crate self as crossbeam_channel;

#[path = "../../src/auth/mod.rs"]
mod auth;
#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/local_time.rs"]
mod local_time;
#[path = "../../src/logger/mod.rs"]
mod logger;
#[path = "../../src/metrics/mod.rs"]
mod metrics;
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "../../src/net/mod.rs"]
mod real_net;
#[path = "../../src/relay/mod.rs"]
mod real_relay;
#[path = "../../src/request_error.rs"]
mod request_error;
#[path = "../../src/rules/mod.rs"]
mod rules;
#[path = "../../src/server/mod.rs"]
mod server;
#[path = "../../src/source_prefix.rs"]
mod source_prefix;
#[path = "../../src/systemd.rs"]
mod systemd;
#[path = "../../src/trace/mod.rs"]
mod trace;
#[path = "../../src/words.rs"]
mod words;

mod channel;
mod control;
mod judge_words;
mod net;
#[path = "polled_relay.rs"]
mod relay;
mod report;
mod source_names;
mod steps;
mod sync;

mod relay_directions;
mod sessions;
mod thread_pool;
mod whole_server;

use std::env;
use std::process::{self, Child, Command};
use std::time::Instant;

use channel::{Receiver, RecvTimeoutError, Sender, after, bounded, never, select, tick, unbounded};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use steps::Recorded;

/// A model, and how many schedules of it each of the two schedulers tries.
type Model = (&'static str, usize, fn());

macro_rules! model {
    ($schedules:literal, $model:path) => {
        (stringify!($model), $schedules, $model)
    };
}

const MODELS: &[Model] = &[
    model!(500, thread_pool::every_job_runs_once),
    model!(500, thread_pool::a_job_waits_for_another),
    model!(500, thread_pool::a_reserved_thread_outlives_the_pool),
    model!(500, sessions::a_termination_misses_no_remote),
    model!(500, sessions::a_termination_wakes_the_waiting_thread),
    model!(500, sessions::a_slot_is_free_before_the_sockets_close),
    model!(500, sessions::the_last_slot_is_given_once),
    model!(500, sessions::the_wait_group_ends_after_all_reports),
    model!(500, sessions::no_session_outlives_its_permit),
    model!(3000, relay_directions::no_fin_is_invented),
    model!(4000, relay_directions::an_error_ends_both_directions),
    model!(3000, relay_directions::a_termination_sends_no_fin),
    model!(300, relay_directions::the_last_data_are_delivered),
    model!(600, whole_server::it_stops),
    model!(600, whole_server::it_stops_with_timeouts),
];

/// Models that fail on purpose. They run only by their full names.
const FAILING_MODELS: &[Model] = &[
    model!(100, judge_words::opposite_orders),
    model!(100, judge_words::a_lost_notification),
    model!(100, judge_words::a_test_before_the_lock),
    model!(1, judge_words::a_flag_that_is_never_set),
];

/// `cargo test` tries the same schedules every time.
const SEED: u64 = 1080;

/// The PCT scheduler changes the priorities of threads at most this many times, less one. Few
/// errors need more changes.
const DEPTH: usize = 4;

/// A schedule with more steps than this hangs.
const MAX_STEPS: usize = 200_000;

fn main() {
    let arguments = env::args().skip(1);
    let filters: Vec<String> = arguments.filter(|it| !it.starts_with('-')).collect();
    let rounds = env::var("MODEL_ROUNDS").map_or(1, |it| it.parse().expect("a number"));
    for model in FAILING_MODELS {
        if filters.iter().any(|filter| filter == model.0) {
            run(model, 1);
        }
    }
    let is_chosen = |name: &str| filters.iter().any(|filter| name.contains(filter.as_str()));
    if filters.is_empty() || is_chosen("judge_words") {
        judge_words::check(FAILING_MODELS.iter().map(|(name, ..)| *name));
    }
    if filters.is_empty() {
        run_modules();
    }
    for model in MODELS.iter().filter(|(name, ..)| is_chosen(name)) {
        run(model, rounds);
    }
}

/// Runs the models of each module in a process of their own, all at the same time: a model uses
/// one processor.
fn run_modules() {
    let program = env::current_exe().expect("this program");
    let names = MODELS.iter().filter_map(|(name, ..)| name.split_once("::"));
    let mut modules: Vec<String> = names.map(|(module, _)| format!("{module}::")).collect();
    modules.dedup();
    let start = |module: String| Command::new(&program).arg(module).spawn();
    let running: Vec<_> = modules.into_iter().map(start).collect();
    let has_passed = |child: std::io::Result<Child>| {
        let status = child.and_then(|mut child| child.wait());
        status.expect("the models run").success()
    };
    // Waits for all, so that each failure is printed before this process ends.
    let passed: Vec<bool> = running.into_iter().map(has_passed).collect();
    if passed.contains(&false) {
        process::exit(1);
    }
}

/// Runs a model under both schedulers.
fn run((name, schedules, model): &Model, rounds: usize) {
    let began = Instant::now();
    let count = schedules * rounds;
    let random = RandomScheduler::new_from_seed(SEED, count);
    check(name, "random", random, *model);
    let pct = PctScheduler::new_from_seed(SEED, DEPTH, count);
    check(name, "PCT", pct, *model);
    println!("{name}: 2 x {count} schedules, {:.1?}", began.elapsed());
}

/// Runs a model under a scheduler. If it fails, prints a report and ends the process.
fn check(name: &'static str, by: &'static str, scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = Config::new();
    // The seed is enough; the steps of one execution would fill screens.
    config.failure_persistence = FailurePersistence::None;
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.silence_warnings = true;
    report::begin_model(name, by);
    Runner::new(Recorded(scheduler), config).run(move || {
        report::report_panics();
        model();
    });
    report::check_names();
}
