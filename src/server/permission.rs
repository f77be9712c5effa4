//! What the rules say about a visit, with the word of its client's identd.

use std::io;

use super::notes::Notes;
use super::registry::Visit;
use crate::event::{Asked, Cause};
use crate::firewall::{Question, Verdict};
use crate::ident;
use crate::net::{self, Deadline, Unanswered};
use crate::wire::ident::Answer;
use crate::wire::{Command, Language};

/// Everything the rules may want to know about this visit, but the address,
/// which is not known yet. (What a client says that asks for an association is
/// where itself will send from; where its datagrams go, nobody knows yet.)
pub(super) fn question<'a>(visit: &Visit, asked: &'a Asked) -> Question<'a> {
    let (name, port) = match asked.command {
        Command::Associate => (None, None),
        Command::Connect | Command::Bind => (asked.target.host.name(), Some(asked.target.port)),
    };
    Question {
        command: asked.command,
        source: visit.client_address,
        user: &asked.user,
        logged_in: asked.logged_in,
        name,
        address: None,
        port,
        moment: visit.house.clock.now(),
    }
}

/// Goes on if this verdict permits it, and identd confirms the user where that
/// is wanted.
pub(super) fn obey(
    verdict: Verdict,
    visit: &Visit,
    asked: &Asked,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<(), Cause> {
    notes.rule = verdict.line;
    if verdict.ident {
        confirm(visit, asked, deadline, notes)?;
    }
    match verdict.grants(notes.confirmed) {
        true => Ok(()),
        false => Err(Cause::Denied(verdict)),
    }
}

/// Has the client's identd confirm that the connection is this user's, within its
/// own limit and that of the request. Once it has, it is not asked again.
pub(super) fn confirm(
    visit: &Visit,
    asked: &Asked,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<(), Cause> {
    if notes.confirmed {
        return Ok(());
    }
    if asked.language == Language::Socks5 && !asked.logged_in {
        return Err(Cause::NotLoggedIn);
    }
    if asked.user.is_empty() {
        let instead = "the request names none".to_owned();
        return Err(Cause::OtherUser(instead));
    }
    let deadline = deadline.or_after(visit.house.settings.ident_timeout);
    let instead = match ident::ask(&visit.client, deadline) {
        Ok(Answer::User(user)) if user == asked.user => {
            notes.confirmed = true;
            return Ok(());
        }
        Ok(Answer::User(user)) => format!("identd says \"{}\"", user.escape_ascii()),
        Ok(Answer::Error(reason)) => format!("identd says {}", reason.escape_ascii()),
        Err(Unanswered::ClientLeft) => return Err(Cause::ClientLeft),
        Err(Unanswered::Failed(error))
            if net::is_shortage(&error) || error.kind() == io::ErrorKind::AddrNotAvailable =>
        {
            return Err(Cause::Exhausted("room to ask identd", error));
        }
        Err(Unanswered::Failed(error)) => return Err(Cause::NoIdent(error)),
    };
    Err(Cause::OtherUser(instead))
}
