//! The parser of the users file: its text becomes users, or a list of errors.
//!
//! ```text
//! # a comment
//! alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use super::password_hash::{PasswordHash, hash_password};
use crate::config::{
    Content, MAX_ERRORS, QuotedName, SyntaxError, Unquoted, WatchedFile, check_line, check_words,
    is_shown, unquote,
};
use crate::protocol::socks5::MAX_FIELD;

/// Longest name of a user in bytes: the user field of a login has a length of one byte
/// (RFC 1929).
pub const MAX_USER_NAME: usize = MAX_FIELD;

/// U+FEFF in UTF-8, which some editors write at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Is this a valid name of a user? A name has 1 to [`MAX_USER_NAME`] bytes, except colon, line
/// ends and NUL: many clients, such as curl, separate name and password by a colon.
pub fn is_user_name(name: &[u8]) -> bool {
    let is_excluded = |byte: &u8| b":\r\n\0".contains(byte);
    (1..=MAX_USER_NAME).contains(&name.len()) && !name.iter().any(is_excluded)
}

/// The line of the users file for this user and password, with its newline.
///
/// # Errors
///
/// A sentence: the name is not valid, or the system has no memory, or no random numbers.
pub fn users_file_line(user: impl AsRef<[u8]>, password: &[u8]) -> Result<String, String> {
    let user = user.as_ref();
    match is_user_name(user) {
        true => Ok(format!(
            "{}:{}\n",
            name_in_file(user),
            hash_password(password)?
        )),
        false => Err(format!("{} is not a user name", QuotedName(user))),
    }
}

/// The text of a users file with `line` for this user: at its end, or with `replace` in place of the
/// line that the user has. All other bytes stay.
///
/// # Errors
///
/// A sentence, after the line that it is about: the text is not that of a users file, it has the
/// user and `replace` is false, or it does not have the user and `replace` is true.
pub fn with_line(text: &[u8], user: &[u8], line: &str, replace: bool) -> Result<Vec<u8>, String> {
    if let Err(errors) = Users::parse(text)
        && let Some(first) = errors.first()
    {
        return Err(format!("line {first}"));
    }
    let mut edited = Vec::with_capacity(text.len() + line.len() + 1);
    let mut has_user = false;
    for (index, before) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let (mark, content) = split_byte_order_mark(before, index);
        let is_of_user = matches!(parse_line(content), Ok(Some((name, _))) if name == user);
        if is_of_user && !replace {
            return Err(format!(
                "line {}: {} is a user already; --replace sets another password",
                index + 1,
                QuotedName(user)
            ));
        }
        has_user |= is_of_user;
        edited.extend_from_slice(mark);
        edited.extend_from_slice(if is_of_user { line.as_bytes() } else { content });
    }
    if replace && !has_user {
        let name = QuotedName(user);
        return Err(format!(
            "there is no user {name}; leave --replace out to add one"
        ));
    }
    if !has_user {
        let is_cut_off = edited.last().is_some_and(|&last| last != b'\n');
        edited.extend_from_slice(if is_cut_off { b"\n" } else { b"" });
        edited.extend_from_slice(line.as_bytes());
    }
    Ok(edited)
}

/// Splits the byte order mark from the first line of a file.
fn split_byte_order_mark(line: &[u8], index: usize) -> (&[u8], &[u8]) {
    match line.strip_prefix(BYTE_ORDER_MARK) {
        Some(content) if index == 0 => (BYTE_ORDER_MARK, content),
        _ => (b"", line),
    }
}

/// The name as the file has it: in quotes, if without them the file would be read otherwise,
/// or a byte of the name is not visible.
fn name_in_file(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if is_plain(text) && !text.starts_with(['"', '#', '\u{FEFF}']) => text.to_owned(),
        _ => QuotedName(name).to_string(),
    }
}

/// Can the name be written without quotes? A blank at an end, a control character and others
/// cannot be seen.
fn is_plain(name: &str) -> bool {
    name.trim() == name && name.chars().all(is_shown)
}

/// All users of one file, with the hashes of their passwords.
#[derive(Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<Vec<u8>, PasswordHash>,
    /// The hash of the first user of the file.
    dummy_hash: Option<PasswordHash>,
    /// The line of the hash that takes the most memory, and this memory in KiB; 0 and 0
    /// without users.
    largest_hash: (usize, usize),
}

/// The users file, which is reloaded when it changes.
pub type UsersFile = WatchedFile<Users>;

impl UsersFile {
    /// Remarks on the file, a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let empty = self
            .content()
            .is_empty()
            .then(|| "there is no user, so no client can log in; --new-user adds one".to_owned());
        let accessible = self.is_accessible_to_others().then(|| {
            format!(
                "other accounts have access to this file, and can guess passwords without \
                 limit; run: chmod 600 {}",
                self.path().display()
            )
        });
        // A line that is cut off permits no other password: Argon2 has another output for
        // each length.
        let cut_off = self.unterminated_line().map(|line| {
            format!(
                "line {line} has no newline at its end; if it is cut off, users are missing, or \
                 cannot log in"
            )
        });
        let warnings = empty.into_iter().chain(accessible).chain(cut_off);
        warnings
            .map(|warning| format!("warning: {warning}"))
            .collect()
    }
}

impl Users {
    /// The hash of this user, if the file has the user.
    pub(super) fn hash(&self, user: &[u8]) -> Option<&PasswordHash> {
        self.hashes.get(user)
    }

    /// A hash for logins with an unknown user: if all hashes have the same cost, its check
    /// takes as long as for a known user, so the time does not reveal which users exist.
    /// `None` if the file has no user.
    pub(super) fn dummy_hash(&self) -> Option<&PasswordHash> {
        self.dummy_hash.as_ref()
    }

    /// The line of the hash that takes the most memory, and this memory in KiB; 0 and 0
    /// without users.
    pub(super) fn largest_hash(&self) -> (usize, usize) {
        self.largest_hash
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Has the file no user? Then every login is denied.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Does the file have a user of this name?
    pub fn has(&self, name: &[u8]) -> bool {
        self.hashes.contains_key(name)
    }
}

impl fmt::Display for Users {
    /// Writes the number of users: "1 user", "2 users".
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            1 => out.write_str("1 user"),
            count => write!(out, "{count} users"),
        }
    }
}

impl fmt::Debug for Users {
    /// The number of users, without hashes.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Users({self})")
    }
}

impl Content for Users {
    const NAME: &'static str = "users";
    // 965, where both tables of names have just doubled.
    const MEMORY_PER_ENTRY: u64 = 1000;
    const MEMORY_PER_ITEM: u64 = 0;

    fn entries(&self) -> usize {
        self.len()
    }

    /// Parses the bytes of a users file. Comments, empty lines, blanks at both ends of a
    /// line, CRLF, a byte order mark and a missing final newline are allowed.
    ///
    /// # Errors
    ///
    /// The first [`MAX_ERRORS`] invalid lines.
    fn parse(text: &[u8]) -> Result<Users, Vec<SyntaxError>> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let mut users = Users::default();
        let mut lines_of = HashMap::new();
        let mut errors = Vec::new();
        for (index, text) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            let added = parse_line(text).and_then(|user| match user {
                Some((name, hash)) => users.add(name, hash, line, &mut lines_of),
                None => Ok(()),
            });
            errors.extend(added.err().map(|reason| SyntaxError { line, reason }));
            if errors.len() == MAX_ERRORS {
                break;
            }
        }
        match errors.as_slice() {
            [] => Ok(users),
            _ => Err(errors),
        }
    }
}

impl Users {
    /// Adds the user of this line. `lines_of` has the lines of the users before it.
    fn add(
        &mut self,
        name: Vec<u8>,
        hash: PasswordHash,
        line: usize,
        lines_of: &mut HashMap<Vec<u8>, usize>,
    ) -> Result<(), String> {
        match lines_of.entry(name.clone()) {
            Entry::Occupied(before) => {
                let (name, before) = (QuotedName(&name), before.get());
                return Err(format!(
                    "{name} is already on line {before}; delete one of the two lines"
                ));
            }
            Entry::Vacant(entry) => entry.insert(line),
        };
        self.dummy_hash.get_or_insert_with(|| hash.clone());
        if hash.memory_kib() > self.largest_hash.1 {
            self.largest_hash = (line, hash.memory_kib());
        }
        self.hashes.insert(name, hash);
        Ok(())
    }
}

/// Parses one line: a user and the hash, or `None` for an empty line or a comment. An error
/// repeats only the name: the rest may be a password that was written in place of the hash.
fn parse_line(line: &[u8]) -> Result<Option<(Vec<u8>, PasswordHash)>, String> {
    check_line(line)?;
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| {
        "the line is not UTF-8 text; write other bytes of a name in quotes, as \\xHH".to_owned()
    })?;
    check_words(line)?;
    let (name, hash) = split_name(line)?;
    if !is_user_name(&name) {
        return Err(format!(
            "the name before the colon is not valid; write 1 to {MAX_USER_NAME} bytes without \
             colon, line ends and NUL"
        ));
    }
    match PasswordHash::parse(hash) {
        Ok(hash) => Ok(Some((name, hash))),
        Err(reason) => Err(format!(
            "the hash of {} {reason}; write the line that --new-user prints, one user on \
             each line",
            QuotedName(&name)
        )),
    }
}

/// Splits a line into the name and the hash.
fn split_name(line: &str) -> Result<(Vec<u8>, &str), String> {
    const NO_COLON: &str = "there is no colon; write NAME:HASH, which --new-user NAME prints";
    let quoted = unquote(line.as_bytes()).map_err(|error| error.to_string())?;
    if let Some(Unquoted { bytes: name, rest }) = quoted {
        let hash = rest.strip_prefix(b":").ok_or(NO_COLON)?;
        // The rest of UTF-8 text after a colon is UTF-8 text.
        return Ok((name, std::str::from_utf8(hash).unwrap_or_default()));
    }
    let (name, hash) = line.split_once(':').ok_or(NO_COLON)?;
    match is_plain(name) {
        true => Ok((name.as_bytes().to_vec(), hash)),
        false => Err(
            "the name before the colon is not valid; if it ends with a blank, or has control \
             characters, write it in quotes"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valid hash of the least cost. No password is known for it.
    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn users(text: &str) -> Result<Users, Vec<SyntaxError>> {
        Users::parse(text.replace('@', HASH).as_bytes())
    }

    #[test]
    fn m02_a_line_is_added_or_replaced() {
        let alice = users_file_line("alice", b"one").unwrap();
        let other = users_file_line("alice", b"two").unwrap();
        let bob = users_file_line("bob", b"one").unwrap();
        let edit = |text: &str, user: &str, line: &str, replace: bool| {
            let edited = with_line(text.as_bytes(), user.as_bytes(), line, replace);
            edited.map(|text| String::from_utf8(text).unwrap())
        };
        for (text, user, line, expected) in [
            ("", "bob", &bob, bob.clone()),
            ("# c", "bob", &bob, format!("# c\n{bob}")),
            (&alice, "bob", &bob, format!("{alice}{bob}")),
            (
                &format!("\u{FEFF}{alice}\n"),
                "alice",
                &other,
                format!("\u{FEFF}{other}\n"),
            ),
            (
                &format!("#\n  {alice}{bob}"),
                "alice",
                &other,
                format!("#\n{other}{bob}"),
            ),
            (
                &format!("{bob}{}", alice.trim_end()),
                "alice",
                &other,
                format!("{bob}{other}"),
            ),
        ] {
            let replace = user == "alice";
            assert_eq!(edit(text, user, line, replace), Ok(expected), "{text:?}");
        }
        let error = |text: &str, replace| edit(text, "alice", &other, replace).unwrap_err();
        let both = format!("{bob}{alice}");
        assert!(error(&both, false).starts_with("line 2: \"alice\" is a user already"));
        assert!(error("x\n", false).starts_with("line 1: there is no colon"));
        assert!(error(&bob, true).starts_with("there is no user \"alice\""));
    }

    #[test]
    fn every_valid_form_is_parsed() {
        let longest = format!("{}:@", "n".repeat(255));
        for (text, names) in [
            ("", &[][..]),
            ("# alice:x\n\n \t\n  # bob", &[]),
            ("alice:@", &["alice"]),
            ("alice:@\r\nbob:@\r\n", &["alice", "bob"]),
            ("\u{FEFF}alice:@\n", &["alice"]),
            ("  alice:@\t\n", &["alice"]),
            ("ab-c=$_*\":@", &["ab-c=$_*\""]),
            ("Jane Doe:@", &["Jane Doe"]),
            ("CORP\\tom:@", &["CORP\\tom"]),
            ("j\u{fc}rgen:@\na,b:@", &["j\u{fc}rgen", "a,b"]),
            ("o'neil#1:@", &["o'neil#1"]),
            ("\"# \\\"q\\\" \":@", &["# \"q\" "]),
            ("\"j\\xc3\\xbcrgen\":@", &["j\u{fc}rgen"]),
            (&longest, &[&longest[..255]]),
        ] {
            let users = users(text).expect(text);
            assert_eq!(users.len(), names.len(), "{text}");
            assert!(
                names.iter().all(|name| users.has(name.as_bytes())),
                "{text}"
            );
            assert_eq!(users.dummy_hash().is_some(), !names.is_empty());
        }
        assert!(Users::parse(b"# \xa4\xa4\n").is_ok());
    }

    #[test]
    fn every_invalid_line_is_reported_without_repeating_its_text() {
        let too_long = format!("{}:@", "n".repeat(256));
        for (text, reason) in [
            ("pass-word", "there is no colon"),
            (":@", "the name before the colon is not valid"),
            ("pass :@", "write it in quotes"),
            ("pass\u{1}:@", "control character \\x01, so"),
            ("\"pass:@", "a quote is not closed"),
            ("\"pass\"", "there is no colon"),
            ("\"pass\" :@", "there is no colon"),
            ("\"pass\\word\":@", "in quotes a backslash is written as"),
            ("\"pass:word\":@", "the name before the colon is not valid"),
            ("\"pass\\x00\":@", "the name before the colon is not valid"),
            ("\"\":@", "the name before the colon is not valid"),
            (&too_long, "the name before the colon is not valid"),
            ("alice:pass-word", "hash of \"alice\" does not begin"),
            ("alice:", "does not begin"),
            ("alice: @", "does not begin"),
            ("alice:@:pass", "is not a valid Argon2id hash"),
            ("alice:@ # pass", "is not a valid Argon2id hash"),
            ("alice:$argon2id$pass", "is not a valid Argon2id hash"),
            ("alice:@\nbob:@\nalice:@", "\"alice\" is already on line 1"),
            ("alice:@\n\"\\x61lice\":@", "\"alice\" is already on line 1"),
            (
                "j\u{fc}:@\nj\u{fc}:@",
                "\"j\\xc3\\xbc\" is already on line 1",
            ),
        ] {
            let errors = users(text).expect_err(text);
            let [error] = errors.as_slice() else {
                panic!("{text}: {errors:?}")
            };
            assert_eq!(error.line, text.lines().count());
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert!(!error.reason.contains("pass"), "{error}");
        }
        assert!(Users::parse(b"alice\xff:x").is_err());
        let many = users(&"x\n".repeat(1000)).expect_err("invalid lines");
        assert_eq!(many.len(), MAX_ERRORS);
    }

    #[test]
    fn f31_nothing_in_a_line_hides_the_rest_of_it() {
        for (text, reason) in [
            ("# all\ralice:@\rbob:@", "control character \\x0d"),
            ("alice:@\rbob:@", "control character \\x0d"),
            ("# all\0\0", "control character \\x00"),
            ("# all\u{b}alice:@", "control character \\x0b"),
            ("\"a\u{c}\":@", "control character \\x0c"),
            ("a\u{1b}[8m:@", "control character \\x1b"),
            ("# all\u{2028}alice:@", "contains U+2028,"),
            ("# \u{202E}alice:@", "contains U+202E,"),
            ("al\u{2066}ice:@", "contains U+2066,"),
            ("al\u{200B}ice:@", "contains U+200B,"),
            ("\"al\u{FE0F}ice\":@", "contains U+FE0F,"),
            ("alice:@#comment", "is not a valid Argon2id hash"),
            ("alice:@ // comment", "is not a valid Argon2id hash"),
            ("; comment", "there is no colon"),
            ("\"al\"ice:@", "there is no colon"),
            ("\"al\"#ice:@", "there is no colon"),
        ] {
            let errors = users(text).expect_err(text);
            assert_eq!(errors.len(), 1, "{text}");
            assert!(errors[0].reason.contains(reason), "{text}: {}", errors[0]);
        }
    }

    #[test]
    fn f20_every_valid_name_is_read_from_the_line_that_is_written_for_it() {
        let every_byte: Vec<u8> = (1..=u8::MAX)
            .filter(|byte| !b":\r\n".contains(byte))
            .collect();
        for (name, written) in [
            (&b"alice"[..], "alice"),
            (b"Jane Doe", "Jane Doe"),
            (b"CORP\\user1", "CORP\\user1"),
            (b"a,b", "a,b"),
            (b"o'neil \"x\"", "o'neil \"x\""),
            ("j\u{fc}rgen".as_bytes(), "j\u{fc}rgen"),
            (b"#1", "\"#1\""),
            (b"\"x\"", r#""\"x\"""#),
            (b" x", "\" x\""),
            (b"x\t", "\"x\\x09\""),
            (b"\xfc", "\"\\xfc\""),
            ("\u{FEFF}x".as_bytes(), "\"\\xef\\xbb\\xbfx\""),
            ("x\u{2003}".as_bytes(), "\"x\\xe2\\x80\\x83\""),
            ("a\u{202E}b".as_bytes(), "\"a\\xe2\\x80\\xaeb\""),
            ("a\u{200D}b".as_bytes(), "\"a\\xe2\\x80\\x8db\""),
            (
                &every_byte[..128],
                &QuotedName(&every_byte[..128]).to_string(),
            ),
            (
                &every_byte[128..],
                &QuotedName(&every_byte[128..]).to_string(),
            ),
        ] {
            assert!(is_user_name(name));
            assert_eq!(name_in_file(name), written);
            let line = format!("{written}:{HASH}\n");
            let users = Users::parse(line.as_bytes()).expect(written);
            assert!(users.has(name) && users.len() == 1, "{written}");
        }
        for name in [&b""[..], b"a:b", b"a\nb", b"a\rb", b"a\0b", &[b'x'; 256]] {
            assert!(!is_user_name(name), "{name:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_hash() {
        let users = users("alice:@").expect("a user");
        assert_eq!(format!("{users:?}"), "Users(1 user)");
    }
}
