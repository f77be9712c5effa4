//! Reads a new password from stdin, on a terminal without echo.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::net::{self, Deadline};
use crate::protocol::socks5::MAX_FIELD;

/// Exit status after Ctrl-C: 128 + SIGINT, as shells report it.
const INTERRUPTED: i32 = 130;

/// Reads the new password of this user: typed twice if stdin is a terminal, or else the
/// first line of stdin.
///
/// # Errors
///
/// A sentence: the password is empty or too long, the two passwords differ, or stdin cannot
/// be read.
pub fn new_password(user: &[u8]) -> Result<Vec<u8>, String> {
    if !io::stdin().is_terminal() {
        return check_length(read_line()?);
    }
    let before = disable_echo()
        .map_err(|error| format!("cannot turn off the echo of the terminal: {error}"))?;
    let password = prompt_twice(user);
    restore_echo(&before);
    password
}

/// Prompts for the password twice, since a typing error is not visible.
fn prompt_twice(user: &[u8]) -> Result<Vec<u8>, String> {
    let first = check_length(prompt(&format!("Password for {}: ", user.escape_ascii()))?)?;
    let second = prompt("Repeat the password: ")?;
    match first == second {
        true => Ok(first),
        false => Err("the passwords differ; nothing was written".to_owned()),
    }
}

/// Prompts on stderr and reads a line. Stdout is for the line of the users file, and may be
/// redirected to that file.
fn prompt(text: &str) -> Result<Vec<u8>, String> {
    let _ = write!(io::stderr(), "{text}");
    let answer = read_line();
    // Without echo, the terminal does not show the newline that was typed either.
    let _ = writeln!(io::stderr());
    answer
}

/// Refuses a password that a login cannot send: a field has at most 255 bytes (RFC 1929).
fn check_length(password: Vec<u8>) -> Result<Vec<u8>, String> {
    match password.len() {
        0 => Err("the password is empty; nothing was written".to_owned()),
        1..=MAX_FIELD => Ok(password),
        _ => Err(format!(
            "the password is longer than {MAX_FIELD} bytes, the limit of a login; nothing \
             was written"
        )),
    }
}

/// Reads a line of stdin, without its end. A line that is too long is cut after a few bytes
/// more than a password may have.
fn read_line() -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    // The longest password, CR LF, and one byte more to detect a longer line.
    let mut stdin = io::stdin().lock().take(MAX_FIELD as u64 + 3);
    loop {
        match stdin.read_until(b'\n', &mut line) {
            Ok(_) => break,
            // Another process that shares stdin has set O_NONBLOCK.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waited = net::wait_readable(&io::stdin(), Deadline::NEVER);
                waited.map_err(|error| format!("cannot wait for the password: {error}"))?;
            }
            Err(error) => return Err(format!("cannot read the password: {error}")),
        }
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    Ok(line)
}

/// Turns the echo of the terminal off, until [`restore_echo`] or Ctrl-C. Other signals that
/// stop the program are blocked until then: they would leave the terminal without echo.
fn disable_echo() -> io::Result<Termios> {
    let before = termios::tcgetattr(io::stdin())?;
    // Before the thread that handles Ctrl-C starts: it inherits the blocked signals.
    stop_signals().thread_block()?;
    ctrlc::set_handler({
        let before = before.clone();
        move || {
            restore_echo(&before);
            let _ = writeln!(io::stderr());
            std::process::exit(INTERRUPTED);
        }
    })
    .map_err(io::Error::other)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
    Ok(before)
}

/// Restores the settings of the terminal. An error is ignored: tcsetattr(3) fails only if
/// stdin is not a terminal any more.
fn restore_echo(before: &Termios) {
    let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, before);
    // A signal that was blocked takes effect now.
    let _ = stop_signals().thread_unblock();
}

/// Signals that terminate or suspend the program, except SIGINT (Ctrl-C).
fn stop_signals() -> SigSet {
    [
        Signal::SIGQUIT,
        Signal::SIGTSTP,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}
