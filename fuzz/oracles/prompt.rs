//! Prompts are found and telnet commands are removed, wherever the network splits the output.

use super::chunks::chunkings;
use crate::prompt::PromptFinder;
use crate::telnet::Telnet;

/// Compares all chunkings of the output, and checks the prompts that are found.
pub fn check(bytes: &[u8]) {
    let text = strip_commands(&[bytes]);
    let found = find_prompts(&[bytes]);
    for chunks in chunkings(bytes) {
        assert_eq!(strip_commands(&chunks), text, "in chunks {chunks:?}");
        assert_eq!(find_prompts(&chunks), found, "in chunks {chunks:?}");
    }
    assert!(text.len() <= bytes.len());
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(!bytes.contains(&255) || newlines(&text) <= newlines(bytes));
    if !bytes.contains(&255) {
        assert_eq!(text, bytes);
    }
    check_prompts(bytes, &found);
    check_plain_text(bytes, &found);
    check_prompt_after_newline(bytes);
    check_doubled_iac(bytes);
}

fn strip_commands(chunks: &[&[u8]]) -> Vec<u8> {
    let mut telnet = Telnet::default();
    let mut text = Vec::new();
    for chunk in chunks {
        text.extend_from_slice(&telnet.text(chunk));
    }
    text
}

/// The offsets at which prompts end, and whether the output may end with a prompt.
fn find_prompts(chunks: &[&[u8]]) -> (Vec<usize>, bool) {
    let mut finder = PromptFinder::default();
    let mut found = Vec::new();
    let mut offset = 0;
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(length) = finder.find(rest) {
            offset += length;
            found.push(offset);
            rest = &rest[length..];
        }
        offset += rest.len();
    }
    (found, finder.may_be_prompt())
}

/// Each prompt ends with a space, and has a `%` of its own before the space.
fn check_prompts(bytes: &[u8], (found, maybe_at_end): &(Vec<usize>, bool)) {
    let mut offset = 0;
    for &end in found {
        let prompt = &bytes[offset..end];
        assert!(
            prompt.ends_with(b" ") && prompt.contains(&b'%'),
            "{prompt:?}"
        );
        offset = end;
    }
    let rest = &bytes[offset..];
    let both = rest.contains(&b'%') && rest.contains(&b' ');
    assert!(!maybe_at_end || both, "{rest:?} may be a prompt");
}

/// In text without control characters, a prompt is `% ` at the start of a line or directly
/// after another prompt.
fn check_plain_text(bytes: &[u8], found: &(Vec<usize>, bool)) {
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
    let maybe_at_end = bytes[line..].ends_with(b"% ");
    assert_eq!(*found, (ends.clone(), maybe_at_end));
    // A colour sequence before each byte (8 bytes instead of 1) changes no prompt.
    let in_colour = bytes
        .iter()
        .flat_map(|&byte| [b"\x1b[1;31m", &[byte][..]].concat());
    let in_colour: Vec<u8> = in_colour.collect();
    let ends = ends.into_iter().map(|end| 8 * end).collect();
    assert_eq!(find_prompts(&[&in_colour]), (ends, maybe_at_end));
}

/// An escape sequence ends with its line at the latest: a prompt after a newline is found.
fn check_prompt_after_newline(bytes: &[u8]) {
    let longer = [bytes, b"\n% "].concat();
    let mut telnet = Telnet::default();
    let text = telnet.text(&longer);
    // An unfinished telnet command may take the newline as its option code (RFC 854).
    if text.ends_with(b"\n% ") {
        let (found, _) = find_prompts(&[&text]);
        assert_eq!(found.last(), Some(&text.len()));
    }
}

/// Bytes whose IAC (255) is doubled, as RFC 854 demands, are read back unchanged.
fn check_doubled_iac(bytes: &[u8]) {
    let doubled: Vec<u8> = bytes
        .iter()
        .flat_map(|&byte| vec![byte; if byte == 255 { 2 } else { 1 }])
        .collect();
    assert_eq!(strip_commands(&[&doubled]), bytes);
}
