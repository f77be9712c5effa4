//! `--log json`: every line is an object, with the fields and words that the manual lists.

use std::fs;
use std::net::TcpStream;
use std::process::Command as Program;

use nix::sys::signal::Signal;
use serde_json::Value;
use threadsocks::auth::users_file_line;
use threadsocks::client;
use threadsocks::protocol::Command;
use threadsocks::protocol::socks5::Credentials;

use crate::support::child::RunningChild;
use crate::support::endpoints::{
    CLOSED, Origin, by_address, dial, read_all, read_exactly, request, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::tools::is_installed;
use crate::support::wait::{TIMEOUT, until};

/// Waits until stdout has a line of this event with these values, and returns it.
fn wait_for(proxy: &Proxy, event: &str, values: &[(&str, Value)]) -> Value {
    let matches = |object: &Value| {
        let has = |(name, value): &(&str, Value)| object.get(*name) == Some(value);
        object["event"] == event && values.iter().all(has)
    };
    proxy.stdout_line(&format!("{event} {values:?}"), |line| {
        let object: Value = serde_json::from_str(line).expect(line);
        matches(&object).then_some(object)
    })
}

/// The names of the fields, in their order in the line.
fn names(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap();
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Sends "hello" through the proxy and reads it again.
fn echo_hello(client: &TcpStream) {
    write(client, b"hello");
    assert_eq!(read_exactly(client, 5), b"hello");
}

/// Stops the server and checks that every line was an object.
fn finish(mut proxy: Proxy) {
    proxy.signal(Signal::SIGTERM);
    wait_for(&proxy, "stopped", &[]);
    assert!(proxy.wait().success());
    let lines = proxy.stdout_lines();
    if is_installed("jq", "jq") {
        // jq fails at the first line that is not valid.
        let mut jq = Program::new("jq");
        jq.args(["-e", "-c", ".time, .event"]);
        let output = RunningChild::start(&mut jq, lines.join("\n").as_bytes());
        let output = output.wait_for_exit(TIMEOUT);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.text().lines().count(), 2 * lines.len());
    }
}

const JSON: [&str; 2] = ["--log", "json"];

#[test]
fn l19_a_session_has_objects_at_its_begin_and_at_its_end() {
    let proxy = Proxy::start(PERMIT_ALL, &JSON);
    let listening = wait_for(&proxy, "listening", &[]);
    assert_eq!(listening["port"], proxy.port());
    assert_eq!(listening["pid"], proxy.pid());
    assert_eq!(
        (&listening["rules"], &listening["users"]),
        (&1.into(), &0.into())
    );

    let origin = Origin::echo();
    let live = client::socks5::connect(dial(proxy.address()), None, &origin.destination());
    let (live, _) = live.unwrap();
    echo_hello(&live);
    let answered = wait_for(&proxy, "answered", &[("granted", true.into())]);
    let fields = "address client client_port command event granted reply rule session target \
                  target_port time version waited_seconds";
    let fields: Vec<&str> = fields.split_whitespace().collect();
    assert_eq!(names(&answered), fields);
    assert_eq!(answered["reply"], 0);
    // Bytes are counted after the write, so the client can have them earlier.
    let row = until("the row of the session", || {
        proxy.signal(Signal::SIGUSR1);
        let lines = proxy.stdout_lines();
        let mut objects = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        objects.find(|it: &Value| it["event"] == "session" && it["bytes_down"] == 5)
    });
    assert_eq!(row["session"], answered["session"]);
    assert_eq!(
        (&row["state"], &row["bytes_up"]),
        (&"relay".into(), &5.into())
    );
    drop(live);

    let ended = dial(proxy.address());
    let ended = client::socks4::connect(ended, &origin.destination(), b"me\xff").unwrap();
    echo_hello(&ended);
    shutdown_write(&ended);
    assert_eq!(read_all(&ended), b"");
    let closed = wait_for(&proxy, "closed", &[("version", "socks4".into())]);
    assert_eq!(
        (&closed["bytes_up"], &closed["user"], &closed["reason"]),
        (&5.into(), &"me\\xff".into(), &"finished".into())
    );
    finish(proxy);
}

#[test]
fn l19_refused_requests_and_logins_have_objects_with_their_cause() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, users_file_line(b"alice", b"secret").unwrap()).unwrap();
    let options = ["--allow-anonymous", "--users", users.to_str().unwrap()];
    let proxy = Proxy::start(PERMIT_ALL, &[&JSON[..], &options].concat());
    let refused = dial(proxy.address());
    write(
        &refused,
        &request(Command::Connect, &by_address(CLOSED.into()), b""),
    );
    assert_eq!(read_exactly(&refused, 8)[1], 91);
    let answered = wait_for(&proxy, "answered", &[("granted", false.into())]);
    assert_eq!(
        (&answered["cause"], &answered["reply"]),
        (&"connection_refused".into(), &91.into())
    );
    drop(refused);
    wait_for(&proxy, "closed", &[("cause", "connection_refused".into())]);
    let guesser = dial(proxy.address());
    write(&guesser, &[5, 1, 2]);
    let (user, password) = (b"alice".to_vec(), b"wrong".to_vec());
    write(&guesser, &Credentials { user, password }.encode());
    assert_eq!(read_exactly(&guesser, 4), [5, 2, 1, 1]);
    drop(guesser);
    let failed = wait_for(&proxy, "login_failed", &[("cause", "wrong".into())]);
    assert_eq!(failed["user"], "alice");
    wait_for(&proxy, "closed", &[("cause", "login_failed".into())]);
    drop(dial(proxy.address()));
    wait_for(&proxy, "closed", &[("reason", "silent".into())]);
    finish(proxy);
}

#[test]
fn l19_reloads_and_the_stop_have_objects() {
    let proxy = Proxy::start(PERMIT_ALL, &[&JSON[..], &["--grace", "1ms"]].concat());
    let origin = Origin::echo();
    let live = client::socks5::connect(dial(proxy.address()), None, &origin.destination());
    let file = |result: &str| {
        proxy.signal(Signal::SIGHUP);
        let values = [("about", "rules".into()), ("result", result.into())];
        wait_for(&proxy, "file", &values)
    };
    file("unchanged");
    fs::write(proxy.config(), "permit -\nnonsense\n").unwrap();
    let kept = file("kept");
    assert_eq!(kept["mistakes"][1]["line"], 2);
    fs::write(proxy.config(), PERMIT_ALL.repeat(2)).unwrap();
    assert_eq!(file("reloaded")["entries"], 2);
    // A BIND that waits: its client is still there when the server stops.
    let waiting = dial(proxy.address());
    let any = by_address(([127, 0, 0, 1], 7).into());
    write(&waiting, &request(Command::Bind, &any, b""));
    assert_eq!(read_exactly(&waiting, 8)[1], 90);
    proxy.signal(Signal::SIGTERM);
    wait_for(&proxy, "stopping", &[("sessions", 2.into())]);
    wait_for(&proxy, "answered", &[("cause", "terminated".into())]);
    wait_for(&proxy, "closed", &[("reason", "server_stopped".into())]);
    wait_for(&proxy, "stopped", &[("cut", 2.into())]);
    drop((live, waiting));
    finish(proxy);
}

#[test]
fn l19_a_slow_stdout_loses_lines_and_no_count() {
    let (reader, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(crate::support::proxy::Setup {
        options: &["--log", "json"],
        stdout: Some(writer.into()),
        ..Default::default()
    });
    // More objects than the pipe (some 200) and the queue (8192) hold: two for each request.
    const REQUESTS: usize = 8_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..REQUESTS / 4 {
                    let client = dial(proxy.address());
                    let port_zero = by_address(([127, 0, 0, 1], 0).into());
                    client::socks4::connect(client, &port_zero, b"").expect_err("refused");
                }
            });
        }
    });
    let reading = std::thread::spawn(move || std::io::read_to_string(reader).unwrap());
    proxy.stderr_line("JSON lines dropped");
    proxy.finish();
    let text = reading.join().unwrap();
    let objects = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line));
    let (mut requests, mut dropped) = (0, 0);
    for object in objects {
        match object["event"].as_str().unwrap() {
            "answered" | "closed" => requests += 1,
            "dropped" => dropped += object["messages"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(
        requests + dropped,
        2 * REQUESTS as u64,
        "{requests} {dropped}"
    );
}
