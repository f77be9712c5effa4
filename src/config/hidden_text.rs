//! Control characters that other programs take for the end of a line, or of the text.

/// NUL, vertical tab, form feed and carriage return.
const ENDS: &[u8] = b"\0\x0B\x0C\r";

/// Checks that no such character is within a line, or within a comment. An editor can show the
/// text after it as another line, where the server would read one comment. A carriage return
/// or form feed at the beginning or end of the line is a blank: files with CRLF are valid.
///
/// # Errors
///
/// A sentence without a part of the line.
pub fn check_line_end(line: &[u8]) -> Result<(), String> {
    let mut bytes = line.trim_ascii().iter();
    match bytes.find(|byte| ENDS.contains(byte)) {
        None => Ok(()),
        Some(byte) => Err(format!(
            "the line contains the control character \\x{byte:02x}, where other programs end \
             it; end each line with LF or CRLF, and delete other control characters"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f31_no_character_that_ends_lines_is_within_a_line() {
        for byte in 0..=u8::MAX {
            let is_end = ENDS.contains(&byte);
            for line in [b"# a%b", b"a % b", b"\"a%b\""] {
                let line = line.map(|it| if it == b'%' { byte } else { it });
                assert_eq!(check_line_end(&line).is_err(), is_end, "{byte}");
            }
        }
        for line in ["", "a\r", "a\r\r", "a\r \t", "\r", "\ra", "\x0c"] {
            assert_eq!(check_line_end(line.as_bytes()), Ok(()), "{line:?}");
        }
        let reason = check_line_end(b"# a\rdeny - -").unwrap_err();
        assert!(reason.contains("character \\x0d,"), "{reason}");
    }
}
