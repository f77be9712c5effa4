//! How a SOCKS5 client and the server negotiate before there is a request (RFC 1928, section 3).

use std::io::{self, BufRead, Read};

use crate::events::HandshakeError;
use crate::net::{Deadline, PeekReader};
use crate::protocol::socks5::{Greeting, Method, MethodSelection};
use crate::server::handshake::password::Password;
use crate::server::session::registry::Session;

/// What is said before there is an answer: the client is heard, and can be told
/// something, under one deadline for all of it.
pub(crate) trait Conversation: BufRead {
    /// Tells the client something, if it is still there.
    fn send_reply(&mut self, message: &[u8]);

    /// By when the request must be complete.
    fn deadline(&self) -> Deadline;
}

/// A client that has shown who it is, and how to go on with it.
pub(crate) struct Authenticated<'a> {
    /// Who has logged in, if somebody has.
    pub(crate) user: Option<Vec<u8>>,
    /// Where its request is read from: what a method makes of the stream.
    pub(crate) stream: Box<dyn Conversation + 'a>,
}

/// A way for clients to show who they are, spoken once it has been chosen. It may
/// wrap the stream, where all that follows is to be unwrapped.
pub(crate) trait Introduction {
    /// Hears the client, and answers.
    fn speak<'a>(
        &self,
        session: &'a Session,
        stream: Box<dyn Conversation + 'a>,
    ) -> Result<Authenticated<'a>, HandshakeError>;
}

/// Whoever it is, nothing need be said.
struct Anonymous;

impl Introduction for Anonymous {
    fn speak<'a>(
        &self,
        _: &'a Session,
        stream: Box<dyn Conversation + 'a>,
    ) -> Result<Authenticated<'a>, HandshakeError> {
        let user = None;
        Ok(Authenticated { user, stream })
    }
}

/// Hears the greeting, chooses a method of those that the client offers, and goes
/// through with it.
pub(crate) fn negotiate<'a>(
    session: &'a Session,
    stream: PeekReader<'a>,
    deadline: Deadline,
) -> Result<Authenticated<'a>, HandshakeError> {
    let mut stream = Plain {
        session,
        stream,
        deadline,
    };
    let greeting = Greeting::read(&mut stream).inspect_err(|_| {
        // The client reads this whenever it has finished its greeting.
        session.send_reply(&MethodSelection(None).encode());
    })?;
    let context = &session.context;
    let enabled = enabled(
        context.authenticator.get().is_some(),
        context.settings.allow_anonymous,
    );
    let choice = choose(&greeting.methods, enabled);
    session.send_reply(&MethodSelection(choice).encode());
    let stream = Box::new(stream);
    match choice {
        Some(Method::Anonymous) => Anonymous.speak(session, stream),
        Some(Method::Password) => Password.speak(session, stream),
        None => Err(HandshakeError::NoMethod(greeting.methods)),
    }
}

/// What the server takes, the best first: who can log in shall do so, also where
/// nobody must.
fn enabled(has_users: bool, allow_anonymous: bool) -> &'static [Method] {
    match (has_users, allow_anonymous) {
        (false, _) => &[Method::Anonymous],
        (true, false) => &[Method::Password],
        (true, true) => &[Method::Password, Method::Anonymous],
    }
}

/// The first of ours that is also offered.
fn choose(offered: &[u8], enabled: &[Method]) -> Option<Method> {
    let is_offered = |method: &Method| offered.contains(&method.code());
    enabled.iter().copied().find(is_offered)
}

/// The connection as it is.
struct Plain<'a> {
    session: &'a Session,
    stream: PeekReader<'a>,
    deadline: Deadline,
}

impl Conversation for Plain<'_> {
    fn send_reply(&mut self, message: &[u8]) {
        self.session.send_reply(message);
    }

    fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl BufRead for Plain<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.stream.consume(count);
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of these methods, in both orders, against every configuration.
    #[test]
    fn v03_the_best_of_ours_that_is_offered_is_chosen() {
        const NUMBERS: [u8; 5] = [0x00, 0x01, 0x02, 0x80, 0xFF];
        use Method::{Anonymous, Password};
        let real = [(false, false), (false, true), (true, false), (true, true)]
            .map(|(has_users, allow_anonymous)| enabled(has_users, allow_anonymous));
        assert_eq!(real[0], [Anonymous], "none need log in");
        assert_eq!(real[1], [Anonymous]);
        assert_eq!(real[2], [Password], "all must");
        assert_eq!(real[3], [Password, Anonymous], "all can");
        let others = [&[][..], &[Anonymous, Password]];
        for enabled in real.into_iter().chain(others) {
            for set in 0..1 << NUMBERS.len() {
                let is_in = |place: usize| set >> place & 1 == 1;
                let places = (0..NUMBERS.len()).filter(|&place| is_in(place));
                let mut offered: Vec<u8> = places.map(|place| NUMBERS[place]).collect();
                let expected = match enabled {
                    [first, ..] if offered.contains(&first.code()) => Some(*first),
                    [_, second] if offered.contains(&second.code()) => Some(*second),
                    _ => None,
                };
                assert_eq!(
                    choose(&offered, enabled),
                    expected,
                    "{offered:?} {enabled:?}"
                );
                offered.reverse();
                offered.extend_from_within(..);
                assert_eq!(
                    choose(&offered, enabled),
                    expected,
                    "{offered:?} {enabled:?}"
                );
            }
        }
    }
}
