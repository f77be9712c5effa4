//! A new password is asked for, on a terminal without showing it.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::protocol::socks5::MAX_FIELD;

/// What a shell reports of a program that Ctrl-C killed.
const INTERRUPTED: i32 = 130;

/// The password that this user is to have: typed twice, if stdin is a terminal, or
/// else the first line of it.
///
/// # Errors
///
/// A sentence: it is empty or too long, the second differs from the first, or there
/// is nothing to read.
pub fn new_password(user: &str) -> Result<Vec<u8>, String> {
    if !io::stdin().is_terminal() {
        return check_length(read_line()?);
    }
    let before =
        disable_echo().map_err(|error| format!("the terminal does not stop showing: {error}"))?;
    let password = prompt_twice(user);
    restore_echo(&before);
    password
}

fn prompt_twice(user: &str) -> Result<Vec<u8>, String> {
    let first = check_length(prompt(&format!("Password for {user}: "))?)?;
    let second = prompt("Once more: ")?;
    match first == second {
        true => Ok(first),
        false => Err("these are two passwords, and no line is made".to_owned()),
    }
}

/// Asks on stderr: stdout is for the line, and may be the users file itself.
fn prompt(text: &str) -> Result<Vec<u8>, String> {
    let _ = write!(io::stderr(), "{text}");
    let answer = read_line();
    // The terminal did not show that one either.
    let _ = writeln!(io::stderr());
    answer
}

/// What a login has room for (RFC 1929).
fn check_length(password: Vec<u8>) -> Result<Vec<u8>, String> {
    match password.len() {
        0 => Err("an empty password is none".to_owned()),
        1..=MAX_FIELD => Ok(password),
        _ => Err(format!(
            "the password has more than {MAX_FIELD} bytes, for which a login has no room"
        )),
    }
}

/// A line of stdin without its end, or one byte more of it than can be used.
fn read_line() -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    // KeyedSemaphore for CR LF, and for a byte too many.
    let mut stdin = io::stdin().lock().take(MAX_FIELD as u64 + 3);
    let read = stdin.read_until(b'\n', &mut line);
    read.map_err(|error| format!("no password can be read: {error}"))?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    Ok(line)
}

/// What is typed is not shown any more, until [`restore_echo`] or Ctrl-C. Whatever else
/// would stop the program waits for that, so that no terminal is left in the dark.
fn disable_echo() -> io::Result<Termios> {
    let before = termios::tcgetattr(io::stdin())?;
    // In front of the thread of Ctrl-C, which is to take none of them either.
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

/// Fails only on what is no terminal any more.
fn restore_echo(before: &Termios) {
    let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, before);
    // What has come meanwhile takes its effect now.
    let _ = stop_signals().thread_unblock();
}

/// Signals that stop a program for good or for a while, but for Ctrl-C.
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
