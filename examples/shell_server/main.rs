//! A small remote shell server with one thread per connection; it executes no program.
//!
//! The server sends a banner and the prompt `% `. For each line it sends the
//! output of the line and the next prompt. The commands work on files in memory,
//! so the server is safe to run. Switches inject faults of real shell servers.
//!
//! ```sh
//! cargo run --example shell_server -- 7000
//! nc 127.0.0.1 7000
//! ```
//!
//! What the code shows:
//!
//! - **Thread per connection.** The main thread runs the accept loop. Each client
//!   gets a thread with blocking I/O, and the local variables of that thread hold
//!   the state of the session. A slow client blocks its own thread only.
//! - **Ownership.** The accept loop moves each `TcpStream` into its thread. The
//!   thread drops the stream when it ends, and dropping closes the socket, also
//!   while a panic unwinds. A [`Shell`] belongs to one thread, so it needs no lock.
//! - **Shared, immutable data.** All threads read the [`FaultSwitches`] through an
//!   `Arc`. No thread changes them after the start, so they need no lock either.
//! - **Detached threads.** The accept loop drops each `JoinHandle` and joins no
//!   thread. A thread ends when its client sends `exit`, closes or half-closes
//!   the connection, or causes an error of read(2) or write(2).
//! - **Abrupt shutdown.** No graceful shutdown exists: SIGINT and SIGTERM terminate
//!   the process with all its threads, and the kernel closes the sockets.
//!
//! What the code leaves out, and `src/` has: a thread pool and a limit on the number
//! of sessions (`src/sync/`), idle timeouts, and graceful shutdown (`src/server/`).
//! Here 1000 idle clients cost 1000 threads, and a line may have any length.

mod shell;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use shell::{Output, Shell};

const HELP: &str = "\
shell_server: a remote shell server for experiments; it executes no program

Usage: cargo run --example shell_server -- [SWITCHES] [PORT]

  PORT          7000 by default; with 0 the system chooses a free port
  --bind ADDR   listens on this IP address [127.0.0.1]

Commands: ls, cat, number, noop, removetag, removetag0, delayedremovetag,
printenv, setenv, exit. A line may end with > FILE, which stores its output.
Pipes: | to the next command, |N to the line N lines later, !N as |N but with
the error messages.

Fault injection:
  --no-banner           sends no banner before the first prompt
  --split-prompt        sends the prompt in two segments
  --late-errors         sends error messages after the prompt, not before it
  --delay T             waits before every line of output, for example 300ms
  --no-final-newline    leaves out the last newline of every output
  --die-on-half-close   terminates the server at the EOF of any client
  --hang                sends nothing, not even a prompt
  --endless             sends output without end after the first line
";

/// The faults to inject, as the command line selects them.
#[derive(Clone, Debug, Default)]
struct FaultSwitches {
    no_banner: bool,
    split_prompt: bool,
    late_errors: bool,
    /// The pause before each line of output.
    delay: Duration,
    no_final_newline: bool,
    die_on_half_close: bool,
    hang: bool,
    endless: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match parse_arguments(arguments) {
        Ok(Some((address, faults))) => {
            accept_loop(address, &Arc::new(faults)).map_err(|error| format!("{address}: {error}"))
        }
        Ok(None) => io::stdout()
            .write_all(HELP.as_bytes())
            .map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error} (see --help)")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "shell_server: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the address to listen on and the faults to inject; `None` for
/// `--help`.
fn parse_arguments(
    arguments: Vec<OsString>,
) -> Result<Option<(SocketAddr, FaultSwitches)>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);
    let mut faults = FaultSwitches::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("no-banner") => faults.no_banner = true,
            Arg::Long("split-prompt") => faults.split_prompt = true,
            Arg::Long("late-errors") => faults.late_errors = true,
            Arg::Long("delay") => {
                faults.delay = parser.value()?.parse_with(humantime::parse_duration)?;
            }
            Arg::Long("no-final-newline") => faults.no_final_newline = true,
            Arg::Long("die-on-half-close") => faults.die_on_half_close = true,
            Arg::Long("hang") => faults.hang = true,
            Arg::Long("endless") => faults.endless = true,
            Arg::Long("bind") => address.set_ip(parser.value()?.parse()?),
            Arg::Value(text) => address.set_port(text.parse()?),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some((address, faults)))
}

/// The accept loop: starts one detached thread per connection.
///
/// It blocks in accept(2) until a client connects, and returns only on an error.
/// The process then exits, which terminates the threads of all sessions.
///
/// # Errors
///
/// Of bind(2) and accept(2), for example when the process has no free file
/// descriptor, and of starting a thread. A production server would retry.
fn accept_loop(address: SocketAddr, faults: &Arc<FaultSwitches>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let _ = writeln!(io::stderr(), "shell_server: listening on {address}");
    for stream in listener.incoming() {
        let stream = stream?;
        // The thread may outlive this function, so the compiler accepts no borrow
        // of the switches. Cloning the `Arc` only increments a reference count.
        let faults = Arc::clone(faults);
        // `move` gives the stream to the thread. The returned `JoinHandle` is
        // dropped at the end of the statement, which detaches the thread.
        thread::Builder::new().spawn(move || {
            // An I/O error, such as a reset by the client, ends this session only.
            let _ = handle_client(&stream, &faults);
            // Here `stream` is dropped, which closes the socket.
        })?;
    }
    Ok(())
}

/// Runs one session on its own thread, from the banner to `exit` or EOF.
///
/// Each read blocks until the client sends a line. No idle timeout ends the wait.
///
/// # Errors
///
/// Of reading from and writing to the client.
fn handle_client(stream: &TcpStream, faults: &FaultSwitches) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    if faults.hang {
        // Reads and discards everything until the client closes.
        return io::copy(&mut lines, &mut io::sink()).map(drop);
    }
    if !faults.no_banner {
        send(stream, shell::BANNER.as_bytes())?;
    }
    send_prompt(stream, faults, b"")?;
    // Each session has its own shell: no other thread can access its files.
    let mut shell = Shell::default();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            // EOF. The server cannot know whether the client has closed the
            // connection or only half-closed it: both send a FIN.
            if faults.die_on_half_close {
                std::process::exit(1);
            }
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        let Some(output) = shell.run(line.trim()) else {
            return Ok(());
        };
        if faults.endless {
            // Ends with the error of write(2) after the client has closed.
            loop {
                send(stream, b"and on, and on, and on\n")?;
            }
        }
        let late_errors = send_output(stream, faults, output)?;
        send_prompt(stream, faults, &late_errors)?;
    }
}

/// Sends the output of one line, and returns the bytes to send after the prompt.
fn send_output(stream: &TcpStream, faults: &FaultSwitches, output: Output) -> io::Result<Vec<u8>> {
    let Output {
        stdout,
        stderr,
        pause,
    } = output;
    let (before_prompt, after_prompt) = match faults.late_errors {
        true => (Vec::new(), stderr),
        false => (stderr, Vec::new()),
    };
    let mut text = [before_prompt, stdout].concat();
    if faults.no_final_newline && text.ends_with(b"\n") {
        text.pop();
    }
    let pause = pause.max(faults.delay);
    if pause.is_zero() {
        send(stream, &text)?;
        return Ok(after_prompt);
    }
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        // Blocks this session only, since the session has its own thread.
        thread::sleep(pause);
        send(stream, line)?;
    }
    Ok(after_prompt)
}

/// Sends the prompt and the bytes after it in one segment, or in two if the fault switch
/// says so.
fn send_prompt(stream: &TcpStream, faults: &FaultSwitches, after_prompt: &[u8]) -> io::Result<()> {
    if faults.split_prompt {
        // Without TCP_NODELAY, Nagle's algorithm holds back the second segment
        // until the first is acknowledged.
        stream.set_nodelay(true)?;
        send(stream, b"%")?;
        // 50 ms: long enough for the client to read the segments one by one.
        thread::sleep(Duration::from_millis(50));
        return send(stream, &[b" ", after_prompt].concat());
    }
    send(stream, &[b"% ", after_prompt].concat())
}

/// Writes all bytes. Blocks while the socket's send buffer is full: a client that
/// does not read slows down its own session (backpressure).
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}
