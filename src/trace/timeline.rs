//! The events of a trace, sorted by thread: what both formats show.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::event::{Event, Mark, WaitKind, What, describe_number};
use super::recorder::{CAPACITY, Recorded, unpack};

/// Everything that a trace shows. Times are nanoseconds since its start.
#[derive(Debug)]
pub(super) struct Timeline {
    /// One per thread, in the order of their first events.
    pub(super) rows: Vec<Row>,
    pub(super) arrows: Vec<Arrow>,
    /// The number of sessions from each of these moments on.
    pub(super) sessions: Vec<(u64, i64)>,
    pub(super) end: u64,
    /// How many events there are, and how many are missing.
    pub(super) events: usize,
    pub(super) missing: u64,
}

/// One thread.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) jobs: Vec<Bar>,
    pub(super) waits: Vec<Bar>,
    pub(super) marks: Vec<(u64, Mark)>,
}

/// A job or a wait.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) began: u64,
    pub(super) ended: u64,
    /// False if it goes on when the trace ends.
    pub(super) has_ended: bool,
    pub(super) words: Cow<'static, str>,
    /// `None` for a job.
    pub(super) kind: Option<WaitKind>,
    /// Was it started by another thread?
    pub(super) is_handed_over: bool,
}

/// A job that one thread has started on another: row and time of both.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: (usize, u64),
    pub(super) to: (usize, u64),
    /// The job.
    pub(super) name: String,
}

/// The two ends of an arrow, as far as they were found.
#[derive(Debug, Default)]
struct Ends {
    from: Option<(u32, u64)>,
    to: Option<(u32, u64, String)>,
}

impl Row {
    /// The names that the thread had in `ps -T`, each once, in the order of its jobs.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for job in &self.jobs {
            if !names.contains(&&*job.words) {
                names.push(&job.words);
            }
            // Of a thread with thousands of jobs no reader sees all names.
            if names.len() == MAX_NAMES {
                break;
            }
        }
        if names.is_empty() {
            names.push("idle");
        }
        names
    }
}

/// Names of a row.
const MAX_NAMES: usize = 100;

impl Timeline {
    pub(super) fn new(recorded: Recorded) -> Timeline {
        let Recorded {
            events,
            missing,
            end,
        } = recorded;
        let count = events.len();
        let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
        let mut hand_overs: BTreeMap<u64, Ends> = BTreeMap::new();
        let mut sessions = Vec::new();
        let mut open = Vec::new();
        for Event { thread, at, what } in events {
            // An event can come between the last one and the look at the clock.
            let at = at.min(end);
            let row = rows.entry(thread).or_default();
            match what {
                What::Thread(wait) => open.push((thread, wait)),
                What::Wait(wait, ended) => {
                    let (kind, words) = wait.describe();
                    row.waits.push(Bar::wait(kind, words, at, ended.min(end)));
                }
                What::JobBegin(name, hand_over) => {
                    if let Some(number) = hand_over {
                        let ends = hand_overs.entry(number).or_default();
                        ends.to = Some((thread, at, name.to_string()));
                    }
                    row.jobs.push(Bar::job(name, at, end, hand_over.is_some()));
                }
                What::JobEnd => {
                    if let Some(job) = row.jobs.last_mut() {
                        (job.ended, job.has_ended) = (at, true);
                    }
                }
                What::HandOver(number) => {
                    hand_overs.entry(number).or_default().from = Some((thread, at));
                }
                What::Mark(mark) => row.marks.push((at, mark)),
                What::Sessions(difference) => sessions.push((at, difference)),
            }
        }
        for (thread, wait) in open {
            let row = rows.entry(thread).or_default();
            if let Some((began, number)) = unpack(&wait) {
                row.add_open_wait(began, number, end);
            }
        }
        Timeline {
            arrows: arrows(hand_overs, &rows),
            rows: rows.into_values().collect(),
            sessions: running_total(sessions),
            end,
            events: count,
            missing,
        }
    }

    /// That the trace is full, if it is.
    pub(super) fn overflow(&self) -> Option<String> {
        let Timeline {
            events, missing, ..
        } = self;
        (*missing > 0).then(|| overflow(*events, *missing))
    }
}

/// The words for a trace that is full.
pub(super) fn overflow(events: usize, missing: u64) -> String {
    let counted = match events {
        CAPACITY => "100,000".to_owned(),
        events => events.to_string(),
    };
    format!("the trace is full after {counted} events; {missing} later events are missing")
}

impl Bar {
    fn wait(kind: WaitKind, words: Cow<'static, str>, began: u64, ended: u64) -> Bar {
        Bar {
            began,
            ended,
            has_ended: true,
            words,
            kind: Some(kind),
            is_handed_over: false,
        }
    }

    fn job(name: Box<str>, began: u64, end: u64, is_handed_over: bool) -> Bar {
        Bar {
            began,
            ended: end,
            has_ended: false,
            words: name.into_string().into(),
            kind: None,
            is_handed_over,
        }
    }
}

impl Row {
    /// Adds the wait that goes on when the trace ends, unless its event is there already.
    fn add_open_wait(&mut self, began: u64, number: usize, end: u64) {
        let last = self.waits.last().map_or(0, |wait| wait.ended);
        if began < last || began >= end {
            return;
        }
        let (kind, words) = describe_number(number);
        self.waits.push(Bar {
            has_ended: false,
            ..Bar::wait(kind, words.into(), began, end)
        });
    }
}

/// The hand-overs with both ends; the job of another one has not begun.
fn arrows(hand_overs: BTreeMap<u64, Ends>, rows: &BTreeMap<u32, Row>) -> Vec<Arrow> {
    let places: HashMap<u32, usize> = rows.keys().copied().zip(0..).collect();
    let arrow = |ends: Ends| {
        let ((from, began), (to, arrived, name)) = ends.from.zip(ends.to)?;
        Some(Arrow {
            from: (*places.get(&from)?, began),
            to: (*places.get(&to)?, arrived),
            name,
        })
    };
    hand_overs.into_values().filter_map(arrow).collect()
}

/// From differences to numbers, in the order of time.
fn running_total(mut differences: Vec<(u64, i64)>) -> Vec<(u64, i64)> {
    differences.sort_by_key(|(at, _)| *at);
    let mut total = 0;
    let add = |(at, difference)| {
        total += difference;
        (at, total)
    };
    differences.into_iter().map(add).collect()
}
