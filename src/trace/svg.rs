//! A trace as a picture: a row per thread, time from left to right.
//!
//! Each row has a bar per job, below it a bar per wait, and below that the marks. The picture is
//! static and has no script; its colours follow the light or dark theme of the reader.

use std::io::{self, Write};

use super::event::{Mark, WaitKind};
use super::lanes::{Drawn, draw_all};
use super::scale::{LEFT, RIGHT, Scale, WIDTH};
use super::timeline::{Arrow, Row, Timeline};

/// Threads that are shown; of more, the first.
const MAX_ROWS: usize = 100;

/// Arrows, marks and steps of the number of sessions that are shown; of more, the first.
const MAX_SHAPES: usize = 2_000;

/// Width of a character of the font in pixels, rounded up: a text that fits by this number does.
const CHARACTER: f64 = 6.2;

/// Room before and after the words of a bar in pixels.
const PADDING: f64 = 2.0;

/// Vertical places, in pixels from the top of a row.
const JOB_TOP: f64 = 5.0;
const JOB_HEIGHT: f64 = 17.0;
const WAIT_TOP: f64 = 24.0;
const WAIT_HEIGHT: f64 = 15.0;
const MARK_TOP: f64 = 42.0;
const MARK_HEIGHT: f64 = 13.0;
const ROW_HEIGHT: f64 = 44.0;

/// The top of the first row: above it are the title, the legend and the axis.
const TOP: f64 = 78.0;

/// The height of the line that shows the number of sessions.
const SESSIONS_HEIGHT: f64 = 34.0;

/// Text has a contrast of at least 4.5 to its background. What a colour says, the height or the
/// border of a bar says too.
const STYLE: &str = "
  svg { background: #ffffff; font: 11px ui-sans-serif, system-ui, sans-serif; }
  text { fill: #1b1f24; }
  .title { font-size: 13px; font-weight: 600; }
  .name { font-weight: 600; }
  .axis { fill: #57606a; }
  .grid { stroke: #d8dee4; fill: none; }
  .job { fill: #1f5fa8; }
  .injob { fill: #ffffff; }
  .outside { fill: #cfe3f7; stroke: #ffffff; stroke-width: 0.8; }
  .thread { fill: #f0f2f5; stroke: #6e7781; stroke-dasharray: 4 2; }
  .lock { fill: #ffe2b8; stroke: #8a4b00; stroke-width: 2; }
  .clock { fill: #ffffff; stroke: #6e7781; stroke-dasharray: 1 3; }
  .arrow { stroke: #b3261e; fill: none; stroke-width: 1.2; }
  .head { fill: #b3261e; }
  .mark { fill: #6f2da8; }
  .sessions { stroke: #1f5fa8; fill: none; stroke-width: 1.5; }
  .cut { fill: #ffffff; fill-opacity: 0.75; }
  .edge { stroke: #57606a; stroke-dasharray: 2 3; fill: none; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; }
    .axis { fill: #9ea7b3; }
    .grid { stroke: #2d333b; }
    .job { fill: #79b8ff; }
    .injob { fill: #0a1c30; }
    .outside { fill: #1f3b57; stroke: #0d1117; }
    .thread { fill: #21262d; stroke: #8b949e; }
    .lock { fill: #5a3a0c; stroke: #f0b35a; }
    .clock { fill: #0d1117; stroke: #8b949e; }
    .arrow { stroke: #ff8a80; }
    .head { fill: #ff8a80; }
    .mark { fill: #d2a8ff; }
    .sessions { stroke: #79b8ff; }
    .cut { fill: #0d1117; }
    .edge { stroke: #9ea7b3; }
  }
";

/// Writes the picture.
///
/// # Errors
///
/// As write(2).
pub(super) fn write(timeline: &Timeline, out: &mut impl Write) -> io::Result<()> {
    let scale = Scale::new(timeline);
    let rows = timeline.rows.get(..MAX_ROWS).unwrap_or(&timeline.rows);
    let mut tops = Vec::new();
    let mut y = TOP;
    for row in rows {
        tops.push(y);
        y += ROW_HEIGHT
            + if row.marks.is_empty() {
                0.0
            } else {
                MARK_HEIGHT
            };
    }
    let picture = Picture {
        timeline,
        scale,
        rows,
        tops,
        bottom: y,
    };
    let notes = picture.notes();
    let height = picture.bottom + SESSIONS_HEIGHT + 14.0 + 16.0 * notes.len() as f64;
    picture.write_head(height, out)?;
    picture.write_axis(out)?;
    picture.write_rows(out)?;
    picture.write_sessions(out)?;
    picture.write_cuts(out)?;
    picture.write_arrows(out)?;
    picture.write_texts(out)?;
    for (note, line) in notes.iter().zip(1_u8..) {
        let y = picture.bottom + SESSIONS_HEIGHT + 16.0 * f64::from(line);
        let note = escape(note);
        writeln!(out, "<text x=\"8\" y=\"{y:.0}\">{note}</text>")?;
    }
    writeln!(out, "</svg>")
}

struct Picture<'a> {
    timeline: &'a Timeline,
    scale: Scale,
    rows: &'a [Row],
    /// The top of each row.
    tops: Vec<f64>,
    /// The bottom of the last row.
    bottom: f64,
}

impl Picture<'_> {
    /// What the picture does not show.
    fn notes(&self) -> Vec<String> {
        let timeline = self.timeline;
        let mut notes: Vec<String> = timeline.overflow().into_iter().collect();
        let marks: usize = self.rows.iter().map(|row| row.marks.len()).sum();
        for (count, max, about) in [
            (timeline.rows.len(), MAX_ROWS, "threads"),
            (timeline.arrows.len(), MAX_SHAPES, "arrows"),
            (marks, MAX_SHAPES, "marks"),
        ] {
            if count > max {
                let more = count - max;
                notes.push(format!("{more} more {about} are not shown"));
            }
        }
        notes
    }

    /// Writes the start of the file, the title and the legend.
    fn write_head(&self, height: f64, out: &mut impl Write) -> io::Result<()> {
        let threads = self.timeline.rows.len();
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"t d\">\n\
             <title id=\"t\">Threads of threadsocks</title>\n\
             <desc id=\"d\">{threads} threads, one row each, with the names that ps -T shows. \
             Upper bars are jobs, lower bars are waits, arrows lead from the thread that starts \
             a job to the thread that runs it. Each bar has its words and its duration as a \
             tooltip.</desc>\n\
             <style>{STYLE}</style>\n\
             <defs><marker id=\"head\" viewBox=\"0 0 6 6\" refX=\"5\" refY=\"3\" \
             markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\"><path class=\"head\" \
             d=\"M0 0L6 3L0 6z\"/></marker></defs>\n\
             <text class=\"title\" x=\"8\" y=\"18\">Threads of threadsocks</text>"
        )?;
        let mut x = 8.0;
        for (class, words) in [
            ("job", "job"),
            ("outside", "waits for something outside"),
            ("thread", "waits for another thread"),
            ("lock", "waits for a lock"),
            ("clock", "sleeps"),
        ] {
            let (y, height) = match class {
                "job" => (28.0, JOB_HEIGHT),
                _ => (29.0, WAIT_HEIGHT),
            };
            let text = x + 28.0;
            writeln!(
                out,
                "<rect class=\"{class}\" x=\"{x:.0}\" y=\"{y}\" width=\"22\" height=\"{height}\"/>\
                 <text x=\"{text:.0}\" y=\"41\">{words}</text>"
            )?;
            x = text + text_width(words) + 16.0;
        }
        writeln!(
            out,
            "<path class=\"arrow\" d=\"M{x:.0} 37h22\" marker-end=\"url(#head)\"/>\
             <text x=\"{:.0}\" y=\"41\">starts a job</text>",
            x + 28.0
        )?;
        x += 28.0 + text_width("starts a job") + 16.0;
        for (shape, words) in [
            (HALF_CLOSE, "half-close"),
            (CUT_OFF, "reset, terminate, reject"),
            (OTHER, "other mark"),
        ] {
            let text = x + 13.0;
            writeln!(
                out,
                "<path class=\"mark\" transform=\"translate({x:.0} 32)\" d=\"{shape}\"/>\
                 <text x=\"{text:.0}\" y=\"41\">{words}</text>"
            )?;
            x = text + text_width(words) + 14.0;
        }
        Ok(())
    }

    fn write_axis(&self, out: &mut impl Write) -> io::Result<()> {
        let bottom = self.bottom + SESSIONS_HEIGHT;
        for (x, label) in self.scale.ticks() {
            writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} 68V{bottom:.0}\"/>\
                 <text class=\"axis\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"64\">{label}</text>"
            )?;
        }
        Ok(())
    }

    /// Writes the bars and the lines between the rows. The texts follow later, above the arrows.
    fn write_rows(&self, out: &mut impl Write) -> io::Result<()> {
        for (&top, drawn) in self.tops.iter().zip(self.drawn()) {
            writeln!(out, "<path class=\"grid\" d=\"M0 {top:.0}H{WIDTH}\"/>")?;
            for bar in drawn {
                let (y, height) = place(top, &bar);
                let Drawn { x, width, .. } = bar;
                let (class, title) = (class(&bar), escape(&bar.title));
                writeln!(
                    out,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" \
                     height=\"{height}\"><title>{title}</title></rect>"
                )?;
            }
        }
        Ok(())
    }

    /// The bars of each row.
    fn drawn(&self) -> Vec<Vec<Drawn<'_>>> {
        draw_all(self.rows, &self.scale)
    }

    /// Writes the number of sessions as a line of steps.
    fn write_sessions(&self, out: &mut impl Write) -> io::Result<()> {
        let (top, base) = (self.bottom, self.bottom + SESSIONS_HEIGHT - 6.0);
        let steps = &self.timeline.sessions;
        let max = steps
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
            .max(1);
        let height = (base - top - 8.0) / max as f64;
        let label = format!(
            "sessions (most: {})",
            if steps.is_empty() { 0 } else { max }
        );
        writeln!(
            out,
            "<path class=\"grid\" d=\"M0 {top:.0}H{WIDTH}\"/>\
             <text class=\"name\" x=\"8\" y=\"{:.0}\">{label}</text>",
            top + 20.0
        )?;
        write!(out, "<path class=\"sessions\" d=\"M{LEFT} {base:.1}")?;
        for (at, count) in steps.iter().take(MAX_SHAPES) {
            let (x, y) = (self.scale.x(*at), base - height * *count as f64);
            write!(out, "H{x:.1}V{y:.1}")?;
        }
        writeln!(out, "H{RIGHT}\"><title>{label}</title></path>")
    }

    /// Writes where the axis leaves out time.
    fn write_cuts(&self, out: &mut impl Write) -> io::Result<()> {
        let height = self.bottom + SESSIONS_HEIGHT - 68.0;
        for (x, width, label) in self.scale.cuts() {
            let (end, middle) = (x + width, x + width / 2.0);
            writeln!(
                out,
                "<g><title>{label} are left out: nothing happened</title>\
                 <rect class=\"cut\" x=\"{x:.1}\" y=\"68\" width=\"{width:.1}\" height=\"{height:.0}\"/>\
                 <path class=\"edge\" d=\"M{x:.1} 68v{height:.0}M{end:.1} 68v{height:.0}\"/>\
                 <text class=\"axis\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"76\">{label}</text></g>"
            )?;
        }
        Ok(())
    }

    fn write_arrows(&self, out: &mut impl Write) -> io::Result<()> {
        for arrow in self.timeline.arrows.iter().take(MAX_SHAPES) {
            let Arrow { from, to, name } = arrow;
            let (Some(from_top), Some(to_top)) = (self.tops.get(from.0), self.tops.get(to.0))
            else {
                continue;
            };
            let (x, end) = (self.scale.x(from.1), self.scale.x(to.1));
            let y = from_top + JOB_TOP + JOB_HEIGHT / 2.0;
            let tip = match to_top > from_top {
                true => to_top + JOB_TOP,
                false => to_top + JOB_TOP + JOB_HEIGHT,
            };
            let middle = f64::midpoint(y, tip);
            let name = escape(name);
            writeln!(
                out,
                "<path class=\"arrow\" marker-end=\"url(#head)\" \
                 d=\"M{x:.1} {y:.0}C{x:.1} {middle:.0} {end:.1} {middle:.0} {end:.1} {tip:.0}\">\
                 <title>starts {name}</title></path>"
            )?;
        }
        Ok(())
    }

    /// Writes the names of the rows, the words in the bars, and the marks.
    fn write_texts(&self, out: &mut impl Write) -> io::Result<()> {
        let mut marks_left = MAX_SHAPES;
        for ((row, &top), drawn) in self.rows.iter().zip(&self.tops).zip(self.drawn()) {
            let names = row.names();
            let all = escape(&names.join(", "));
            for (line, y) in label(&names).iter().zip([top + 18.0, top + 34.0]) {
                let line = escape(line);
                writeln!(
                    out,
                    "<text class=\"name\" x=\"8\" y=\"{y:.0}\">{line}<title>{all}</title></text>"
                )?;
            }
            for bar in drawn {
                let (from, to) = self.scale.widest_part(bar.x, bar.width);
                let Some(words) = fitting(&bar.words, to - from - 2.0 * PADDING) else {
                    continue;
                };
                let (y, height) = place(top, &bar);
                let class = if bar.kind.is_none() {
                    " class=\"injob\""
                } else {
                    ""
                };
                let (x, y) = (from + PADDING, y + height - 4.0);
                writeln!(
                    out,
                    "<text{class} pointer-events=\"none\" x=\"{x:.1}\" y=\"{y:.0}\">{}</text>",
                    escape(&words)
                )?;
            }
            let marks = row.marks.get(..marks_left).unwrap_or(&row.marks);
            self.write_marks(marks, top, out)?;
            marks_left -= marks.len();
        }
        Ok(())
    }

    /// Writes each mark with its words, if these have room between the marks beside it.
    fn write_marks(&self, marks: &[(u64, Mark)], top: f64, out: &mut impl Write) -> io::Result<()> {
        let top = top + MARK_TOP;
        let places: Vec<f64> = marks.iter().map(|(at, _)| self.scale.x(*at)).collect();
        let ends = places.iter().skip(1).copied().chain([RIGHT]);
        let mut begin = LEFT;
        let marks = marks.iter().zip(&places).zip(ends);
        for (((_, mark), &x), end) in marks {
            let words = mark.to_string();
            let (left, title, shape) = (x - 4.5, escape(&words), shape(mark));
            writeln!(
                out,
                "<path class=\"mark\" transform=\"translate({left:.1} {top:.0})\" d=\"{shape}\">\
                 <title>{title}</title></path>"
            )?;
            // After the mark if there is room, or else before it.
            let after = end - x - 16.0;
            let (x, anchor, room) = match after > x - begin - 16.0 || end < RIGHT {
                true => (x + 8.0, "start", after),
                false => (x - 8.0, "end", x - begin - 16.0),
            };
            begin = x;
            if let Some(words) = fitting(&words, room) {
                begin += text_width(&words);
                let (y, words) = (top + 9.0, escape(&words));
                writeln!(
                    out,
                    "<text text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.0}\">{words}</text>"
                )?;
            }
        }
        Ok(())
    }
}

/// A triangle: one direction has ended.
const HALF_CLOSE: &str = "M0 0L9 4.5L0 9z";
/// A cross: a connection is cut off.
const CUT_OFF: &str = "M1.5 0L4.5 3L7.5 0L9 1.5L6 4.5L9 7.5L7.5 9L4.5 6L1.5 9L0 7.5L3 4.5L0 1.5z";
/// A rhombus.
const OTHER: &str = "M4.5 0L9 4.5L4.5 9L0 4.5z";

fn shape(mark: &Mark) -> &'static str {
    match mark {
        Mark::HalfClose(_) => HALF_CLOSE,
        Mark::Reset | Mark::Terminate(..) | Mark::Reject(_) => CUT_OFF,
        Mark::QueueFull | Mark::Stop => OTHER,
    }
}

/// Top and height of a bar in the row with this top.
fn place(top: f64, bar: &Drawn<'_>) -> (f64, f64) {
    match bar.kind {
        None => (top + JOB_TOP, JOB_HEIGHT),
        Some(_) => (top + WAIT_TOP, WAIT_HEIGHT),
    }
}

fn class(bar: &Drawn<'_>) -> &'static str {
    match bar.kind {
        None => "job",
        Some(WaitKind::Outside) => "outside",
        Some(WaitKind::Thread) => "thread",
        Some(WaitKind::Lock) => "lock",
        Some(WaitKind::Clock) => "clock",
    }
}

/// As many of the names as have room in two lines, and how many more there are.
fn label(names: &[&str]) -> Vec<String> {
    let wrap = |shown: usize| {
        let (first, rest) = names.split_at_checked(shown).unwrap_or((names, &[]));
        let more = (!rest.is_empty()).then(|| format!("{} more", rest.len()));
        let words = first.iter().copied().chain(more.as_deref());
        let mut lines = vec![String::new()];
        for word in words {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if text_width(line) + text_width(word) + 12.0 < LEFT - 16.0 => {
                    line.push_str(", ");
                    line.push_str(word);
                }
                Some(line) => {
                    line.push(',');
                    lines.push(word.to_owned());
                }
                None => {}
            }
        }
        lines
    };
    let lines = (1..=names.len()).rev().map(wrap);
    lines
        .into_iter()
        .find(|it| it.len() <= 2)
        .unwrap_or_default()
}

fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// The text if it fits; else without the word "waits", which the place of the bar says; else also
/// without the address, and without "to"; else its beginning. `None` if there is no room for a few characters.
fn fitting(text: &str, room: f64) -> Option<String> {
    const FEWEST: usize = 7;
    let short = text.strip_prefix("waits ").unwrap_or(text);
    let without_address = short
        .rsplit_once(' ')
        .filter(|(_, last)| last.contains(':'));
    let without_address = without_address.map_or(short, |(first, _)| first);
    let without_address = match without_address.matches(' ').count() {
        2.. => without_address.trim_end_matches(" to"),
        _ => without_address,
    };
    let verb = without_address.strip_prefix("to ");
    let verb = verb.unwrap_or(without_address);
    let fits = |it: &&str| text_width(it) <= room;
    let choices = [text, short, without_address, verb];
    if let Some(fitting) = choices.into_iter().find(fits) {
        return Some(fitting.to_owned());
    }
    let count = (room / CHARACTER).max(0.0) as usize;
    let cut: String = short.chars().take(count.saturating_sub(1)).collect();
    (count >= FEWEST).then(|| format!("{}\u{2026}", cut.trim_end()))
}

/// The text as XML content or attribute: names come from the network, and XML has no place for
/// control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char if char.is_control() => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}
