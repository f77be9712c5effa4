//! How a page ends: by timeouts, signals and closed pipes, and with bounded memory.

use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::child::{LONG_TIMEOUT, RunningChild, peak_memory};
use crate::support::console_cgi::{Console, assert_success, column_text, query_row, wait_for_text};
use crate::support::endpoints::{Origin, read_all, read_exactly, write};
use crate::support::project::console_binary;
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::tools::is_installed;
use crate::support::wait::{TIMEOUT, until};

/// Takes 30 seconds, the console's timeout for a reply of the SOCKS server.
#[test]
fn w10_a_silent_socks_server_times_out_after_30_seconds() {
    let silent = Origin::start(|stream| {
        stream.set_read_timeout(Some(LONG_TIMEOUT)).unwrap();
        drop(read_all(&stream));
    });
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let query = query_row(
        1,
        "127.0.0.1:7000".parse().unwrap(),
        "t1.txt",
        silent.address(),
    ) + &query_row(2, shell.address(), "t1.txt", proxy.address())
        + "format=text";
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let mut page = console.start(&query);
    // The other column is done long before the timeout.
    wait_for_text(&mut page, &format!("{} # 1 command sent", shell.address()));
    wait_for_heartbeat(
        &mut page,
        "127.0.0.1:7000 # connecting to the SOCKS server, ",
    );
    let page = assert_success(&page.wait_for_exit(LONG_TIMEOUT));
    let (_, status) = column_text(&page, "127.0.0.1:7000");
    assert!(
        status.contains("was silent: 0 bytes of its reply in 30 s"),
        "{status}"
    );
    proxy.finish();
}

/// Waits until the page repeats this status with an elapsed time of at least two seconds.
fn wait_for_heartbeat(page: &mut RunningChild, status: &str) {
    until("a heartbeat", || {
        page.assert_running();
        let so_far = page.stdout_so_far();
        let mut times = so_far.split(status).skip(1);
        times
            .any(|time| !time.starts_with("0 s") && !time.starts_with("1 s"))
            .then_some(())
    });
}

/// Limit of the console's peak memory in kB: output is streamed, and of each column at most
/// 1 MiB of the transcript and the batch file of at most 1 MiB are kept.
const MAX_MEMORY_KB: u64 = 20_000;

fn assert_memory_is_bounded(console: &Child) {
    let process = format!("/proc/{}", console.id());
    let kilobytes = peak_memory(Path::new(&process)).expect("a running console");
    assert!(kilobytes < MAX_MEMORY_KB, "{kilobytes} kB");
}

#[test]
fn w11_w14_endless_output_uses_bounded_memory_and_ends_when_the_pipe_closes() {
    // Text with colours needs the most HTML per byte of output.
    for text in ["<and on, and on>\n", "\u{1b}[1mx\u{1b}[mx"] {
        check_endless_output(text);
    }
}

fn check_endless_output(text: &'static str) {
    let proxy = Proxy::open();
    let (sender, closed) = channel();
    let endless = Origin::start(move |mut stream| {
        write(&stream, b"% ");
        read_exactly(&stream, 2);
        let text = text.repeat(1000);
        while stream.write_all(text.as_bytes()).is_ok() {}
        sender.send(()).unwrap();
    });
    let rows =
        (1..=5).map(|number| query_row(number, endless.address(), "t1.txt", proxy.address()));
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let (mut child, mut pipe) = spawn_piped(&mut console, &rows.collect::<String>());
    // A console that keeps all of the first text needs twice the limit for so long a page.
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..25 {
        pipe.read_exact(&mut buffer).unwrap();
    }
    assert_memory_is_bounded(&child);
    drop(pipe);
    assert_succeeds(&mut child);
    for _ in 0..5 {
        closed
            .recv_timeout(TIMEOUT)
            .expect("a failed write of the shell");
    }
    proxy.finish();
}

#[test]
fn w11_batch_files_of_empty_lines_use_bounded_memory() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| session.write("% "));
    let rows = (1..=5).map(|number| query_row(number, shell.address(), "t1.txt", proxy.address()));
    let mut console = Console::new(&[("t1.txt", &"\n".repeat(1 << 20))]);
    let (mut child, mut pipe) = spawn_piped(&mut console, &rows.collect::<String>());
    let mut head = [0; 1000];
    pipe.read_exact(&mut head).unwrap();
    assert_memory_is_bounded(&child);
    drop(pipe);
    assert_succeeds(&mut child);
    proxy.finish();
}

#[test]
fn w16_sigterm_ends_the_console_and_its_sessions() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.read_line();
    });
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let query = query_row(1, shell.address(), "t1.txt", proxy.address());
    let mut page = console.start(&query);
    wait_for_text(&mut page, "granted");
    page.terminate();
    let output = page.wait_for_exit(TIMEOUT);
    assert_eq!(output.status.signal(), Some(Signal::SIGTERM as i32));
    proxy.finish();
}

/// Starts the console with a pipe as its stdout, so that the test controls the backpressure.
fn spawn_piped(console: &mut Console, query: &str) -> (Child, ChildStdout) {
    let command = console.command.env("QUERY_STRING", query);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pipe = child.stdout.take().unwrap();
    (child, pipe)
}

fn assert_succeeds(child: &mut Child) -> ExitStatus {
    let status = until("the end of the console process", || {
        child.try_wait().unwrap()
    });
    assert!(status.success(), "{status:?}");
    status
}

#[test]
fn w14_the_heartbeat_detects_a_closed_pipe_on_a_silent_page() {
    let proxy = Proxy::open();
    let silent = Origin::start(|stream| drop(read_all(&stream)));
    let query = query_row(1, silent.address(), "t1.txt", proxy.address());
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let (mut child, mut pipe) = spawn_piped(&mut console, &query);
    // W18: the headers arrive at once, while the shell sends nothing.
    let mut head = vec![0; 1000];
    pipe.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"Content-Type: text/html"));
    drop(pipe);
    assert_succeeds(&mut child);
    proxy.finish();
}

#[test]
fn w22_a_page_that_cannot_be_written_exits_with_status_1() {
    let mut console = Console::new(&[]);
    let mut child = console
        .command
        .stdin(Stdio::null())
        .stdout(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
        .spawn()
        .unwrap();
    let status = until("the end of the console process", || {
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(1));
}

#[test]
fn w13_the_console_starts_no_program() {
    if !is_installed("strace", "strace") {
        return;
    }
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let console = Console::new(&[("t1.txt", "a\n")]);
    let trace = console.folder.path().join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-e", "trace=execve,execveat,fork,vfork", "-o"])
        .arg(&trace)
        .arg(console_binary())
        .current_dir(console.folder.path())
        .env(
            "QUERY_STRING",
            query_row(1, shell.address(), "t1.txt", proxy.address()),
        );
    let page = assert_success(&RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT));
    assert!(page.contains("1 done; "), "{page}");
    let calls = fs::read_to_string(trace).unwrap();
    // The only `execve` is the one by which strace starts the console.
    assert_eq!(calls.matches("exec").count(), 1, "{calls}");
    assert!(!calls.contains("fork"), "{calls}");
    proxy.finish();
}

#[test]
fn w15_a_shell_without_prompts_times_out_and_the_others_finish() {
    let proxy = Proxy::open();
    let stuck = ScriptedShell::start(|session| {
        session.write("thinking");
        let _ = session.lines.fill_buf();
    });
    let shell = ScriptedShell::with_prompts_only();
    let query = query_row(1, stuck.address(), "t1.txt", proxy.address())
        + &query_row(4, shell.address(), "t1.txt", proxy.address());
    let mut console = Console::new(&[("t1.txt", "a\n")]).with_env("CONSOLE_LIMIT", "3s");
    let page = console.page(&query);
    for shown in [
        "<span slot=\"ended1\" class=\"state bad\">timed out</span>",
        "<span slot=\"clock1\">0 of 1 command, ",
        "<span slot=\"ended4\" class=\"state good\">1 command sent</span>",
        "1 done, 1 failed; ",
        "thinking",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    proxy.finish();
}

#[test]
fn w17_twenty_concurrent_pages_are_independent() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        let line = session.read_line();
        session.write(&format!("{line}% "));
        session.read_line();
    });
    let mut pages: Vec<(usize, Console, Option<RunningChild>)> = (0..20)
        .map(|number| {
            let text = format!("page {number}\n");
            (number, Console::new(&[("t1.txt", &text)]), None)
        })
        .collect();
    for (_, console, page) in &mut pages {
        let rows = (1..=5).map(|row| query_row(row, shell.address(), "t1.txt", proxy.address()));
        *page = Some(console.start(&(rows.collect::<String>() + "format=text")));
    }
    for (number, _, page) in pages {
        let page = assert_success(&page.unwrap().wait_for_exit(LONG_TIMEOUT));
        assert!(page.contains("# 5 done; 5 of 5 commands; "), "{page}");
        for row in 1..=5 {
            let title = format!("{} ({row})", shell.address());
            let (output, _) = column_text(&page, &title);
            assert_eq!(output, format!("% page {number}\npage {number}\n% exit\n"));
        }
    }
    proxy.finish();
}

/// A page of plain text does not show an unfinished line at once, so it needs the heartbeat.
#[test]
fn w14_an_unfinished_line_does_not_stop_the_heartbeat() {
    let proxy = Proxy::open();
    let dots = Origin::start(|mut stream| {
        while stream.write_all(b".").is_ok() {
            thread::park_timeout(Duration::from_millis(100));
        }
    });
    let query = query_row(1, dots.address(), "t1.txt", proxy.address()) + "format=text";
    let mut console = Console::new(&[("t1.txt", "a\n")]);
    let mut page = console.start(&query);
    wait_for_heartbeat(&mut page, "# running, 0 of 1 command, ");
    drop(page);
    proxy.finish();
}

/// A shell with one prompt and endless output.
fn endless_server() -> Origin {
    Origin::start(|mut stream| {
        write(&stream, b"% ");
        while stream.write_all(&[b'x'; 1000]).is_ok() {}
    })
}

#[test]
fn w11_w14_a_full_pipe_does_not_keep_the_console_running() {
    let proxy = Proxy::open();
    let endless = endless_server();
    let query = query_row(1, endless.address(), "t1.txt", proxy.address());
    let mut console = Console::new(&[("t1.txt", "a\n")]).with_env("CONSOLE_LIMIT", "1s");
    let (mut child, _pipe) = spawn_piped(&mut console, &query);
    assert_succeeds(&mut child);
    proxy.finish();
}

/// A result that arrived before the time limit is shown, even if it is written after the limit.
#[test]
fn a_session_that_ended_while_the_pipe_was_full_is_shown_as_done() {
    let proxy = Proxy::open();
    let endless = endless_server();
    let shell = ScriptedShell::with_prompts_only();
    let query = query_row(1, shell.address(), "t1.txt", proxy.address())
        + &query_row(2, endless.address(), "t1.txt", proxy.address());
    let (start, limit) = (Instant::now(), Duration::from_secs(2));
    let mut console = Console::new(&[("t1.txt", "a\n")]).with_env("CONSOLE_LIMIT", "2s");
    let (mut child, mut pipe) = spawn_piped(&mut console, &query);
    assert_eq!(shell.received(), "a\nexit\n");
    // The pipe is full long before the time limit.
    proxy.screen_messages(2);
    until("twice the time limit", || {
        (start.elapsed() > 2 * limit).then_some(())
    });
    let mut page = Vec::new();
    pipe.read_to_end(&mut page).unwrap();
    assert_succeeds(&mut child);
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.contains("<span slot=\"ended1\" class=\"state good\">1 command sent</span>"));
    assert!(page.contains("<span slot=\"ended2\" class=\"state bad\">timed out</span>"));
    proxy.finish();
}
