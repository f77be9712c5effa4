//! `--log json`: events as JSON objects, one a line, for programs that read the log.
//!
//! Names and words do not change within a major version; fields may be added. What is not
//! known is left out. `why` is a sentence for people, and may change.

mod fields;
mod object;
mod rejections;

use std::time::{Instant, SystemTime};

use crate::config::{LoadError, ReloadEvent};
use crate::events::{Event, Listening, LoginFailed, RequestAnswered, SessionClosed, SessionRow};
use fields::{add_client, add_request};
use object::JsonObject;
use rejections::Rejections;

/// Errors of one file in an object; with more the line would be too long.
const MAX_MISTAKES: usize = 10;

/// Makes the lines of events.
#[derive(Debug, Default)]
pub(super) struct JsonLog {
    rejections: Rejections,
}

/// Has this event an object?
pub(super) fn has_object(event: &Event) -> bool {
    !matches!(
        event,
        Event::StartMessage { .. }
            | Event::ClientPort { .. }
            | Event::ForeignDatagram { .. }
            | Event::ClientAccepted
            | Event::LoginAccepted
            | Event::DatagramDropped(_)
    )
}

impl JsonLog {
    /// The lines of this event, with a newline each.
    pub(super) fn lines(&mut self, time: SystemTime, event: &Event) -> Vec<String> {
        let line = match event {
            Event::StartMessage { .. }
            | Event::ClientPort { .. }
            | Event::ForeignDatagram { .. }
            | Event::ClientAccepted
            | Event::LoginAccepted
            | Event::DatagramDropped(_) => return Vec::new(),
            Event::Status(status) => {
                let rows = status.rows.iter();
                return rows.map(|row| session(time, row)).collect();
            }
            Event::Rejected(reason) => {
                let line = self.rejections.line(time, reason, Instant::now());
                return line.into_iter().collect();
            }
            Event::Listening(event) => listening(time, event),
            Event::RequestAnswered(event) => answered(time, event),
            Event::SessionClosed(event) => closed(time, event),
            Event::LoginFailed(event) => login_failed(time, event),
            Event::FileReloaded {
                path, about, event, ..
            } => file(time, &path.display().to_string(), about, Some(event)),
            Event::FileUnchanged { path, about, .. } => {
                file(time, &path.display().to_string(), about, None)
            }
            Event::Stopping { sessions, grace } => {
                let mut object = JsonObject::new(time, "stopping");
                object.number("sessions", *sessions);
                object.seconds("grace_seconds", *grace);
                object.finish()
            }
            Event::Stopped { forced, cut } => {
                let mut object = JsonObject::new(time, "stopped");
                object.flag("forced", *forced);
                object.number("cut", *cut);
                object.finish()
            }
        };
        vec![line]
    }

    /// Rejections that were not reported yet, of the causes whose rate limit permits a line.
    pub(super) fn suppressed_lines(&mut self, time: SystemTime, now: Instant) -> Vec<String> {
        self.rejections.suppressed_lines(time, now)
    }

    /// Is there a rejection that was not reported yet?
    pub(super) fn has_suppressed(&self) -> bool {
        self.rejections.has_suppressed()
    }

    /// Lets the suppressed lines pass at once.
    pub(super) fn reset(&mut self) {
        self.rejections.reset();
    }
}

/// So many objects could not be written since the last such object.
pub(super) fn dropped(time: SystemTime, messages: u64) -> String {
    let mut object = JsonObject::new(time, "dropped");
    object.number("messages", messages);
    object.finish()
}

fn listening(time: SystemTime, event: &Listening) -> String {
    let mut object = JsonObject::new(time, "listening");
    object.address("address", event.address.ip());
    object.number("port", event.address.port());
    object.text("version", env!("CARGO_PKG_VERSION"));
    object.number("pid", std::process::id());
    object.number("max_sessions", event.max_sessions);
    object.optional_text("limited_by", event.limited_by.as_deref());
    object.number("rules", event.rules);
    object.number("users", event.users);
    object.number("proxy_from", event.proxy_from);
    object.finish()
}

fn answered(time: SystemTime, event: &RequestAnswered) -> String {
    let mut object = JsonObject::new(time, "answered");
    add_client(&mut object, event.client, event.via);
    if let Some(details) = &event.details {
        object.number("session", details.session);
        object.flag("granted", event.cause.is_none());
        if let Some(reply) = details.reply {
            object.number("reply", reply);
        }
        object.optional_number("rule", details.rule);
        object.optional_address("address", event.destination);
        object.seconds("waited_seconds", event.waited);
        object.optional_text("cause", event.cause);
        add_request(&mut object, &details.request, details.confirmed);
        object.optional_text("why", details.why.as_deref());
    }
    object.finish()
}

fn closed(time: SystemTime, event: &SessionClosed) -> String {
    let mut object = JsonObject::new(time, "closed");
    add_client(&mut object, event.client, event.via);
    object.number("session", event.session);
    object.optional_number("rule", event.rule);
    object.optional_address("address", event.address);
    object.number("bytes_up", event.up);
    object.number("bytes_down", event.down);
    if let Some(drops) = event.drops {
        object.number("datagrams_denied", drops.denied);
        object.number("datagrams_dropped", drops.other);
    }
    object.seconds("duration_seconds", event.lasted);
    object.text("reason", event.reason.word());
    object.optional_text("cause", event.reason.cause());
    if let Some(request) = &event.request {
        add_request(&mut object, request, event.confirmed);
    }
    object.text("why", event.reason.to_string());
    object.finish()
}

fn login_failed(time: SystemTime, event: &LoginFailed) -> String {
    let mut object = JsonObject::new(time, "login_failed");
    add_client(&mut object, event.client, event.via);
    object.number("session", event.session);
    object.text("cause", event.error.word());
    object.text("user", &event.user);
    object.finish()
}

fn session(time: SystemTime, row: &SessionRow) -> String {
    let mut object = JsonObject::new(time, "session");
    add_client(&mut object, row.client, row.via);
    object.number("session", row.session);
    object.text("state", row.state);
    object.optional_number("rule", row.rule);
    object.optional_address("address", row.address);
    object.number("bytes_up", row.up);
    object.number("bytes_down", row.down);
    object.seconds("age_seconds", row.age);
    if let Some(idle) = row.idle {
        object.seconds("idle_seconds", idle);
    }
    if let Some(request) = &row.request {
        add_request(&mut object, request, row.confirmed);
    }
    object.finish()
}

/// `None`: the operator has requested a reload, and the file has not changed.
fn file(time: SystemTime, path: &str, about: &str, event: Option<&ReloadEvent>) -> String {
    let mut object = JsonObject::new(time, "file");
    object.text("about", about);
    object.text(
        "result",
        match event {
            None => "unchanged",
            Some(ReloadEvent::Reloaded { .. }) => "reloaded",
            Some(ReloadEvent::Kept(_)) => "kept",
            Some(ReloadEvent::BeingWritten) => "being_written",
        },
    );
    if let Some(ReloadEvent::Reloaded { entries, .. }) = event {
        object.number("entries", *entries);
    }
    object.text("path", path);
    match event {
        Some(ReloadEvent::Kept(LoadError::Syntax(errors))) => {
            let errors = errors.iter().take(MAX_MISTAKES);
            object.mistakes(errors.map(|error| (error.line, error.reason.as_str())));
        }
        Some(ReloadEvent::Kept(LoadError::Unreadable(reason))) => object.text("why", reason),
        _ => {}
    }
    object.finish()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use serde_json::Value;

    use super::object::MAX_LINE;
    use super::*;
    use crate::config::SyntaxError;
    use crate::events::{
        AuthError, ClientRequest, CloseReason, Rejected, RequestDetails, RequestError,
    };
    use crate::protocol::{Command, Destination, Host, ReplyEncoder};

    /// The only line of this event, parsed.
    fn parse(time: SystemTime, event: &Event) -> Value {
        let lines = JsonLog::default().lines(time, event);
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(line.len() <= MAX_LINE, "{}", line.len());
        let content = line.strip_suffix('\n').expect("a line");
        assert!(content.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        serde_json::from_str(content).expect(content)
    }

    /// The bytes that a text field stands for.
    fn unescape(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, after @ ..] = rest {
            rest = match (first, after) {
                (b'\\', [b'\\', after @ ..]) => {
                    bytes.push(b'\\');
                    after
                }
                (b'\\', [b'x', digits @ ..]) => {
                    let digits_text = std::str::from_utf8(&digits[..2]).expect("ASCII");
                    bytes.push(u8::from_str_radix(digits_text, 16).expect("digits"));
                    &digits[2..]
                }
                _ => {
                    bytes.push(*first);
                    after
                }
            };
        }
        bytes
    }

    fn client() -> SocketAddr {
        "[::ffff:192.0.2.1]:7".parse().expect("an address")
    }

    fn answered(user: &[u8], host: Host) -> Event {
        let error = RequestError::NotLoggedIn;
        Event::RequestAnswered(RequestAnswered {
            client: client(),
            via: None,
            destination: None,
            port: 80,
            encoder: ReplyEncoder::Socks5,
            command: Command::Connect,
            cause: Some(error.word()),
            waited: Duration::from_millis(1_500),
            details: Some(Box::new(RequestDetails {
                session: 3,
                request: ClientRequest {
                    encoder: ReplyEncoder::Socks5,
                    command: Command::Connect,
                    destination: Destination { host, port: 80 },
                    user: user.to_vec(),
                    logged_in: true,
                },
                rule: Some(2),
                confirmed: false,
                reply: Some(2),
                why: Some(error.to_string()),
            })),
        })
    }

    #[test]
    fn l19_opaque_bytes_are_escaped_and_can_be_read_again() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for user in [&all[..], b"a\"b", b"\\x41", b"\\", &[0xff; 512]] {
            let object = parse(UNIX_EPOCH, &answered(user, Host::from_name(b"example.org")));
            assert_eq!(unescape(object["user"].as_str().expect("a text")), user);
            assert_eq!(object["target"], "example.org");
            assert_eq!(object.get("truncated"), None);
        }
    }

    #[test]
    fn l19_the_longest_request_is_cut_and_says_so() {
        let object = parse(
            UNIX_EPOCH,
            &answered(&[0xff; 512], Host::from_name(&[0xff; 255])),
        );
        assert_eq!(object["truncated"], true);
        let target = unescape(object["target"].as_str().expect("a text"));
        assert_eq!(target, [0xff; 255]);
    }

    #[test]
    fn l19_the_time_is_the_moment_of_the_event() {
        let event = || Event::Stopped {
            forced: false,
            cut: 0,
        };
        for (time, expected) in [
            (UNIX_EPOCH, "1970-01-01T00:00:00.000Z"),
            (
                UNIX_EPOCH - Duration::from_secs(9),
                "1970-01-01T00:00:00.000Z",
            ),
            (
                UNIX_EPOCH + Duration::from_millis(1_234),
                "1970-01-01T00:00:01.234Z",
            ),
        ] {
            assert_eq!(parse(time, &event())["time"], expected);
        }
    }

    #[test]
    fn l19_a_refused_request_has_all_fields_with_their_types() {
        let object = parse(
            UNIX_EPOCH,
            &answered(b"bob", Host::from_name(b"example.org")),
        );
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z",
            "event": "answered",
            "client": "192.0.2.1",
            "client_port": 7,
            "session": 3,
            "granted": false,
            "reply": 2,
            "rule": 2,
            "waited_seconds": 1.5,
            "cause": "not_logged_in",
            "version": "socks5",
            "command": "connect",
            "target": "example.org",
            "target_port": 80,
            "login": "accepted",
            "user": "bob",
            "why": RequestError::NotLoggedIn.to_string(),
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn l19_a_file_with_many_long_errors_fits_into_one_line() {
        let error = |line| SyntaxError {
            line,
            reason: "\u{1b}".repeat(1000),
        };
        let errors: Vec<SyntaxError> = (1..=20).map(error).collect();
        // The longest path leaves no room for an error.
        for (length, expected) in [(1, MAX_MISTAKES), (3_800, 0)] {
            let event = ReloadEvent::Kept(LoadError::Syntax(errors.clone()));
            let object = parse(
                UNIX_EPOCH,
                &Event::FileReloaded {
                    path: "f".repeat(length).into(),
                    about: "rules",
                    event,
                    remarks: Vec::new(),
                },
            );
            assert_eq!(
                (&object["result"], &object["truncated"]),
                (&"kept".into(), &true.into())
            );
            let mistakes = object["mistakes"].as_array().expect("a list");
            assert_eq!(mistakes.len(), expected);
        }
    }

    #[test]
    fn l19_rejections_have_one_line_a_second_for_each_cause() {
        let (mut log, now) = (Rejections::default(), Instant::now());
        let full = Rejected::AtCapacity { max_sessions: 9 };
        let parse = |line: &String| serde_json::from_str::<Value>(line).expect(line);
        let first = log.line(UNIX_EPOCH, &full, now).expect("a line");
        assert_eq!(parse(&first)["count"], 1);
        for _ in 0..4 {
            assert_eq!(log.line(UNIX_EPOCH, &full, now), None);
        }
        let client = client().ip();
        let unheard = Rejected::Unheard { client };
        let other = log.line(UNIX_EPOCH, &unheard, now).expect("a line");
        assert_eq!(parse(&other)["client"], "192.0.2.1");
        let later = now + Duration::from_secs(1);
        let lines = log.suppressed_lines(UNIX_EPOCH, later);
        let object = parse(&lines[0]);
        assert_eq!((lines.len(), &object["count"]), (1, &4.into()));
        assert_eq!(
            (&object["cause"], &object["limit"]),
            (&"full".into(), &9.into())
        );
    }

    #[test]
    fn l19_a_login_that_fails_names_its_cause() {
        let event = Event::LoginFailed(LoginFailed {
            session: 5,
            client: client(),
            counted: client().ip(),
            via: None,
            user: b"bob".to_vec(),
            error: AuthError::RateLimited,
        });
        let object = parse(UNIX_EPOCH, &event);
        assert_eq!(
            (&object["cause"], &object["user"]),
            (&"throttled".into(), &"bob".into())
        );
        assert_eq!(CloseReason::Finished.word(), "finished");
    }
}
