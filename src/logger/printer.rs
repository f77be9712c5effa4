//! The logger's output: screen messages on stdout, everything else on stderr.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::config::{LogFormat, OutputConfig, Verbosity};
use super::diagnostics::Diagnostics;
use super::format::{SessionLine, counted, screen_message};
use super::json::{self, JsonLog};
use super::login_lines::{LoginLine, LoginLines};
use super::queue::TimedEvent;
use super::throttle::{INTERVAL, Throttle};
use super::writer::{MessageWriter, WriteResult};
use crate::config::ReloadEvent;
use crate::events::{
    AuthError, CloseReason, Event, HandshakeError, Level, Rejected, SessionClosed,
};
use crate::metrics::{Counters, Output};

/// While no line is suppressed, the logger has no reason to wake up.
const NO_TIMEOUT: Duration = Duration::from_secs(3600 * 24 * 365);

/// Lines that clients could make the server write as often as they like: each topic has a
/// rate limit.
#[derive(Clone, Copy, Debug)]
enum Topic {
    Refused,
    HandshakeFailed,
    Rejected,
    Logins,
    DroppedMessages,
    DroppedLines,
}

const TOPICS: [Topic; 6] = [
    Topic::Refused,
    Topic::HandshakeFailed,
    Topic::Rejected,
    Topic::Logins,
    Topic::DroppedMessages,
    Topic::DroppedLines,
];

/// Prints events.
pub(super) struct Printer {
    screen: MessageWriter,
    format: LogFormat,
    json: JsonLog,
    diagnostics: Diagnostics,
    verbosity: Verbosity,
    throttles: [Throttle; TOPICS.len()],
    login_lines: LoginLines,
}

impl Printer {
    /// It counts the messages that an output does not get.
    pub(super) fn new(output: OutputConfig, counters: &Arc<Counters>) -> Printer {
        let writer = |output, name| {
            let counters = Arc::clone(counters);
            MessageWriter::new(output, move || counters.count_dropped_message(name))
        };
        Printer {
            screen: writer(output.screen, Output::Stdout),
            format: output.format,
            json: JsonLog::default(),
            diagnostics: Diagnostics::new(
                writer(output.diagnostics, Output::Stderr),
                output.has_priorities,
            ),
            verbosity: output.verbosity,
            throttles: Default::default(),
            login_lines: LoginLines::default(),
        }
    }

    /// Prints one event.
    pub(super) fn print(&mut self, TimedEvent { time, event }: TimedEvent) {
        match (self.format, &event) {
            (LogFormat::Json, _) => {
                for line in self.json.lines(time, &event) {
                    self.print_message(&line);
                }
            }
            (LogFormat::Screen, Event::RequestAnswered(answered)) => {
                self.print_message(&screen_message(answered));
            }
            _ => {}
        }
        if self.verbosity.prints(&event) {
            self.print_diagnostics(time, event);
        }
    }

    /// The line on stderr, if a rate limit permits it.
    fn print_diagnostics(&mut self, time: SystemTime, event: Event) {
        match event {
            // One write, so that no other output comes between the lines.
            Event::Status(status) => self.print_line(Level::Info, &status.text),
            Event::StartMessage { line, level, .. } => self.print_line(level, &line),
            // Only stdout gets these.
            Event::RequestAnswered(_)
            | Event::Stopped { .. }
            | Event::ClientAccepted
            | Event::LoginAccepted
            | Event::DatagramDropped(_) => {}
            Event::SessionClosed(closed) => self.print_closed(time, &closed),
            Event::ClientPort {
                session,
                client,
                announced,
                previous,
                port,
            } => {
                let before = before_this_port(announced, previous);
                let line =
                    format!("s{session}: {client} sends datagrams from port {port}; {before}");
                self.print_line(Level::Info, &line);
            }
            Event::ForeignDatagram {
                session,
                client,
                from,
            } => self.print_line(
                Level::Info,
                &format_args!(
                    "s{session}: {client} may send datagrams only from its address; those from \
                 {from} and other addresses are dropped"
                ),
            ),
            Event::LoginFailed(failed) => match self.login_lines.line(&failed, Instant::now()) {
                LoginLine::Print(line) => self.print_line(Level::Warning, &line),
                LoginLine::Shared(line) => {
                    self.print_throttled(Topic::Logins, Level::Warning, &line)
                }
                LoginLine::Suppressed => {}
            },
            Event::Rejected(reason) => {
                self.print_throttled(Topic::Rejected, level_of(&reason), &reason);
            }
            Event::Listening(listening) => {
                self.print_line(
                    Level::Info,
                    &format_args!("listening on {}", listening.address),
                );
            }
            Event::FileReloaded {
                path,
                about,
                event,
                remarks,
            } => {
                self.print_file(&path, about, &event);
                self.print_remarks(&path, &remarks);
            }
            Event::FileUnchanged { path, remarks, .. } => {
                if self.verbosity >= Verbosity::Normal {
                    let shown = path.display();
                    self.print_line(
                        Level::Info,
                        &format_args!("{shown}: checked, nothing has changed"),
                    );
                }
                self.print_remarks(&path, &remarks);
            }
            Event::Stopping { sessions, grace } => {
                let grace = humantime::format_duration(grace);
                let open = counted(sessions as u64, "open session");
                self.print_line(
                    Level::Info,
                    &format_args!("stopping: no new clients; {open}, to be closed after {grace}, or at a second signal"),
                );
            }
        }
    }

    /// What happened to a file that is followed.
    fn print_file(&mut self, path: &Path, about: &str, event: &ReloadEvent) {
        let shown = path.display();
        match event {
            ReloadEvent::Reloaded { content, .. } if self.verbosity >= Verbosity::Normal => {
                self.print_line(Level::Info, &format_args!("{shown}: {content} in force"));
            }
            ReloadEvent::Reloaded { .. } => {}
            ReloadEvent::Kept(error) => {
                for line in error.describe(path) {
                    self.print_line(Level::Error, &line);
                }
                self.print_line(
                    Level::Error,
                    &format_args!("the last valid {about} stay in force"),
                );
            }
            ReloadEvent::BeingWritten => self.print_line(
                Level::Warning,
                &format_args!("{shown}: still being written; the last valid {about} stay in force"),
            ),
        }
    }

    /// Remarks on the content of a file.
    fn print_remarks(&mut self, path: &Path, remarks: &[String]) {
        let path = path.display();
        for remark in remarks {
            self.print_line(Level::Warning, &format_args!("{path}: {remark}"));
        }
    }

    /// One message on stdout, in one write, so that no other output comes between its
    /// lines.
    fn print_message(&mut self, message: &str) {
        match self.screen.write(message) {
            WriteResult::Written(0) | WriteResult::Partial(None) | WriteResult::Lost(None) => {}
            WriteResult::Written(lost) => self.report_lost(lost),
            WriteResult::Partial(Some(error)) | WriteResult::Lost(Some(error)) => {
                let noun = self.format.noun();
                self.print_line(
                    Level::Error,
                    &format_args!("stdout: {error}; {noun}s are lost, the server continues"),
                );
            }
        }
    }

    /// Reports on stderr, and in the JSON log, how many messages before the last one were lost.
    fn report_lost(&mut self, lost: u64) {
        if self.format == LogFormat::Json {
            // If this is lost too, it is counted as one more message.
            let _ = self.screen.write(&json::dropped(SystemTime::now(), lost));
        }
        let line = format!("stdout: {} lost", counted(lost, self.format.noun()));
        if !self.diagnostics.print(Level::Warning, &line) {
            self.screen.set_lost(lost);
        }
    }

    fn print_closed(&mut self, time: SystemTime, closed: &SessionClosed) {
        if self.verbosity >= Verbosity::Sessions {
            self.print_line(Level::Info, &SessionLine { time, closed });
            return;
        }
        let SessionClosed { client, reason, .. } = closed;
        match (&closed.request, reason) {
            (Some(request), CloseReason::Refused(_)) => {
                let line = format_args!("{client} {request} {reason}");
                self.print_throttled(Topic::Refused, Level::Info, &line);
            }
            // It has a line of its own.
            (None, CloseReason::HandshakeFailed(HandshakeError::LoginFailed { error, .. }))
                if *error != AuthError::OutOfMemory => {}
            (None, CloseReason::HandshakeFailed(_)) => {
                let line = format_args!("{client} {reason}");
                self.print_throttled(Topic::HandshakeFailed, Level::Info, &line);
            }
            // No rate limit: a change of the operator causes these lines, not a client.
            (Some(request), CloseReason::PermitWithdrawn(_)) => {
                self.print_line(Level::Info, &format_args!("{client} {request} {reason}"));
            }
            _ => {}
        }
    }

    fn print_line(&mut self, level: Level, line: &dyn fmt::Display) {
        // A line that is lost is counted.
        let _ = self.diagnostics.print(level, line);
    }

    fn print_throttled(&mut self, topic: Topic, level: Level, line: &dyn fmt::Display) {
        let Some(throttle) = self.throttles.get_mut(topic as usize) else {
            return;
        };
        match throttle.try_pass(Instant::now()) {
            None => {}
            Some(0) => self.print_line(level, line),
            Some(suppressed) => {
                let line = format_args!("{line} (and {suppressed} more since the last line)");
                if !self.diagnostics.print(level, &line) {
                    throttle.add_suppressed(suppressed);
                }
            }
        }
    }

    /// How long to wait for the next event before the suppressed lines are counted
    /// on stderr.
    pub(super) fn timeout(&self) -> Duration {
        let has_suppressed = self.throttles.iter().any(Throttle::has_suppressed);
        let has_suppressed =
            has_suppressed || self.login_lines.has_suppressed() || self.json.has_suppressed();
        match has_suppressed {
            true => INTERVAL,
            false => NO_TIMEOUT,
        }
    }

    /// Prints how many lines were suppressed, for the topics whose rate limit permits a line
    /// at this time.
    pub(super) fn print_suppressed(&mut self, now: Instant) {
        for line in self.login_lines.take_suppressed(now) {
            self.print_line(Level::Warning, &line);
        }
        for line in self.json.suppressed_lines(SystemTime::now(), now) {
            self.print_message(&line);
        }
        for (topic, throttle) in TOPICS.iter().zip(&mut self.throttles) {
            let count = throttle.take_suppressed(now);
            if count == 0 {
                continue;
            }
            let is_dropped = matches!(topic, Topic::DroppedMessages | Topic::DroppedLines);
            if is_dropped && self.format == LogFormat::Json {
                // If this is lost too, it is counted as one more message.
                let _ = self.screen.write(&json::dropped(SystemTime::now(), count));
            }
            let noun = self.format.noun();
            let what = match topic {
                Topic::Refused => "more requests refused (-v prints each)",
                Topic::HandshakeFailed => "more clients without a valid request (-v prints each)",
                Topic::Rejected => "more clients rejected",
                Topic::Logins => "more logins failed",
                Topic::DroppedMessages => {
                    &format!("{noun}s dropped: stdout or stderr is read too slowly")
                }
                Topic::DroppedLines => "lines dropped: stdout or stderr is read too slowly",
            };
            if !self
                .diagnostics
                .print(Level::Warning, &format_args!("{count} {what}"))
            {
                throttle.add_suppressed(count);
            }
        }
    }

    /// Notes how many screen messages and lines were dropped because the queue was full.
    /// They are reported when the rate limit permits it.
    pub(super) fn note_dropped(&mut self, messages: u64, lines: u64) {
        for (topic, count) in [
            (Topic::DroppedMessages, messages),
            (Topic::DroppedLines, lines),
        ] {
            if let Some(throttle) = self.throttles.get_mut(topic as usize) {
                throttle.add_suppressed(count);
            }
        }
    }

    /// Prints at the end what was not printed yet.
    pub(super) fn close(mut self) {
        self.throttles.iter_mut().for_each(Throttle::reset);
        self.login_lines.reset();
        self.json.reset();
        self.print_suppressed(Instant::now());
        let noun = self.format.noun();
        let lost = self.screen.close();
        if lost > 0 {
            let line = format!("stdout: {} lost", counted(lost, noun));
            let _ = self.diagnostics.print(Level::Warning, &line);
        }
        // How many lines stderr itself has lost cannot be reported any more.
        self.diagnostics.close();
    }
}

/// Which port an association has had before, announced by its client or seen by the server.
fn before_this_port(announced: u16, previous: Option<u16>) -> String {
    match (previous, announced) {
        (Some(previous), _) => format!("datagrams from port {previous} are dropped from now on"),
        (None, 0) => "it has announced no port".to_owned(),
        (None, announced) => format!("it has announced port {announced}"),
    }
}

/// A client over a limit is expected. A machine without a descriptor or a thread is a failure.
fn level_of(reason: &Rejected) -> Level {
    match reason {
        Rejected::AtCapacity { .. }
        | Rejected::PerClientLimit { .. }
        | Rejected::Unheard { .. } => Level::Warning,
        Rejected::AcceptFailed(_) | Rejected::NoThread(_) => Level::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Listening, RequestAnswered};
    use crate::protocol::{Command, ReplyEncoder};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// A file on a disk with this many free bytes, and its content.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, String)>>);

    impl Disk {
        fn set_free(&self, bytes: usize) {
            self.0.lock().expect("no panic").0 = bytes;
        }

        fn content(&self) -> String {
            self.0.lock().expect("no panic").1.clone()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (free, text) = &mut *self.0.lock().expect("no panic");
            if *free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*free);
            *free -= count;
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answered(port: u16) -> Event {
        Event::RequestAnswered(RequestAnswered {
            client: "127.0.0.1:1".parse().expect("an address"),
            via: None,
            destination: None,
            port,
            encoder: ReplyEncoder::Socks5,
            command: Command::Connect,
            cause: None,
            waited: Duration::ZERO,
            details: None,
        })
    }

    fn listening(port: u16) -> TimedEvent {
        TimedEvent::now(Event::Listening(Box::new(Listening {
            has_chosen_port: false,
            address: ([127, 0, 0, 1], port).into(),
            max_sessions: 1,
            limited_by: None,
            rules: 1,
            users: 0,
            proxy_from: 0,
        })))
    }

    /// A printer whose screen gets messages in this format.
    fn printer(
        screen: Box<dyn Write + Send>,
        format: LogFormat,
        stderr: &Disk,
        verbosity: Verbosity,
    ) -> Printer {
        let output = OutputConfig {
            screen,
            format,
            diagnostics: Box::new(stderr.clone()),
            verbosity,
            has_priorities: false,
            queued_events: 8,
        };
        Printer::new(output, &Arc::default())
    }

    /// A printer that writes only to stderr.
    fn printer_to(stderr: &Disk, verbosity: Verbosity) -> Printer {
        printer(Box::new(io::sink()), LogFormat::None, stderr, verbosity)
    }

    #[test]
    fn l04_a_partial_message_is_completed_before_the_next() {
        let (disk, stderr) = (Disk::default(), Disk::default());
        stderr.set_free(usize::MAX);
        let mut printer = printer(
            Box::new(disk.clone()),
            LogFormat::Screen,
            &stderr,
            Verbosity::Normal,
        );
        let mut expected = String::new();
        // A part of the first message is written. The next two find no room: first not
        // even for the rest of the first, then just for that. The last is written.
        for (port, free) in [(1, 50), (2, 0), (3, 7), (4, usize::MAX)] {
            disk.set_free(free);
            let event = answered(port);
            if let (Event::RequestAnswered(answered), 1 | 4) = (&event, port) {
                expected.push_str(&screen_message(answered));
            }
            printer.print(TimedEvent::now(event));
        }
        assert_eq!(disk.content(), expected);
        assert!(stderr.content().contains("2 screen messages lost"));
    }

    #[test]
    fn f26_quiet_prints_only_the_remarks_of_a_reload() {
        for (verbosity, expected) in [
            (
                Verbosity::Errors,
                "threadsocks: f: warning: open\nthreadsocks: f: warning: open\n",
            ),
            (
                Verbosity::Normal,
                "threadsocks: f: 1 rule in force\nthreadsocks: f: warning: open\n\
                 threadsocks: f: checked, nothing has changed\nthreadsocks: f: warning: open\n",
            ),
        ] {
            let stderr = Disk::default();
            stderr.set_free(usize::MAX);
            let mut printer = printer_to(&stderr, verbosity);
            printer.print(TimedEvent::now(Event::FileReloaded {
                path: "f".into(),
                about: "rules",
                event: ReloadEvent::Reloaded {
                    content: "1 rule".to_owned(),
                    entries: 1,
                },
                remarks: vec!["warning: open".to_owned()],
            }));
            // The operator asks for them with SIGHUP.
            printer.print(TimedEvent::now(Event::FileUnchanged {
                path: "f".into(),
                about: "rules",
                remarks: vec!["warning: open".to_owned()],
            }));
            assert_eq!(stderr.content(), expected);
        }
    }

    #[test]
    fn l05_a_partial_line_on_stderr_is_completed_before_the_next() {
        let stderr = Disk::default();
        let mut printer = printer_to(&stderr, Verbosity::Normal);
        for (port, free) in [(1, 10), (2, 0), (3, 5), (4, usize::MAX)] {
            stderr.set_free(free);
            printer.print(listening(port));
        }
        printer.close();
        assert_eq!(
            stderr.content(),
            "threadsocks: listening on 127.0.0.1:1\n\
             threadsocks: stderr: 2 lines lost here\n\
             threadsocks: listening on 127.0.0.1:4\n"
        );
    }

    /// However few bytes a write takes: each line is complete, or counted as lost.
    #[test]
    fn l05_every_line_that_stderr_loses_is_counted() {
        const LINES: u16 = 500;
        let stderr = Disk::default();
        let mut printer = printer_to(&stderr, Verbosity::Normal);
        for port in 1..=LINES {
            stderr.set_free(usize::from(port * 7 % 50));
            printer.print(listening(port));
        }
        stderr.set_free(usize::MAX);
        printer.print(listening(1));
        let (mut complete, mut lost) = (0, 0);
        for line in stderr.content().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["threadsocks:", "listening", "on", _] => complete += 1,
                [
                    "threadsocks:",
                    "stderr:",
                    count,
                    "line" | "lines",
                    "lost",
                    "here",
                ] => {
                    lost += count.parse::<u16>().expect("a number");
                }
                _ => panic!("{line}"),
            }
        }
        assert!(lost > 0);
        assert_eq!(complete + lost, LINES + 1);
    }
}
