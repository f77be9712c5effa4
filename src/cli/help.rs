//! The help, made from the table of options.

use std::fmt::Write;

use super::option_table::{OptionRow, SECTIONS};

/// The width of a terminal.
const WIDTH: usize = 80;
/// The column in which the explanations begin, counted from 0.
const EXPLANATIONS: usize = 29;

const BEFORE_OPTIONS: &str = "\
threadsocks: a SOCKS4, SOCKS4A and SOCKS5 proxy made of plain OS threads

Usage: threadsocks [OPTIONS] [[ADDR:]PORT]
       threadsocks run [OPTIONS] [--] PROGRAM [ARGUMENT]...

  run     runs a program through a SOCKS server: threadsocks-run(1)
  PORT    port for clients [1080]; 0: the system chooses a free one, and the
          server prints it
";

const AFTER_OPTIONS: &str = "
Signals: Ctrl-C or TERM once: no new clients, live sessions have the grace
period; twice: end them now. HUP: read changed rules and users now and report
the result. USR1: tables of sessions and threads on stderr, also with --quiet.

Exit status: 0 success, 1 failure, 2 usage error or invalid rules or users,
3 --explain: the rules deny it, 130 stopped by a second signal.

Manual: threadsocks(8) and socks.conf(5). The source has a systemd unit, alerts
for Prometheus and a configuration of HAProxy: docs/ and examples/.

Example:
  threadsocks 1080
  curl --socks5-hostname 127.0.0.1:1080 http://example.org/
";

/// The text of `--help`. No line has more than 80 characters, the width of a terminal.
pub fn help() -> String {
    let mut text = BEFORE_OPTIONS.to_owned();
    for section in SECTIONS {
        let _ = writeln!(text, "\n{}:", section.title);
        for option in section.options {
            text.push_str(&lines_of(option));
        }
    }
    text.push_str(AFTER_OPTIONS);
    text
}

/// The lines of one option: its names on the left, its explanation on the right.
fn lines_of(option: &OptionRow) -> String {
    let short = match option.short {
        Some(letter) => format!("-{letter}, "),
        None => "    ".to_owned(),
    };
    let placeholder = option.argument.placeholder();
    let placeholder = placeholder.map_or(String::new(), |it| format!(" {it}"));
    let names = format!("  {short}--{}{placeholder}", option.long);
    let indent = " ".repeat(EXPLANATIONS);
    let explanation = wrap(option.about, WIDTH - EXPLANATIONS).join(&format!("\n{indent}"));
    // Two blanks at least separate the columns.
    match names.len() + 2 <= EXPLANATIONS {
        true => format!("{names:EXPLANATIONS$}{explanation}\n"),
        false => format!("{names}\n{indent}{explanation}\n"),
    }
}

/// Breaks a text at blanks into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
