//! The words: screen messages on stdout, everything else on stderr.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::writer::{MessageWriter, WriteResult};
use super::{OutputConfig, Verbosity};
use crate::config::ReloadEvent;
use crate::events::{ClientRequest, CloseReason, Drops, Event, RequestAnswered, SessionClosed};

/// Lines of one topic on stderr come at most this often; those in between are
/// counted.
const INTERVAL: Duration = Duration::from_secs(1);

/// While nothing is held back, the logger has no reason to wake up.
const NO_TIMEOUT: Duration = Duration::from_secs(3600 * 24 * 365);

/// What would flood stderr if strangers could make us say it at will.
#[derive(Clone, Copy, Debug)]
enum Topic {
    Refused,
    HandshakeFailed,
    Rejected,
    LostMessages,
    LostLines,
}

const TOPICS: [Topic; 5] = [
    Topic::Refused,
    Topic::HandshakeFailed,
    Topic::Rejected,
    Topic::LostMessages,
    Topic::LostLines,
];

/// The printer of events.
pub(super) struct Printer {
    screen: Option<MessageWriter>,
    diagnostics: MessageWriter,
    detail: Verbosity,
    throttles: [Throttle; TOPICS.len()],
}

impl Printer {
    pub(super) fn new(output: OutputConfig) -> Printer {
        Printer {
            screen: output.screen.map(MessageWriter::new),
            diagnostics: MessageWriter::new(output.diagnostics),
            detail: output.detail,
            throttles: Default::default(),
        }
    }

    /// Prints one event.
    pub(super) fn show(&mut self, event: Event) {
        match event {
            Event::RequestAnswered(answered) => self.message(&answered),
            Event::SessionClosed(closed) => self.closed(&closed),
            Event::Rejected(why) => self.throttled(Topic::Rejected, &why),
            Event::Listening(address) => self.say(&format_args!("listening on {address}")),
            Event::FileReloaded { path, about, event } => self.file(&path, about, &event),
            Event::FileUnchanged { path } => {
                let path = path.display();
                self.say(&format_args!("{path}: read again, nothing has changed"));
            }
            Event::Stopping { sessions, grace } => {
                let grace = humantime::format_duration(grace);
                let open = counted(sessions as u64, "open session");
                self.say(&format_args!(
                    "stopping: no new clients; {open}, to be cut after {grace}"
                ));
            }
        }
    }

    /// What has become of a file that is followed.
    fn file(&mut self, path: &Path, about: &str, event: &ReloadEvent) {
        let shown = path.display();
        match event {
            ReloadEvent::Reloaded(content) if self.detail >= Verbosity::Normal => {
                self.say(&format_args!("{shown}: {content} in force"));
            }
            ReloadEvent::Reloaded(_) => {}
            ReloadEvent::Kept(error) => {
                for line in error.describe(path) {
                    self.say(&line);
                }
                self.say(&format_args!("the last good {about} stay in force"));
            }
            ReloadEvent::BeingWritten => self.say(&format_args!(
                "{shown}: somebody is still writing it; the last good {about} stay in force"
            )),
        }
    }

    /// One block on stdout, in one write, so that nothing comes in between.
    fn message(&mut self, answered: &RequestAnswered) {
        let Some(screen) = &mut self.screen else {
            return;
        };
        match screen.put(&block(answered)) {
            WriteResult::Written(0)
            | WriteResult::Partial(None)
            | WriteResult::DroppedCounts(None) => {}
            WriteResult::Written(lost) => {
                if !say(&mut self.diagnostics, &lost_messages(lost)) {
                    screen.set_lost(lost);
                }
            }
            WriteResult::Partial(Some(error)) | WriteResult::DroppedCounts(Some(error)) => self
                .say(&format_args!(
                    "stdout: {error}; screen messages are lost, everything else goes on"
                )),
        }
    }

    fn closed(&mut self, closed: &SessionClosed) {
        if self.detail >= Verbosity::Sessions {
            self.say(&SessionLine(closed));
            return;
        }
        let SessionClosed { client, ending, .. } = closed;
        match (&closed.request, ending) {
            (Some(request), CloseReason::Refused(_)) => {
                self.throttled(Topic::Refused, &format_args!("{client} {request} {ending}"));
            }
            (None, CloseReason::HandshakeFailed(_)) => {
                self.throttled(Topic::HandshakeFailed, &format_args!("{client} {ending}"));
            }
            // The operator has made us say it, not a stranger.
            (Some(request), CloseReason::PermitWithdrawn(_)) => {
                self.say(&format_args!("{client} {request} {ending}"));
            }
            _ => {}
        }
    }

    fn say(&mut self, what: &dyn fmt::Display) {
        // What is lost is counted.
        let _ = say(&mut self.diagnostics, what);
    }

    fn throttled(&mut self, topic: Topic, what: &dyn fmt::Display) {
        let Some(throttle) = self.throttles.get_mut(topic as usize) else {
            return;
        };
        match throttle.pass(Instant::now()) {
            None => {}
            Some(0) => self.say(what),
            Some(held) => {
                let line = format_args!("{what} (and {held} more since the last line)");
                if !say(&mut self.diagnostics, &line) {
                    throttle.held += held;
                }
            }
        }
    }

    /// How long to wait for the next event before saying what was held back.
    pub(super) fn patience(&self) -> Duration {
        let holding = self.throttles.iter().any(|throttle| throttle.held > 0);
        if holding { INTERVAL } else { NO_TIMEOUT }
    }

    /// Says how many lines were held back, for the topics of which a line may
    /// pass at this time.
    pub(super) fn show_held_back(&mut self, now: Instant) {
        for (topic, throttle) in TOPICS.iter().zip(&mut self.throttles) {
            let count = throttle.release(now);
            if count == 0 {
                continue;
            }
            let what = match topic {
                Topic::Refused => "refused since (-v tells each)",
                Topic::HandshakeFailed => "more without a request (-v tells each)",
                Topic::Rejected => "more turned away",
                Topic::LostMessages => "screen messages dropped: nobody read them fast enough",
                Topic::LostLines => "lines dropped: nobody read them fast enough",
            };
            if !say(&mut self.diagnostics, &format_args!("{count} {what}")) {
                throttle.held += count;
            }
        }
    }

    /// RequestLog how many screen messages and lines found the queue full, to be
    /// said in due time.
    pub(super) fn note_lost(&mut self, messages: u64, lines: u64) {
        for (topic, count) in [(Topic::LostMessages, messages), (Topic::LostLines, lines)] {
            if let Some(throttle) = self.throttles.get_mut(topic as usize) {
                throttle.held += count;
            }
        }
    }

    /// Says at the end what has not been said yet.
    pub(super) fn close(mut self) {
        for throttle in &mut self.throttles {
            throttle.last = None;
        }
        self.show_held_back(Instant::now());
        let lost = self.screen.take().map_or(0, MessageWriter::close);
        if lost > 0 {
            self.say(&lost_messages(lost));
        }
        // How many of its own it has lost, there is nobody left to tell.
        self.diagnostics.close();
    }
}

fn lost_messages(count: u64) -> String {
    format!("stdout: {count} screen messages were lost")
}

/// One line on stderr; false if it is lost. How many were is told in front of the
/// next that is not.
fn say(diagnostics: &mut MessageWriter, what: &dyn fmt::Display) -> bool {
    let notice = match diagnostics.lost() {
        0 => String::new(),
        lost => format!("threadsocks: stderr: {lost} lines were lost here\n"),
    };
    match diagnostics.put(&format!("{notice}threadsocks: {what}\n")) {
        WriteResult::Written(_) => true,
        WriteResult::Partial(_) => {
            diagnostics.set_lost(0);
            true
        }
        WriteResult::DroppedCounts(_) => false,
    }
}

/// The screen message: six lines and an empty one.
fn block(answered: &RequestAnswered) -> String {
    let RequestAnswered {
        client,
        destination,
        port,
        command,
        accepted,
    } = answered;
    let destination = match destination {
        Some(address) => address.to_canonical().to_string(),
        None => "-".to_owned(),
    };
    let (source, source_port) = (client.ip().to_canonical(), client.port());
    let reply = if *accepted { "Accept" } else { "Reject" };
    format!(
        "<S_IP>: {source}\n\
         <S_PORT>: {source_port}\n\
         <D_IP>: {destination}\n\
         <D_PORT>: {port}\n\
         <Command>: {command}\n\
         <Reply>: {reply}\n\
         \n"
    )
}

/// "1 session", "2 sessions".
fn counted(count: impl Into<u64>, what: &str) -> String {
    match count.into() {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The line for an ended session: `key=value` pairs in a fixed order, so that
/// other programs can read it too.
struct SessionLine<'a>(&'a SessionClosed);

impl fmt::Display for SessionLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionClosed {
            session,
            client,
            request,
            address,
            confirmed,
            rule,
            up,
            down,
            drops,
            lasted,
            ending,
        } = self.0;
        let now = humantime::format_rfc3339_seconds(sayable(SystemTime::now()));
        write!(out, "{now} s{session} client={client}")?;
        if let Some(request) = request {
            let ClientRequest {
                language,
                command,
                target,
                ..
            } = request;
            write!(
                out,
                " language={language} command={command} target={target}"
            )?;
            if let Some(address) = address {
                write!(out, " address={address}")?;
            }
            if !request.user.is_empty() {
                write!(out, " user=\"{}\"", request.user.escape_ascii())?;
            }
            if request.logged_in {
                out.write_str(" login=accepted")?;
            }
            if *confirmed {
                out.write_str(" ident=confirmed")?;
            }
        }
        match rule {
            Some(line) => write!(out, " rule={line}")?,
            None => out.write_str(" rule=-")?,
        }
        let lasted = humantime::format_duration(Duration::from_millis(
            u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        ));
        write!(out, " up={up} down={down}")?;
        if let Some(Drops { denied, other }) = drops {
            write!(out, " denied={denied} dropped={other}")?;
        }
        write!(out, " lasted=\"{lasted}\" ending=\"")?;
        Escaped(out).write_fmt(format_args!("{ending}"))?;
        out.write_char('"')
    }
}

/// The time, or the nearest one that can be printed: a machine may come up
/// without knowing what year it is.
fn sayable(now: SystemTime) -> SystemTime {
    /// The last second of the year 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + since.min(LAST)
}

/// Escapes what goes between quotes.
struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '"' => self.0.write_str("'")?,
                char => self.0.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// Lets one line pass per [`INTERVAL`] and counts the others.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    held: u64,
}

impl Throttle {
    /// Has a line passed so short a time ago that no other may?
    fn is_shut(&self, now: Instant) -> bool {
        let soon = |last: Instant| now.saturating_duration_since(last) < INTERVAL;
        self.last.is_some_and(soon)
    }

    /// May a line pass now? If so, how many were held back before it?
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.is_shut(now) {
            self.held += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }

    /// How many were held back, if that may be said now; it counts as a line.
    fn release(&mut self, now: Instant) -> u64 {
        if self.held == 0 || self.is_shut(now) {
            return 0;
        }
        self.last = Some(now);
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Command;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// A file on a disk that has so much room left.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, String)>>);

    impl Disk {
        fn has_room_for(&self, bytes: usize) {
            self.0.lock().expect("no panic").0 = bytes;
        }

        fn holds(&self) -> String {
            self.0.lock().expect("no panic").1.clone()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().expect("no panic");
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            *room -= count;
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
            destination: None,
            port,
            command: Command::Connect,
            accepted: true,
        })
    }

    #[test]
    fn l04_a_message_that_was_broken_off_is_ended_before_the_next() {
        let (disk, said) = (Disk::default(), Disk::default());
        said.has_room_for(usize::MAX);
        let mut screen = Printer::new(OutputConfig {
            screen: Some(Box::new(disk.clone())),
            diagnostics: Box::new(said.clone()),
            detail: Verbosity::Normal,
        });
        let mut expected = String::new();
        // The first begins; the next two find no room, not even for its end; it
        // ends; the last is whole.
        for (port, room) in [(1, 50), (2, 0), (3, 7), (4, usize::MAX)] {
            disk.has_room_for(room);
            let event = answered(port);
            if let (Event::RequestAnswered(answered), 1 | 4) = (&event, port) {
                expected.push_str(&block(answered));
            }
            screen.show(event);
        }
        assert_eq!(disk.holds(), expected);
        assert!(said.holds().contains("2 screen messages were lost"));
    }

    #[test]
    fn l05_a_line_on_stderr_that_was_broken_off_is_ended_before_the_next() {
        let said = Disk::default();
        let mut screen = Printer::new(OutputConfig {
            screen: None,
            diagnostics: Box::new(said.clone()),
            detail: Verbosity::Normal,
        });
        for (port, room) in [(1, 10), (2, 0), (3, 5), (4, usize::MAX)] {
            said.has_room_for(room);
            screen.show(Event::Listening(([127, 0, 0, 1], port).into()));
        }
        screen.close();
        assert_eq!(
            said.holds(),
            "threadsocks: listening on 127.0.0.1:1\n\
             threadsocks: stderr: 2 lines were lost here\n\
             threadsocks: listening on 127.0.0.1:4\n"
        );
    }

    /// However little is taken at a time: each line is whole, or counted.
    #[test]
    fn l05_what_stderr_loses_is_counted_to_the_last_line() {
        const LINES: u16 = 500;
        let said = Disk::default();
        let mut screen = Printer::new(OutputConfig {
            screen: None,
            diagnostics: Box::new(said.clone()),
            detail: Verbosity::Normal,
        });
        for port in 1..=LINES {
            said.has_room_for(usize::from(port * 7 % 50));
            screen.show(Event::Listening(([127, 0, 0, 1], port).into()));
        }
        said.has_room_for(usize::MAX);
        screen.show(Event::Listening(([127, 0, 0, 1], 1).into()));
        let (mut whole, mut lost) = (0, 0);
        for line in said.holds().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["threadsocks:", "listening", "on", _] => whole += 1,
                [
                    "threadsocks:",
                    "stderr:",
                    count,
                    "lines",
                    "were",
                    "lost",
                    "here",
                ] => {
                    lost += count.parse::<u16>().expect("a number");
                }
                _ => panic!("{line}"),
            }
        }
        assert!(lost > 0);
        assert_eq!(whole + lost, LINES + 1);
    }

    #[test]
    fn any_time_can_be_said() {
        let second = Duration::from_secs(1);
        for (time, said) in [
            (UNIX_EPOCH - second, "1970-01-01T00:00:00Z"),
            (UNIX_EPOCH + second, "1970-01-01T00:00:01Z"),
            (UNIX_EPOCH + second * u32::MAX * 100, "9999-12-31T23:59:59Z"),
        ] {
            let shown = humantime::format_rfc3339_seconds(sayable(time));
            assert_eq!(shown.to_string(), said);
        }
    }
}
