//! The status of every column: session state, progress and elapsed time.
//!
//! Plain data. Only the thread that owns the page accesses it, so it needs no lock.

use std::fmt;
use std::time::{Duration, Instant};

use crate::row::Column;
use crate::shell::{SessionEnd, SessionEvent};

/// The status of all columns of a page, in the order of the page.
#[derive(Debug)]
pub(crate) struct RunStatus {
    pub(crate) columns: Vec<ColumnStatus>,
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
    /// The status before the first event.
    pub(crate) fn new(columns: &[Column], started: Instant) -> RunStatus {
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
        });
        RunStatus {
            columns: columns.collect(),
            started,
            now: started,
        }
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
            SessionEvent::Command(_) => column.sent += 1,
            SessionEvent::Ended(end) => column.state = SessionState::Ended(end.clone()),
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
    fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }
}

/// The summary, for example `2 of 3 finished, 1 failed; 12 commands in 4 s`.
impl fmt::Display for RunStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.columns.len();
        let finished = self
            .columns
            .iter()
            .filter(|column| column.state.outcome() == Outcome::Success)
            .count();
        let commands = self.columns.iter().map(|column| column.sent).sum();
        write!(out, "{finished} of {all} finished")?;
        if finished < all {
            write!(out, ", {} failed", all - finished)?;
        }
        write!(
            out,
            "; {} in {} s",
            with_plural(commands, "command"),
            self.elapsed().as_secs()
        )
    }
}

impl ColumnStatus {
    /// Reports whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, SessionState::Ended(_))
    }

    /// The state in words. A direct connection has no SOCKS server to name.
    pub(crate) fn state_text(&self) -> String {
        match (&self.state, self.is_direct) {
            (SessionState::Connecting, true) => "connecting to the shell".to_owned(),
            (SessionState::Granted, true) => "connected, no prompt yet".to_owned(),
            (state, _) => state.to_string(),
        }
    }

    /// Progress and time, for example `3 of 10 commands, 12 s`. Empty before the
    /// session starts, and for a session that could not start.
    pub(crate) fn progress(&self) -> String {
        let seconds = self.elapsed.as_secs();
        match (&self.state, self.total) {
            (SessionState::Waiting, _) => String::new(),
            (SessionState::Ended(SessionEnd::Failed(_)), 0) => String::new(),
            (SessionState::Connecting, _) | (SessionState::Ended(SessionEnd::Failed(_)), _) => {
                format!("{seconds} s")
            }
            (_, total) => format!(
                "{} of {}, {seconds} s",
                self.sent,
                with_plural(total, "command")
            ),
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

impl fmt::Display for SessionState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionState::Waiting => out.write_str("waiting"),
            SessionState::Connecting => out.write_str("connecting to the SOCKS server"),
            SessionState::Granted => out.write_str("granted, no prompt yet"),
            SessionState::Running => out.write_str("running"),
            SessionState::Ended(end) => end.fmt(out),
        }
    }
}

/// `1 command`, `2 commands`.
fn with_plural(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
