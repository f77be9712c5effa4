//! The login of a SOCKS5 client with user and password (RFC 1929).

use std::time::{Duration, Instant};

use super::greeting::{Conversation, Introduction, Known};
use super::registry::Visit;
use crate::event::NoRequest;
use crate::net::{self, Deadline};
use crate::users::{Doorkeeper, NoEntry};
use crate::wire::Unread;
use crate::wire::socks5::{Admission, Login};

/// User and password, in plain text.
pub(super) struct Password;

/// Who waits for its next try looks this often whether it may earlier: what counted
/// against its address may have been right after all.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Clients of one household that wait for their next try, at most. A browser opens
/// some thirty connections at once; of more, hardly any would be heard in time.
const MOST_WAITING: usize = 64;

impl Introduction for Password {
    fn speak<'a>(
        &self,
        visit: &'a Visit,
        mut stream: Box<dyn Conversation + 'a>,
    ) -> Result<Known<'a>, NoRequest> {
        let login = Login::read(&mut stream).inspect_err(|unread| match unread {
            // The client reads this whenever it has finished its login.
            Unread::Incomplete(..) => stream.tell(&Admission::Denied.encode()),
            // Whatever it speaks, it is not this.
            Unread::Malformed(_) => {}
        })?;
        let admitted = match visit.house.doorkeeper.get() {
            Some(doorkeeper) => admit(visit, doorkeeper, &login, stream.deadline()),
            None => Err(NoEntry::Wrong),
        };
        let user = login.user;
        match admitted {
            Ok(()) => {
                stream.tell(&Admission::Welcome.encode());
                let user = Some(user);
                Ok(Known { user, stream })
            }
            Err(why) => {
                stream.tell(&Admission::Denied.encode());
                Err(NoRequest::NoEntry { user, why })
            }
        }
    }
}

/// Is the login right? If many have failed from the same address lately, it has to
/// wait before it is heard.
///
/// Whoever is not known counts as failed until the check says otherwise: else
/// somebody could try a thousand passwords at the same moment.
fn admit(
    visit: &Visit,
    doorkeeper: &Doorkeeper,
    login: &Login,
    deadline: Deadline,
) -> Result<(), NoEntry> {
    let house = &visit.house;
    let users = || house.look_up(doorkeeper.book());
    let household = visit.household();
    let mut waiting = None;
    loop {
        let now = users();
        let is_known = || doorkeeper.knows(&now, login);
        match house.debts.hear(household, Instant::now(), is_known) {
            Ok(true) => return Ok(()),
            Ok(false) => break,
            Err(wait) if wait > deadline.remaining() => return Err(NoEntry::TooManyFailures),
            Err(wait) => {
                let room = &house.guessers;
                waiting = waiting.or_else(|| room.enter(household, usize::MAX, MOST_WAITING));
                if waiting.is_none() {
                    return Err(NoEntry::TooManyFailures);
                }
                let next = deadline.or_after(wait.min(LOOK_AGAIN));
                if !net::stays_until(&visit.client, next) {
                    return Err(NoEntry::Left);
                }
            }
        }
    }
    let is_worth_it = || {
        if deadline.is_over() {
            return Err(NoEntry::TooLate);
        }
        // (A visit that is cut looks as if its client had left: its socket is shut.)
        match net::stays_until(&visit.client, Deadline::after(Duration::ZERO)) {
            true => Ok(()),
            false => Err(NoEntry::Left),
        }
    };
    let checked = doorkeeper.check(users, login, is_worth_it);
    // Only who was wrong has failed.
    if checked != Err(NoEntry::Wrong) {
        house.debts.pay_back(household, Instant::now());
    }
    checked
}
