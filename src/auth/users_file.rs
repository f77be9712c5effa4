//! The parser of the users file: its text becomes users, or a list of errors.
//!
//! ```text
//! # a comment
//! alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use super::password_hash::PasswordHash;
use crate::config::{Content, MAX_ERRORS, SyntaxError, WatchedFile};
use crate::protocol::socks5::MAX_FIELD;

/// Longest name of a user in bytes: the user field of a login has a length of one byte
/// (RFC 1929).
pub const MAX_USER_NAME: usize = MAX_FIELD;

/// Is this a valid name of a user? A name has 1 to [`MAX_USER_NAME`] visible ASCII
/// characters, except colon, comma and `#`: a colon ends the name in the file, a comma ends
/// it in rules, and `#` begins a comment.
pub fn is_user_name(name: &str) -> bool {
    let is_visible = |byte: u8| byte.is_ascii_graphic() && !b":,#".contains(&byte);
    (1..=MAX_USER_NAME).contains(&name.len()) && name.bytes().all(is_visible)
}

/// All users of one file, with the hashes of their passwords.
#[derive(Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<Vec<u8>, PasswordHash>,
    /// The hash of the first user of the file.
    dummy_hash: Option<PasswordHash>,
}

/// The users file, which is reloaded when it changes.
pub type UsersFile = WatchedFile<Users>;

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

    /// The memory in KiB that the most expensive hash takes; 0 without users.
    pub(super) fn max_memory_kib(&self) -> usize {
        self.hashes
            .values()
            .map(PasswordHash::memory_kib)
            .max()
            .unwrap_or(0)
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

    /// Parses the bytes of a users file. Comments, empty lines, blanks at both ends of a
    /// line, CRLF, a byte order mark and a missing final newline are allowed.
    ///
    /// # Errors
    ///
    /// The first [`MAX_ERRORS`] invalid lines.
    fn parse(text: &[u8]) -> Result<Users, Vec<SyntaxError>> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
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
    fn add<'a>(
        &mut self,
        name: &'a str,
        hash: PasswordHash,
        line: usize,
        lines_of: &mut HashMap<&'a str, usize>,
    ) -> Result<(), String> {
        match lines_of.entry(name) {
            Entry::Occupied(before) => {
                let before = before.get();
                return Err(format!(
                    "\"{name}\" is already on line {before}; delete one of the two lines"
                ));
            }
            Entry::Vacant(entry) => entry.insert(line),
        };
        self.dummy_hash.get_or_insert_with(|| hash.clone());
        self.hashes.insert(name.as_bytes().to_vec(), hash);
        Ok(())
    }
}

/// Parses one line: a user and the hash, or `None` for an empty line or a comment. An error
/// repeats only the name: the rest may be a password that was written in place of the hash.
fn parse_line(line: &[u8]) -> Result<Option<(&str, PasswordHash)>, String> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8 text".to_owned())?;
    let Some((name, hash)) = line.split_once(':') else {
        return Err("there is no colon; write NAME:HASH, which --new-user NAME prints".to_owned());
    };
    if !is_user_name(name) {
        return Err(format!(
            "the name before the colon is not valid; write 1 to {MAX_USER_NAME} visible ASCII \
             characters except comma and #"
        ));
    }
    match PasswordHash::parse(hash) {
        Ok(hash) => Ok(Some((name, hash))),
        Err(reason) => Err(format!(
            "the hash of \"{name}\" {reason}; write the line that --new-user prints, one user on \
             each line"
        )),
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
            ("pass word:@", "the name before the colon is not valid"),
            ("pass\u{e9}:@", "the name before the colon is not valid"),
            (&too_long, "the name before the colon is not valid"),
            ("alice:pass-word", "hash of \"alice\" does not begin"),
            ("alice:", "does not begin"),
            ("alice: @", "does not begin"),
            ("alice:@:pass", "is not a valid Argon2id hash"),
            ("alice:@ # pass", "is not a valid Argon2id hash"),
            ("alice:$argon2id$pass", "is not a valid Argon2id hash"),
            ("alice:@\nbob:@\nalice:@", "\"alice\" is already on line 1"),
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
    fn debug_output_shows_no_hash() {
        let users = users("alice:@").expect("a user");
        assert_eq!(format!("{users:?}"), "Users(1 user)");
    }
}
