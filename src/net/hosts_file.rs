//! The hosts file (hosts(5)): lines with an address and its names.
//!
//! Lists of hosts to block have megabytes. So the file is read in parts, and only two words of
//! it are kept: the address of the line, and the name that is compared. A line may have any
//! length, as for the system's resolver.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::mem;
use std::net::{SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

/// Bytes that are read at a time.
const BUFFER_SIZE: usize = 8 << 10;

/// Bytes of the longest word that counts: a name of 255 bytes with a final dot.
const MAX_WORD: usize = 256;

/// The addresses in the lines of this file that have this name. A line without a valid
/// address does not count. An error of a read counts as the end of the file.
pub(super) fn addresses_of(
    name: &str,
    port: u16,
    file: impl Read,
) -> impl Iterator<Item = SocketAddr> {
    let mut file = HostsFile::new(file);
    std::iter::from_fn(move || file.next_address(name, port))
}

/// A hosts file while it is read.
struct HostsFile<R> {
    reader: BufReader<R>,
    /// The word that was read last. One byte more than [`MAX_WORD`] shows that it is longer.
    word: Vec<u8>,
    /// The first word of the line.
    address: Vec<u8>,
    is_comment: bool,
}

/// A part of a line.
enum Token {
    Word,
    EndOfLine,
}

impl<R: Read> HostsFile<R> {
    fn new(file: R) -> HostsFile<R> {
        HostsFile {
            reader: BufReader::with_capacity(BUFFER_SIZE, file),
            word: Vec::with_capacity(MAX_WORD + 1),
            address: Vec::with_capacity(MAX_WORD + 1),
            is_comment: false,
        }
    }

    /// The address of the next line that has this name; `None` at the end of the file.
    fn next_address(&mut self, name: &str, port: u16) -> Option<SocketAddr> {
        loop {
            if let Token::EndOfLine = self.next_token()? {
                continue;
            }
            mem::swap(&mut self.address, &mut self.word);
            let mut is_named = false;
            while let Some(Token::Word) = self.next_token() {
                let word = text(&self.word);
                let word = word.strip_suffix('.').unwrap_or(word);
                is_named |= word.eq_ignore_ascii_case(name);
            }
            if is_named && let Some(address) = parse_address(text(&self.address), port) {
                return Some(address);
            }
        }
    }

    /// Reads the next word, or the end of a line; `None` at the end of the file. Words end at
    /// the white space of isspace(3), and at a comment.
    fn next_token(&mut self) -> Option<Token> {
        self.word.clear();
        loop {
            let byte = self.peek();
            let ends_word = match byte {
                Some(b'\n' | b'#') | None => true,
                Some(other) => other.is_ascii_whitespace() || other == b'\x0b',
            };
            if ends_word && !self.word.is_empty() {
                return Some(Token::Word);
            }
            let byte = byte?;
            self.reader.consume(1);
            match byte {
                b'\n' => {
                    self.is_comment = false;
                    return Some(Token::EndOfLine);
                }
                b'#' => self.is_comment = true,
                _ if ends_word || self.is_comment || self.word.len() > MAX_WORD => {}
                _ => self.word.push(byte),
            }
        }
    }

    /// The next byte, which stays unread; `None` at the end of the file.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.reader.fill_buf() {
                Ok(bytes) => return bytes.first().copied(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// A word as text; an empty one if it cannot be a name or an address.
fn text(word: &[u8]) -> &str {
    match word.len() <= MAX_WORD {
        true => str::from_utf8(word).unwrap_or_default(),
        false => "",
    }
}

/// An address, of IPv6 also with a zone (RFC 4007, section 11): the name or the number of a
/// network interface.
fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let number = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: impl Read, name: &str) -> Vec<String> {
        let addresses = addresses_of(name, 80, file);
        addresses.map(|address| address.to_string()).collect()
    }

    #[test]
    fn d19_d23_a_name_is_found_in_the_hosts_file() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 off.test\n\
                    ::1\tsix.test Alias.test # comment.test\n\nlonely.test\n\
                    10.0.0.1 alias.test dot.test.\r\n::1 localhost\n127.0.0.1 localhost\n\
                    10.1 odd.test\n0x0a000001 odd.test\n010.0.0.1 odd.test\n\
                    ::ffff:10.0.0.2 mapped.test\nfe80::1%7 zone.test\n\
                    fe80::1%none.such zone.test\n10.0.0.1%7 zone.test\n\
                    10.0.0.3\x0bvt.test#near.test\n 10.0.0.4 last.test";
        for (name, expected) in [
            (
                "localhost",
                &["127.0.0.1:80", "[::1]:80", "127.0.0.1:80"][..],
            ),
            ("six.test", &["[::1]:80"]),
            ("alias.test", &["[::1]:80", "10.0.0.1:80"]),
            ("dot.test", &["10.0.0.1:80"]),
            ("mapped.test", &["[::ffff:10.0.0.2]:80"]),
            ("zone.test", &["[fe80::1%7]:80"]),
            ("vt.test", &["10.0.0.3:80"]),
            ("last.test", &["10.0.0.4:80"]),
            ("near.test", &[]),
            ("odd.test", &[]),
            ("off.test", &[]),
            ("comment.test", &[]),
            ("lonely.test", &[]),
            ("test", &[]),
            ("127.0.0.1", &[]),
        ] {
            assert_eq!(found(text.as_bytes(), name), expected, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn d23_a_zone_in_the_hosts_file_is_the_name_of_an_interface() {
        let loopback = if_nametoindex("lo").unwrap();
        let found: Vec<SocketAddr> =
            addresses_of("a.test", 80, &b"fe80::1%lo a.test"[..]).collect();
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback);
        assert_eq!(found, [SocketAddr::V6(expected)]);
    }

    /// A file with one line and one word of any length, as a device that never ends.
    #[test]
    fn d25_lines_and_words_of_any_length_need_no_memory() {
        let (long, names) = ("x".repeat(3 * BUFFER_SIZE), "block.test ".repeat(100_000));
        let name = "n".repeat(MAX_WORD - 1);
        let file = format!("10.0.0.1 {long} {names} {name}. {name}nn\n10.0.0.2 {long}.\n{long}\n");
        let mut file = HostsFile::new(file.as_bytes());
        let first = file.next_address(&name, 80);
        assert_eq!(first, Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!(file.next_address(&name, 80), None);
        let capacities = [file.word.capacity(), file.address.capacity()];
        assert_eq!(capacities, [MAX_WORD + 1; 2]);
    }

    /// The reads split the file at any place.
    #[test]
    fn d25_words_go_over_the_ends_of_buffers() {
        for filler in BUFFER_SIZE - 40..BUFFER_SIZE + 40 {
            let text = format!("#{}\n10.0.0.1 a.test b.test\r\n", "x".repeat(filler));
            assert_eq!(
                found(text.as_bytes(), "b.test"),
                ["10.0.0.1:80"],
                "{filler}"
            );
        }
    }
}
