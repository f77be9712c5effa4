//! What the server counts, and the events that add to each count.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::histogram::Histogram;
use super::text_format::{Kind, TextFormat};
use super::word_counts::WordCounts;
use crate::config::ReloadEvent;
use crate::events::{
    AuthError, CloseReason, DropReason, Event, Rejected, RequestAnswered, RequestError,
};
use crate::protocol::Command;

/// One of the two outputs of the logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Screen messages or JSON objects.
    Stdout,
    /// Lines for people.
    Stderr,
}

/// The labels of requests: version and command. SOCKS4 has no UDP ASSOCIATE.
const REQUESTS: [(&str, Command); 5] = [
    ("socks4", Command::Connect),
    ("socks4", Command::Bind),
    ("socks5", Command::Connect),
    ("socks5", Command::Bind),
    ("socks5", Command::Associate),
];

/// The files, as events name them.
const FILES: [&str; 2] = ["rules", "users"];

/// All counts of a server since its start.
///
/// All atomics but the bytes of ended sessions are Relaxed: mere counts and states, from which no
/// thread concludes anything about other data. They are those of the standard library, so a model
/// has no step for each count.
#[derive(Debug)]
pub(crate) struct Counters {
    clients_accepted: AtomicU64,
    clients_rejected: WordCounts,
    requests: [RequestCounts; REQUESTS.len()],
    connect_times: Histogram,
    logins_accepted: AtomicU64,
    logins_refused: WordCounts,
    sessions_closed: WordCounts,
    /// From client to remote, and from remote to client.
    bytes: [ByteCount; 2],
    datagrams_dropped: WordCounts,
    messages_dropped: [AtomicU64; 2],
    files: [FileState; FILES.len()],
}

/// The requests of one version with one command.
#[derive(Debug)]
struct RequestCounts {
    granted: AtomicU64,
    refused: WordCounts,
}

/// The bytes of one direction.
#[derive(Debug, Default)]
struct ByteCount {
    /// Those of sessions that have ended.
    ended: AtomicU64,
    /// The largest total that was reported.
    reported: AtomicU64,
}

/// The last attempt to load a file.
#[derive(Debug)]
struct FileState {
    was_successful: AtomicBool,
    /// The last success, in milliseconds since 1970.
    succeeded_at: AtomicU64,
}

impl Default for Counters {
    /// At the start of the server, after its files were loaded.
    fn default() -> Counters {
        Counters {
            clients_accepted: AtomicU64::new(0),
            clients_rejected: WordCounts::new(Rejected::WORDS),
            requests: REQUESTS.map(|_| RequestCounts {
                granted: AtomicU64::new(0),
                refused: WordCounts::new(RequestError::WORDS),
            }),
            connect_times: Histogram::default(),
            logins_accepted: AtomicU64::new(0),
            logins_refused: WordCounts::new(AuthError::WORDS),
            sessions_closed: WordCounts::new(CloseReason::WORDS),
            bytes: Default::default(),
            datagrams_dropped: WordCounts::new(DropReason::WORDS),
            messages_dropped: Default::default(),
            files: FILES.map(|_| FileState {
                was_successful: AtomicBool::new(true),
                succeeded_at: AtomicU64::new(now_millis()),
            }),
        }
    }
}

impl Counters {
    /// Counts an event. The thread that reports it calls this before it drops what the event is
    /// about.
    pub(crate) fn count(&self, event: &Event) {
        match event {
            Event::ClientAccepted => increment(&self.clients_accepted),
            Event::Rejected(reason) => self.clients_rejected.add(reason.word()),
            Event::RequestAnswered(answered) => self.count_request(answered),
            Event::LoginAccepted => increment(&self.logins_accepted),
            Event::LoginFailed(failed) => self.logins_refused.add(failed.error.word()),
            Event::SessionClosed(closed) => {
                self.sessions_closed.add(closed.reason.word());
                for (count, bytes) in self.bytes.iter().zip([closed.up, closed.down]) {
                    // Release: see `relayed_bytes`.
                    count.ended.fetch_add(bytes, Ordering::Release);
                }
            }
            Event::DatagramDropped(reason) => self.datagrams_dropped.add(reason.word()),
            Event::FileReloaded { about, event, .. } => match event {
                ReloadEvent::Reloaded { .. } => self.note_load(about, true),
                ReloadEvent::Kept(_) => self.note_load(about, false),
                ReloadEvent::BeingWritten => {}
            },
            Event::FileUnchanged { about, .. } => self.note_load(about, true),
            Event::StartMessage { .. }
            | Event::Listening(_)
            | Event::ClientPort { .. }
            | Event::ForeignDatagram { .. }
            | Event::Stopping { .. }
            | Event::Stopped { .. }
            | Event::Status(_) => {}
        }
    }

    fn count_request(&self, answered: &RequestAnswered) {
        let kind = (answered.encoder.word(), answered.command);
        let mut requests = REQUESTS.iter().zip(&self.requests);
        let counts = requests.find(|(it, _)| **it == kind);
        match (counts, answered.cause) {
            (Some((_, counts)), Some(cause)) => counts.refused.add(cause),
            (Some((_, counts)), None) => increment(&counts.granted),
            // The decoder of SOCKS4 knows no other command.
            (None, _) => {}
        }
        if answered.command == Command::Connect && answered.cause.is_none() {
            self.connect_times.add(answered.waited);
        }
    }

    /// Notes whether a file was loaded.
    fn note_load(&self, about: &str, was_successful: bool) {
        let mut files = FILES.iter().zip(&self.files);
        let Some((_, file)) = files.find(|(it, _)| **it == about) else {
            return;
        };
        file.was_successful.store(was_successful, Ordering::Relaxed);
        if was_successful {
            file.succeeded_at.store(now_millis(), Ordering::Relaxed);
        }
    }

    /// Counts a message that this output did not get.
    pub(crate) fn count_dropped_message(&self, output: Output) {
        let [stdout, stderr] = &self.messages_dropped;
        increment(match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        });
    }

    /// The bytes of both directions, of all sessions since the start. `live` adds up those of the
    /// sessions that have not ended.
    ///
    /// The result never exceeds the truth, because the ended sessions are read first: a session
    /// that is in their sum has no owner any more, so it cannot be in that of `live` (Release and
    /// Acquire order the two). A session that ends between the two is in neither. That is why the
    /// largest result so far is remembered: no result is below an earlier one, and the next one
    /// has the session.
    pub(crate) fn relayed_bytes(&self, live: impl FnOnce() -> [u64; 2]) -> [u64; 2] {
        let [up, down] = &self.bytes;
        let ended = [up, down].map(|it| it.ended.load(Ordering::Acquire));
        let live = live();
        let total = |count: &ByteCount, ended: u64, live: u64| {
            let seen = ended + live;
            // Relaxed: the maximum needs no other data.
            seen.max(count.reported.fetch_max(seen, Ordering::Relaxed))
        };
        let ([ended_up, ended_down], [live_up, live_down]) = (ended, live);
        [
            total(up, ended_up, live_up),
            total(down, ended_down, live_down),
        ]
    }

    /// Writes all counts but the bytes, which need the live sessions. `has_users`: is there a
    /// users file?
    pub(crate) fn write(&self, page: &mut TextFormat, has_users: bool) {
        self.write_clients(page);
        self.write_requests(page);
        write_by_reason(
            page,
            "threadsocks_sessions_closed_total",
            "Sessions that have ended, by reason.",
            &self.sessions_closed,
        );
        write_by_reason(
            page,
            "threadsocks_datagrams_dropped_total",
            "Datagrams of UDP associations that were dropped, by reason.",
            &self.datagrams_dropped,
        );
        let mut samples = page.metric(
            "threadsocks_log_messages_dropped_total",
            Kind::Counter,
            "Messages that an output did not get, because it is read too slowly or has failed.",
        );
        for (output, count) in ["stdout", "stderr"].into_iter().zip(&self.messages_dropped) {
            samples.add(&[("output", output)], load(count));
        }
        self.write_files(page, has_users);
    }

    fn write_clients(&self, page: &mut TextFormat) {
        page.metric(
            "threadsocks_clients_accepted_total",
            Kind::Counter,
            "Connections of clients that were accepted, those included that were then rejected.",
        )
        .add(&[], load(&self.clients_accepted));
        write_by_reason(
            page,
            "threadsocks_clients_rejected_total",
            "Clients that were rejected or dropped before their request, by reason.",
            &self.clients_rejected,
        );
        let mut samples = page.metric(
            "threadsocks_logins_total",
            Kind::Counter,
            "Logins of clients, by result.",
        );
        samples.add(&[("result", "ok")], load(&self.logins_accepted));
        // No event: such a login may be right.
        let uncounted = AuthError::OutOfMemory.word();
        let refused = self.logins_refused.each();
        for (result, count) in refused.filter(|(word, _)| *word != uncounted) {
            samples.add(&[("result", result)], count);
        }
    }

    fn write_requests(&self, page: &mut TextFormat) {
        let mut samples = page.metric(
            "threadsocks_requests_total",
            Kind::Counter,
            "Requests, by version, command and result: granted, or the cause of the refusal.",
        );
        for ((version, command), counts) in REQUESTS.iter().zip(&self.requests) {
            let granted = [("granted", load(&counts.granted))].into_iter();
            for (result, count) in granted.chain(counts.refused.each()) {
                let labels = [
                    ("version", *version),
                    ("command", command.word()),
                    ("result", result),
                ];
                samples.add(&labels, count);
            }
        }
        let mut samples = page.metric(
            "threadsocks_connect_seconds",
            Kind::Histogram,
            "Time from a CONNECT to the reply that grants it, with identd and name lookup.",
        );
        let buckets = self.connect_times.cumulative();
        for (bound, count) in buckets {
            samples.add_to("_bucket", &[("le", bound)], count);
        }
        samples.add_to("_sum", &[], self.connect_times.sum());
        // The same number as in the last bucket, also while other threads count.
        let total = buckets.last().map_or(0, |(_, count)| *count);
        samples.add_to("_count", &[], total);
    }

    fn write_files(&self, page: &mut TextFormat, has_users: bool) {
        let files = || {
            let files = FILES.into_iter().zip(&self.files);
            files.filter(|(name, _)| has_users || *name != "users")
        };
        let mut samples = page.metric(
            "threadsocks_config_last_reload_successful",
            Kind::Gauge,
            "Was the last attempt to load the file successful? If not, older content is in force.",
        );
        for (file, state) in files() {
            let was_successful = state.was_successful.load(Ordering::Relaxed);
            samples.add(&[("file", file)], u8::from(was_successful));
        }
        let mut samples = page.metric(
            "threadsocks_config_last_reload_success_timestamp_seconds",
            Kind::Gauge,
            "When the file was loaded, or found unchanged at a reload, since 1970.",
        );
        for (file, state) in files() {
            samples.add(&[("file", file)], load(&state.succeeded_at) as f64 / 1000.0);
        }
    }
}

/// Writes a counter that has a line for each reason.
fn write_by_reason(
    page: &mut TextFormat,
    name: &'static str,
    help: &'static str,
    counts: &WordCounts,
) {
    let mut samples = page.metric(name, Kind::Counter, help);
    for (reason, count) in counts.each() {
        samples.add(&[("reason", reason)], count);
    }
}

fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Milliseconds since 1970; 0 if the clock is before that.
fn now_millis() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::SessionClosed;

    /// A session ends that has moved these bytes.
    fn end(counters: &Counters, up: u64, down: u64) {
        counters.count(&Event::SessionClosed(Box::new(SessionClosed {
            via: None,
            session: 1,
            client: ([127, 0, 0, 1], 1).into(),
            request: None,
            address: None,
            confirmed: false,
            rule: None,
            up,
            down,
            drops: None,
            lasted: Duration::ZERO,
            reason: CloseReason::Finished,
        })));
    }

    #[test]
    fn l22_the_bytes_never_step_back_and_never_exceed_the_truth() {
        let counters = Counters::default();
        assert_eq!(counters.relayed_bytes(|| [5, 7]), [5, 7]);
        // The session ends after the sum of the ended ones was read, and before the live ones.
        let between = || {
            end(&counters, 6, 7);
            [0, 0]
        };
        assert_eq!(counters.relayed_bytes(between), [5, 7]);
        assert_eq!(counters.relayed_bytes(|| [0, 1]), [6, 8]);
        // A session ends after the live ones were read.
        let after = || {
            end(&counters, 10, 20);
            [10, 20]
        };
        assert_eq!(counters.relayed_bytes(after), [16, 27]);
        assert_eq!(counters.relayed_bytes(|| [0, 0]), [16, 27]);
    }

    #[test]
    fn l20_the_words_of_a_time_out_are_one_series() {
        let mut page = TextFormat::default();
        Counters::default().write(&mut page, true);
        let page = page.finish();
        let series = r#"{version="socks5",command="bind",result="timed_out"} 0"#;
        assert_eq!(page.matches(series).count(), 1);
        assert!(!page.contains("no_memory"));
    }
}
