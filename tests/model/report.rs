//! The report of a failure, in words: which thread waits for what, and the last steps.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::HashMap;
use std::env;
use std::fmt::Write;
use std::panic::{self, Location, PanicHookInfo};
use std::process;
use std::sync::{Mutex, Once};

use shuttle::current;

use crate::source_names;
use crate::steps::{self, Awaited, Deadlock, Event, Object, Origin, Place, Record, State, Step};

/// The report shows the last 20 steps, a screen full. `MODEL_STEPS` changes the number.
const SHOWN: usize = 20;

/// The model that runs, and its scheduler.
static RUNNING: Mutex<(&str, &str)> = Mutex::new(("", ""));

/// Says which model runs from now on, under which scheduler.
pub(crate) fn begin_model(name: &'static str, scheduler: &'static str) {
    *RUNNING.lock().unwrap() = (name, scheduler);
    steps::begin_model();
}

/// Makes a panic print the report. Called in the first schedule: when that begins, shuttle
/// sets its own hook, once, which prints what only its developers can read.
pub(crate) fn report_panics() {
    static SET: Once = Once::new();
    SET.call_once(|| panic::set_hook(Box::new(|panic| fail(&sentence_of(panic)))));
}

const DEADLOCK: &str = "All threads wait: a deadlock.";

/// The sentence that says what has failed.
fn sentence_of(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    if payload.is::<Deadlock>() {
        return DEADLOCK.to_owned();
    }
    let message = match payload.downcast_ref::<String>() {
        Some(message) => message.as_str(),
        None => payload
            .downcast_ref::<&str>()
            .copied()
            .unwrap_or("no message"),
    };
    // Shuttle finds a deadlock as well, of threads of which the record is not sure.
    if message.starts_with("deadlock! blocked tasks") {
        return DEADLOCK.to_owned();
    }
    if let Some(rest) = message.strip_prefix("exceeded max_steps bound ") {
        let steps: usize = rest
            .split('.')
            .next()
            .map_or(0, |it| it.parse().unwrap_or(0));
        let (thousands, rest) = (steps / 1000, steps % 1000);
        return format!(
            "A thread waits for ever: no end after {thousands},{rest:03} steps of the scheduler."
        );
    }
    let thread = match current::try_get_current_task() {
        Some(task) => {
            steps::panicked(task.into());
            steps::with(|record| Words::new(record).thread(task.into()))
        }
        None => "The model checker".to_owned(),
    };
    let place = panic.location().map(place_in_words).unwrap_or_default();
    let message = message.trim_end().replace('\n', "\n  ");
    format!("{thread} panicked{place}:\n  {message}")
}

/// Prints the report and ends the process. With RUST_BACKTRACE=1, prints the stack of the
/// current thread as well.
fn fail(sentence: &str) -> ! {
    let (model, scheduler) = *RUNNING.lock().unwrap();
    let report = steps::with(|record| report(record, sentence, model, scheduler));
    eprint!("\n{report}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        eprintln!("\n{backtrace}");
    }
    // The stacks of the other threads are not unwound: that would run the model further.
    process::exit(101);
}

/// Panics if a thread or an object of the last schedule has no name in the source: then the
/// source is written in a way that `source_names` does not know.
pub(crate) fn check_names() {
    let unnamed = steps::with(|record| {
        let words = Words::new(record);
        let mut names = words.threads.iter().flatten().chain(&words.objects);
        names.find(|name| name.contains(".rs:")).cloned()
    });
    assert_eq!(unnamed, None, "what is created here has no name");
}

fn report(record: &Record, sentence: &str, model: &str, scheduler: &str) -> String {
    let words = Words::new(record);
    let mut out = format!("{model}: FAILED\n\n{sentence}\n\nThreads:\n");
    for (index, thread) in record.threads.iter().enumerate() {
        let state = words.state(index, thread.state);
        let _ = writeln!(out, "  {}: {state}", words.names(index));
    }
    let shown = env::var("MODEL_STEPS").map_or(SHOWN, |it| it.parse().expect("a number"));
    let first = record.steps.len().saturating_sub(shown);
    let earlier: Vec<usize> = earlier_steps(record).filter(|it| *it < first).collect();
    if !earlier.is_empty() {
        let _ = writeln!(out, "\nEarlier steps, with which a wait began:");
        words.list(&mut out, earlier);
    }
    let total = record.steps.len();
    let _ = match first {
        0 => writeln!(out, "\nAll {total} steps:"),
        _ => writeln!(
            out,
            "\nLast {shown} of {total} steps; MODEL_STEPS=100 shows more:"
        ),
    };
    words.list(&mut out, first..total);
    let Record { schedule, seed, .. } = record;
    let _ = writeln!(
        out,
        "\nThis was schedule {schedule} of the {scheduler} scheduler. To repeat it:\n  {}",
        command(model, scheduler, *seed)
    );
    out
}

/// The steps with which threads began to wait on a condition variable, with the steps since
/// its last notification, if they are few, and two steps after it.
fn earlier_steps(record: &Record) -> impl Iterator<Item = usize> {
    let mut steps: Vec<usize> = Vec::new();
    for thread in &record.threads {
        if let (State::Waits(condvar, ..), Some(begin)) = (thread.state, thread.last) {
            let notified = record.object(condvar).and_then(|it| it.notified);
            let first = notified.filter(|it| (*it..begin).len() <= SHOWN / 2);
            steps.extend(first.unwrap_or(begin).min(begin)..begin + 3);
        }
    }
    steps.sort_unstable();
    steps.dedup();
    steps.into_iter()
}

/// The command that runs the schedule again. The seed of its random numbers is enough under
/// the random scheduler. PCT needs the schedules before it.
fn command(model: &str, scheduler: &str, seed: u64) -> String {
    let set = |name: &str| env::var(name).map_or(String::new(), |it| format!("{name}={it} "));
    let variables = match scheduler {
        "random" => format!("SHUTTLE_RANDOM_SEED={seed} "),
        _ => set("SHUTTLE_RANDOM_SEED") + &set("MODEL_ROUNDS"),
    };
    format!("{variables}cargo test --test model -- {model}")
}

fn place_in_words(place: &Location<'_>) -> String {
    format!(" ({}:{})", source_names::file(place), place.line())
}

/// The names of a record's threads and objects. Where several have the same name, they have
/// numbers as well.
struct Words<'a> {
    record: &'a Record,
    threads: Vec<Vec<String>>,
    objects: Vec<String>,
}

impl Words<'_> {
    fn new(record: &Record) -> Words<'_> {
        let mut found = HashMap::new();
        let mut name_of = |origin: &Origin| {
            let name = found.entry(origin.clone()).or_insert_with(|| match origin {
                Origin::Name(name) => name.to_string(),
                Origin::Field(place, part) => source_names::field(place, *part),
                Origin::Variable(place, part) => source_names::variable(place, *part),
            });
            name.clone()
        };
        let objects = record.objects.iter();
        let objects = objects.map(|it| name_of(&it.origin)).collect();
        let names = record.threads.iter().map(|it| it.names.iter());
        let threads = names
            .map(|names| names.map(&mut name_of).collect())
            .collect();
        Words {
            record,
            threads: number_threads(threads),
            objects: number(objects),
        }
    }

    /// The name of the thread now.
    fn thread(&self, thread: usize) -> String {
        self.threads[thread].last().cloned().unwrap_or_default()
    }

    /// The name of the thread now, and its former names.
    fn names(&self, thread: usize) -> String {
        let (now, former) = self.threads[thread].split_last().expect("a name");
        match former.split_last() {
            None => now.clone(),
            Some((last, _)) => format!("{now} (before: {last})"),
        }
    }

    fn object(&self, object: Object) -> &str {
        match self.record.object(object) {
            Some(_) => &self.objects[object.index()],
            None => "an object of the model",
        }
    }

    fn state(&self, thread: usize, state: State) -> String {
        let mut words = match state {
            State::New => "has not run yet".to_owned(),
            State::Runs => self.runs(thread),
            State::Panicked => "has panicked".to_owned(),
            State::Ended => "has ended".to_owned(),
            State::Locks(lock, place) => self.waits_for_lock(thread, lock) + &place_in_words(place),
            State::BeginsToWait(condvar, _, place) => {
                format!(
                    "is about to wait on {}{}",
                    self.object(condvar),
                    place_in_words(place)
                )
            }
            State::Waits(condvar, _, place) | State::MayWake(condvar, _, place) => {
                self.waits_on(thread, condvar, place)
            }
            State::Joins(other, place) => {
                format!(
                    "waits for the end of {}{}",
                    self.thread(other),
                    place_in_words(place)
                )
            }
            State::Polls(awaited, place) => {
                format!("waits {}{}", self.awaited(awaited), place_in_words(place))
            }
        };
        let held: Vec<&str> = self.held(thread).collect();
        if !held.is_empty() {
            let _ = write!(words, "; holds {}", held.join(" and "));
        }
        words
    }

    fn runs(&self, thread: usize) -> String {
        let last = self.record.threads[thread].last;
        match last.map(|it| (it + 1, self.record.steps[it].times)) {
            Some((number, times)) if times > 1 => format!("repeats step {number}"),
            _ => "runs".to_owned(),
        }
    }

    fn waits_on(&self, thread: usize, condvar: Object, place: Place) -> String {
        let (name, place) = (self.object(condvar), place_in_words(place));
        if condvar.is_hidden {
            return format!("waits for bytes from {name}{place}");
        }
        let began = self.record.threads[thread].last.unwrap_or_default() + 1;
        let notified = match self.record.object(condvar).and_then(|it| it.notified) {
            None => format!("No thread has notified {name}."),
            Some(step) => {
                let notifier = self.name_at(&self.record.steps[step]);
                format!(
                    "The last thread that notified {name} was {notifier}, in step {}.",
                    step + 1
                )
            }
        };
        format!("waits since step {began} to be notified on {name}{place}\n    {notified}")
    }

    fn waits_for_lock(&self, thread: usize, lock: Object) -> String {
        let name = self.object(lock);
        match self.record.holder(lock) {
            Some(holder) if holder == thread => {
                format!("waits for the lock {name}, which it holds itself")
            }
            Some(holder) => {
                format!(
                    "waits for the lock {name}, which {} holds",
                    self.thread(holder)
                )
            }
            None => format!("is about to lock {name}"),
        }
    }

    /// The locks that the thread holds.
    fn held(&self, thread: usize) -> impl Iterator<Item = &str> {
        let objects = self.record.objects.iter().zip(&self.objects);
        let held = objects.filter(move |(info, _)| info.holder == Some(thread));
        held.map(|(_, name)| name.as_str())
    }

    fn awaited(&self, awaited: Awaited) -> String {
        match awaited {
            Awaited::Message(channel) => format!("for a message of {}", self.object(channel)),
            Awaited::Bytes(socket) => format!("for bytes from {}", self.object(socket)),
            Awaited::Room(socket) => format!("for room to write to {}", self.object(socket)),
            Awaited::Until(what) => what.to_owned(),
        }
    }

    fn step(&self, step: &Step) -> String {
        let place = step.place.map(place_in_words).unwrap_or_default();
        let times = match step.times {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        format!("{} {}{times}{place}", self.name_at(step), self.event(step))
    }

    /// The name of the thread at the time of the step.
    fn name_at(&self, step: &Step) -> &str {
        &self.threads[step.thread][step.name]
    }

    /// Writes these steps, each with its number.
    fn list(&self, out: &mut String, steps: impl IntoIterator<Item = usize>) {
        for index in steps {
            let step = self.step(&self.record.steps[index]);
            let _ = writeln!(out, "{:>5}. {step}", index + 1);
        }
    }

    fn event(&self, step: &Step) -> String {
        let name = |object| self.object(object);
        match step.event {
            Event::Lock(it) => format!("locks {}", name(it)),
            Event::Unlock(it) => format!("unlocks {}", name(it)),
            Event::LockAndUnlock(it) => format!("locks and unlocks {}", name(it)),
            Event::WaitForLock(it, holder) if holder == step.thread => {
                format!("waits for the lock {}, which it holds itself", name(it))
            }
            Event::WaitForLock(it, holder) => {
                let holder = self.thread(holder);
                format!("waits for the lock {}, which {holder} holds", name(it))
            }
            Event::FindLocked(it) => format!("finds {} locked and does not wait", name(it)),
            Event::Wait(condvar, lock) => {
                format!("unlocks {} and waits on {}", name(lock), name(condvar))
            }
            Event::Wake(condvar, lock) => {
                format!(
                    "wakes up on {} and locks {} again",
                    name(condvar),
                    name(lock)
                )
            }
            Event::TimeOut(it) => format!("waits on {} until the timeout", name(it)),
            Event::Notify(it, 0, _) => format!("notifies {}, on which no thread waits", name(it)),
            Event::Notify(it, _, Some(woken)) => {
                format!("notifies {} and wakes {}", name(it), self.thread(woken))
            }
            Event::Notify(it, 1, None) => {
                format!(
                    "notifies {} and wakes one of the threads that wait on it",
                    name(it)
                )
            }
            Event::Notify(it, count, None) => {
                format!("notifies {} and wakes {count} threads", name(it))
            }
            Event::Load(it, value) => format!("reads {}: {value}", name(it)),
            Event::Store(it, value) => format!("sets {} to {value}", name(it)),
            Event::Add(it, value) => format!("adds {value} to {}", name(it)),
            Event::Swap(it, old, new) => format!("sets {} from {old} to {new}", name(it)),
            Event::Look(it, true) => format!("finds a value in {}", name(it)),
            Event::Look(it, false) => format!("finds {} empty", name(it)),
            Event::Fill(it) => format!("sets {}", name(it)),
            Event::Send(it) => format!("sends a message to {}", name(it)),
            Event::Receive(it) => format!("receives a message from {}", name(it)),
            Event::FindDisconnected(it) => format!("finds that {} has no sender", name(it)),
            Event::DropSender(it, 0) => format!("drops the last sender of {}", name(it)),
            Event::DropSender(it, left) => format!("drops a sender of {} ({left} left)", name(it)),
            Event::Start(thread) => format!("starts the thread {}", self.threads[thread][0]),
            Event::NoThread => "starts no thread: the system has none left".to_owned(),
            Event::Rename => {
                let new = &self.threads[step.thread][step.name + 1];
                format!("has the name {new} from now on")
            }
            Event::End => "ends".to_owned(),
            Event::Join(thread) => format!("has waited for the end of {}", self.thread(thread)),
            Event::Read(it, 0) => format!("reads EOF from {}", name(it)),
            Event::Read(it, count) => format!("reads {count} bytes from {}", name(it)),
            Event::ReadError(it, error) => format!("cannot read from {}: {error}", name(it)),
            Event::Write(it, count) => format!("writes {count} bytes to {}", name(it)),
            Event::WriteError(it, error) => format!("cannot write to {}: {error}", name(it)),
            Event::OnSocket(what, it) => format!("{what} {}", name(it)),
            Event::Other(what) => what.to_owned(),
        }
    }
}

/// Adds numbers to the names that several objects have.
fn number(names: Vec<String>) -> Vec<String> {
    let mut totals = HashMap::new();
    for name in &names {
        *totals.entry(name.clone()).or_insert(0) += 1;
    }
    let mut counts = HashMap::new();
    let numbered = names.into_iter().map(|name| {
        let count = counts.entry(name.clone()).or_insert(0);
        *count += 1;
        match totals[&name] {
            1 => name,
            _ => format!("{name} #{count}"),
        }
    });
    numbered.collect()
}

/// The same for threads. A thread that has the same name again has the same number.
fn number_threads(threads: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut holders: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, names) in threads.iter().enumerate() {
        for name in names {
            let holders = holders.entry(name.clone()).or_default();
            if !holders.contains(&index) {
                holders.push(index);
            }
        }
    }
    let numbered = threads.into_iter().enumerate().map(|(index, names)| {
        let number = |name: String| {
            let holders = &holders[&name];
            match holders.iter().position(|it| *it == index) {
                Some(place) if holders.len() > 1 => format!("{name} #{}", place + 1),
                _ => name,
            }
        };
        names.into_iter().map(number).collect()
    });
    numbered.collect()
}
