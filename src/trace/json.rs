//! A trace in Chrome's trace event format, which Perfetto and chrome://tracing open.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use super::timeline::{Bar, Row, Timeline};

/// The number of the first thread. Perfetto takes the thread whose number is that of the process,
/// which is 1 here, for the main thread.
const FIRST_TID: usize = 2;

/// Writes all events. Each is one line.
///
/// # Errors
///
/// As write(2).
pub(super) fn write(timeline: &Timeline, out: &mut impl Write) -> io::Result<()> {
    write!(
        out,
        "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"events\":{},\"missing_events\":{}}},\n\
         \"traceEvents\":[\n\
         {{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{{\"name\":\"threadsocks\"}}}}",
        timeline.events, timeline.missing
    )?;
    for (row, tid) in timeline.rows.iter().zip(FIRST_TID..) {
        write_row(row, tid, out)?;
    }
    for (arrow, id) in timeline.arrows.iter().zip(1..) {
        let name = Text(&arrow.name);
        for (phase, (row, at)) in [
            ("\"ph\":\"s\"", arrow.from),
            ("\"ph\":\"f\",\"bp\":\"e\"", arrow.to),
        ] {
            let (tid, at) = (row + FIRST_TID, Micros(at));
            write!(
                out,
                ",\n{{{phase},\"id\":{id},\"pid\":1,\"tid\":{tid},\"ts\":{at},\"cat\":\"hand-over\",\
                 \"name\":\"starts {name}\"}}"
            )?;
        }
    }
    for &(at, count) in &timeline.sessions {
        let at = Micros(at);
        write!(
            out,
            ",\n{{\"ph\":\"C\",\"pid\":1,\"tid\":0,\"ts\":{at},\"name\":\"sessions\",\
             \"args\":{{\"sessions\":{count}}}}}"
        )?;
    }
    if let Some(overflow) = timeline.overflow() {
        let (at, overflow) = (Micros(timeline.end), Text(&overflow));
        write!(
            out,
            ",\n{{\"ph\":\"i\",\"s\":\"g\",\"pid\":1,\"tid\":0,\"ts\":{at},\"cat\":\"mark\",\
             \"name\":\"{overflow}\"}}"
        )?;
    }
    writeln!(out, "\n]}}")
}

/// Writes the name, the bars and the marks of one thread.
fn write_row(row: &Row, tid: usize, out: &mut impl Write) -> io::Result<()> {
    let names = row.names().join(", ");
    let names = Text(&names);
    write!(
        out,
        ",\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{tid},\"name\":\"thread_name\",\"args\":{{\"name\":\"{names}\"}}}},\n\
         {{\"ph\":\"M\",\"pid\":1,\"tid\":{tid},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{tid}}}}}"
    )?;
    for bar in row.jobs.iter().chain(&row.waits) {
        write_bar(bar, tid, out)?;
    }
    for (at, mark) in &row.marks {
        let (at, words) = (Micros(*at), mark.to_string());
        let words = Text(&words);
        write!(
            out,
            ",\n{{\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":{tid},\"ts\":{at},\"cat\":\"mark\",\
             \"name\":\"{words}\"}}"
        )?;
    }
    Ok(())
}

fn write_bar(bar: &Bar, tid: usize, out: &mut impl Write) -> io::Result<()> {
    let (at, duration) = (
        Micros(bar.began),
        Micros(bar.ended.saturating_sub(bar.began)),
    );
    let category = if bar.kind.is_none() { "job" } else { "wait" };
    let (words, ended) = (Text(&bar.words), bar.has_ended);
    write!(
        out,
        ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{tid},\"ts\":{at},\"dur\":{duration},\
         \"cat\":\"{category}\",\"name\":\"{words}\",\"args\":{{\"ended\":{ended}}}}}"
    )
}

/// Nanoseconds as the format's microseconds.
struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The content of a JSON string (RFC 8259, section 7): names come from the network.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(out, "\\{char}")?,
                char if char.is_control() => write!(out, "\\u{:04x}", u32::from(char))?,
                char => out.write_char(char)?,
            }
        }
        Ok(())
    }
}
