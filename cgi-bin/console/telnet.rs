//! Removal of Telnet commands (RFC 854) from the output of a shell.
//!
//! The console does not negotiate options. It discards the commands of a server that
//! takes the console for a Telnet client.

use std::borrow::Cow;

/// "Interpret as command": starts a command.
const IAC: u8 = 255;
/// Start of a subnegotiation, which ends with IAC SE.
const SB: u8 = 250;
/// End of a subnegotiation; also the lowest command code.
const SE: u8 = 240;
/// The range WILL, WON'T, DO, DON'T. One byte follows each: the option code.
const WILL: u8 = 251;
/// See [`WILL`].
const DONT: u8 = 254;

/// Maximum length of a subnegotiation in bytes; it also ends with its line. In binary
/// output the codes occur by chance, and must not hide a prompt or all later output.
const MAX_SUBNEGOTIATION: usize = 512;

/// A state machine that removes the commands. A command may be split between two reads.
#[derive(Debug, Default)]
pub(crate) struct Telnet {
    state: State,
}

/// The position in a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After IAC.
    Command,
    /// After IAC and WILL, WON'T, DO or DON'T.
    OptionCode,
    /// In a subnegotiation, after this many bytes.
    Subnegotiation(usize),
    /// After IAC in a subnegotiation, after this many bytes.
    SubnegotiationIac(usize),
}

impl Telnet {
    /// Returns the next bytes without commands. Borrows them if nothing is to remove.
    pub(crate) fn text<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.state == State::Text && !bytes.contains(&IAC) {
            return Cow::Borrowed(bytes);
        }
        let mut text = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Text, IAC) => State::Command,
                (State::Text, _) => {
                    text.push(byte);
                    State::Text
                }
                (State::Command, SB) => State::Subnegotiation(0),
                (State::Command, WILL..=DONT) => State::OptionCode,
                // IAC IAC is the byte 255 as data.
                (State::Command, IAC) => {
                    text.push(IAC);
                    State::Text
                }
                (State::Command, SE..)
                | (State::OptionCode, _)
                | (State::SubnegotiationIac(_), SE) => State::Text,
                // Not a valid command code: both bytes are data.
                (State::Command, _) => {
                    text.extend([IAC, byte]);
                    State::Text
                }
                (State::Subnegotiation(_) | State::SubnegotiationIac(_), b'\n') => {
                    text.push(byte);
                    State::Text
                }
                (State::Subnegotiation(length) | State::SubnegotiationIac(length), _)
                    if length == MAX_SUBNEGOTIATION =>
                {
                    State::Text
                }
                (State::Subnegotiation(length), IAC) => State::SubnegotiationIac(length + 1),
                (State::Subnegotiation(length) | State::SubnegotiationIac(length), _) => {
                    State::Subnegotiation(length + 1)
                }
            };
        }
        Cow::Owned(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telnet_commands_are_removed_and_text_is_kept() {
        for (bytes, text) in [
            (&b"plain"[..], &b"plain"[..]),
            (b"a\xff\xfb\x01b", b"ab"),
            (b"a\xff\xf9b", b"ab"),
            (b"a\xff\xffb", b"a\xffb"),
            (b"a\xff\xfa\x18\x01\xff\xf0b", b"ab"),
            (b"a\xff\xfa\xff\xff\xff\xf0b", b"ab"),
            (b"a\xffb", b"a\xffb"),
            (b"a\xff\xfab\n% ", b"a\n% "),
        ] {
            for at in 0..=bytes.len() {
                let mut telnet = Telnet::default();
                let mut got = telnet.text(&bytes[..at]).into_owned();
                got.extend_from_slice(&telnet.text(&bytes[at..]));
                assert_eq!(got, text, "{bytes:?} at {at}");
            }
        }
    }

    #[test]
    fn a_subnegotiation_removes_a_bounded_number_of_bytes() {
        let bytes = [b"\xff\xfa".to_vec(), vec![b'x'; 2 * MAX_SUBNEGOTIATION]].concat();
        let text = Telnet::default().text(&bytes).into_owned();
        assert!(text.len() >= MAX_SUBNEGOTIATION - 1);
    }
}
