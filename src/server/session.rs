//! One client's visit, top to bottom.
//!
//! A thread's stack is the state of its session: the thread hears the request,
//! has it answered by [`connect`](super::connect) or [`bind`](super::bind), and
//! then becomes the pump from client to remote.

use std::io::BufRead;
use std::sync::Arc;

use super::duplex::{CutOnPanic, Down};
use super::notes::Notes;
use super::registry::Visit;
use super::{bind, connect};
use crate::event::{Answered, Asked, Cause, Ending, Event, NoRequest};
use crate::net::{self, Deadline, Lookahead};
use crate::wire::socks4::{Reply, Request};
use crate::wire::{Command, Language, Malformed, NO_ACCEPTABLE_METHOD, Opening, Unread};

/// Everything from accept to end; the body of the thread `s7`.
pub(super) fn serve(visit: &Arc<Visit>) {
    let _guard = CutOnPanic(visit);
    let ending = match hear(visit) {
        Ok(asked) => match answer(visit, asked) {
            Ok(down) => return down.relay(visit),
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
    let limit = visit.house.settings.handshake_timeout;
    let mut stream = Lookahead::new(&visit.client, Deadline::after(limit));
    let first = match stream.fill_buf() {
        Ok(&[first, ..]) => first,
        // A health check: not a word about it to the client.
        Ok([]) | Err(_) => return Err(Ending::Silent),
    };
    let why = match Opening::of(first) {
        Opening::Socks4 => match Request::read(&mut stream) {
            Ok(request) => return Ok(asked_in_socks4(request)),
            Err(unread) => {
                visit.tell(&Reply::REJECTED.encode());
                NoRequest::Unread(unread)
            }
        },
        Opening::Socks5 => {
            // The client reads this whenever it has finished its greeting.
            visit.tell(&NO_ACCEPTABLE_METHOD);
            NoRequest::Socks5
        }
        // It does not speak SOCKS: nothing we could say would be understood.
        Opening::Unknown(byte) => NoRequest::Unread(Unread::Malformed(Malformed::Version(byte))),
    };
    Err(Ending::NoRequest(why))
}

fn asked_in_socks4(request: Request) -> Asked {
    Asked {
        language: Language::Socks4(request.address),
        command: request.command,
        target: request.target(),
        user: request.user,
    }
}

/// Gets the client what it asked for and replies. Either way the last reply
/// goes out here, and with it the screen message: once for every request.
fn answer(visit: &Arc<Visit>, asked: Asked) -> Result<Down, Cause> {
    let mut notes = Notes::new(&asked.target);
    let ready = match asked.command {
        _ if is_ourselves(visit) => Err(Cause::Loop),
        Command::Connect => connect::connect(visit, &asked, &mut notes),
        Command::Bind => bind::bind(visit, &asked, &mut notes),
        Command::Associate => Err(Cause::Unsupported(asked.command)),
    };
    let told = match &ready {
        Ok(ready) => visit.tell(&ready.reply),
        Err(cause) => visit.tell(&asked.language.refused(cause.refusal())),
    };
    // Only a reply that went out has been given.
    let result = match (ready, told) {
        (Ok(ready), true) => Ok(ready.down),
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
