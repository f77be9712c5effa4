//! A remote shell to play with: a thread per connection, and nothing is executed.
//!
//! It speaks like the course's shell servers: a banner, the prompt `% `, and
//! after each line its output and the prompt again. Its few commands work on
//! made-up files in memory, so it is safe to run; with its switches it behaves
//! as badly as real ones do.
//!
//! ```sh
//! cargo run --example shell_server -- 7000
//! nc 127.0.0.1 7000
//! ```

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
shell_server: a remote shell to play with; nothing is executed

Usage: cargo run --example shell_server -- [SWITCHES] [PORT]

  PORT          7000 by default; 0 takes a free one and prints it
  --bind ADDR   on this address [127.0.0.1]

Commands: ls, cat, number, noop, removetag, removetag0, delayedremovetag,
printenv, setenv, exit; with | to the next command, |N to the one N lines
later, !N the same with errors, > FILE.

Misbehaviour:
  --no-banner           begins with the prompt
  --split-prompt        sends the prompt in two pieces
  --late-errors         sends errors behind the prompt instead of before it
  --delay T             waits this long before every line of output
  --no-final-newline    leaves out the last newline of every output
  --die-on-half-close   ends the whole server when a client half-closes
  --hang                says nothing at all
  --endless             never stops printing after the first command
";

/// How badly to behave.
#[derive(Clone, Debug, Default)]
struct Manners {
    no_banner: bool,
    split_prompt: bool,
    late_errors: bool,
    delay: Duration,
    no_final_newline: bool,
    die_on_half_close: bool,
    hang: bool,
    endless: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match parse(arguments) {
        Ok(Some((address, manners))) => {
            serve(address, &Arc::new(manners)).map_err(|error| format!("{address}: {error}"))
        }
        Ok(None) => io::stdout()
            .write_all(HELP.as_bytes())
            .map_err(|error| error.to_string()),
        Err(usage) => Err(format!("{usage} (see --help)")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "shell_server: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Address and manners; nothing if only help is wanted.
fn parse(arguments: Vec<OsString>) -> Result<Option<(SocketAddr, Manners)>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);
    let mut manners = Manners::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("no-banner") => manners.no_banner = true,
            Arg::Long("split-prompt") => manners.split_prompt = true,
            Arg::Long("late-errors") => manners.late_errors = true,
            Arg::Long("delay") => {
                manners.delay = parser.value()?.parse_with(humantime::parse_duration)?;
            }
            Arg::Long("no-final-newline") => manners.no_final_newline = true,
            Arg::Long("die-on-half-close") => manners.die_on_half_close = true,
            Arg::Long("hang") => manners.hang = true,
            Arg::Long("endless") => manners.endless = true,
            Arg::Long("bind") => address.set_ip(parser.value()?.parse()?),
            Arg::Value(text) => address.set_port(text.parse()?),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some((address, manners)))
}

/// Gives each client a thread, until the end of the process.
fn serve(address: SocketAddr, manners: &Arc<Manners>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let _ = writeln!(io::stderr(), "shell_server: listening on {address}");
    for client in listener.incoming() {
        let client = client?;
        let manners = Arc::clone(manners);
        thread::Builder::new().spawn(move || {
            // A client that goes away in the middle ends its visit, no more.
            let _ = visit(&client, &manners);
        })?;
    }
    Ok(())
}

/// One client, from banner to exit.
fn visit(client: &TcpStream, manners: &Manners) -> io::Result<()> {
    let mut lines = BufReader::new(client);
    if manners.hang {
        // Until the client leaves.
        return io::copy(&mut lines, &mut io::sink()).map(drop);
    }
    if !manners.no_banner {
        say(client, shell::BANNER.as_bytes())?;
    }
    prompt(client, manners, b"")?;
    let mut shell = Shell::default();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            if manners.die_on_half_close {
                std::process::exit(1);
            }
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        let Some(output) = shell.run(line.trim()) else {
            return Ok(());
        };
        if manners.endless {
            loop {
                say(client, b"and on, and on, and on\n")?;
            }
        }
        let late = answer(client, manners, output)?;
        prompt(client, manners, &late)?;
    }
}

/// Sends the output of one line; what is to come behind the prompt is returned.
fn answer(client: &TcpStream, manners: &Manners, output: Output) -> io::Result<Vec<u8>> {
    let Output {
        stdout,
        stderr,
        pause,
    } = output;
    let (early, late) = match manners.late_errors {
        true => (Vec::new(), stderr),
        false => (stderr, Vec::new()),
    };
    let mut text = [early, stdout].concat();
    if manners.no_final_newline && text.ends_with(b"\n") {
        text.pop();
    }
    let pause = pause.max(manners.delay);
    if pause.is_zero() {
        say(client, &text)?;
        return Ok(late);
    }
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        thread::sleep(pause);
        say(client, line)?;
    }
    Ok(late)
}

/// Sends the prompt, with what comes late in the same segment behind it.
fn prompt(client: &TcpStream, manners: &Manners, late: &[u8]) -> io::Result<()> {
    if manners.split_prompt {
        client.set_nodelay(true)?;
        say(client, b"%")?;
        // Two segments, which the reader shall see one by one.
        thread::sleep(Duration::from_millis(50));
        return say(client, &[b" ", late].concat());
    }
    say(client, &[b"% ", late].concat())
}

fn say(mut client: &TcpStream, text: &[u8]) -> io::Result<()> {
    client.write_all(text)
}
