//! One client's visit, top to bottom.
//!
//! A thread's stack is the state of its session: the thread hears the request,
//! has it answered by [`connect`](super::connect), [`bind`](super::bind) or
//! [`associate`](super::associate), and then relays from client to remote.

use std::io::BufRead;
use std::sync::Arc;

use super::duplex::{CutOnPanic, Relay};
use super::greeting::Known;
use super::notes::Notes;
use super::registry::Visit;
use super::{associate, bind, connect, greeting};
use crate::event::{Answered, Asked, Cause, Ending, Event, NoRequest};
use crate::net::{self, Deadline, Lookahead};
use crate::wire::{Command, Language, Malformed, Opening, Refusal, Unread, socks4, socks5};

/// Everything from accept to end; the body of the thread `s7`.
pub(super) fn serve(visit: &Arc<Visit>) {
    let _guard = CutOnPanic(visit);
    let ending = match hear(visit) {
        Ok(asked) => match answer(visit, asked) {
            Ok(relay) => return relay.run(visit),
            Err(cause) => Ending::Refused(cause),
        },
        Err(ending) => ending,
    };
    let has_spoken = !matches!(ending, Ending::Silent);
    // Before the client takes its leave, which may take as long as a stop.
    visit.ends_because(ending);
    if has_spoken {
        net::close_gently(&visit.client);
    }
}

/// Waits for the request, under one deadline for all of it. What is no request
/// is refused here.
fn hear(visit: &Visit) -> Result<Asked, Ending> {
    let deadline = Deadline::after(visit.house.settings.handshake_timeout);
    let mut stream = Lookahead::new(&visit.client, deadline);
    let first = match stream.fill_buf() {
        Ok(&[first, ..]) => first,
        // A health check: not a word about it to the client.
        Ok([]) | Err(_) => return Err(Ending::Silent),
    };
    let asked = match Opening::of(first) {
        Opening::Socks4 => hear_socks4(visit, &mut stream),
        Opening::Socks5 => hear_socks5(visit, stream, deadline),
        // It does not speak SOCKS: nothing we could say would be understood.
        Opening::Unknown(byte) => Err(Unread::Malformed(Malformed::Version(byte)).into()),
    };
    asked.map_err(Ending::NoRequest)
}

fn hear_socks4(visit: &Visit, stream: &mut impl BufRead) -> Result<Asked, NoRequest> {
    let request = socks4::Request::read(stream).inspect_err(|_| {
        visit.tell(&socks4::Reply::REJECTED.encode());
    })?;
    Ok(Asked {
        language: Language::Socks4(request.address),
        command: request.command,
        target: request.target(),
        user: request.user,
        logged_in: false,
    })
}

fn hear_socks5(
    visit: &Visit,
    stream: Lookahead<'_>,
    deadline: Deadline,
) -> Result<Asked, NoRequest> {
    let Known { user, mut stream } = greeting::agree(visit, stream, deadline)?;
    let language = Language::Socks5;
    let request = match socks5::Request::read(&mut stream) {
        Ok(request) => request,
        Err(unread) => {
            let refusal = match unread {
                Unread::Malformed(Malformed::Command(_)) => Refusal::UnknownCommand,
                Unread::Malformed(Malformed::AddressType(_)) => Refusal::UnknownAddress,
                Unread::Malformed(_) | Unread::Incomplete(..) => Refusal::Rejected,
            };
            stream.tell(&language.refused(refusal));
            return Err(match user {
                Some(user) => NoRequest::AfterLogin { user, unread },
                None => unread.into(),
            });
        }
    };
    Ok(Asked {
        language,
        command: request.command,
        target: request.target,
        logged_in: user.is_some(),
        user: user.unwrap_or_default(),
    })
}

/// Gets the client what it asked for and replies. Either way the last reply
/// goes out here, and with it the screen message: once for every request.
fn answer(visit: &Arc<Visit>, asked: Asked) -> Result<Relay, Cause> {
    let mut notes = Notes::new(&asked.target);
    let ready = match asked.command {
        _ if is_ourselves(visit) => Err(Cause::Loop),
        Command::Connect => connect::connect(visit, &asked, &mut notes),
        Command::Bind => bind::bind(visit, &asked, &mut notes),
        Command::Associate => associate::associate(visit, &asked, &mut notes),
    };
    let told = match &ready {
        Ok(ready) => visit.tell(&ready.reply),
        Err(cause) => visit.tell(&asked.language.refused(cause.refusal())),
    };
    // Only a reply that went out has been given.
    let result = match (ready, told) {
        (Ok(ready), true) => Ok(ready.relay),
        (Ok(_), false) => Err(Cause::ClientLeft),
        (Err(cause), _) => Err(cause),
    };
    visit.house.log.send(Event::Answered(Answered {
        client: visit.client_address,
        destination: notes.address,
        port: notes.port.unwrap_or(asked.target.port),
        command: asked.command,
        accepted: result.is_ok(),
    }));
    visit.keep(asked, notes);
    result
}

/// Did this client come over a connection that this server has made?
fn is_ourselves(visit: &Visit) -> bool {
    let accepted_on = visit.client.local_addr();
    accepted_on.is_ok_and(|here| visit.house.registry.made(visit.client_address, here))
}
