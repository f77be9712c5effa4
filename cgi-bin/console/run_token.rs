//! One-time tokens: each permits one run, of the rows that its file contains.
//!
//! The form sends POST, and the response redirects to a GET with a token. The run is
//! the response to that GET. A browser repeats a GET for Back, reload or a restored
//! tab: then the file of the token is gone, and nothing runs.
//!
//! The folder may be the temporary folder, where every local user may create files. So a
//! file counts only if this user owns it, and other users may not read it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc;
use nix::unistd::geteuid;

/// Time from the form to the run, which a browser needs to follow the redirect.
const LIFETIME: Duration = Duration::from_secs(60);

/// Maximum number of tokens of this user that are not used yet. A browser uses a token
/// at once, so more of them come from a program that only asks for them.
const MAX_TOKENS: usize = 100;

/// Maximum size of a file of a token in bytes. A form has 64 KiB. Its encoding in the file is at
/// most nine times as long: U+FFFD replaces an invalid byte, and `%EF%BF%BD` is its encoding.
const MAX_ROWS_LENGTH: u64 = 1024 * 1024;

/// The start of the names of all files.
const PREFIX: &str = "threadsocks-console-once-";

/// Length of a token in characters: 128 bits in hexadecimal.
const TOKEN_LENGTH: usize = 32;

/// Creates a token for a run of these rows, and removes expired tokens.
///
/// # Errors
///
/// The folder cannot be read or written, or it contains the maximum number of tokens.
/// Some requests at the same time may exceed this number by as many.
pub(crate) fn issue(folder: &Path, rows: &str) -> io::Result<String> {
    if remove_expired(folder)? >= MAX_TOKENS {
        let reason = format!("{MAX_TOKENS} runs wait for their browser; try again in a minute");
        return Err(io::Error::other(reason));
    }
    let token = random_token()?;
    let path = path_of(folder, &token);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    // An incomplete file must permit nothing.
    if let Err(error) = file.write_all(rows.as_bytes()) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(token)
}

/// Uses a token: returns its rows, and removes its file. `None` if the token was used
/// before, has expired, or was not created by this console.
pub(crate) fn redeem(folder: &Path, token: &str) -> Option<Vec<u8>> {
    // The token becomes part of a path.
    if !has_token_alphabet(token) {
        return None;
    }
    let path = path_of(folder, token);
    // A FIFO of another user must not block this open.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    if !is_private(&metadata) {
        return None;
    }
    // Of several requests with the same token, only one can remove the file.
    fs::remove_file(&path).ok()?;
    if !is_fresh(&metadata) {
        return None;
    }
    let mut rows = Vec::new();
    file.take(MAX_ROWS_LENGTH).read_to_end(&mut rows).ok()?;
    Some(rows)
}

/// Removes the expired files of this user, and returns the number of the others.
///
/// # Errors
///
/// The folder cannot be read.
fn remove_expired(folder: &Path) -> io::Result<usize> {
    let mut remaining = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Like lstat(2): a link of another user leads nowhere.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if is_private(&metadata) {
            match is_fresh(&metadata) {
                true => remaining += 1,
                false => drop(fs::remove_file(entry.path())),
            }
        }
    }
    Ok(remaining)
}

/// Reports whether this is a regular file that only its owner, this user, may read.
fn is_private(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

/// Reports whether the file is not older than [`LIFETIME`]. After a clock has been set
/// back, the file is from the future, and its age is unknown.
fn is_fresh(metadata: &Metadata) -> bool {
    let modified = metadata.modified().ok();
    let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age < LIFETIME)
}

fn path_of(folder: &Path, token: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{token}"))
}

/// Reports whether a text has the length and the characters of a token.
pub(crate) fn has_token_alphabet(token: &str) -> bool {
    let is_hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    token.len() == TOKEN_LENGTH && token.bytes().all(is_hexadecimal)
}

/// Returns 128 random bits of the system in hexadecimal.
///
/// # Errors
///
/// The random device cannot be read.
pub(crate) fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// An empty folder, which is removed on drop.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("token-test-{}", random_token().unwrap()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn file_count(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }

        /// Sets the time of a token's file back.
        fn age(&self, token: &str, by: Duration) {
            let file = OpenOptions::new()
                .write(true)
                .open(path_of(&self.0, token))
                .unwrap();
            file.set_modified(SystemTime::now() - by).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn w25_a_token_permits_one_run_and_its_file_is_private() {
        let folder = Folder::new();
        let token = issue(&folder.0, "h1=a&").unwrap();
        let mode = fs::metadata(path_of(&folder.0, &token)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(redeem(&folder.0, &token).as_deref(), Some(&b"h1=a&"[..]));
        assert_eq!(redeem(&folder.0, &token), None);
        assert_eq!(folder.file_count(), 0);
        assert_ne!(issue(&folder.0, "").unwrap(), token);
    }

    #[test]
    fn w25_expired_tokens_permit_nothing_and_are_removed() {
        let folder = Folder::new();
        let (used, unused) = (issue(&folder.0, "").unwrap(), issue(&folder.0, "").unwrap());
        for token in [&used, &unused] {
            folder.age(token, LIFETIME);
        }
        assert_eq!(redeem(&folder.0, &used), None);
        assert_eq!(folder.file_count(), 1);
        issue(&folder.0, "").unwrap();
        assert_eq!(folder.file_count(), 1);
    }

    #[test]
    fn w25_the_number_of_tokens_is_bounded() {
        let folder = Folder::new();
        let tokens: Vec<String> = (0..MAX_TOKENS)
            .map(|_| issue(&folder.0, "").unwrap())
            .collect();
        assert!(issue(&folder.0, "").is_err());
        assert_eq!(folder.file_count(), MAX_TOKENS);
        redeem(&folder.0, &tokens[0]).unwrap();
        assert!(issue(&folder.0, "").is_ok());
    }

    #[test]
    fn w25_only_a_private_regular_file_with_a_valid_name_counts() {
        let folder = Folder::new();
        let token = issue(&folder.0, "rows").unwrap();
        let path = path_of(&folder.0, &token);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(redeem(&folder.0, &token), None);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let other = "0".repeat(TOKEN_LENGTH);
        symlink(&path, path_of(&folder.0, &other)).unwrap();
        let parent = format!("../{}", &token[3..]);
        let capitals = format!("A{}", &token[1..]);
        let no_digit = format!("{}g", &token[1..]);
        for invalid in [&other, &parent, &capitals, &no_digit, "", &token[1..]] {
            assert_eq!(redeem(&folder.0, invalid), None, "{invalid}");
        }
        assert!(redeem(&folder.0, &token).is_some());
    }
}
