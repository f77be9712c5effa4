//! The login of a SOCKS5 client with user and password (RFC 1929).

use std::io::BufRead;
use std::time::{Duration, Instant};

use crate::auth::{AuthError, Authenticator, LoginKey, LoginKeys};
use crate::events::HandshakeError;
use crate::net::{self, Deadline};
use crate::protocol::ReadError;
use crate::protocol::socks5::{AuthStatus, Credentials};
use crate::server::context::ServerContext;
use crate::server::session::Session;
use crate::sync::semaphore::SlotGuard;

/// Polling interval while the rate limit delays a login; a refund can shorten the wait.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Reads the credentials, checks them, and replies. Returns the user.
///
/// # Errors
///
/// The message is not valid, or the login is refused.
pub(super) fn authenticate(
    context: &ServerContext,
    session: &Session,
    stream: &mut impl BufRead,
    deadline: Deadline,
) -> Result<Vec<u8>, HandshakeError> {
    let credentials = Credentials::read(stream).inspect_err(|error| match error {
        // The client reads this when it has completed its message.
        ReadError::Incomplete(..) => {
            session.send_reply(&AuthStatus::Denied.encode());
        }
        // The client does not use this protocol, and would not understand any reply.
        ReadError::Protocol(_) => {}
    })?;
    let checked = match context.authenticator.get() {
        Some(authenticator) => check_login(context, session, authenticator, &credentials, deadline),
        None => Err(AuthError::WrongCredentials),
    };
    let user = credentials.user;
    match checked {
        Ok(()) => {
            session.send_reply(&AuthStatus::Accepted.encode());
            Ok(user)
        }
        Err(error) => {
            session.send_reply(&AuthStatus::Denied.encode());
            Err(HandshakeError::LoginFailed { user, error })
        }
    }
}

/// Checks the credentials, after the rate limit admits the attempt.
///
/// Credentials that are not cached are charged as a failure in advance, until the check
/// shows that they are right. Otherwise a client could try a thousand passwords at the
/// same moment. An attempt that ends before its check stays charged: otherwise a client
/// could disconnect because of a delay, and try the next password without a cost.
fn check_login(
    context: &ServerContext,
    session: &Session,
    authenticator: &Authenticator,
    credentials: &Credentials,
    deadline: Deadline,
) -> Result<(), AuthError> {
    let client = session.client_address.ip();
    let users = || context.users(authenticator);
    let limiter = &context.login_rate;
    let login = limiter.keys(client, &credentials.user);
    let mut waiting = WaitingLogin {
        context,
        session,
        login,
        slot: None,
    };
    loop {
        let is_cached = || authenticator.is_cached(&users(), credentials, client);
        match limiter.admit_user(login, Instant::now(), is_cached) {
            Ok(true) => return Ok(()),
            Ok(false) => break,
            Err(wait) if wait > deadline.remaining() => return Err(AuthError::RateLimited),
            Err(wait) => waiting.wait_until(deadline.min_after(wait.min(POLL_INTERVAL)))?,
        }
    }
    let turn = limiter.reserve_turn(login, Instant::now(), deadline.remaining());
    match turn.map_err(|_| AuthError::RateLimited)? {
        Duration::ZERO => {}
        wait => waiting.wait_until(deadline.min_after(wait))?,
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
    let checked = authenticator.check(users, credentials, client, still_wanted);
    if matches!(checked, Ok(()) | Err(AuthError::OutOfMemory)) {
        limiter.refund(login, Instant::now());
    }
    checked
}

/// A login that may have to wait for the rate limiter.
struct WaitingLogin<'a> {
    context: &'a ServerContext,
    session: &'a Session,
    login: LoginKeys,
    /// Held from the first wait on.
    slot: Option<SlotGuard<LoginKey>>,
}

impl WaitingLogin<'_> {
    /// Waits until this time. The end of the client also ends the wait.
    ///
    /// # Errors
    ///
    /// Too many logins wait already, or the client has left.
    fn wait_until(&mut self, time: Deadline) -> Result<(), AuthError> {
        if self.slot.is_none() {
            let slots = &self.context.waiting_logins;
            let slot = slots.try_acquire(self.login.with_factors());
            self.slot = Some(slot.map_err(|_| AuthError::RateLimited)?);
        }
        match net::client_stays_until(&self.session.client, time) {
            true => Ok(()),
            false => Err(AuthError::ClientLeft),
        }
    }
}
