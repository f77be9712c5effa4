//! The lines for refused logins, which fail2ban and similar programs count.
//!
//! A line for a wrong password is never suppressed: the rate limiter of logins bounds their
//! number. A client can cause the other refusals as often as it likes, so each address has a
//! rate limit for their lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::throttle::Throttle;
use crate::config::QuotedName;
use crate::events::{AuthError, LoginFailed};

/// Addresses whose lines are limited at a time. More addresses share one
/// rate limit.
const MAX_ADDRESSES: usize = 1024;

/// The most memory in bytes of all these addresses: the last line of each can have a user name of
/// 255 bytes that are all escaped.
pub const MEMORY_OF_LOGIN_LINES: u64 = MAX_ADDRESSES as u64 * 1400;

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginLine {
    /// It is to be printed.
    Print(String),
    /// The rate limit of its address does not permit it now; it is counted.
    Suppressed,
    /// There are too many addresses: the rate limit that they share decides.
    Shared(String),
}

/// The rate limits of addresses whose logins were refused lately.
#[derive(Debug, Default)]
pub(super) struct LoginLines {
    limits: HashMap<IpAddr, AddressLimit>,
}

/// The rate limit of one address.
#[derive(Debug, Default)]
struct AddressLimit {
    throttle: Throttle,
    /// The last line that was suppressed.
    last: String,
}

impl LoginLines {
    /// The line for this login.
    pub(super) fn line(&mut self, failed: &LoginFailed, now: Instant) -> LoginLine {
        let line = line_for(failed);
        if failed.error == AuthError::WrongCredentials {
            return LoginLine::Print(line);
        }
        let address = failed.client.ip();
        if self.limits.len() >= MAX_ADDRESSES && !self.limits.contains_key(&address) {
            self.limits.retain(|_, limit| !limit.throttle.is_over(now));
            if self.limits.len() >= MAX_ADDRESSES {
                return LoginLine::Shared(line);
            }
        }
        let limit = self.limits.entry(address).or_default();
        match limit.throttle.try_pass(now) {
            Some(suppressed) => LoginLine::Print(with_count(line, suppressed)),
            None => {
                limit.last = line;
                LoginLine::Suppressed
            }
        }
    }

    /// Is there a line that was suppressed and not counted in another one yet?
    pub(super) fn has_suppressed(&self) -> bool {
        self.limits
            .values()
            .any(|limit| limit.throttle.has_suppressed())
    }

    /// Lets the last suppressed line of each address pass at once.
    pub(super) fn reset(&mut self) {
        let limits = self.limits.values_mut();
        limits.for_each(|limit| limit.throttle.reset());
    }

    /// The last suppressed line of each address whose rate limit permits a line now. Forgets
    /// the addresses without a limit.
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
    use std::time::Duration;

    fn failed(address: u32, port: u16, error: AuthError) -> LoginFailed {
        LoginFailed {
            session: 1,
            client: (IpAddr::V4(address.into()), port).into(),
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
