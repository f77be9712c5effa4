//! Prompts are found, and telnet's commands left out, wherever the network cuts.

use super::pieces::cuttings;
use crate::prompt::PromptFinder;
use crate::telnet::Telnet;

/// The oracle.
pub fn holds(bytes: &[u8]) {
    let text = without_commands(&[bytes]);
    let found = prompts(&[bytes]);
    for pieces in cuttings(bytes) {
        assert_eq!(without_commands(&pieces), text, "in pieces {pieces:?}");
        assert_eq!(prompts(&pieces), found, "in pieces {pieces:?}");
    }
    assert!(text.len() <= bytes.len());
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(!bytes.contains(&255) || newlines(&text) <= newlines(bytes));
    if !bytes.contains(&255) {
        assert_eq!(text, bytes);
    }
    prompts_make_sense(bytes, &found);
    plain_prompts(bytes, &found);
    next_line_is_seen(bytes);
    doubled_is_itself(bytes);
}

fn without_commands(pieces: &[&[u8]]) -> Vec<u8> {
    let mut telnet = Telnet::default();
    let mut text = Vec::new();
    for piece in pieces {
        text.extend_from_slice(&telnet.text(piece));
    }
    text
}

/// The places where prompts end, and whether the end may be one.
fn prompts(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
    let mut finder = PromptFinder::default();
    let mut found = Vec::new();
    let mut before = 0;
    for piece in pieces {
        let mut rest = *piece;
        while let Some(length) = finder.find(rest) {
            before += length;
            found.push(before);
            rest = &rest[length..];
        }
        before += rest.len();
    }
    (found, finder.perhaps())
}

/// Each prompt ends with a blank, and a `%` of its own stands before that.
fn prompts_make_sense(bytes: &[u8], (found, perhaps): &(Vec<usize>, bool)) {
    let mut before = 0;
    for &end in found {
        let asked = &bytes[before..end];
        assert!(asked.ends_with(b" ") && asked.contains(&b'%'), "{asked:?}");
        before = end;
    }
    let rest = &bytes[before..];
    let both = rest.contains(&b'%') && rest.contains(&b' ');
    assert!(!perhaps || both, "{rest:?} may be a prompt");
}

/// In text without control characters a regular expression would do.
fn plain_prompts(bytes: &[u8], found: &(Vec<usize>, bool)) {
    if bytes
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\n')
    {
        return;
    }
    let mut ends = Vec::new();
    let mut line = 0;
    for at in 0..bytes.len() {
        let so_far = &bytes[line..=at];
        if so_far == b"% " {
            ends.push(at + 1);
        }
        if so_far == b"% " || bytes[at] == b'\n' {
            line = at + 1;
        }
    }
    let perhaps = bytes[line..].ends_with(b"% ");
    assert_eq!(*found, (ends.clone(), perhaps));
    // Colours are no part of a line.
    let in_colour = bytes
        .iter()
        .flat_map(|&byte| [b"\x1b[1;31m", &[byte][..]].concat());
    let in_colour: Vec<u8> = in_colour.collect();
    let ends = ends.into_iter().map(|end| 8 * end).collect();
    assert_eq!(prompts(&[&in_colour]), (ends, perhaps));
}

/// No sequence outlasts its line: the prompt behind a newline is seen.
fn next_line_is_seen(bytes: &[u8]) {
    let more = [bytes, b"\n% "].concat();
    let mut telnet = Telnet::default();
    let text = telnet.text(&more);
    // A command may have taken the newline as the number of its option.
    if text.ends_with(b"\n% ") {
        let (found, _) = prompts(&[&text]);
        assert_eq!(found.last(), Some(&text.len()));
    }
}

/// What a server doubles as the protocol wants comes out as it was.
fn doubled_is_itself(bytes: &[u8]) {
    let doubled: Vec<u8> = bytes
        .iter()
        .flat_map(|&byte| vec![byte; if byte == 255 { 2 } else { 1 }])
        .collect();
    assert_eq!(without_commands(&[&doubled]), bytes);
}
