//! The time axis: it leaves out long times in which nothing happens.

use super::timeline::{Row, Timeline, length};

/// Width of the picture in pixels.
pub(super) const WIDTH: f64 = 1200.0;
/// Where the time axis begins; before it are the names of the threads.
pub(super) const LEFT: f64 = 150.0;
/// Where it ends.
pub(super) const RIGHT: f64 = 1190.0;

/// Width of time that is left out.
const CUT_WIDTH: f64 = 52.0;

/// Times that are left out at most: more would take the room of the rest.
const MAX_CUTS: usize = 10;

/// While sessions exist, time is left out if it would take this part of the axis: how long a
/// session waits is what the picture shows.
const MAX_QUIET_PART: f64 = 0.25;

/// Pixels between two ticks at least.
const TICK_DISTANCE: f64 = 80.0;

/// A time in which nothing begins or ends.
#[derive(Clone, Copy, Debug)]
struct Gap {
    began: u64,
    ended: u64,
    /// Does a pool thread run a job meanwhile?
    is_busy: bool,
}

impl Gap {
    fn length(&self) -> u64 {
        self.ended - self.began
    }
}

/// From times to places.
#[derive(Debug)]
pub(super) struct Scale {
    end: u64,
    /// The gaps that are left out, in order.
    cuts: Vec<Gap>,
    /// Pixels of a nanosecond outside the gaps.
    per_nano: f64,
}

impl Scale {
    pub(super) fn new(timeline: &Timeline) -> Scale {
        let mut scale = Scale {
            end: timeline.end,
            cuts: Vec::new(),
            per_nano: 0.0,
        };
        scale.set_width();
        let mut gaps = gaps(timeline);
        // Quiet times first: without them a busy one takes a larger part.
        gaps.sort_by_key(|gap| (!gap.is_busy, gap.length()));
        while let Some(longest) = gaps.pop()
            && scale.cuts.len() < MAX_CUTS
        {
            let max = match longest.is_busy {
                true => (RIGHT - LEFT) * MAX_QUIET_PART,
                false => CUT_WIDTH,
            };
            if longest.length() as f64 * scale.per_nano > max {
                // The rest becomes wider, so the next gap may have to be left out, too.
                scale.cuts.push(longest);
                scale.set_width();
            }
        }
        scale.cuts.sort_by_key(|gap| gap.began);
        scale
    }

    /// Distributes the width among the time that is shown.
    fn set_width(&mut self) {
        let cut: u64 = self.cuts.iter().map(Gap::length).sum();
        let width = RIGHT - LEFT - CUT_WIDTH * self.cuts.len() as f64;
        self.per_nano = width / self.end.saturating_sub(cut).max(1) as f64;
    }

    /// The place of a time.
    pub(super) fn x(&self, at: u64) -> f64 {
        let mut x = LEFT;
        let mut from = 0;
        for gap in &self.cuts {
            if at <= gap.began {
                break;
            }
            x += (gap.began - from) as f64 * self.per_nano;
            if at < gap.ended {
                let part = (at - gap.began) as f64 / gap.length() as f64;
                return x + part * CUT_WIDTH;
            }
            x += CUT_WIDTH;
            from = gap.ended;
        }
        x + at.saturating_sub(from) as f64 * self.per_nano
    }

    /// Place, width and duration of each time that is left out.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (f64, f64, String)> {
        let cuts = self.cuts.iter();
        cuts.map(|gap| (self.x(gap.began), CUT_WIDTH, length(gap.length())))
    }

    /// The widest part of this bar that no cut covers: begin and end.
    pub(super) fn widest_part(&self, x: f64, width: f64) -> (f64, f64) {
        let mut widest = (x, x);
        let mut from = x;
        let ends = self.cuts.iter().map(|gap| self.x(gap.began));
        for cut in ends.chain([RIGHT]) {
            let to = cut.min(x + width);
            if to - from > widest.1 - widest.0 {
                widest = (from, to);
            }
            from = from.max(cut + CUT_WIDTH);
        }
        widest
    }

    /// The places of the ticks, and their times.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let step = tick_step(TICK_DISTANCE / self.per_nano);
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let mut at = 0;
        while at <= self.end {
            let gap = self
                .cuts
                .iter()
                .find(|gap| gap.began < at && at < gap.ended);
            if let Some(gap) = gap {
                at = gap.ended.div_ceil(step) * step;
                continue;
            }
            let x = self.x(at);
            // At both sides of a cut two ticks can be near each other.
            let has_room = ticks
                .last()
                .is_none_or(|(last, _)| x - last > TICK_DISTANCE * 0.7);
            if has_room && x <= RIGHT {
                ticks.push((x, tick_label(at, step, self.end)));
            }
            at += step;
        }
        ticks
    }
}

/// The times in which nothing begins or ends on a thread that runs a session, and in which no
/// thread has a mark.
fn gaps(timeline: &Timeline) -> Vec<Gap> {
    let jobs = |row: &Row| {
        let handed_over = row.jobs.iter().filter(|job| job.is_handed_over);
        let all: Vec<(u64, u64)> = handed_over.map(|job| (job.began, job.ended)).collect();
        all
    };
    // When a job begins (1) or ends (-1), or something happens in it or on any thread (0).
    let mut points: Vec<(u64, i32)> = vec![(0, 0), (timeline.end, 0)];
    for row in &timeline.rows {
        points.extend(row.marks.iter().map(|(at, _)| (*at, 0)));
        let jobs = jobs(row);
        points.extend(
            jobs.iter()
                .flat_map(|&(began, ended)| [(began, 1), (ended, -1)]),
        );
        let mut jobs = jobs.into_iter().peekable();
        // Both are in the order of time.
        for wait in &row.waits {
            while jobs.next_if(|(_, ended)| *ended <= wait.began).is_some() {}
            if jobs.peek().is_some_and(|(began, _)| *began <= wait.began) {
                points.extend([(wait.began, 0), (wait.ended, 0)]);
            }
        }
    }
    // A job that is started and does not run yet.
    let arrows = timeline.arrows.iter();
    points.extend(arrows.flat_map(|arrow| [(arrow.from.1, 1), (arrow.to.1, -1)]));
    points.sort_by_key(|(at, _)| *at);
    let mut running = 0;
    let mut gaps = Vec::new();
    for (&(began, change), &(ended, _)) in points.iter().zip(points.iter().skip(1)) {
        running += change;
        let is_busy = running > 0;
        gaps.push(Gap {
            began,
            ended,
            is_busy,
        });
    }
    gaps
}

/// The smallest of 1, 2, 5, 10, 20 ... microseconds that is at least this many nanoseconds.
fn tick_step(min: f64) -> u64 {
    let mut step = 1_000;
    loop {
        for factor in [1, 2, 5] {
            let candidate = step * factor;
            if candidate as f64 >= min || step > u64::MAX / 100 {
                return candidate;
            }
        }
        step *= 10;
    }
}

/// A time in the unit that suits the end, with the decimals that the step needs.
fn tick_label(at: u64, step: u64, end: u64) -> String {
    let (unit, name): (u64, _) = match end {
        0..10_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let mut decimals = 0;
    let mut smallest = unit;
    while smallest > step {
        smallest /= 10;
        decimals += 1;
    }
    format!("{:.decimals$} {name}", at as f64 / unit as f64)
}
