//! A record of the last steps of the current schedule, and of what each thread waits for.
//!
//! The primitives of the models note here what they do. A note takes no step of the
//! scheduler, so the schedules are the same with it and without it. A note is made after
//! the effect of the step, with no switch of threads between the two. So the order of the
//! notes is the order of the effects.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::{self, Location};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// A place in the source, where a thread does a step or creates an object.
pub(crate) type Place = &'static Location<'static>;

/// A lock, a condition variable, an atomic, a channel or a socket: an index into
/// [`Record::objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    index: u32,
    /// A part of what a model has in place of a socket. Its steps are not noted.
    pub(crate) is_hidden: bool,
}

impl Object {
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }
}

/// Where the name of a thread or an object comes from. The report looks it up in the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// The field or variable that is set there; of a tuple, the part with this index. The
    /// type is named as well.
    Field(Place, usize),
    /// The variable that is set there.
    Variable(Place, usize),
    Name(Cow<'static, str>),
}

/// What an atomic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Number(u64),
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(value) => value.fmt(out),
            Value::Number(value) => value.fmt(out),
        }
    }
}

/// What a thread does in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Lock(Object),
    Unlock(Object),
    /// A lock and the unlock that follows, if no other thread has done a step between them.
    LockAndUnlock(Object),
    /// Another thread, with this index, holds the lock.
    WaitForLock(Object, usize),
    /// `try_lock` fails.
    FindLocked(Object),
    /// Unlocks the second object and waits on the first one.
    Wait(Object, Object),
    /// Wakes up from the first object and locks the second one again.
    Wake(Object, Object),
    TimeOut(Object),
    /// Notifies so many threads, and this one if it is one.
    Notify(Object, usize, Option<usize>),
    Load(Object, Value),
    Store(Object, Value),
    Add(Object, Value),
    /// Sets it from the first value to the second one.
    Swap(Object, Value, Value),
    /// Whether the cell has a value.
    Look(Object, bool),
    Fill(Object),
    Send(Object),
    Receive(Object),
    FindDisconnected(Object),
    /// This many senders are left.
    DropSender(Object, usize),
    Start(usize),
    NoThread,
    /// The thread has a new name.
    Rename,
    End,
    Join(usize),
    Read(Object, usize),
    ReadError(Object, std::io::ErrorKind),
    Write(Object, usize),
    WriteError(Object, std::io::ErrorKind),
    /// Does this to a socket.
    OnSocket(&'static str, Object),
    /// Does this.
    Other(&'static str),
}

/// What a thread is doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is started, and has not run yet.
    New,
    Runs,
    /// It takes this lock, or waits for it.
    Locks(Object, Place),
    /// It is about to wait on the first object with the second one locked. No notification
    /// reaches it before it waits.
    BeginsToWait(Object, Object, Place),
    /// It waits on the first object, and then locks the second one again.
    Waits(Object, Object, Place),
    /// It waits, and another thread was notified, or this one.
    MayWake(Object, Object, Place),
    Joins(usize, Place),
    /// It looks again and again for this.
    Polls(Awaited, Place),
    Ended,
    Panicked,
}

/// What a thread waits for that polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Message(Object),
    Bytes(Object),
    Room(Object),
    Until(&'static str),
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) thread: usize,
    /// An index into the names of the thread: its name at that time.
    pub(crate) name: usize,
    pub(crate) event: Event,
    pub(crate) place: Option<Place>,
    pub(crate) times: usize,
}

#[derive(Debug)]
pub(crate) struct Thread {
    /// All its names, in order: a thread of the pool has one for each job.
    pub(crate) names: Vec<Origin>,
    pub(crate) state: State,
    /// Its last step: an index into [`Record::steps`].
    pub(crate) last: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct ObjectInfo {
    pub(crate) origin: Origin,
    /// The thread that holds the lock.
    pub(crate) holder: Option<usize>,
    /// The step that notified the condition variable last: an index into [`Record::steps`].
    pub(crate) notified: Option<usize>,
}

/// The current schedule.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Of the scheduler's random numbers.
    pub(crate) seed: u64,
    /// The number of the schedule, from 1.
    pub(crate) schedule: usize,
    pub(crate) objects: Vec<ObjectInfo>,
    /// In the order of their start, which is shuttle's number of the task.
    pub(crate) threads: Vec<Thread>,
    /// All steps, the first one first.
    pub(crate) steps: Vec<Step>,
    /// The object of which those that are created now are hidden parts.
    whole: Option<Object>,
    /// Sockets by the number of their inode, which is not used again soon.
    sockets: HashMap<u64, Object>,
}

thread_local! {
    // All threads of a model run on the same thread of the system.
    static RECORD: RefCell<Record> = RefCell::default();
    /// The thread that runs.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whether a thread may be about to wait. The scheduler looks at the record only then.
    static BEGINS_TO_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Gives access to the record, for the report.
pub(crate) fn with<T>(body: impl FnOnce(&mut Record) -> T) -> T {
    RECORD.with_borrow_mut(body)
}

/// The number of the current schedule of its model.
pub(crate) fn schedule() -> usize {
    with(|record| record.schedule)
}

/// A new model begins: its schedules count from 1.
pub(crate) fn begin_model() {
    RECORD.take();
}

/// A scheduler that empties the record when a schedule begins, and that sees which thread
/// has come to wait on a condition variable.
#[derive(Debug)]
pub(crate) struct Recorded<S>(pub(crate) S);

impl<S: Scheduler> Scheduler for Recorded<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let schedule = self.0.new_execution()?;
        with(|record| record.begin_schedule(schedule.seed));
        CURRENT.set(Some(0));
        Some(schedule)
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if BEGINS_TO_WAIT.get()
            && let Some(current) = current
            && !runnable.iter().any(|task| task.id() == current)
        {
            with(|record| record.waits_now(current.into()));
        }
        let next = self.0.next_task(runnable, current, is_yielding);
        CURRENT.set(next.map(usize::from));
        next
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

impl Record {
    /// Empties the record. Its memory is used again.
    fn begin_schedule(&mut self, seed: u64) {
        self.seed = seed;
        self.schedule += 1;
        self.objects.clear();
        self.threads.clear();
        self.steps.clear();
        self.sockets.clear();
        self.add_thread(0, Origin::Name("main".into()), State::Runs);
    }

    fn state(&self, thread: usize) -> Option<State> {
        self.threads.get(thread).map(|it| it.state)
    }

    fn add_thread(&mut self, task: usize, name: Origin, state: State) {
        // The numbers of tasks are consecutive; each thread is noted before the next starts.
        assert_eq!(task, self.threads.len(), "a thread was not noted");
        self.threads.push(Thread {
            names: vec![name],
            state,
            last: None,
        });
    }

    fn add_object(&mut self, origin: Origin) -> Object {
        if let Some(whole) = self.whole {
            return Object {
                is_hidden: true,
                ..whole
            };
        }
        self.objects.push(ObjectInfo {
            origin,
            holder: None,
            notified: None,
        });
        Object {
            index: self.objects.len() as u32 - 1,
            is_hidden: false,
        }
    }

    /// The object; `None` if it was created before the schedule.
    pub(crate) fn object(&self, object: Object) -> Option<&ObjectInfo> {
        self.objects.get(object.index())
    }

    fn set_holder(&mut self, object: Object, holder: Option<usize>) {
        if let Some(info) = self.objects.get_mut(object.index()) {
            info.holder = holder;
        }
    }

    pub(crate) fn holder(&self, object: Object) -> Option<usize> {
        self.object(object).and_then(|it| it.holder)
    }

    /// Adds a step, after which the thread runs.
    fn add(&mut self, thread: usize, event: Event, place: Option<Place>) {
        let Some(info) = self.threads.get_mut(thread) else {
            return;
        };
        if info.state != State::Ended {
            info.state = State::Runs;
        }
        let step = Step {
            thread,
            name: info.names.len() - 1,
            event,
            place,
            times: 1,
        };
        match self.steps.last() {
            Some(last) if last.thread == thread => self.merge(step),
            _ => self.steps.push(step),
        }
        self.threads[thread].last = Some(self.steps.len() - 1);
    }

    /// Adds a step of the thread that has done the last step as well. An unlock becomes one
    /// step with its lock, and a step that is repeated is counted.
    fn merge(&mut self, mut step: Step) {
        if let (Event::Unlock(object), Some(last)) = (step.event, self.steps.last())
            && (last.event, last.times) == (Event::Lock(object), 1)
        {
            step.event = Event::LockAndUnlock(object);
            step.place = last.place;
            self.steps.pop();
        }
        let is_repeated = |last: &Step| {
            (last.thread, last.name, last.event, last.place)
                == (step.thread, step.name, step.event, step.place)
        };
        match self.steps.last_mut() {
            Some(last) if is_repeated(last) => last.times += 1,
            _ => self.steps.push(step),
        }
    }

    /// The thread has unlocked its lock and waits.
    fn waits_now(&mut self, thread: usize) {
        if let Some(State::BeginsToWait(condvar, lock, place)) = self.state(thread) {
            let begins = |it: &Thread| matches!(it.state, State::BeginsToWait(..));
            BEGINS_TO_WAIT.set(self.threads.iter().filter(|it| begins(it)).count() > 1);
            self.set_holder(lock, None);
            if !condvar.is_hidden {
                self.add(thread, Event::Wait(condvar, lock), Some(place));
            }
            self.threads[thread].state = State::Waits(condvar, lock, place);
        }
    }

    /// Can only another thread let this one continue? `false` if that is not sure.
    fn is_blocked(&self, thread: &Thread) -> bool {
        match thread.state {
            // If no other thread can run, this one goes on to wait.
            State::Ended | State::Waits(..) | State::BeginsToWait(..) => true,
            State::Locks(lock, _) => self.holder(lock).is_some_and(|holder| {
                let unlocks = |of| matches!(of, State::BeginsToWait(_, it, _) if it == lock);
                !self.state(holder).is_some_and(unlocks)
            }),
            State::Joins(other, _) => self.state(other) != Some(State::Ended),
            State::New | State::Runs | State::MayWake(..) | State::Polls(..) => false,
            State::Panicked => false,
        }
    }

    /// Does the main thread wait, and with it all threads, and none for one that polls?
    fn is_deadlock(&self) -> bool {
        self.state(0) != Some(State::Ended) && self.threads.iter().all(|it| self.is_blocked(it))
    }
}

/// The thread that runs; `None` before the first schedule.
pub(crate) fn me() -> Option<usize> {
    CURRENT.get()
}

/// Notes a step of the current thread.
pub(crate) fn note(event: Event, place: Option<Place>) {
    let Some(me) = me() else { return };
    with(|record| record.add(me, event, place));
}

/// The current thread has locked this.
pub(crate) fn lock(lock: Object, place: Place) {
    if lock.is_hidden {
        return;
    }
    let Some(me) = me() else { return };
    with(|record| {
        record.set_holder(lock, Some(me));
        record.add(me, Event::Lock(lock), Some(place));
    });
}

/// The current thread has unlocked this.
pub(crate) fn unlock(lock: Object) {
    if lock.is_hidden {
        return;
    }
    let Some(me) = me() else { return };
    with(|record| {
        record.set_holder(lock, None);
        record.add(me, Event::Unlock(lock), None);
    });
}

/// Notes what the current thread looks for, again and again, until its next step.
pub(crate) fn polls(place: Place, awaited: impl FnOnce() -> Awaited) {
    let Some(me) = me() else { return };
    let is_known =
        with(|record| matches!(record.state(me), Some(State::Polls(_, known)) if known == place));
    if !is_known {
        set_state(State::Polls(awaited(), place));
    }
}

fn set_state(state: State) {
    let Some(me) = me() else { return };
    with(|record| {
        if let Some(thread) = record.threads.get_mut(me) {
            thread.state = state;
        }
    });
}

/// A new object, which is set at this place.
pub(crate) fn object(place: Place, part: usize) -> Object {
    with(|record| record.add_object(Origin::Field(place, part)))
}

/// The objects that `body` creates are parts of this object, and their steps are not noted.
pub(crate) fn hide_parts<T>(of: Object, body: impl FnOnce() -> T) -> T {
    with(|record| record.whole = Some(of));
    let result = body();
    with(|record| record.whole = None);
    result
}

/// A new object with this name.
pub(crate) fn named(name: &'static str) -> Object {
    with(|record| record.add_object(Origin::Name(name.into())))
}

/// The current thread is about to lock this.
pub(crate) fn begin_lock(lock: Object, place: Place) {
    if lock.is_hidden {
        return;
    }
    let Some(me) = me() else { return };
    let is_held = with(|record| {
        let holder = record.holder(lock);
        if let Some(holder) = holder {
            record.add(me, Event::WaitForLock(lock, holder), Some(place));
        }
        if let Some(thread) = record.threads.get_mut(me) {
            thread.state = State::Locks(lock, place);
        }
        holder.is_some()
    });
    if is_held {
        report_deadlock();
    }
}

/// The current thread is about to unlock the lock and to wait on the condition variable.
pub(crate) fn begin_wait(condvar: Object, lock: Object, place: Place) {
    set_state(State::BeginsToWait(condvar, lock, place));
    BEGINS_TO_WAIT.set(true);
    report_deadlock();
}

/// The current thread has waited, and has locked the lock again.
pub(crate) fn end_wait(condvar: Object, lock: Object, place: Place) {
    let Some(me) = me() else { return };
    with(|record| match condvar.is_hidden {
        true => record.threads[me].state = State::Runs,
        false => {
            record.set_holder(lock, Some(me));
            record.add(me, Event::Wake(condvar, lock), Some(place));
        }
    });
}

/// The current thread has notified one thread or all threads that wait.
pub(crate) fn notify(condvar: Object, all: bool, place: Place) {
    let Some(me) = me() else { return };
    with(|record| {
        let mut waiting = Vec::new();
        for (index, thread) in record.threads.iter().enumerate() {
            if let State::Waits(on, ..) | State::MayWake(on, ..) = thread.state
                && on == condvar
            {
                waiting.push(index);
            }
        }
        let count = match all {
            true => waiting.len(),
            false => waiting.len().min(1),
        };
        let is_sure = waiting.len() == count;
        let only = (is_sure && count == 1).then(|| waiting[0]);
        for index in waiting {
            let state = &mut record.threads[index].state;
            if let State::Waits(_, lock, place) | State::MayWake(_, lock, place) = *state {
                *state = match is_sure {
                    true if lock.is_hidden => State::Runs,
                    true => State::Locks(lock, place),
                    false => State::MayWake(condvar, lock, place),
                };
            }
        }
        if condvar.is_hidden {
            return;
        }
        record.add(me, Event::Notify(condvar, count, only), Some(place));
        let last = record.steps.len().checked_sub(1);
        if let Some(info) = record.objects.get_mut(condvar.index()) {
            info.notified = last;
        }
    });
}

/// The current thread has started a thread, which has not run yet.
pub(crate) fn start(task: usize, name: Origin, place: Place) {
    let Some(me) = me() else { return };
    with(|record| {
        record.add_thread(task, name, State::New);
        record.add(me, Event::Start(task), Some(place));
    });
}

/// The current thread begins.
pub(crate) fn begin() {
    set_state(State::Runs);
}

/// The current thread has another name from now on.
pub(crate) fn rename(name: String) {
    let Some(me) = me() else { return };
    with(|record| {
        let name = Origin::Name(name.into());
        if record.threads[me].names.last() != Some(&name) {
            // The step is the last one under the old name.
            record.add(me, Event::Rename, None);
            record.threads[me].names.push(name);
        }
    });
}

/// The current thread ends. If it still drops a result after that, it may let another
/// thread continue.
pub(crate) fn end(drops_a_result: bool) {
    note(Event::End, None);
    set_state(State::Ended);
    if !drops_a_result {
        report_deadlock();
    }
}

/// The current thread is about to wait for the end of this one.
pub(crate) fn begin_join(thread: usize, place: Place) {
    set_state(State::Joins(thread, place));
    report_deadlock();
}

/// What a thread panics with if it is the last one to wait.
#[derive(Debug)]
pub(crate) struct Deadlock;

fn report_deadlock() {
    let is_deadlock = with(|record| {
        let is_deadlock = record.is_deadlock();
        for thread in 0..record.threads.len() {
            if is_deadlock {
                record.waits_now(thread);
            }
        }
        is_deadlock
    });
    if is_deadlock {
        panic::panic_any(Deadlock);
    }
}

/// This thread has panicked.
pub(crate) fn panicked(thread: usize) {
    with(|record| record.threads[thread].state = State::Panicked);
}

/// Names the socket with this inode by the variable that is set at this place.
pub(crate) fn name_socket(inode: u64, origin: Origin) {
    with(|record| {
        let object = record.add_object(origin);
        record.sockets.insert(inode, object);
    });
}

/// The socket with this inode. The program has accepted it if it has no name yet.
pub(crate) fn socket(inode: u64) -> Object {
    with(|record| match record.sockets.get(&inode) {
        Some(object) => *object,
        None => {
            let object = record.add_object(Origin::Name("connection".into()));
            record.sockets.insert(inode, object);
            object
        }
    })
}
