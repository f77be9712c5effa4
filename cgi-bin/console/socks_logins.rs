//! Logins for SOCKS servers, from the file that `CONSOLE_SOCKS_LOGINS` names.
//!
//! A login is sent only to the server in its line. Otherwise a user of the form could name a
//! server of their own, and read the password there.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use threadsocks::protocol::Host;
use threadsocks::protocol::socks5::Credentials;

use crate::allow::port_number;

/// Maximum size of the file in bytes: at least 80 of the longest lines.
const MAX_FILE_SIZE: u64 = 64 * 1024;

/// Maximum length of a user and of a password in bytes (RFC 1929).
const MAX_FIELD: usize = 255;

/// The lines of the file.
#[derive(Debug, Default)]
pub(crate) struct SocksLogins(Vec<SocksLogin>);

#[derive(Debug)]
struct SocksLogin {
    /// The SOCKS server; the host is in the canonical form of [`Host`].
    host: String,
    port: u16,
    credentials: Credentials,
}

impl SocksLogins {
    /// Reads the file. Each line is `HOST:PORT USER PASSWORD`; empty lines and lines that
    /// begin with `#` are ignored.
    ///
    /// # Errors
    ///
    /// The file cannot be read, other users may read it, or a line is invalid. The error
    /// contains no password.
    pub(crate) fn read(path: &Path) -> io::Result<SocksLogins> {
        // A FIFO must not block this open.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.mode() & 0o007 != 0 {
            let reason = "it must be a regular file that other users cannot access (chmod o=)";
            return Err(io::Error::other(reason));
        }
        let mut text = String::new();
        file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE_SIZE {
            return Err(io::Error::other("it is over 64 KiB"));
        }
        SocksLogins::parse(&text)
            .map_err(|line| io::Error::other(format!("line {line} is not HOST:PORT USER PASSWORD")))
    }

    /// Parses the content of the file.
    ///
    /// # Errors
    ///
    /// The number of the first invalid line, from 1.
    fn parse(text: &str) -> Result<SocksLogins, usize> {
        let lines = text.lines().map(str::trim).zip(1_usize..);
        let logins = lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| parse_line(line).ok_or(number));
        Ok(SocksLogins(logins.collect::<Result<_, _>>()?))
    }

    /// The login for this SOCKS server, whose host is in the canonical form of [`Host`]. The
    /// first matching line is used.
    pub(crate) fn find(&self, host: &str, port: u16) -> Option<Credentials> {
        let login = self
            .0
            .iter()
            .find(|login| login.host == host && login.port == port)?;
        Some(login.credentials.clone())
    }
}

/// Parses a line. The password is the rest of the line without the spaces around it.
fn parse_line(line: &str) -> Option<SocksLogin> {
    let (server, login) = line.split_once(char::is_whitespace)?;
    let (user, password) = login.trim_start().split_once(char::is_whitespace)?;
    let password = password.trim_start();
    let (host, port) = server.rsplit_once(':')?;
    let host = match Host::from_name_field(host.as_bytes()) {
        Host::Invalid(_) => return None,
        host => host.to_string(),
    };
    let has_valid_length = |field: &str| (1..=MAX_FIELD).contains(&field.len());
    (has_valid_length(user) && has_valid_length(password)).then_some(SocksLogin {
        host,
        port: port_number(port)?,
        credentials: Credentials {
            user: user.as_bytes().to_vec(),
            password: password.as_bytes().to_vec(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w36_a_login_belongs_to_one_server() {
        let text = "# comment\n\nSocks.example.edu:1080  alice  two words \n[::1]:1081 bob x\n";
        let logins = SocksLogins::parse(text).unwrap();
        let alice = logins.find("socks.example.edu", 1080).unwrap();
        assert_eq!(
            (&*alice.user, &*alice.password),
            (&b"alice"[..], &b"two words"[..])
        );
        assert_eq!(logins.find("::1", 1081).unwrap().user, b"bob");
        assert_eq!(logins.find("socks.example.edu", 1081), None);
        assert_eq!(logins.find("evil.example", 1080), None);
    }

    #[test]
    fn w36_an_invalid_line_is_named_by_its_number() {
        let long = format!("a:1 {} x", "u".repeat(256));
        for line in [
            "a:1 user",
            "a user password",
            "a:0 u p",
            "a:x u p",
            "*:1 u p",
            &long,
        ] {
            let text = format!("a:1 u p\n{line}\n");
            assert_eq!(SocksLogins::parse(&text).unwrap_err(), 2, "{line}");
        }
    }
}
