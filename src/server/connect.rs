//! CONNECT: the server connects to the target.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::destination::{Candidate, candidates};
use super::duplex::{Down, Ready, Relay};
use super::enforce;
use super::notes::Notes;
use super::registry::Visit;
use crate::event::{Asked, Cause};
use crate::firewall;
use crate::net::{self, Deadline, Unanswered};

/// Addresses of one name that are tried, at most: with the total limit of two
/// minutes, more of them would get no fair share.
const MAX_ADDRESSES: usize = 8;

/// Least time an address gets to answer before the next is tried.
const FAIR_SHARE: Duration = Duration::from_secs(5);

/// Connects to the target under one total limit: name lookup, all its
/// addresses in turn.
pub(super) fn connect(
    visit: &Arc<Visit>,
    asked: &Asked,
    notes: &mut Notes,
) -> Result<Ready, Cause> {
    let deadline = Deadline::after(visit.house.settings.connect_timeout);
    let port = asked.target.port;
    let mut candidates = candidates(visit, asked, deadline, notes)?;
    let impossible = candidates
        .first()
        .and_then(|first| firewall::nobodys(first.address, port));
    candidates.retain(|candidate| firewall::nobodys(candidate.address, port).is_none());
    candidates.truncate(MAX_ADDRESSES);
    if let (true, Some(why)) = (candidates.is_empty(), impossible) {
        return Err(Cause::Impossible(why));
    }
    let (remote, local) = dial_in_turn(visit, &candidates, port, deadline, notes)?;
    if !visit.attach(remote) {
        return Err(Cause::ClientLeft);
    }
    enforce::subject(visit, asked, vec![notes.address], notes)?;
    let down = Down::reserve(visit)?;
    Ok(Ready {
        reply: asked.language.connected(local),
        relay: Relay::Streams(down),
    })
}

/// Tries each address with its share of the time, until one answers; the
/// connection, and our address in it.
fn dial_in_turn(
    visit: &Visit,
    candidates: &[Candidate],
    port: u16,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<(TcpStream, SocketAddr), Cause> {
    let mut failure = Cause::TooLate;
    for (tried, &Candidate { address, rule }) in candidates.iter().enumerate() {
        if deadline.is_over() {
            break;
        }
        notes.destination(address, rule);
        let address = SocketAddr::new(address, port);
        let left = u32::try_from(candidates.len() - tried).unwrap_or(u32::MAX);
        let share = (deadline.remaining() / left).max(FAIR_SHARE);
        match dial(visit, address, deadline.or_after(share)) {
            Ok(connected) => return Ok(connected),
            Err(Unanswered::ClientLeft) => return Err(Cause::ClientLeft),
            Err(Unanswered::Failed(error)) if net::is_shortage(&error) => {
                return Err(Cause::Exhausted("room for a connection", error));
            }
            Err(Unanswered::Failed(error)) => failure = Cause::Unreachable(address, error),
        }
    }
    Err(failure)
}

fn dial(
    visit: &Visit,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<(TcpStream, SocketAddr), Unanswered> {
    let remote = net::dial(address, deadline, &visit.client)?;
    let local = remote.local_addr()?;
    // Dialling a free local port can pick that very port to dial from, and the
    // socket connects to itself. Nobody is listening there.
    if local == address {
        return Err(Errno::ECONNREFUSED.into());
    }
    visit.note_outgoing(local, address);
    Ok((remote, local))
}
