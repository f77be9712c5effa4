//! The lines for refused logins, which fail2ban and similar programs count.
//!
//! A line for a wrong password is never suppressed: the rate limiter of logins bounds their
//! number. A client can cause the other refusals as often as it likes, so each address has a
//! rate limit for their lines. An IPv6 client has many addresses: a /64 has the limit of one
//! address, a /56 and a /48 have larger ones.

use std::collections::HashMap;
use std::time::Instant;

use super::throttle::{INTERVAL, Throttle};
use crate::config::QuotedName;
use crate::events::{AuthError, LoginFailed};
use crate::source_prefix::{SourcePrefix, SourcePrefixes};

/// Addresses and IPv6 networks whose lines are limited at a time. More addresses share one rate
/// limit.
const MAX_ADDRESSES: usize = 1024;

/// The most memory in bytes of all these addresses: the last line of each can have a user name of
/// 255 bytes that are all escaped.
pub const MEMORY_OF_LOGIN_LINES: u64 = MAX_ADDRESSES as u64 * 1400;

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginLine {
    /// It is to be printed.
    Print(String),
    /// A rate limit of its address does not permit it now; it is counted.
    Suppressed,
    /// There are too many addresses: the rate limit that they share decides.
    Shared(String),
}

/// The rate limits of addresses whose logins were refused lately.
#[derive(Debug, Default)]
pub(super) struct LoginLines {
    limits: HashMap<SourcePrefix, AddressLimit>,
}

/// The rate limit of one address, or of one IPv6 network.
#[derive(Debug)]
struct AddressLimit {
    throttle: Throttle,
    /// The last line that was suppressed.
    last: String,
}

impl AddressLimit {
    fn new(prefix: SourcePrefix) -> AddressLimit {
        let lines = u32::try_from(prefix.factor()).unwrap_or(u32::MAX);
        AddressLimit {
            throttle: Throttle::every(INTERVAL / lines),
            last: String::new(),
        }
    }
}

impl LoginLines {
    /// The line for this login.
    pub(super) fn line(&mut self, failed: &LoginFailed, now: Instant) -> LoginLine {
        let line = line_for(failed);
        if failed.error == AuthError::WrongCredentials {
            return LoginLine::Print(line);
        }
        let prefixes = SourcePrefixes::of(failed.counted);
        if !self.has_room(prefixes) {
            self.limits.retain(|_, limit| !limit.throttle.is_over(now));
            if !self.has_room(prefixes) {
                return LoginLine::Shared(line);
            }
        }
        for prefix in prefixes.iter() {
            if let Some(limit) = self.limits.get_mut(&prefix)
                && limit.throttle.is_limited(now)
            {
                limit.throttle.add_suppressed(1);
                limit.last = line;
                return LoginLine::Suppressed;
            }
        }
        // Only now: a line that one limit suppresses uses up no other limit.
        let mut suppressed = 0;
        for prefix in prefixes.iter() {
            let limit = self.limits.entry(prefix);
            let limit = limit.or_insert_with(|| AddressLimit::new(prefix));
            suppressed += limit.throttle.try_pass(now).unwrap_or(0);
        }
        LoginLine::Print(with_count(line, suppressed))
    }

    /// Is there room for the limits of an address?
    fn has_room(&self, prefixes: SourcePrefixes) -> bool {
        let is_new = |prefix: &SourcePrefix| !self.limits.contains_key(prefix);
        self.limits.len() + prefixes.iter().filter(is_new).count() <= MAX_ADDRESSES
    }

    /// Is there a line that was suppressed and not counted in another one yet?
    pub(super) fn has_suppressed(&self) -> bool {
        self.limits
            .values()
            .any(|limit| limit.throttle.has_suppressed())
    }

    /// Lets the last suppressed line of each rate limit pass at once.
    pub(super) fn reset(&mut self) {
        let limits = self.limits.values_mut();
        limits.for_each(|limit| limit.throttle.reset());
    }

    /// The last suppressed line of each rate limit that permits a line now. Forgets the
    /// limits that limit nothing.
    pub(super) fn take_suppressed(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for limit in self.limits.values_mut() {
            // The count includes the last line itself.
            if let Some(others) = limit.throttle.take_suppressed(now).checked_sub(1) {
                lines.push(with_count(std::mem::take(&mut limit.last), others));
            }
        }
        self.limits.retain(|_, limit| !limit.throttle.is_over(now));
        lines
    }
}

/// The address comes first, and the text of the client last and in quotes: no user name can
/// look like another address.
fn line_for(failed: &LoginFailed) -> String {
    let LoginFailed {
        client,
        via,
        user,
        error,
        ..
    } = failed;
    let (address, port) = (client.ip(), client.port());
    let (user, cause) = (QuotedName(user), error.word());
    let via = via.map(|proxy| format!(" via {} port {}", proxy.ip(), proxy.port()));
    let via = via.unwrap_or_default();
    format!("login failed from {address} port {port}{via} user {user}: {cause}")
}

fn with_count(line: String, others: u64) -> String {
    match others {
        0 => line,
        others => format!("{line} (and {others} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    fn failed(address: u32, port: u16, error: AuthError) -> LoginFailed {
        from((IpAddr::V4(address.into()), port).into(), error)
    }

    fn from(client: SocketAddr, error: AuthError) -> LoginFailed {
        LoginFailed {
            session: 1,
            client,
            counted: client.ip(),
            via: None,
            user: b"a\" b".to_vec(),
            error,
        }
    }

    #[test]
    fn l16_wrong_passwords_are_all_printed_and_other_refusals_once_a_second() {
        let (mut lines, now) = (LoginLines::default(), Instant::now());
        for _ in 0..3 {
            let wrong = failed(1, 7, AuthError::WrongCredentials);
            let expected = r#"login failed from 0.0.0.1 port 7 user "a\" b": wrong"#;
            assert_eq!(lines.line(&wrong, now), LoginLine::Print(expected.into()));
        }
        let throttled = |port| failed(1, port, AuthError::RateLimited);
        let text =
            |port| format!(r#"login failed from 0.0.0.1 port {port} user "a\" b": throttled"#);
        assert_eq!(lines.line(&throttled(1), now), LoginLine::Print(text(1)));
        for port in 2..=4 {
            assert_eq!(lines.line(&throttled(port), now), LoginLine::Suppressed);
        }
        let other = failed(2, 1, AuthError::ClientLeft);
        assert!(matches!(lines.line(&other, now), LoginLine::Print(_)));
        assert_eq!(lines.take_suppressed(now), Vec::<String>::new());
        let later = now + Duration::from_secs(1);
        let expected = format!("{} (and 2 more)", text(4));
        assert_eq!(lines.take_suppressed(later), [expected]);
        assert!(!lines.has_suppressed());
        assert_eq!(lines.line(&throttled(5), later), LoginLine::Suppressed);
        let later = later + Duration::from_secs(1);
        let expected = format!("{} (and 1 more)", text(6));
        assert_eq!(lines.line(&throttled(6), later), LoginLine::Print(expected));
    }

    #[test]
    fn l25_the_addresses_of_an_ipv6_network_share_a_limit() {
        // Lines in one second with a refused login in each millisecond, from this many addresses
        // that differ in the bits from `shift` on.
        let printed = |addresses: u128, shift: u32| {
            let (mut lines, began) = (LoginLines::default(), Instant::now());
            let mut count = 0;
            for millis in 0..1000 {
                let now = began + Duration::from_millis(millis);
                let host = u128::from(millis) % addresses;
                let address = (0x2001 << 112) | (host << shift);
                let failed = from(
                    (IpAddr::V6(address.into()), 1).into(),
                    AuthError::ClientLeft,
                );
                let line = lines.line(&failed, now);
                count += usize::from(matches!(line, LoginLine::Print(_)));
                assert!(!matches!(line, LoginLine::Shared(_)));
            }
            count
        };
        assert_eq!(printed(1, 0), 1);
        assert_eq!(printed(500, 0), 1);
        assert_eq!(printed(250, 64), 4);
        assert_eq!(printed(250, 72), 16);
    }

    #[test]
    fn x32_a_line_names_the_proxy_after_the_client() {
        let failed = LoginFailed {
            via: Some(([0, 0, 0, 9], 8).into()),
            ..failed(1, 7, AuthError::WrongCredentials)
        };
        let expected = r#"login failed from 0.0.0.1 port 7 via 0.0.0.9 port 8 user "a\" b": wrong"#;
        let line = LoginLines::default().line(&failed, Instant::now());
        assert_eq!(line, LoginLine::Print(expected.into()));
    }

    #[test]
    fn l16_the_addresses_that_are_remembered_are_bounded() {
        let (mut lines, now) = (LoginLines::default(), Instant::now());
        let addresses = u32::try_from(MAX_ADDRESSES).expect("small");
        for address in 0..addresses {
            let line = lines.line(&failed(address, 1, AuthError::TimedOut), now);
            assert!(matches!(line, LoginLine::Print(_)));
        }
        let one_more = failed(addresses, 1, AuthError::TimedOut);
        assert!(matches!(lines.line(&one_more, now), LoginLine::Shared(_)));
        let later = now + Duration::from_secs(1);
        assert!(matches!(lines.line(&one_more, later), LoginLine::Print(_)));
        assert_eq!(lines.limits.len(), 1);
    }
}
