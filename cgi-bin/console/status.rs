//! What is known of every column: how it stands, how far it is, how long it took.

use std::fmt;
use std::time::{Duration, Instant};

use crate::row::Column;
use crate::shell::{End, News};

/// All columns of a page, in order.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) standings: Vec<Standing>,
    began: Instant,
    /// When the clocks were last looked at.
    now: Instant,
}

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// As the form counts its rows, from 1.
    pub(crate) number: usize,
    pub(crate) title: String,
    pub(crate) file: String,
    pub(crate) socks: String,
    pub(crate) state: State,
    /// Lines of the batch file that were sent.
    pub(crate) sent: usize,
    /// Lines it has, up to `exit`.
    pub(crate) total: usize,
    /// Since the beginning of the page; stands still at the end.
    pub(crate) elapsed: Duration,
}

/// How a column stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Connecting,
    Granted,
    Running,
    Ended(End),
}

/// How a state is to be understood at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Busy,
    Good,
    Bad,
}

impl Board {
    /// All columns before anything happens.
    pub(crate) fn new(columns: &[Column], began: Instant) -> Board {
        let standings = columns.iter().map(|column| Standing {
            number: column.number,
            title: column.title.clone(),
            file: column.file.clone(),
            socks: column.socks.clone(),
            state: State::Waiting,
            sent: 0,
            total: column.plan.as_ref().map_or(0, |visit| visit.batch.count),
            elapsed: Duration::ZERO,
        });
        Board {
            standings: standings.collect(),
            began,
            now: began,
        }
    }

    /// Moves the clocks of those that have not ended.
    pub(crate) fn advance_to(&mut self, now: Instant) {
        self.now = now;
        let elapsed = self.elapsed();
        for standing in &mut self.standings {
            if !standing.has_ended() {
                standing.elapsed = elapsed;
            }
        }
    }

    /// Notes what happened in the column with this index.
    pub(crate) fn note(&mut self, index: usize, news: &News, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        let Some(standing) = self.standings.get_mut(index) else {
            return;
        };
        if standing.has_ended() {
            return;
        }
        standing.elapsed = elapsed;
        match news {
            News::Connecting => standing.state = State::Connecting,
            News::Granted => standing.state = State::Granted,
            News::Output(_) | News::AddedExit => standing.state = State::Running,
            News::Command(_) => standing.sent += 1,
            News::Ended(end) => standing.state = State::Ended(end.clone()),
        }
    }

    /// The columns that have not ended, by their index.
    pub(crate) fn unfinished(&self) -> Vec<usize> {
        let all = self.standings.iter().enumerate();
        all.filter(|(_, standing)| !standing.has_ended())
            .map(|(index, _)| index)
            .collect()
    }

    /// Since the beginning of the page.
    fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.began)
    }
}

/// The sum of all columns.
impl fmt::Display for Board {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.standings.len();
        let done = State::Ended(End::Done);
        let finished = self.standings.iter().filter(|it| it.state == done).count();
        let commands = self.standings.iter().map(|it| it.sent).sum();
        write!(out, "{finished} of {all} finished")?;
        if finished < all {
            write!(out, ", {} failed", all - finished)?;
        }
        write!(
            out,
            "; {} in {} s",
            counted(commands, "command"),
            self.elapsed().as_secs()
        )
    }
}

impl Standing {
    /// Has its last news come?
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// `3 of 10 commands, 12 s`; nothing while there is nothing to count.
    pub(crate) fn progress(&self) -> String {
        let seconds = self.elapsed.as_secs();
        match (&self.state, self.total) {
            (State::Waiting, _) => String::new(),
            (State::Ended(End::Failed(_)), 0) => String::new(),
            (State::Connecting, _) | (State::Ended(End::Failed(_)), _) => format!("{seconds} s"),
            (_, total) => format!(
                "{} of {}, {seconds} s",
                self.sent,
                counted(total, "command")
            ),
        }
    }
}

impl State {
    /// Good, bad, or not yet.
    pub(crate) fn mood(&self) -> Mood {
        match self {
            State::Ended(End::Done) => Mood::Good,
            State::Ended(_) => Mood::Bad,
            _ => Mood::Busy,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Waiting => out.write_str("waiting"),
            State::Connecting => out.write_str("connecting to the SOCKS server"),
            State::Granted => out.write_str("granted, no prompt yet"),
            State::Running => out.write_str("running"),
            State::Ended(end) => end.fmt(out),
        }
    }
}

/// `1 command`, `2 commands`.
fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
