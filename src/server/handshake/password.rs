//! The login of a SOCKS5 client with user and password (RFC 1929).

use std::io::BufRead;
use std::time::{Duration, Instant};

use super::client::HandshakeClient;
use crate::auth::{AuthError, Authenticator, LoginKey, LoginKeys};
use crate::events::{Event, HandshakeError, LoginFailed};
use crate::net::{self, Deadline};
use crate::protocol::ReadError;
use crate::protocol::socks5::{AuthStatus, Credentials};
use crate::server::context::ServerContext;
use crate::server::session::Session;
use crate::sync::semaphore::SlotGuard;
use crate::trace::{self, Wait};

/// Polling interval while the rate limit delays a login; a refund can shorten the wait.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Reads the credentials, checks them, and replies. Returns the user.
///
/// # Errors
///
/// The message is not valid, or the login is refused.
pub(super) fn authenticate(
    client: HandshakeClient<'_>,
    stream: &mut impl BufRead,
) -> Result<Vec<u8>, HandshakeError> {
    let HandshakeClient {
        context,
        session,
        deadline,
        ..
    } = client;
    let credentials = Credentials::read(stream).map_err(|error| {
        match error {
            // The client reads this when it has completed its message.
            ReadError::Incomplete(..) => client.refuse(&AuthStatus::Denied.encode()),
            // The client does not use this protocol, and would not understand any reply.
            ReadError::Protocol(_) => {}
        }
        HandshakeError::after_greeting(error)
    })?;
    session.set_checking_login(true);
    let checked = match context.authenticator.get() {
        Some(authenticator) => check_login(context, session, authenticator, &credentials, deadline),
        None => Err(AuthError::WrongCredentials),
    };
    session.set_checking_login(false);
    let user = credentials.user;
    match checked {
        Ok(()) => {
            context.log.send(Event::LoginAccepted);
            client.send_reply(&AuthStatus::Accepted.encode());
            Ok(user)
        }
        Err(error) => {
            client.refuse(&AuthStatus::Denied.encode());
            // A terminated session looks like a client that has left.
            let was_terminated = error == AuthError::ClientLeft && session.is_closing();
            if error != AuthError::OutOfMemory && !was_terminated {
                context.log.send(Event::LoginFailed(LoginFailed {
                    session: session.number(),
                    client: session.client_address(),
                    counted: context.source_prefixes(session).client(),
                    via: session.via(),
                    user: user.clone(),
                    error,
                }));
            }
            Err(HandshakeError::LoginFailed { user, error })
        }
    }
}

/// Checks the credentials, after the rate limit admits the attempt.
///
/// Credentials that are not cached are charged as a failure in advance, until the check
/// shows that they are right. Otherwise a client could try a thousand passwords at the
/// same moment. An attempt that ends before its check stays charged to its user name:
/// otherwise a client could disconnect because of a delay, and try the next password
/// without a cost.
fn check_login(
    context: &ServerContext,
    session: &Session,
    authenticator: &Authenticator,
    credentials: &Credentials,
    deadline: Deadline,
) -> Result<(), AuthError> {
    let client = context.counted_address(session.client_address().ip());
    let users = || context.users(authenticator);
    let is_cached = || authenticator.is_cached(&users(), credentials, client);
    let limiter = &context.login_rate;
    let login = limiter.keys(client, &credentials.user);
    let mut waiting = WaitingLogin {
        context,
        session,
        login,
        deadline,
        slot: None,
    };
    if waiting.wait_for_user(is_cached)? {
        return Ok(());
    }
    if waiting.wait_for_turn(is_cached)? {
        limiter.refund_user(login, Instant::now());
        return Ok(());
    }
    drop(waiting);
    let still_wanted = || {
        if deadline.is_over() {
            return Err(AuthError::TimedOut);
        }
        // A terminated session looks like a client that has left: its socket is shut down.
        match net::client_stays_until(&session.client, Deadline::after(Duration::ZERO)) {
            true => Ok(()),
            false => Err(AuthError::ClientLeft),
        }
    };
    let terminated = session.terminated();
    let checked = authenticator.check(users, credentials, client, &terminated, still_wanted);
    if matches!(checked, Ok(()) | Err(AuthError::OutOfMemory)) {
        limiter.refund_user(login, Instant::now());
        limiter.refund_turn(login, Instant::now());
    }
    checked
}

/// A login that may have to wait for the rate limiter.
struct WaitingLogin<'a> {
    context: &'a ServerContext,
    session: &'a Session,
    login: LoginKeys,
    deadline: Deadline,
    /// Held from the first wait on.
    slot: Option<SlotGuard<LoginKey>>,
}

impl WaitingLogin<'_> {
    /// Waits until the user name's own limit admits the login, and returns whether the
    /// credentials are cached.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), or the wait would end after the deadline.
    fn wait_for_user(&mut self, is_cached: impl Fn() -> bool) -> Result<bool, AuthError> {
        let limiter = &self.context.login_rate;
        loop {
            match limiter.admit_user(self.login, Instant::now(), &is_cached) {
                Ok(is_cached) => return Ok(is_cached),
                Err(wait) if wait > self.deadline.remaining() => {
                    return Err(AuthError::RateLimited);
                }
                Err(wait) => self.wait(wait)?,
            }
        }
    }

    /// Takes a turn of the address, or waits for one. Returns `true`, without a turn, if
    /// another login has cached the same credentials meanwhile.
    ///
    /// Of each user name only one login may take the next turn. So the names of an address
    /// have their turns one after another, however many connections each of them has.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    fn wait_for_turn(&mut self, is_cached: impl Fn() -> bool) -> Result<bool, AuthError> {
        let limiter = &self.context.login_rate;
        let mut turn = limiter.take_turn(self.login, Instant::now(), Duration::ZERO);
        let mut next = None;
        while let Err(wait) = turn {
            if next.is_none() {
                let slots = &self.context.next_logins;
                let slot = slots.try_acquire(self.login.of_user_with_factors());
                next = slot.ok().map(|slot| (slot, Instant::now()));
            }
            self.wait(match next {
                Some(_) => wait,
                // Another login of this user name takes the next turn first.
                None => POLL_INTERVAL,
            })?;
            if is_cached() {
                return Ok(true);
            }
            if let Some((_, since)) = &next {
                turn = limiter.take_turn(self.login, Instant::now(), since.elapsed());
            }
        }
        Ok(false)
    }

    /// Waits for this long, or for the polling interval. The end of the client also ends the
    /// wait.
    ///
    /// # Errors
    ///
    /// Too many logins of the user name wait already, the deadline is over, or the client has
    /// left.
    fn wait(&mut self, time: Duration) -> Result<(), AuthError> {
        if self.deadline.is_over() {
            return Err(AuthError::RateLimited);
        }
        if self.slot.is_none() {
            let slots = &self.context.waiting_logins;
            let slot = slots.try_acquire(self.login.of_user_with_factors());
            self.slot = Some(slot.map_err(|_| AuthError::RateLimited)?);
        }
        let end = self.deadline.min_after(time.min(POLL_INTERVAL));
        let _wait = trace::wait(|| Wait::LoginTurn);
        match net::client_stays_until(&self.session.client, end) {
            true => Ok(()),
            false => Err(AuthError::ClientLeft),
        }
    }
}
