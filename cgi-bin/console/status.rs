//! The status of every column: session state, progress and elapsed time.
//!
//! Plain data. Only the thread that owns the page accesses it, so it needs no lock.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::row::Column;
use crate::shell::{SessionEnd, SessionEvent};
use crate::terminal::shorten;

/// Maximum number of batch files in the title of a page.
const MAX_FILES_IN_TITLE: usize = 2;

/// The status of all columns of a page, in the order of the page.
#[derive(Debug)]
pub(crate) struct RunStatus {
    pub(crate) columns: Vec<ColumnStatus>,
    /// The time of day at the start.
    pub(crate) started_at: SystemTime,
    pub(crate) time_limit: Duration,
    started: Instant,
    /// The time of the last [`RunStatus::advance_to`].
    now: Instant,
}

/// The status of one column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnStatus {
    /// The number of the row in the form, from 1.
    pub(crate) number: usize,
    pub(crate) title: String,
    pub(crate) file: String,
    pub(crate) route: String,
    pub(crate) is_direct: bool,
    pub(crate) state: SessionState,
    /// Lines of the batch file that were sent to the shell.
    pub(crate) sent: usize,
    /// Lines of the batch file, up to and including `exit`.
    pub(crate) total: usize,
    /// Time since the start of the page. It stops when the session ends.
    pub(crate) elapsed: Duration,
    /// The last line that was sent, shortened for a message.
    last_command: String,
}

/// The state of a session, in the order in which a session passes through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// The thread of the session has sent no event yet.
    Waiting,
    /// The session connects to the SOCKS server and waits for its reply, or connects directly.
    Connecting,
    /// The connection to the shell exists. The shell has sent nothing yet.
    Granted,
    /// The shell has sent output.
    Running,
    /// The session has ended.
    Ended(SessionEnd),
}

/// Whether a session has ended, and how; a page shows it as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Success,
    Failure,
}

impl RunStatus {
    /// The status before the first event. The run starts now.
    pub(crate) fn new(columns: &[Column], time_limit: Duration) -> RunStatus {
        let columns = columns.iter().map(|column| ColumnStatus {
            number: column.number,
            title: column.title.clone(),
            file: column.file.clone(),
            route: column.route.clone(),
            is_direct: column.is_direct,
            state: SessionState::Waiting,
            sent: 0,
            total: column.plan.as_ref().map_or(0, |plan| plan.batch.line_count),
            elapsed: Duration::ZERO,
            last_command: String::new(),
        });
        let now = Instant::now();
        RunStatus {
            columns: columns.collect(),
            started_at: SystemTime::now(),
            time_limit,
            started: now,
            now,
        }
    }

    /// The start plus the time limit. `None` if this time is too far for the clock.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.started.checked_add(self.time_limit)
    }

    /// Reports whether all sessions have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.columns.iter().all(ColumnStatus::has_ended)
    }

    /// What runs where, for example `t1.txt, t2.txt ... on 5 shells`.
    pub(crate) fn title(&self) -> String {
        let mut files: Vec<&str> = Vec::new();
        for column in &self.columns {
            if !column.file.is_empty() && !files.contains(&column.file.as_str()) {
                files.push(&column.file);
            }
        }
        let shown = files.get(..MAX_FILES_IN_TITLE).unwrap_or(&files).join(", ");
        let more = if files.len() > MAX_FILES_IN_TITLE {
            " \u{2026}"
        } else {
            ""
        };
        format!(
            "{shown}{more} on {}",
            with_plural(self.columns.len(), "shell")
        )
    }

    /// Sets the elapsed time of the columns that have not ended.
    pub(crate) fn advance_to(&mut self, now: Instant) {
        self.now = now;
        let elapsed = self.elapsed();
        for column in &mut self.columns {
            if !column.has_ended() {
                column.elapsed = elapsed;
            }
        }
    }

    /// Applies an event to the column with this index. Events after the end of a
    /// session are ignored.
    pub(crate) fn apply(&mut self, index: usize, event: &SessionEvent, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started);
        let Some(column) = self.columns.get_mut(index) else {
            return;
        };
        if column.has_ended() {
            return;
        }
        column.elapsed = elapsed;
        match event {
            SessionEvent::Connecting => column.state = SessionState::Connecting,
            SessionEvent::Granted => column.state = SessionState::Granted,
            SessionEvent::Output(_) | SessionEvent::AddedExit => {
                column.state = SessionState::Running
            }
            SessionEvent::Command(line) => {
                column.sent += 1;
                column.last_command = shorten(line);
            }
            SessionEvent::Ended(end) => column.state = SessionState::Ended(end.clone()),
        }
    }

    /// The number of columns with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        let all = self.columns.iter();
        all.filter(|column| column.state.outcome() == outcome)
            .count()
    }

    /// The numbers of the rows that have failed.
    pub(crate) fn failed_rows(&self) -> Vec<usize> {
        let all = self.columns.iter();
        all.filter(|column| column.state.outcome() == Outcome::Failure)
            .map(|column| column.number)
            .collect()
    }

    /// The number of lines that were sent, and the number of lines of all batches.
    pub(crate) fn commands(&self) -> (usize, usize) {
        let sent = self.columns.iter().map(|column| column.sent).sum();
        let total = self.columns.iter().map(|column| column.total).sum();
        (sent, total)
    }

    /// The result for programs: `OK 5 of 5`, or `FAILED 2 of 5`.
    pub(crate) fn outcome_text(&self) -> String {
        let all = self.columns.len();
        match self.count(Outcome::Failure) {
            0 => format!("OK {all} of {all}"),
            failed => format!("FAILED {failed} of {all}"),
        }
    }

    /// The indices of the columns that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<usize> {
        let all = self.columns.iter().enumerate();
        all.filter(|(_, column)| !column.has_ended())
            .map(|(index, _)| index)
            .collect()
    }

    /// Time from the start of the page to the last [`RunStatus::advance_to`].
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }
}

/// The summary, for example `2 done, 1 running, 2 failed; 11 of 16 commands; 2.6 s of 10m`.
/// The time limit is omitted after the end.
impl fmt::Display for RunStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} done", self.count(Outcome::Success))?;
        for (outcome, word) in [(Outcome::Pending, "running"), (Outcome::Failure, "failed")] {
            match self.count(outcome) {
                0 => {}
                count => write!(out, ", {count} {word}")?,
            }
        }
        let (sent, total) = self.commands();
        let commands = with_plural(total, "command");
        let elapsed = Seconds(self.elapsed());
        write!(out, "; {sent} of {commands}; {elapsed}")?;
        match self.has_ended() {
            true => Ok(()),
            false => write!(out, " of {}", humantime::format_duration(self.time_limit)),
        }
    }
}

impl ColumnStatus {
    /// Reports whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, SessionState::Ended(_))
    }

    /// The state in words. A direct connection has no SOCKS server to name.
    pub(crate) fn state_text(&self) -> String {
        let total = with_plural(self.total, "command");
        let all = if self.total > 1 { "all " } else { "" };
        let text = match (&self.state, self.is_direct) {
            (SessionState::Waiting, _) => "waiting",
            (SessionState::Connecting, true) => "connecting to the shell",
            (SessionState::Connecting, false) => "connecting to the SOCKS server",
            (SessionState::Granted, true) => "connected, no prompt yet",
            (SessionState::Granted, false) => "granted, no prompt yet",
            (SessionState::Running, _) => "running",
            (SessionState::Ended(end), _) => match end {
                // A prompt proves that the shell has read the line, not that the command
                // has succeeded.
                SessionEnd::Done => return format!("{all}{total} sent"),
                SessionEnd::LeftOpen { is_direct } => {
                    let by = if *is_direct { "shell" } else { "SOCKS server" };
                    return format!("{all}{total} sent (left open by the {by})");
                }
                SessionEnd::ClosedEarly if self.sent == 0 => "closed before the first prompt",
                SessionEnd::ClosedEarly => {
                    return format!(
                        "closed early, after command {} of {}",
                        self.sent, self.total
                    );
                }
                SessionEnd::TimedOut => "timed out",
                SessionEnd::Stopped => "stopped",
                SessionEnd::Failed(failure) => &failure.reason,
            },
        };
        text.to_owned()
    }

    /// What the user can do after a failure; `None` after a success, or before the end.
    pub(crate) fn next_step(&self) -> Option<String> {
        let SessionState::Ended(end) = &self.state else {
            return None;
        };
        let command = &self.last_command;
        Some(match end {
            SessionEnd::Done | SessionEnd::LeftOpen { .. } => return None,
            SessionEnd::ClosedEarly if self.sent == 0 => {
                "The connection was closed before the prompt \"% \". Check that this is the port \
                 of a shell server and not of another service, and run this row again."
                    .to_owned()
            }
            SessionEnd::ClosedEarly => format!(
                "The last command was \"{command}\". This command may have ended the shell: see its \
                 output, or the log of the shell server. Then run this row again."
            ),
            SessionEnd::TimedOut if self.sent == 0 => {
                "No prompt \"% \" came. Check that this is the port of a shell server, and run \
                 this row again."
                    .to_owned()
            }
            SessionEnd::TimedOut => format!(
                "The time limit passed after the command \"{command}\". Shorten the batch, or ask \
                 the administrator of this console to raise CONSOLE_LIMIT."
            ),
            SessionEnd::Stopped => "Run this row again.".to_owned(),
            SessionEnd::Failed(failure) => failure.next_step.clone(),
        })
    }

    /// The elapsed time as text, for example `2.6 s`.
    pub(crate) fn elapsed_text(&self) -> String {
        Seconds(self.elapsed).to_string()
    }

    /// Progress and time, for example `3 of 10 commands, 12 s`. Empty before the
    /// session starts, and for a session that could not start. After a success the state
    /// tells the number of commands.
    pub(crate) fn progress(&self) -> String {
        let elapsed = Seconds(self.elapsed);
        match &self.state {
            SessionState::Waiting => String::new(),
            SessionState::Ended(SessionEnd::Failed(_)) if self.total == 0 => String::new(),
            SessionState::Connecting
            | SessionState::Ended(
                SessionEnd::Failed(_) | SessionEnd::Done | SessionEnd::LeftOpen { .. },
            ) => elapsed.to_string(),
            _ => {
                let total = with_plural(self.total, "command");
                format!("{} of {total}, {elapsed}", self.sent)
            }
        }
    }
}

impl SessionState {
    /// The outcome of a session in this state.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            SessionState::Ended(SessionEnd::Done | SessionEnd::LeftOpen { .. }) => Outcome::Success,
            SessionState::Ended(_) => Outcome::Failure,
            _ => Outcome::Pending,
        }
    }
}

/// Seconds with about two significant digits: `0.04 s`, `2.6 s`, `12 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let decimals = match seconds {
            ..0.995 => 2,
            ..9.95 => 1,
            _ => 0,
        };
        write!(out, "{seconds:.decimals$} s")
    }
}

/// `1 command`, `2 commands`.
fn with_plural(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_decimals_below_ten() {
        for (milliseconds, text) in [
            (0, "0.00 s"),
            (44, "0.04 s"),
            (994, "0.99 s"),
            (996, "1.0 s"),
            (2640, "2.6 s"),
            (9940, "9.9 s"),
            (9960, "10 s"),
            (61_400, "61 s"),
        ] {
            let seconds = Seconds(Duration::from_millis(milliseconds));
            assert_eq!(seconds.to_string(), text);
        }
    }
}
