//! How a SOCKS5 client and the server agree before there is a request (RFC 1928, section 3).

use std::io::BufRead;

use super::registry::Visit;
use crate::event::NoRequest;
use crate::wire::socks5::{Choice, Greeting, Method};

/// What the server takes, the best first.
const ENABLED: [Method; 1] = [Method::Anonymous];

/// Hears the greeting and chooses a method of those that the client offers.
pub(super) fn agree(visit: &Visit, stream: &mut impl BufRead) -> Result<(), NoRequest> {
    let greeting = Greeting::read(stream).inspect_err(|_| {
        // The client reads this whenever it has finished its greeting.
        visit.tell(&Choice(None).encode());
    })?;
    let choice = choose(&greeting.methods, &ENABLED);
    visit.tell(&Choice(choice).encode());
    match choice {
        Some(Method::Anonymous) => Ok(()),
        Some(Method::Password) | None => Err(NoRequest::NoMethod(greeting.methods)),
    }
}

/// The first of ours that is also offered.
fn choose(offered: &[u8], enabled: &[Method]) -> Option<Method> {
    let is_offered = |method: &Method| offered.contains(&method.code());
    enabled.iter().copied().find(is_offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of these methods, in both orders, against every configuration.
    #[test]
    fn the_best_of_ours_that_is_offered_is_chosen() {
        const NUMBERS: [u8; 5] = [0x00, 0x01, 0x02, 0x80, 0xFF];
        use Method::{Anonymous, Password};
        for enabled in [
            &[][..],
            &[Anonymous],
            &[Password],
            &[Anonymous, Password],
            &[Password, Anonymous],
        ] {
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
