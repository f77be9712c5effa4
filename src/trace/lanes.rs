//! The bars of each row as they are drawn: bars that are too narrow become one.

use std::borrow::Cow;

use super::event::WaitKind;
use super::scale::Scale;
use super::timeline::{Bar, Row, length};

/// Bars of all rows. If there are more, wider bars are merged as well.
const MAX_BARS: usize = 20_000;

/// Bars that are narrower are merged with narrow ones beside them: in pixels.
const MIN_WIDTH: f64 = 1.0;

/// A bar, or several in one.
#[derive(Debug)]
pub(super) struct Drawn<'a> {
    pub(super) x: f64,
    pub(super) width: f64,
    /// `None` for a job. Of several bars, that of the first.
    pub(super) kind: Option<WaitKind>,
    pub(super) words: Cow<'a, str>,
    /// The words, and how long it lasts.
    pub(super) title: String,
}

/// The bars of these rows, each row in the order jobs, waits.
pub(super) fn draw_all<'a>(rows: &'a [Row], scale: &Scale) -> Vec<Vec<Drawn<'a>>> {
    let mut min_width = MIN_WIDTH;
    loop {
        let draw_row = |row: &'a Row| {
            let mut drawn = draw(&row.jobs, scale, min_width);
            drawn.extend(draw(&row.waits, scale, min_width));
            drawn
        };
        let all: Vec<Vec<Drawn<'_>>> = rows.iter().map(draw_row).collect();
        // Ends: at some width, a lane is one bar.
        if all.iter().map(Vec::len).sum::<usize>() <= MAX_BARS {
            return all;
        }
        min_width *= 2.0;
    }
}

fn draw<'a>(bars: &'a [Bar], scale: &Scale, min_width: f64) -> Vec<Drawn<'a>> {
    let mut drawn = Vec::new();
    let mut narrow: Vec<&Bar> = Vec::new();
    for bar in bars {
        let (x, end) = (scale.x(bar.began), scale.x(bar.ended));
        let is_narrow = end - x < min_width;
        let is_beside = narrow
            .last()
            .is_some_and(|last| x - scale.x(last.ended) < min_width);
        if !(is_narrow && is_beside) {
            drawn.extend(merge(&narrow, scale));
            narrow.clear();
        }
        match is_narrow {
            true => narrow.push(bar),
            false => drawn.push(Drawn {
                x,
                width: end - x,
                kind: bar.kind,
                words: Cow::Borrowed(&bar.words),
                title: title(bar),
            }),
        }
    }
    drawn.extend(merge(&narrow, scale));
    drawn
}

/// One bar for all of these.
fn merge<'a>(bars: &[&'a Bar], scale: &Scale) -> Option<Drawn<'a>> {
    let (first, last) = (*bars.first()?, *bars.last()?);
    let x = scale.x(first.began);
    let (words, title) = match bars.len() {
        1 => (Cow::Borrowed(&*first.words), title(first)),
        count => {
            let what = if first.kind.is_none() {
                "jobs"
            } else {
                "waits"
            };
            let words = format!("{count} {what}");
            let time = length(last.ended.saturating_sub(first.began));
            let title = format!("{words} in {time}; the first: {}", self::title(first));
            (words.into(), title)
        }
    };
    Some(Drawn {
        x,
        // A single moment is visible as well.
        width: (scale.x(last.ended) - x).max(MIN_WIDTH),
        kind: first.kind,
        words,
        title,
    })
}

fn title(bar: &Bar) -> String {
    let time = length(bar.ended.saturating_sub(bar.began));
    let until = if bar.has_ended {
        ""
    } else {
        ", until the trace ends"
    };
    format!("{}: {time}{until}", bar.words)
}
