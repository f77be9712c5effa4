//! The login of a SOCKS5 client with user and password (RFC 1929).

use std::time::{Duration, Instant};

use crate::auth::{AuthError, Authenticator};
use crate::events::HandshakeError;
use crate::net::{self, Deadline};
use crate::protocol::ReadError;
use crate::protocol::socks5::{AuthStatus, Credentials};
use crate::server::handshake::negotiate::{Authenticated, Conversation, Introduction};
use crate::server::session::registry::Session;

/// User and password, in plain text.
pub(crate) struct Password;

/// Who waits for its next try looks this often whether it may earlier: what counted
/// against its address may have been right after all.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Clients of one source_prefix that wait for their next try, at most. A browser opens
/// some thirty connections at once; of more, hardly any would be heard in time.
const MAX_WAITING_LOGINS: usize = 64;

impl Introduction for Password {
    fn speak<'a>(
        &self,
        session: &'a Session,
        mut stream: Box<dyn Conversation + 'a>,
    ) -> Result<Authenticated<'a>, HandshakeError> {
        let login = Credentials::read(&mut stream).inspect_err(|unread| match unread {
            // The client reads this whenever it has finished its login.
            ReadError::Incomplete(..) => stream.send_reply(&AuthStatus::Denied.encode()),
            // Whatever it speaks, it is not this.
            ReadError::Protocol(_) => {}
        })?;
        let admitted = match session.context.authenticator.get() {
            Some(authenticator) => check_login(session, authenticator, &login, stream.deadline()),
            None => Err(AuthError::WrongCredentials),
        };
        let user = login.user;
        match admitted {
            Ok(()) => {
                stream.send_reply(&AuthStatus::Accepted.encode());
                let user = Some(user);
                Ok(Authenticated { user, stream })
            }
            Err(why) => {
                stream.send_reply(&AuthStatus::Denied.encode());
                Err(HandshakeError::LoginFailed { user, why })
            }
        }
    }
}

/// Is the login right? If many have failed from the same address lately, it has to
/// wait before it is heard.
///
/// Whoever is not known counts as failed until the check says otherwise: else
/// somebody could try a thousand passwords at the same moment.
fn check_login(
    session: &Session,
    authenticator: &Authenticator,
    login: &Credentials,
    deadline: Deadline,
) -> Result<(), AuthError> {
    let context = &session.context;
    let users = || context.look_up(authenticator.book());
    let source_prefix = session.source_prefix();
    let mut waiting = None;
    loop {
        let now = users();
        let is_known = || authenticator.is_cached(&now, login);
        match context
            .login_rate
            .hear(source_prefix, Instant::now(), is_known)
        {
            Ok(true) => return Ok(()),
            Ok(false) => break,
            Err(wait) if wait > deadline.remaining() => return Err(AuthError::RateLimited),
            Err(wait) => {
                let room = &context.waiting_logins;
                waiting =
                    waiting.or_else(|| room.enter(source_prefix, usize::MAX, MAX_WAITING_LOGINS));
                if waiting.is_none() {
                    return Err(AuthError::RateLimited);
                }
                let next = deadline.min_after(wait.min(POLL_INTERVAL));
                if !net::client_stays_until(&session.client, next) {
                    return Err(AuthError::ClientLeft);
                }
            }
        }
    }
    let is_worth_it = || {
        if deadline.is_over() {
            return Err(AuthError::TimedOut);
        }
        // (A session that is cut looks as if its client had left: its socket is shut.)
        match net::client_stays_until(&session.client, Deadline::after(Duration::ZERO)) {
            true => Ok(()),
            false => Err(AuthError::ClientLeft),
        }
    };
    let checked = authenticator.check(users, login, is_worth_it);
    // Only who was wrong has failed.
    if checked != Err(AuthError::WrongCredentials) {
        context.login_rate.refund(source_prefix, Instant::now());
    }
    checked
}
