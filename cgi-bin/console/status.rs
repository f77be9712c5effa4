//! What is known of every column: how it stands, how far it is, how long it took.

use std::fmt;
use std::time::{Duration, Instant};

use crate::row::Column;
use crate::shell::{SessionEnd, SessionEvent};

/// All columns of a page, in order.
#[derive(Debug)]
pub(crate) struct RunStatus {
    pub(crate) columns: Vec<ColumnStatus>,
    started: Instant,
    /// When the clocks were last looked at.
    now: Instant,
}

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnStatus {
    /// As the form counts its rows, from 1.
    pub(crate) number: usize,
    pub(crate) title: String,
    pub(crate) file: String,
    pub(crate) socks: String,
    pub(crate) state: SessionState,
    /// Lines of the batch file that were sent.
    pub(crate) sent: usize,
    /// Lines it has, up to `exit`.
    pub(crate) total: usize,
    /// Since the beginning of the page; stands still at the end.
    pub(crate) elapsed: Duration,
}

/// How a column stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    Waiting,
    Connecting,
    Granted,
    Running,
    Ended(SessionEnd),
}

/// How a state is to be understood at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Success,
    Failure,
}

impl RunStatus {
    /// All columns before anything happens.
    pub(crate) fn new(columns: &[Column], started: Instant) -> RunStatus {
        let columns = columns.iter().map(|column| ColumnStatus {
            number: column.number,
            title: column.title.clone(),
            file: column.file.clone(),
            socks: column.socks.clone(),
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

    /// Moves the clocks of those that have not ended.
    pub(crate) fn advance_to(&mut self, now: Instant) {
        self.now = now;
        let elapsed = self.elapsed();
        for column in &mut self.columns {
            if !column.has_ended() {
                column.elapsed = elapsed;
            }
        }
    }

    /// Notes what happened in the column with this index.
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

    /// The columns that have not ended, by their index.
    pub(crate) fn unfinished(&self) -> Vec<usize> {
        let all = self.columns.iter().enumerate();
        all.filter(|(_, column)| !column.has_ended())
            .map(|(index, _)| index)
            .collect()
    }

    /// Since the beginning of the page.
    fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }
}

/// The sum of all columns.
impl fmt::Display for RunStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.columns.len();
        let done = SessionState::Ended(SessionEnd::Done);
        let finished = self
            .columns
            .iter()
            .filter(|column| column.state == done)
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
    /// Has its last event come?
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, SessionState::Ended(_))
    }

    /// `3 of 10 commands, 12 s`; nothing while there is nothing to count.
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
    /// Good, bad, or not yet.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            SessionState::Ended(SessionEnd::Done) => Outcome::Success,
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
