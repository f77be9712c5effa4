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

/// A duration in words.
pub(super) fn length(nanos: u64) -> String {
    let nanos = nanos as f64;
    if nanos < 1e6 {
        format!("{:.0} \u{b5}s", nanos / 1e3)
    } else if nanos < 1e9 {
        format!("{:.1} ms", nanos / 1e6)
    } else {
        format!("{:.1} s", nanos / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::Wait;
    use crate::trace::{json, svg};
    use serde_json::Value;

    /// Markup, quotes, an escape, control characters of both ranges, and a noncharacter.
    const HOSTILE: &str = "</title><script>&\"'\\\n\u{1b}[31m\u{0}\u{7f}\u{85}\u{ffff}\u{202e}ü";

    fn at(thread: u32, at: u64, what: What) -> Event {
        Event { thread, at, what }
    }

    /// A thread with this many jobs and waits, of which the last goes on.
    fn recorded(threads: u32, jobs: u64, name: &str, missing: u64) -> Recorded {
        let mut events = Vec::new();
        for thread in 0..threads {
            for job in 0..jobs {
                let began = job * 1_000_000;
                events.push(at(thread, began, What::JobBegin(name.into(), None)));
                let wait = Wait::Resolver(name.into());
                events.push(at(thread, began + 1, What::Wait(wait, began + 500_000)));
                let mark = Mark::Reject(name.to_owned());
                events.push(at(thread, began + 500_001, What::Mark(mark)));
                if job + 1 < jobs {
                    events.push(at(thread, began + 900_000, What::JobEnd));
                }
            }
        }
        Recorded {
            events,
            missing,
            end: jobs * 1_000_000,
        }
    }

    fn written(recorded: Recorded) -> (Value, String) {
        let timeline = Timeline::new(recorded);
        let (mut json, mut svg) = (Vec::new(), Vec::new());
        json::write(&timeline, &mut json).unwrap();
        svg::write(&timeline, &mut svg).unwrap();
        let json = serde_json::from_slice(&json).unwrap();
        (json, String::from_utf8(svg).unwrap())
    }

    #[test]
    fn o23_names_from_the_network_are_escaped() {
        let (json, svg) = written(recorded(1, 2, HOSTILE, 0));
        let events = json["traceEvents"].as_array().unwrap();
        let has = |name: &str| events.iter().any(|event| event["name"] == name);
        assert!(has(HOSTILE));
        assert!(has(&format!("waits for the resolver: {HOSTILE}")));
        assert!(has(&format!("reject: {HOSTILE}")));
        let escaped = "&lt;/title&gt;&lt;script&gt;&amp;&quot;'\\";
        assert!(svg.contains(&format!("waits for the resolver: {escaped}")));
        assert!(svg.contains(&format!("reject: {escaped}")));
        assert!(!svg.contains("<script"));
        let is_xml = |char: char| char == '\n' || !(char.is_control() || char == '\u{ffff}');
        assert!(svg.chars().all(is_xml));
    }

    #[test]
    fn o24_a_trace_that_is_not_complete_says_so_in_both_formats() {
        let (json, svg) = written(recorded(1, 2, "s1", 7));
        assert_eq!(json["otherData"]["missing_events"], 7);
        let note = "the trace is full after 7 events; 7 later events are missing";
        let events = json["traceEvents"].as_array().unwrap();
        assert!(events.iter().any(|event| event["name"] == note));
        assert!(svg.contains(note));
        let (json, svg) = written(recorded(1, 2, "s1", 0));
        assert_eq!(json["otherData"]["missing_events"], 0);
        assert!(!svg.contains("missing"));
    }

    #[test]
    fn o24_a_picture_has_a_bounded_number_of_rows_bars_and_marks() {
        let (_, svg) = written(recorded(103, 300, "s1", 0));
        assert!(svg.contains("3 more threads are not shown"));
        assert!(svg.contains("28000 more marks are not shown"));
        assert!(svg.matches("<rect").count() < 20_100);
        assert!(svg.matches("class=\"mark\"").count() < 2_100);
        // Bars without room of their own are one bar, which says how many they are.
        assert!(svg.contains(" jobs in ") && svg.contains(" waits in "));
    }

    #[test]
    fn o21_a_job_without_an_end_lasts_until_the_trace_ends() {
        let timeline = Timeline::new(recorded(1, 2, "s1", 0));
        let ends: Vec<(u64, bool)> = timeline.rows[0]
            .jobs
            .iter()
            .map(|job| (job.ended, job.has_ended))
            .collect();
        assert_eq!(ends, [(900_000, true), (2_000_000, false)]);
    }
}
