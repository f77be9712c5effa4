//! The users file defines the users of its lines, and no message repeats a password hash.

use std::collections::HashSet;

use super::quotes::unquoted;

use threadsocks::auth::{MAX_USER_NAME, Users, is_user_name};
use threadsocks::config::{Content, MAX_ERRORS, SyntaxError};

/// Checks the result of the parser: the names, the errors, and the result for prefixes.
pub fn check(bytes: &[u8]) {
    let whole = Users::parse(bytes);
    check_layout(bytes, &whole);
    match &whole {
        Err(errors) => check_errors(bytes, errors),
        Ok(users) => check_names(bytes, users),
    }
    check_prefixes(bytes, &whole);
}

type Parsed = Result<Users, Vec<SyntaxError>>;

/// Errors are in the order of the lines, at most one per line. A message is printable
/// ASCII, and repeats at most the user name of its line.
fn check_errors(bytes: &[u8], errors: &[SyntaxError]) {
    assert!((1..=MAX_ERRORS).contains(&errors.len()));
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let mut previous = 0;
    for SyntaxError { line, reason } in errors {
        assert!(previous < *line && *line <= lines.len(), "{line}: {reason}");
        previous = *line;
        assert!(reason.len() < 200 + 4 * MAX_USER_NAME, "{reason}");
        let is_shown = |byte: u8| (0x20..0x7f).contains(&byte);
        assert!(reason.bytes().all(is_shown), "{reason}");
        let text = String::from_utf8_lossy(lines[line - 1]);
        let (name, secret) = text.trim_ascii().split_once(':').unwrap_or_default();
        let is_leaked = secret.len() >= 20 && reason.replace(name, "").contains(secret);
        assert!(!is_leaked, "{reason}");
    }
}

/// The users, or the numbers of the lines with an error.
fn users_or_lines(parsed: &Parsed) -> Result<&Users, Vec<usize>> {
    let lines = |errors: &Vec<SyntaxError>| errors.iter().map(|error| error.line).collect();
    parsed.as_ref().map_err(lines)
}

/// CRLF, spaces around lines, a final newline, a comment at the end, and a byte order mark
/// change nothing.
fn check_layout(bytes: &[u8], whole: &Parsed) {
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let mut layouts = vec![
        lines.join(&b"\r\n"[..]),
        lines.join(&b" \t\n"[..]),
        lines.join(&b"\n\t"[..]),
        [bytes, b"\n"].concat(),
        [bytes, b"\n  # \xff:x"].concat(),
    ];
    if !bytes.starts_with(b"\xef\xbb\xbf") {
        layouts.push([b"\xef\xbb\xbf", bytes].concat());
    }
    for layout in layouts {
        let text = layout.escape_ascii();
        let is_same = users_or_lines(&Users::parse(&layout)) == users_or_lines(whole);
        assert!(is_same, "with the layout {text}");
    }
}

/// Every line that is neither empty nor a comment defines one user, and there are no other
/// users.
fn check_names(bytes: &[u8], users: &Users) {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut names = HashSet::new();
    for line in text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let is_end = |byte: &u8| [0, 0x0B, 0x0C, b'\r'].contains(byte);
        assert!(!line.iter().any(is_end), "{line:?}");
        let (name, hash) = match line[0] {
            b'"' => {
                let (name, length) = unquoted(line);
                (name, &line[length..])
            }
            _ => {
                let end = line.iter().position(|&byte| byte == b':');
                let (name, hash) = line.split_at(end.expect("a colon"));
                let text = std::str::from_utf8(name).expect("UTF-8");
                assert_eq!(text, text.trim());
                assert!(!text.chars().any(char::is_control));
                (name.to_vec(), hash)
            }
        };
        assert!((1..=255).contains(&name.len()));
        assert!(!name.iter().any(|byte| b"\0\r\n:".contains(byte)));
        assert!(is_user_name(&name));
        assert!(hash.starts_with(b":$argon2id$v=19$m="));
        assert!(names.insert(name), "a name occurs twice");
    }
    assert_eq!(users.len(), names.len());
    assert!(names.iter().all(|name| users.has(name)));
    let plural = if names.len() == 1 { "" } else { "s" };
    assert_eq!(users.to_string(), format!("{} user{plural}", names.len()));
    assert!(!format!("{users:?}").contains('$'));
}

/// A file that is cut off between two lines defines no additional user, and has no
/// additional error. At most eight prefixes are tried.
fn check_prefixes(bytes: &[u8], whole: &Parsed) {
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n');
    for end in ends.take(8) {
        match (Users::parse(&bytes[..=end]), whole) {
            (Ok(part), Ok(whole)) => assert!(part.len() <= whole.len()),
            (Err(part), Err(whole)) => assert!(whole.starts_with(&part)),
            (Ok(_), Err(_)) => {}
            (Err(part), Ok(_)) => panic!("only the prefix has errors: {part:?}"),
        }
    }
}
