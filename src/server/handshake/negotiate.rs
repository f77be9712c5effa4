//! Method negotiation of SOCKS5 (RFC 1928, section 3): how the client authenticates.

use std::io::BufRead;

use super::client::HandshakeClient;
use super::password;
use crate::config::ClientKinds;
use crate::events::HandshakeError;
use crate::protocol::socks5::{Greeting, Method, MethodSelection};

/// Reads the greeting, selects one of the methods that the client offers, and lets the
/// client authenticate by it. Returns the user, if the client has logged in.
///
/// # Errors
///
/// There is no valid greeting, no common method, or the login is refused.
pub(super) fn negotiate(
    client: HandshakeClient<'_>,
    stream: &mut impl BufRead,
) -> Result<Option<Vec<u8>>, HandshakeError> {
    let greeting = Greeting::read(stream).inspect_err(|_| {
        // The client reads this when it has completed its greeting.
        client.refuse(&MethodSelection(None).encode());
    })?;
    let settings = &client.context.settings;
    let has_users = client.context.authenticator.get().is_some();
    let enabled = enabled_methods(settings.client_kinds(has_users));
    let Some(selected) = select(&greeting.methods, enabled) else {
        client.refuse(&MethodSelection(None).encode());
        return Err(match settings.socks5 {
            true => HandshakeError::NoMethod(greeting.methods),
            false => HandshakeError::Socks5Off,
        });
    };
    client.send_reply(&MethodSelection(Some(selected)).encode());
    match selected {
        Method::Anonymous => Ok(None),
        Method::Password => password::authenticate(client, stream).map(Some),
    }
}

/// The methods that the server accepts, in the order of preference: a client that can log
/// in is to do so, even where it need not.
fn enabled_methods(clients: ClientKinds) -> &'static [Method] {
    match (clients.logged_in, clients.anonymous) {
        (false, false) => &[],
        (false, true) => &[Method::Anonymous],
        (true, false) => &[Method::Password],
        (true, true) => &[Method::Password, Method::Anonymous],
    }
}

/// The first enabled method that is also offered.
fn select(offered: &[u8], enabled: &[Method]) -> Option<Method> {
    let is_offered = |method: &Method| offered.contains(&method.code());
    enabled.iter().copied().find(is_offered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// Every set of these methods, in both orders, against every configuration.
    #[test]
    fn v03_the_preferred_method_that_is_offered_is_selected() {
        const NUMBERS: [u8; 5] = [0x00, 0x01, 0x02, 0x80, 0xFF];
        use Method::{Anonymous, Password};
        let real = [(false, false), (false, true), (true, false), (true, true)].map(
            |(users, anonymous)| {
                let settings = Settings {
                    allow_anonymous: anonymous,
                    ..Settings::default()
                };
                enabled_methods(settings.client_kinds(users))
            },
        );
        assert_eq!(real[0], [Anonymous], "there are no users");
        assert_eq!(real[1], [Anonymous]);
        assert_eq!(real[2], [Password], "every client must log in");
        assert_eq!(real[3], [Password, Anonymous], "every client can log in");
        let socks4_only = Settings {
            socks5: false,
            ..Settings::default()
        };
        assert_eq!(enabled_methods(socks4_only.client_kinds(false)), []);
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
                    select(&offered, enabled),
                    expected,
                    "{offered:?} {enabled:?}"
                );
                offered.reverse();
                offered.extend_from_within(..);
                assert_eq!(
                    select(&offered, enabled),
                    expected,
                    "{offered:?} {enabled:?}"
                );
            }
        }
    }
}
