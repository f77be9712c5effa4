//! What a row says when it fails: the reason and the next step, in each format of the page; and
//! the outcome of a run for programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use threadsocks::auth::users_file_line;

use crate::support::child::LONG_TIMEOUT;
use crate::support::console_cgi::{Console, query_row, split_headers};
use crate::support::endpoints::{self, Origin, read_exactly, write};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;

/// Reason and next step of a row.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    reason: String,
    next_step: String,
}

/// The failure of the only row, from a page in plain text.
fn from_text(page: &str) -> Failure {
    let (_, body) = split_headers(page);
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.last(), Some(&"# FAILED 1 of 1"), "{body}");
    let next = lines.iter().position(|line| line.contains(" # next: "));
    let next = next.unwrap_or_else(|| panic!("a next step in {body}"));
    let (_, next_step) = lines[next].split_once(" # next: ").unwrap();
    let (_, state) = lines[next - 1].split_once(" # ").unwrap();
    Failure {
        reason: state.to_owned(),
        next_step: next_step.to_owned(),
    }
}

/// The objects of a page in JSON. Each has a time.
fn objects(page: &str) -> Vec<Value> {
    let (headers, body) = split_headers(page);
    assert!(headers.starts_with("Content-Type: application/jsonl"));
    let objects: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    for object in &objects {
        let time = object["time"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{object}");
    }
    objects
}

/// The failure of the only row, from a page in JSON.
fn from_json(page: &str) -> Failure {
    let objects = objects(page);
    let [.., end, outcome] = objects.as_slice() else {
        panic!("two objects in {page}");
    };
    assert_eq!(end["event"], "end", "{page}");
    assert_eq!(end["outcome"], "failed", "{page}");
    assert_eq!(outcome["outcome"], "failed", "{page}");
    assert_eq!((&outcome["failed"], &outcome["of"]), (&json!(1), &json!(1)));
    let text = |name: &str| end[name].as_str().expect(name).to_owned();
    Failure {
        reason: text("state"),
        next_step: text("next_step"),
    }
}

/// The content of the slot with this name, from a page in HTML.
fn slot(page: &str, name: &str) -> String {
    let start = format!("<span slot=\"{name}\"");
    let (_, rest) = page
        .split_once(&start)
        .unwrap_or_else(|| panic!("{name} in {page}"));
    let (_, rest) = rest.split_once('>').expect("the end of a tag");
    let (content, _) = rest.split_once("</span>").expect("the end of an element");
    unescape(content)
}

/// Decodes the entities that the console writes.
fn unescape(html: &str) -> String {
    html.replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// Runs one row in all three formats. Each has the same reason and next step, which contain
/// these words.
fn assert_failure(console: &mut Console, row: &str, reason: &str, next_step: &str) {
    let text = from_text(&console.page(&format!("{row}format=text")));
    assert!(text.reason.starts_with(reason), "{text:#?}");
    assert!(text.next_step.contains(next_step), "{text:#?}");
    let json = from_json(&console.page(&format!("{row}format=json")));
    assert_eq!(json.next_step, text.next_step);
    assert!(text.reason.starts_with(&json.reason), "{text:#?} {json:#?}");
    // A browser gets the form, if no row can run.
    let page = console.page(row);
    if page.contains("<main id=\"board\"") {
        let html = Failure {
            reason: slot(&page, "ended1"),
            next_step: slot(&page, "next1"),
        };
        assert_eq!(html, json);
    } else {
        assert!(page.contains("aria-invalid"), "{page}");
        for text in [&json.reason, &json.next_step] {
            assert!(unescape(&page).contains(text.as_str()), "{text}: {page}");
        }
    }
}

/// A SOCKS server that reads a request of SOCKS4, sends these bytes and closes.
fn socks_server(reply: &'static [u8]) -> Origin {
    Origin::start(move |stream| {
        let _request = read_exactly(&stream, 9);
        write(&stream, reply);
    })
}

#[test]
fn w37_each_socks_failure_names_its_next_step() {
    let shell = "127.0.0.1:7000".parse().unwrap();
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    for (reply, reason, next_step) in [
        (
            &b"\0\x5b\0\0\0\0\0\0"[..],
            "refused: 91",
            "threadsocks --explain \"c 127.0.0.1 127.0.0.1 7000\"",
        ),
        (b"\0\x5c\0\0\0\0\0\0", "refused: 92", "Start identd there"),
        (b"\0\x5d\0\0\0\0\0\0", "refused: 93", "Start identd there"),
        (b"HTTP/1.1 400", "the SOCKS server ", "speaks no SOCKS"),
        (b"% welcome", "the SOCKS server ", "the port of the shell"),
        (
            b"\0\x5f\0\0\0\0\0\0",
            "the SOCKS server ",
            "Check that this port",
        ),
        (b"", "the SOCKS server ", "accept only SOCKS5"),
        (b"\0\x5a\0", "the SOCKS server ", "limit of clients"),
    ] {
        let socks = socks_server(reply);
        let row = query_row(1, shell, "t1.txt", socks.address());
        assert_failure(&mut console, &row, reason, next_step);
    }
    let row = query_row(1, shell, "t1.txt", endpoints::CLOSED.into());
    let closed = "cannot reach the SOCKS server 127.0.0.1:1";
    assert_failure(&mut console, &row, closed, "Start the SOCKS server");
    let row = row.replace("sh1=127.0.0.1", "sh1=no-such-host.invalid");
    let unknown = "cannot reach the SOCKS server no-such-host.invalid";
    assert_failure(
        &mut console,
        &row,
        unknown,
        "Check the spelling of the host",
    );
    let mut direct = console.with_env("CONSOLE_DIRECT", "1");
    let row = "h1=127.0.0.1&p1=1&f1=t1.txt&";
    let closed = "cannot reach the shell 127.0.0.1:1";
    assert_failure(&mut direct, row, closed, "Start the shell");
}

#[test]
fn w37_each_invalid_field_names_its_next_step() {
    let mut console =
        Console::new(&[("t1.txt", "a\n"), ("t2.txt", "")]).with_env("CONSOLE_ALLOW", "a:7000");
    let row = "&h1=a&p1=7000&f1=t1.txt&sh1=a&sp1=7000&";
    for (valid, invalid, reason, next_step) in [
        (
            "h1=a",
            "h1=%3C",
            "\"<\" is no host name",
            "Enter a name such as",
        ),
        (
            "h1=a",
            "h1=::1",
            "SOCKS4 cannot carry",
            "Enter the name of the host",
        ),
        ("p1=7000", "p1=", "no port is given", "such as 7000"),
        ("p1=7000", "p1=x", "\"x\" is no port", "such as 7000"),
        (
            "f1=t1.txt",
            "f1=",
            "no batch file is named",
            "There are: t1.txt, t2.txt.",
        ),
        (
            "f1=t1.txt",
            "f1=t1",
            "no such batch file: t1",
            "Did you mean t1.txt?",
        ),
        (
            "f1=t1.txt",
            "f1=zzz",
            "no such batch file: zzz",
            "There are: t1.txt",
        ),
        (
            "f1=t1.txt",
            "f1=..%2Fx",
            "a batch file's name has",
            "There are: t1.txt",
        ),
        (
            "sh1=a",
            "sh1=",
            "no SOCKS server is named",
            "SOCKS server for all rows",
        ),
        ("sp1=7000", "sp1=", "no port is given", "1080 is common"),
        (
            "h1=a",
            "h1=b",
            "the administrator of this console",
            "CONSOLE_ALLOW",
        ),
    ] {
        let row = row.replace(&format!("&{valid}"), &format!("&{invalid}"));
        assert_failure(&mut console, &row, reason, next_step);
    }
    let mut empty = Console::new(&[]);
    let nothing = "There are no batch files";
    assert_failure(&mut empty, row, "no such batch file", nothing);
    let file = console.batch_folder().join("t1.txt");
    fs::write(file, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert_failure(
        &mut console,
        row,
        "cannot use the batch file",
        "at most 1 MiB",
    );
}

#[test]
fn w37_each_early_end_of_a_session_names_its_next_step() {
    let proxy = Proxy::open();
    let mut console = Console::new(&[("t1.txt", "first\nsecond\n")]);
    let closing = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
    });
    let row = query_row(1, closing.address(), "t1.txt", proxy.address());
    let early = "closed early, after command 1 of 2";
    assert_failure(&mut console, &row, early, "The last command was \"first\"");
    let silent = ScriptedShell::start(|_| {});
    let row = query_row(1, silent.address(), "t1.txt", proxy.address());
    let before = "closed before the first prompt";
    assert_failure(&mut console, &row, before, "the port of a shell server");
    let mut limited = console.with_env("CONSOLE_LIMIT", "200ms");
    let waiting = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        endpoints::read_all(&session.stream);
    });
    let row = query_row(1, waiting.address(), "t1.txt", proxy.address());
    assert_failure(
        &mut limited,
        &row,
        "timed out",
        "\"first\". Shorten the batch",
    );
    let mute = ScriptedShell::start(|session| {
        endpoints::read_all(&session.stream);
    });
    let row = query_row(1, mute.address(), "t1.txt", proxy.address());
    assert_failure(&mut limited, &row, "timed out", "No prompt \"% \" came");
    proxy.finish();
}

#[test]
fn w38_the_last_line_tells_programs_the_outcome() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.write("out \"put\"\n% ");
        session.read_line();
    });
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let good = query_row(1, shell.address(), "t1.txt", proxy.address());
    let bad = query_row(3, shell.address(), "no.txt", proxy.address());
    let page = console.page(&format!("{good}format=text"));
    assert!(page.ends_with("\n# OK 1 of 1\n"), "{page}");
    let page = console.page(&format!("{good}{bad}format=text"));
    assert!(page.ends_with("\n# FAILED 1 of 2\n"), "{page}");
    // A value of an invalid row cannot imitate the line of another row.
    let forged = format!(
        "{good}{}format=text",
        good.replace('1', "2").replace("p2=", "p2=1+|+x+%23+y&x=")
    );
    let page = console.page(&forged);
    assert!(page.ends_with("\n# FAILED 1 of 2\n"), "{page}");
    assert!(!page.contains(":1 | x"), "{page}");
    for nothing in [
        "format=text",
        "h1=&format=text",
        "shells=a+b+c+d+e+f&format=text",
    ] {
        let page = console.page(nothing);
        assert!(page.ends_with("\n# FAILED 0 of 0\n"), "{page}");
    }
    let objects = objects(&console.page(&format!("{good}{bad}format=json")));
    let first = &objects[0];
    assert_eq!(first["event"], "begin");
    assert_eq!(first["columns"][0]["row"], 1);
    assert_eq!(first["columns"][1]["file"], "no.txt");
    let of = |row: u64, event: &str| -> Vec<&Value> {
        let events = objects.iter();
        events
            .filter(|object| object["row"] == row && object["event"] == event)
            .collect()
    };
    let output: String = of(1, "output")
        .iter()
        .filter_map(|object| object["text"].as_str())
        .collect();
    assert_eq!(output, "% out \"put\"\n% ");
    let commands = of(1, "command");
    assert_eq!(commands[0]["line"], "a");
    assert_eq!(
        (&commands[1]["line"], &commands[1]["added"]),
        (&json!("exit"), &json!(true))
    );
    let end = of(1, "end")[0];
    assert_eq!(
        (&end["outcome"], &end["sent"], &end["of"]),
        (&json!("ok"), &json!(1), &json!(1))
    );
    assert!(end.get("next_step").is_none(), "{end}");
    assert_eq!(of(3, "end")[0]["outcome"], "failed");
    let last = objects.last().unwrap();
    assert_eq!((&last["failed"], &last["of"]), (&json!(1), &json!(2)));
    proxy.finish();
}

#[test]
fn w39_again_runs_the_named_rows_alone() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let rows: String = (1..=3)
        .map(|number| query_row(number, shell.address(), "t1.txt", proxy.address()))
        .collect();
    for (again, ran) in [("2", 1), ("1,3", 2), ("1,2,3", 3), ("", 3)] {
        let page = console.page(&format!("{rows}again={again}&format=text"));
        assert!(
            page.ends_with(&format!("\n# OK {ran} of {ran}\n")),
            "{page}"
        );
    }
    // Numbers of no row, and of a row without a shell, run nothing.
    for again in ["9", "x", "2+3", "5"] {
        let page = console.page(&format!("{rows}again={again}&format=text"));
        assert!(page.ends_with("# FAILED 0 of 0\n"), "{page}");
        let page = console.page(&format!("{rows}again={again}&format=json"));
        assert_eq!(objects(&page)[0]["outcome"], "failed", "{page}");
        assert!(
            console
                .page(&format!("{rows}again={again}"))
                .contains("<form")
        );
    }
    // The row that runs keeps its number, and the page keeps all rows for the next run.
    let page = console.page(&format!("{rows}again=2"));
    assert!(page.contains("id=\"column2\"") && !page.contains("id=\"column1\""));
    assert!(
        page.contains("<input type=\"hidden\" name=\"h3\""),
        "{page}"
    );
    assert!(
        page.contains("name=\"again\" value=\"2\">Run again"),
        "{page}"
    );
    assert_eq!(proxy.screen_messages(10).len(), 10);
    proxy.finish();
}

#[test]
fn w36_the_login_of_the_file_is_sent_to_its_socks_server_only() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, users_file_line("alice", b"correct horse").unwrap()).unwrap();
    let proxy = Proxy::start(
        "permit c loopback - - - user=alice\ndeny c - - - -\n",
        &["--users", users.to_str().unwrap()],
    );
    let shell = ScriptedShell::with_prompts_only();
    let logins = folder.path().join("logins");
    fs::write(
        &logins,
        format!("127.0.0.1:{} alice correct horse\n", proxy.port()),
    )
    .unwrap();
    fs::set_permissions(&logins, fs::Permissions::from_mode(0o640)).unwrap();
    let mut console = Console::new(&[("t1.txt", "a\n")])
        .with_env("CONSOLE_SOCKS_LOGINS", logins.to_str().unwrap());
    let row = query_row(1, shell.address(), "t1.txt", proxy.address());
    let page = console.page(&format!("{row}format=text"));
    assert!(page.ends_with("# OK 1 of 1\n"), "{page}");
    assert!(!page.contains("horse"), "{page}");
    // Another name for the same address has no login: SOCKS4, which the rules deny.
    let other = row.replace("sh1=127.0.0.1", "sh1=localhost");
    let page = console.page(&format!("{other}format=text"));
    assert!(page.contains("refused: 91"), "{page}");
    fs::write(&logins, format!("127.0.0.1:{} alice wrong\n", proxy.port())).unwrap();
    let page = console.page(&format!("{row}format=text"));
    assert!(page.contains("denied the login"), "{page}");
    assert!(
        page.contains("# next: Ask the administrator of this console to correct the login"),
        "{page}"
    );
    // A file that other users may read, and a line that is no login, are reported.
    fs::set_permissions(&logins, fs::Permissions::from_mode(0o644)).unwrap();
    let output = console.start(&row).wait_for_exit(LONG_TIMEOUT);
    assert!(output.stderr.contains("chmod o="), "{output:#?}");
    fs::set_permissions(&logins, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&logins, "127.0.0.1:1 alice\n").unwrap();
    let output = console.start(&row).wait_for_exit(LONG_TIMEOUT);
    assert!(output.stderr.contains("line 1 is not"), "{output:#?}");
    proxy.finish();
}
