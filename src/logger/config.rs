//! Where the output goes, and how much of it there is.

use std::io::Write;

use crate::events::{CloseReason, Event, HandshakeError, Level};

/// How much is written to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only rejected clients, refused logins, warnings, and faults of files and outputs.
    Errors,
    /// Also start and stop, and why requests are refused (at most one line a second for
    /// each topic).
    #[default]
    Normal,
    /// Also a line for every session that has ended.
    Sessions,
}

impl Verbosity {
    /// Does stderr get a line for this event? Some of these lines have a rate limit.
    pub(super) fn prints(self, event: &Event) -> bool {
        match event {
            Event::StartMessage {
                level,
                even_if_quiet,
                ..
            } => *even_if_quiet || *level != Level::Info || self >= Verbosity::Normal,
            Event::RequestAnswered(_)
            | Event::Stopped { .. }
            | Event::ClientAccepted
            | Event::LoginAccepted
            | Event::DatagramDropped(_) => false,
            Event::LoginFailed(_)
            | Event::Rejected(_)
            | Event::FileReloaded { .. }
            | Event::FileUnchanged { .. }
            | Event::Status(_) => true,
            Event::SessionClosed(closed) => match closed.reason {
                // A load balancer checks its servers every few seconds.
                CloseReason::HandshakeFailed(HandshakeError::LeftAfterGreeting) => {
                    self >= Verbosity::Sessions
                }
                CloseReason::HandshakeFailed(_)
                | CloseReason::Refused(_)
                | CloseReason::PermitWithdrawn(_) => self >= Verbosity::Normal,
                _ => self >= Verbosity::Sessions,
            },
            Event::ClientPort { .. } | Event::ForeignDatagram { .. } => self >= Verbosity::Sessions,
            Event::Listening(listening) => listening.has_chosen_port || self >= Verbosity::Normal,
            Event::Stopping { .. } => self >= Verbosity::Normal,
        }
    }
}

/// `--log`: what stdout gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A screen message for every request.
    #[default]
    Screen,
    /// A JSON object for every event.
    Json,
    /// Nothing.
    None,
}

impl LogFormat {
    /// The noun for one message on stdout.
    pub(super) fn noun(self) -> &'static str {
        match self {
            LogFormat::Screen | LogFormat::None => "screen message",
            LogFormat::Json => "JSON line",
        }
    }
}

/// Where the output goes.
pub struct OutputConfig {
    /// Gets what `format` says, as [`Stdout`](super::Stdout) does.
    pub screen: Box<dyn Write + Send>,
    /// What `screen` gets.
    pub format: LogFormat,
    /// Gets everything else.
    pub diagnostics: Box<dyn Write + Send>,
    /// How much `diagnostics` gets.
    pub verbosity: Verbosity,
    /// Does each line of `diagnostics` begin with its priority? The journal takes it away.
    pub has_priorities: bool,
    /// Events that may wait to be printed, usually
    /// [`MAX_QUEUED_EVENTS`](super::MAX_QUEUED_EVENTS).
    pub queued_events: usize,
}
