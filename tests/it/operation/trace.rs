//! `--trace`: jobs, waits, hand-overs and marks of a real server.

use std::collections::HashMap;
use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::endpoints::{
    Origin, connect_through, read_all, read_exactly, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};

/// Sessions of a traced server.
const SESSIONS: usize = 5;

/// A folder for the trace, and its path with this name.
fn trace_file(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn traced(path: &Path, options: &[&str]) -> Proxy {
    let mut all = vec!["--trace", path.to_str().unwrap()];
    all.extend(options);
    Proxy::start(PERMIT_ALL, &all)
}

/// One session: the server sends back what it gets, and both sides end with FIN.
fn echo_session(proxy: &Proxy, origin: &Origin) {
    let client = connect_through(proxy.address(), &origin.destination());
    write(&client, b"hello");
    assert_eq!(read_exactly(&client, 5), b"hello");
    shutdown_write(&client);
    assert_eq!(read_all(&client), b"");
}

/// Runs a server for [`SESSIONS`] sessions, the first of which waits for the others, and stops it
/// as Ctrl-C does.
fn run(path: &Path) -> Origin {
    let mut proxy = traced(path, &[]);
    let origin = Origin::echo();
    let first = connect_through(proxy.address(), &origin.destination());
    write(&first, b"x");
    assert_eq!(read_exactly(&first, 1), b"x");
    for _ in 1..SESSIONS {
        echo_session(&proxy, &origin);
    }
    shutdown_write(&first);
    assert_eq!(read_all(&first), b"");
    drop(first);
    proxy.assert_resources_released();
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    let written = format!("threadsocks: {}: the trace is written", path.display());
    assert!(proxy.stderr_lines().contains(&written), "{written}");
    origin
}

/// The events of a trace.
struct Events(Vec<Value>);

impl Events {
    fn read(path: &Path) -> Events {
        let text = fs::read_to_string(path).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let events = all["traceEvents"].as_array().unwrap().clone();
        assert!(events.iter().all(|event| event["pid"] == 1));
        Events(events)
    }

    /// Those of this phase: `X` bar, `i` mark, `s` and `f` ends of an arrow, `C` counter, `M` name.
    fn phase<'a>(&'a self, phase: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |event| event["ph"] == phase)
    }

    /// The names of the events of this phase, in the order of the file.
    fn names<'a>(&'a self, phase: &'a str) -> Vec<&'a str> {
        let names = self.phase(phase).map(|event| &event["name"]);
        names.map(|name| name.as_str().unwrap()).collect()
    }

    fn bars(&self) -> Vec<Bar<'_>> {
        self.phase("X").map(Bar::new).collect()
    }

    /// Has some event of this phase a name with these words?
    fn has(&self, phase: &str, words: &str) -> bool {
        self.names(phase).iter().any(|name| name.contains(words))
    }
}

/// A job or a wait; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Bar<'a> {
    thread: u64,
    began: u64,
    ended: u64,
    name: &'a str,
    is_job: bool,
}

impl Bar<'_> {
    fn new(event: &Value) -> Bar<'_> {
        let began = nanos(&event["ts"]);
        assert!(event["args"]["ended"].is_boolean(), "{event}");
        Bar {
            thread: event["tid"].as_u64().unwrap(),
            began,
            ended: began + nanos(&event["dur"]),
            name: event["name"].as_str().unwrap(),
            is_job: match event["cat"].as_str().unwrap() {
                "job" => true,
                "wait" => false,
                other => panic!("{other}"),
            },
        }
    }
}

/// The format has microseconds with three decimals.
fn nanos(micros: &Value) -> u64 {
    (micros.as_f64().unwrap() * 1000.0).round() as u64
}

#[test]
fn o21_the_json_has_jobs_waits_hand_overs_marks_and_sessions() {
    let (_folder, path) = trace_file("t.json");
    let origin = run(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let events = Events::read(&path);
    let bars = events.bars();

    let jobs: Vec<&str> = bars
        .iter()
        .filter(|it| it.is_job)
        .map(|it| it.name)
        .collect();
    for number in 1..=SESSIONS {
        for name in [format!("s{number}"), format!("s{number}-down")] {
            let count = jobs.iter().filter(|job| **job == name).count();
            assert_eq!(count, 1, "{name} {jobs:?}");
        }
    }
    let threads: Vec<&str> = events
        .phase("M")
        .filter(|event| event["name"] == "thread_name")
        .flat_map(|event| event["args"]["name"].as_str().unwrap().split(", "))
        .collect();
    for name in ["accept", "logger", "threadsocks", "s1", "s1-down"] {
        assert!(threads.contains(&name), "{name} {threads:?}");
    }
    for words in [
        "waits for a client (poll)",
        "waits for a signal (channel)",
        "waits for an event to print (channel)",
        &format!("waits to read {}", origin.address()),
    ] {
        assert!(events.has("X", words), "{words}");
    }
    assert!(events.has("i", &format!("half-close: FIN to {}", origin.address())));
    assert!(events.has("i", "stop: no more clients"));

    let counts: Vec<i64> = events
        .phase("C")
        .map(|event| event["args"]["sessions"].as_i64().unwrap())
        .collect();
    assert_eq!(counts.len(), 2 * SESSIONS);
    assert_eq!((counts[0], counts[2 * SESSIONS - 1]), (1, 0), "{counts:?}");
}

#[test]
fn o21_the_bars_of_a_thread_nest_and_each_arrow_has_both_ends() {
    let (_folder, path) = trace_file("t.json");
    run(&path);
    let events = Events::read(&path);
    let mut bars = events.bars();
    bars.sort_by_key(|bar| (bar.thread, bar.began, u64::MAX - bar.ended));
    let mut outer: Vec<Bar<'_>> = Vec::new();
    for bar in &bars {
        outer.retain(|it| it.thread == bar.thread && it.ended > bar.began);
        if let Some(around) = outer.last() {
            assert!(bar.ended <= around.ended, "{bar:?} in {around:?}");
            assert!(around.is_job && !bar.is_job, "{bar:?} in {around:?}");
        }
        outer.push(*bar);
    }

    let mut starts: HashMap<u64, &Value> = HashMap::new();
    for start in events.phase("s") {
        let is_new = starts
            .insert(start["id"].as_u64().unwrap(), start)
            .is_none();
        assert!(is_new, "{start}");
    }
    let mut begun = Vec::new();
    for end in events.phase("f") {
        let start = starts.remove(&end["id"].as_u64().unwrap()).unwrap();
        assert!(nanos(&start["ts"]) <= nanos(&end["ts"]), "{start} {end}");
        assert_ne!(start["tid"], end["tid"]);
        let job = bars
            .iter()
            .find(|bar| bar.is_job && end["tid"] == bar.thread && nanos(&end["ts"]) == bar.began);
        let job = job.unwrap_or_else(|| panic!("no job at {end}"));
        assert_eq!(end["name"], format!("starts {}", job.name));
        assert_eq!(end["name"], start["name"]);
        // Perfetto draws an arrow only from a bar.
        let at = nanos(&start["ts"]);
        let is_in =
            |bar: &&Bar<'_>| start["tid"] == bar.thread && (bar.began..=bar.ended).contains(&at);
        assert!(bars.iter().any(|bar| is_in(&bar)), "{start}");
        begun.push(job.name);
    }
    assert!(starts.is_empty(), "{starts:?}");
    assert_eq!(begun.len(), 2 * SESSIONS, "{begun:?}");
}

/// The texts in a picture, which is valid XML: tooltips and others.
fn texts(path: &Path) -> (String, String) {
    let program = "import sys, xml.dom.minidom as m\n\
                   d = m.parse(sys.argv[1])\n\
                   own = lambda e: ''.join(n.data for n in e.childNodes if n.nodeType == 3)\n\
                   for tag in ('title', 'text'):\n\
                   \x20   print(*(own(e) for e in d.getElementsByTagName(tag)), sep='\\n')\n\
                   \x20   print('--')\n\
                   print(len([p for p in d.getElementsByTagName('path')\n\
                   \x20   if p.getAttribute('marker-end')]))\n";
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(path)
        .output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let (titles, rest) = text.split_once("--\n").unwrap_or_else(|| panic!("{error}"));
    (titles.to_owned(), rest.to_owned())
}

#[test]
fn o21_the_picture_has_a_row_for_each_thread_and_an_arrow_for_each_job() {
    let (_folder, path) = trace_file("t.svg");
    let origin = run(&path);
    let (titles, texts) = texts(&path);
    let has = |text: &str, line: &str| text.lines().any(|it| it == line);
    for name in ["accept", "logger", "threadsocks"] {
        assert!(has(&texts, name), "{name}\n{texts}");
    }
    assert!(texts.contains("\nsessions (most: "), "{texts}");
    for number in 1..=SESSIONS {
        for name in [format!("s{number}"), format!("s{number}-down")] {
            assert!(has(&titles, &format!("starts {name}")), "{name}\n{titles}");
        }
    }
    // The first session waits for the others, so its bar is wide.
    assert!(titles.contains("\ns1: "), "{titles}");
    for words in [
        format!("waits to read {}", origin.address()),
        "waits for a client (poll)".to_owned(),
        format!("half-close: FIN to {}", origin.address()),
        "stop: no more clients".to_owned(),
    ] {
        assert!(titles.contains(&words), "{words}\n{titles}");
    }
    // One more is in the legend.
    let arrows = texts.lines().last().unwrap();
    assert_eq!(arrows, (2 * SESSIONS + 1).to_string());
}

/// Starts a server with this trace file and asserts that it serves; returns its messages.
fn messages(path: &Path) -> Vec<String> {
    let mut proxy = traced(path, &["--quiet"]);
    echo_session(&proxy, &Origin::echo());
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    let lines = proxy.stderr_lines();
    let is_other = |line: &String| {
        line.starts_with("threadsocks: listening on ") || line.contains("warning: line 1 permits")
    };
    lines.into_iter().filter(|line| !is_other(line)).collect()
}

#[test]
fn o22_a_file_that_cannot_be_written_is_reported_and_the_server_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |path: &Path| format!("threadsocks: {}", path.display());
    mkfifo(&path("unread.json"), Mode::S_IRWXU).unwrap();
    fs::create_dir(path("folder.svg")).unwrap();
    for (name, reason) in [
        ("missing/t.svg", "No such file or directory (os error 2)"),
        ("folder.svg", "Is a directory (os error 21)"),
        ("unread.json", "No such device or address (os error 6)"),
    ] {
        let path = path(name);
        let shown = shown(&path);
        let line = format!("{shown}: cannot write the trace: {reason}; the server runs without it");
        assert_eq!(messages(&path), [line]);
    }
    let device = path("device.json");
    symlink("/dev/null", &device).unwrap();
    let said = messages(&device).concat();
    assert!(
        said.contains("cannot write the trace: it is not a regular file;"),
        "{said}"
    );
    // It can be opened, and no byte can be written.
    let full = path("full.json");
    let no_file_can_grow = ["sh", "-c", "ulimit -f 0; exec \"$0\" \"$@\""];
    let mut proxy = Proxy::with(Setup {
        wrapper: &no_file_can_grow,
        options: &["--trace", full.to_str().unwrap()],
        ..Setup::default()
    });
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    let line = proxy.stderr_line("the trace is not complete: ");
    assert!(line.ends_with("File too large (os error 27)"), "{line}");
}

#[test]
fn o22_the_trace_does_not_replace_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.json");
    let mut proxy = Proxy::with(Setup {
        options: &["--trace", path.to_str().unwrap()],
        stdout: Some(fs::File::create(&path).unwrap().into()),
        ..Setup::default()
    });
    proxy.stderr_line("cannot write the trace: stdout or stderr goes to this file;");
    echo_session(&proxy, &Origin::echo());
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    let output = fs::read_to_string(&path).unwrap();
    assert!(output.starts_with("<S_IP>: "), "{output}");
}

#[test]
fn o24_a_full_trace_says_so_and_delays_no_session() {
    const CLIENTS: usize = 4;
    /// Each leads to a wait in both directions, which nearly always lasts long enough to count.
    const ROUND_TRIPS: usize = 14_000;
    let (_folder, path) = trace_file("t.json");
    let mut proxy = traced(&path, &["--quiet"]);
    let origin = Origin::echo();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = connect_through(proxy.address(), &origin.destination());
                for _ in 0..ROUND_TRIPS {
                    write(&client, b"x");
                    assert_eq!(read_exactly(&client, 1), b"x");
                }
                client.shutdown(Shutdown::Both).unwrap();
            });
        }
    });
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    let line = proxy.stderr_line("the trace is full after 100,000 events; ");
    assert!(line.ends_with(" later events are missing"), "{line}");
    let events = Events::read(&path);
    assert!(events.has("i", "the trace is full after 100,000 events; "));
    assert!(events.bars().len() > 90_000);
}

#[test]
fn o22_the_trace_replaces_an_earlier_one_and_no_file_that_the_server_reads() {
    let (folder, path) = trace_file("t.json");
    fs::write(&path, "x".repeat(1_000_000)).unwrap();
    // A start that fails keeps the earlier trace.
    let output = binary()
        .args([
            "--trace",
            path.to_str().unwrap(),
            "--config",
            "/nonexistent",
        ])
        .arg("0")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(fs::metadata(&path).unwrap().len(), 1_000_000);
    run(&path);
    Events::read(&path);

    let rules = folder.path().join("rules.json");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let rules_text = rules.to_str().unwrap();
    let mut proxy = traced(&rules, &["--config", rules_text]);
    proxy.stderr_line("cannot write the trace: the server reads ");
    proxy.signal(Signal::SIGINT);
    assert!(proxy.wait().success());
    assert_eq!(fs::read_to_string(&rules).unwrap(), PERMIT_ALL);
}
