//! Telnet commands among the output (RFC 854) are left out.
//!
//! Nobody negotiates here; what a server that takes us for a terminal says to
//! it is just not for the page.

use std::borrow::Cow;

/// "Interpret as command": what follows is not text.
const IAC: u8 = 255;
/// Subnegotiation begins; it ends with IAC SE.
const SB: u8 = 250;
const SE: u8 = 240;
/// WILL, WON'T, DO, DON'T, each with the number of an option behind it.
const WILL: u8 = 251;
const DONT: u8 = 254;

/// Bytes a subnegotiation may have; it also ends with the line. In binary output
/// the codes appear by chance, and must swallow neither all the rest nor a
/// prompt.
const MAX_SUBNEGOTIATION: usize = 512;

/// Leaves out the commands, across any split.
#[derive(Debug, Default)]
pub(crate) struct Telnet {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Command,
    OptionCode,
    /// With this many bytes so far.
    Subnegotiation(usize),
    /// An IAC in a subnegotiation.
    SubnegotiationIac(usize),
}

impl Telnet {
    /// What of these bytes is text.
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
                // IAC twice stands for the byte itself.
                (State::Command, IAC) => {
                    text.push(IAC);
                    State::Text
                }
                (State::Command, SE..)
                | (State::OptionCode, _)
                | (State::SubnegotiationIac(_), SE) => State::Text,
                // No command after all.
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
