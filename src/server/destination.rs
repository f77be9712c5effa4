//! From the requested host to the addresses that the rules permit.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::{bounded, select};

use super::notes::Notes;
use super::permission::{confirm, obey, question};
use super::registry::Visit;
use crate::event::{Asked, Cause};
use crate::firewall::{Question, Verdict};
use crate::net::Deadline;
use crate::resolve;
use crate::wire::{Host, HostName, Language};

/// An address that may be dialled or awaited, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    pub(super) rule: Option<usize>,
}

/// The addresses of the requested host that the rules permit, in the resolver's
/// order: at least one. A name is looked up once, and only for a client to whom
/// any address could be permitted at all.
///
/// For the screen, the first of them counts, or if there is none, the first that
/// is not permitted.
pub(super) fn candidates(
    visit: &Arc<Visit>,
    asked: &Asked,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<Vec<Candidate>, Cause> {
    let rules = visit.house.rules();
    let unseen = question(visit, asked);
    let addresses = match &asked.target.host {
        // IPv4 in IPv6's clothes is dialled as what it is.
        Host::Address(address) => vec![address.to_canonical()],
        Host::Name(name) => {
            obey(rules.judge(&unseen), visit, asked, deadline, notes)?;
            look_up(visit, name, asked.language, deadline)?
        }
        Host::Unusable(bad) => return Err(Cause::BadName(bad.clone())),
    };
    let judge = |address| {
        let address = Some(address);
        rules.judge(&Question { address, ..unseen })
    };
    let verdicts = addresses.into_iter().map(|it| (it, judge(it))).collect();
    permitted(verdicts, visit, asked, deadline, notes)
}

/// Those of the addresses that may be used, some of them perhaps because identd
/// confirms the user.
fn permitted(
    verdicts: Vec<(IpAddr, Verdict)>,
    visit: &Visit,
    asked: &Asked,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<Vec<Candidate>, Cause> {
    let with_ident = verdicts.iter().find(|(_, verdict)| verdict.ident).copied();
    let confirmed = match with_ident {
        Some(_) => confirm(visit, asked, deadline, notes),
        None => Ok(()),
    };
    let (granted, denied): (Vec<_>, Vec<_>) = verdicts
        .into_iter()
        .partition(|(_, verdict)| verdict.grants(notes.confirmed));
    // What is shown fits the reason.
    let decisive = with_ident.filter(|_| confirmed.is_err());
    let shown = granted
        .first()
        .copied()
        .or(decisive)
        .or(denied.first().copied());
    if let Some((address, verdict)) = shown {
        notes.destination(address, verdict.line);
        if granted.is_empty() {
            confirmed?;
            return Err(Cause::Denied(verdict));
        }
    }
    let candidate = |(address, verdict): (IpAddr, Verdict)| Candidate {
        address,
        rule: verdict.line,
    };
    Ok(granted.into_iter().map(candidate).collect())
}

/// Looks a name up on a thread of its own, since nothing can interrupt the
/// resolver and the client must have its answer within the limit.
fn look_up(
    visit: &Arc<Visit>,
    name: &HostName,
    language: Language,
    deadline: Deadline,
) -> Result<Vec<IpAddr>, Cause> {
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
    let is_known = |address: &IpAddr| address.is_ipv4() || language.knows_ipv6();
    let known: Vec<IpAddr> = addresses.into_iter().filter(is_known).collect();
    if known.is_empty() {
        return Err(not_found("it has no IPv4 address".to_owned()));
    }
    Ok(known)
}
