//! The server's threads under a model checker, which chooses who goes on.
//!
//! What is checked is the program's own text: the rooms of `src/` are compiled
//! here once more, but `sync` is made of shuttle's locks, flags and threads. All
//! threads of a model run in turn on one; at each lock, flag and channel a
//! scheduler decides who is next. So a test runs thousands of orders of events
//! that the system brings about once in a year, and the same ones every time.
//!
//! Other rooms are exchanged too where they wait for the system: `net` and
//! `relay` ask a socket again and again instead of sleeping on it, the channels
//! are ours, a name is found when the model says so, and a limit runs out when
//! chance says so, never by the clock.
//!
//! - [`pool`]: the threads that wait for a job
//! - [`sessions`]: the registry: slots, remotes, cuts
//! - [`pumps`]: two pumps between two ends that finish, reset and stall
//! - [`house`]: a whole server, with clients, from start to stop
//!
//! Without the test harness, since the unit tests in the rooms would run with
//! it, and their threads are none of the model's. `cargo test --test model --
//! house` runs what is called so, `MODEL_ROUNDS=100` tries a hundred times as many
//! schedules. Plain runs are always the same, so a failure comes again (in
//! `house` perhaps not: the system's sockets and hash maps have a say in it). What
//! fails under the random scheduler names the seed of that very schedule:
//! `SHUTTLE_RANDOM_SEED=1234` begins with it. "Exceeded max_steps" means that
//! somebody waits for ever.
//!
//! Does it find anything? These bugs were put in, one at a time, and each was
//! found in the schedule of this number, by the random scheduler unless it says so:
//!
//! | bug | found by | in |
//! |---|---|---|
//! | `next_job`: leaves after a time-out without looking who is reserved | `pool` | 9 |
//! | `next_job`: leaves, but stays in the list | `pool` | 105 |
//! | `enter`: looks at `closed` under one lock, sits down under another | `pool` | 2 |
//! | `Slot::call`: notifies before there is a call, or not at all | `pool` | 1 |
//! | `ThreadPool::drop` without `closed` | `pool` | 1 |
//! | a thread enters before its job is done | `pool` | 1 |
//! | `ReservedThread::drop`: free again although it has a job | `pool` | 31 |
//! | `Session::attach` without a look at the fate, or without its lock | `sessions` | 5 |
//! | `Session::cut` looks for the remote before it takes the lock | `sessions` | 2 |
//! | `Session::terminated` does not ask whether it is over | `sessions` | 3 |
//! | the slot is dropped after the sockets, `present` before them | `sessions` | 1 |
//! | `terminate_all` cuts with the registry locked | `sessions` | 8 |
//! | `SessionRegistry::slot` counts under one lock, sits down under another | `sessions` | 4 |
//! | `run`: stops listening before it says so | `house` | about 40 |
//! | `run`: does not wait for `accept` | `house` | about 60 |
//! | `run`: cuts all before `accept` has ended | `house` | 6 |
//! | `give_up`: the ends before the flag, or one end only | `pumps` | 1308, 7 |
//! | `copy`: `set_writing` after `is_over` | `pumps` | 1 |
//! | `copy`: not writing after a failed write (by PCT) | `pumps` | 191 |
//! | `write_all`: never looks up, or takes over for written | `pumps` | 2, 370 |
//! | `was_no_end`: does not wait | `pumps` | 56 |
//! | a broken pipe ends at once, or stays writing | `pumps` | 1 |
//! | a cut is an end although bytes are held | `pumps` | 1 |
//! | a cut amid a transfer is taken for one at rest | `pumps` | 34 |
#![allow(
    dead_code,
    unreachable_code,
    unreachable_pub,
    unused_imports,
    reason = "rooms of the program, of which the models use a part"
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

// What the rooms know by this name is in this crate.
extern crate self as crossbeam_channel;

#[path = "../../src/auth/mod.rs"]
mod auth;
#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/local_time.rs"]
mod local_time;
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "../../src/relay/mod.rs"]
mod pumping;
#[path = "../../src/rules/mod.rs"]
mod rules;
#[path = "../../src/server/mod.rs"]
mod server;
#[path = "../../src/net/mod.rs"]
mod sockets;

mod channel;
mod logger;
mod net;
mod relay;
mod sync;

mod house;
mod pool;
mod pumps;
mod sessions;

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use channel::{Receiver, Sender, after, bounded, never, select, tick, unbounded};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// A model, and how many schedules of it each of the two schedulers tries.
type Model = (&'static str, usize, fn());

macro_rules! model {
    ($schedules:literal, $model:path) => {
        (stringify!($model), $schedules, $model)
    };
}

const MODELS: &[Model] = &[
    model!(500, pool::every_job_is_done_once),
    model!(500, pool::a_job_waits_for_another),
    model!(500, pool::who_is_reserved_outlives_it),
    model!(500, sessions::a_cut_misses_no_remote),
    model!(500, sessions::who_waits_hears_of_the_cut),
    model!(500, sessions::the_seat_is_free_first),
    model!(500, sessions::one_to_a_seat),
    model!(500, sessions::the_last_to_leave_tells),
    model!(500, sessions::nobody_stays_without_a_permit),
    model!(3000, pumps::no_end_that_was_none),
    model!(4000, pumps::an_error_ends_both),
    model!(3000, pumps::a_cut_is_an_end_only_at_rest),
    model!(300, pumps::last_words_are_delivered),
    model!(600, house::it_stops),
    model!(600, house::whatever_runs_out),
];

/// Plain `cargo test` tries the same schedules every time.
const SEED: u64 = 1080;

/// How often PCT lets another thread go ahead at a moment of its choice, and
/// one more. Few bugs need more.
const DEPTH: usize = 4;

/// What takes more steps than this hangs.
const MOST_STEPS: usize = 200_000;

fn main() {
    let arguments = env::args().skip(1);
    let parts: Vec<String> = arguments.filter(|it| !it.starts_with('-')).collect();
    let rounds = env::var("MODEL_ROUNDS").map_or(1, |it| it.parse().expect("a number"));
    for (name, schedules, model) in MODELS {
        if !parts.is_empty() && !parts.iter().any(|part| name.contains(part)) {
            continue;
        }
        let began = Instant::now();
        let count = schedules * rounds;
        let random = RandomScheduler::new_from_seed(SEED, count);
        check(name, "random", random, *model);
        let pct = PctScheduler::new_from_seed(SEED, DEPTH, count);
        check(name, "PCT", pct, *model);
        println!("{name}: 2 x {count} schedules, {:.1?}", began.elapsed());
    }
}

/// Runs a model under a scheduler; ends in a panic if the model does.
fn check(name: &'static str, by: &'static str, scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = Config::new();
    // A seed says enough; the steps of one execution fill screens.
    config.failure_persistence = FailurePersistence::None;
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    SCHEDULE.store(0, Ordering::Relaxed);
    let _guard = TellOnPanic(name, by);
    Runner::new(scheduler, config).run(move || {
        SCHEDULE.fetch_add(1, Ordering::Relaxed);
        model();
    });
}

/// Which one is being tried, from 1.
static SCHEDULE: AtomicUsize = AtomicUsize::new(0);

/// Says what has failed, and how often it has not.
struct TellOnPanic(&'static str, &'static str);

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let TellOnPanic(name, by) = self;
            println!("{name}: FAILED under {by} in schedule {SCHEDULE:?}");
        }
    }
}
