//! From the requested host to the addresses that the rules permit.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::{bounded, select};

use super::notes::Notes;
use super::registry::Visit;
use crate::event::Cause;
use crate::firewall::{Question, Rules};
use crate::net::Deadline;
use crate::resolve;
use crate::wire::{Command, Host, HostName, Target};

/// An address that may be dialled or awaited, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    pub(super) rule: Option<usize>,
}

/// The addresses of this target that the rules permit, in the resolver's order:
/// at least one. A name is looked up once, and only for a client to whom any
/// address could be permitted at all.
pub(super) fn candidates(
    visit: &Arc<Visit>,
    command: Command,
    target: &Target,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<Vec<Candidate>, Cause> {
    let rules = visit.house.rules();
    let (name, addresses) = match &target.host {
        Host::Address(address) => (None, vec![*address]),
        Host::Name(name) => {
            let client = visit.client_address;
            let best = rules.at_best(command, client, Some(name), Some(target.port));
            if !best.permitted {
                notes.rule = best.line;
                return Err(Cause::Denied(best.line));
            }
            (Some(name), look_up(visit, name, deadline)?)
        }
        Host::Unusable(bad) => return Err(Cause::BadName(bad.clone())),
    };
    let question = |address| Question {
        command,
        source: visit.client_address,
        name,
        address,
        port: target.port,
    };
    judge(&rules, addresses.into_iter().map(question), notes)
}

/// Those of the questions that the rules answer with yes. For the screen, the
/// first of them counts, or if there is none, the first of the others.
fn judge<'a>(
    rules: &Rules,
    questions: impl Iterator<Item = Question<'a>>,
    notes: &mut Notes,
) -> Result<Vec<Candidate>, Cause> {
    let mut permitted = Vec::new();
    let mut denied = Vec::new();
    for question in questions {
        let verdict = rules.judge(&question);
        let candidate = Candidate {
            address: question.address,
            rule: verdict.line,
        };
        match verdict.permitted {
            true => permitted.push(candidate),
            false => denied.push(candidate),
        }
    }
    if let Some(shown) = permitted.first().or(denied.first()) {
        notes.destination(shown.address, shown.rule);
    }
    if permitted.is_empty() {
        return Err(Cause::Denied(denied.first().and_then(|first| first.rule)));
    }
    Ok(permitted)
}

/// Looks a name up on a thread of its own, since nothing can interrupt the
/// resolver and the client must have its answer within the limit.
fn look_up(visit: &Arc<Visit>, name: &HostName, deadline: Deadline) -> Result<Vec<IpAddr>, Cause> {
    let (answer, found) = bounded(1);
    let workers = &visit.house.workers;
    let started = workers.start(format!("s{}-name", visit.number()), {
        // The thread takes up room, even when nobody waits for it any more.
        let (seat, name) = (visit.seat(), name.clone());
        move || {
            // Fails when the client has been told that it took too long.
            let _ = answer.send(resolve::lookup(&name));
            drop(seat);
        }
    });
    started.map_err(|error| Cause::Exhausted("thread", error))?;
    let not_found = |why: String| Cause::NotFound(name.clone(), why);
    let answer = select! {
        recv(found) -> answer => answer,
        recv(visit.when_cut()) -> _ => return Err(Cause::ClientLeft),
        default(deadline.remaining()) => return Err(Cause::TooLate),
    };
    let addresses = match answer {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(not_found(error.to_string())),
        // The thread panicked.
        Err(_) => return Err(not_found("the lookup broke off".to_owned())),
    };
    // SOCKS4 can say nothing about any other.
    let v4: Vec<IpAddr> = addresses.into_iter().filter(IpAddr::is_ipv4).collect();
    if v4.is_empty() {
        return Err(not_found("it has no IPv4 address".to_owned()));
    }
    Ok(v4)
}
