//! Which new clients get a session, and which client is dropped for one.

use std::net::IpAddr;
use std::time::Duration;

use super::context::ServerContext;
use super::drop_order::Source;
use super::session::{Session, SessionSlot};
use super::unheard::{Dropped, UnheardPlace};
use crate::events::{CloseReason, Event, Rejected};
use crate::sync::semaphore::AcquireError;

/// How long a new client waits for the slot of a client that was dropped for it. The thread
/// of that client usually ends within a millisecond, since its socket is shut down. It takes
/// longer while it computes a password hash, or waits for its turn.
const SLOT_WAIT: Duration = Duration::from_millis(100);

/// How long a new client waits, in steps, while the thread of the client that would be dropped
/// for it is about to read. After a burst of clients the threads need some time to read the
/// requests that are there already.
const CATCH_UP_STEP: Duration = Duration::from_millis(2);
const CATCH_UP_STEPS: usize = 50;

/// Takes a slot for the session of a new client, and a place among the clients without a
/// request. For that, another client may have to be dropped.
///
/// A listed proxy has no place: its client is not known before the header is read, and
/// [`admit_announced`] takes the place then.
///
/// Only the thread that accepts clients calls it.
///
/// # Errors
///
/// Why the new client is rejected.
pub(super) fn admit(
    context: &ServerContext,
    number: u64,
    client: IpAddr,
) -> Result<(SessionSlot, Option<UnheardPlace>), Rejected> {
    let registry = &context.registry;
    let counted = context.counted_address(client);
    let known = (!context.settings.is_proxy(client)).then_some(counted);
    let slot = SessionSlot::try_acquire(registry, number, known);
    if let Err(limit @ AcquireError::PerKey) = slot {
        return Err(limit_reached(context, client, limit));
    }
    let source = known.map(|counted| Source::new(counted, context.is_unpermitted(client)));
    let place = source.map(|source| context.unheard.enter(number, source));
    match make_room(context, place.as_ref(), slot.is_err()) {
        Some(dropped) if dropped.session == number => {
            return Err(match slot {
                Ok(_) => Rejected::Unheard { client },
                Err(limit) => limit_reached(context, client, limit),
            });
        }
        Some(dropped) => drop_client(context, dropped),
        // All sessions are in use, and no client can be dropped for one of a proxy.
        None => {
            if let Err(limit) = slot {
                return Err(limit_reached(context, client, limit));
            }
        }
    }
    // If there was no slot, that of the dropped client is free soon. No other thread takes it.
    let slot = slot.or_else(|_| SessionSlot::acquire_within(registry, number, known, SLOT_WAIT));
    match slot {
        Ok(slot) => Ok((slot, place)),
        Err(limit) => Err(limit_reached(context, client, limit)),
    }
}

/// Takes a place for a client after the header that its proxy has sent, and counts the
/// session for it. If that is not possible, the client is rejected.
///
/// The session's thread calls it. The session is registered already, so another thread that
/// drops this client meanwhile finds it.
///
/// # Errors
///
/// Why the session ends.
pub(super) fn admit_announced(
    context: &ServerContext,
    session: &Session,
) -> Result<UnheardPlace, CloseReason> {
    let client = session.client_address().ip();
    let counted = context.counted_address(client);
    // A health check of a proxy (LOCAL) has no client, and no limit of one.
    let has_slot = match session.via() {
        Some(_) => session.count_for(counted),
        None => Ok(()),
    };
    if let Err(limit) = has_slot {
        context.reject(&session.client, limit_reached(context, client, limit));
        return Err(CloseReason::PerClientLimit);
    }
    let source = Source::new(counted, context.is_unpermitted(client));
    let place = context.unheard.enter(session.number(), source);
    match make_room(context, Some(&place), false) {
        Some(dropped) if dropped.session == session.number() => {
            context.reject(&session.client, Rejected::Unheard { client });
            Err(CloseReason::Unheard)
        }
        Some(dropped) => {
            drop_client(context, dropped);
            Ok(place)
        }
        None => Ok(place),
    }
}

/// If the new client exceeds the limit, removes one client from the count and returns it.
/// That client may be the new one.
fn make_room(
    context: &ServerContext,
    new: Option<&UnheardPlace>,
    all_sessions_in_use: bool,
) -> Option<Dropped> {
    for _ in 0..CATCH_UP_STEPS {
        let first = context.unheard.first_to_drop(new, all_sessions_in_use)?;
        if new.is_some_and(|new| new.session() == first) {
            break;
        }
        match context.registry.get(first) {
            Some(session) if !session.is_about_to_read() => break,
            // Without a session: it has just ended, or `accept` is about to register it. Only a
            // registered session can be told that it is rejected.
            _ => context.unheard.wait_until_left(first, CATCH_UP_STEP),
        }
    }
    context.unheard.drop_first(new, all_sessions_in_use)
}

/// Rejects a client that has not sent its request, and ends its session.
fn drop_client(context: &ServerContext, dropped: Dropped) {
    match context.registry.get(dropped.session) {
        Some(session) => {
            let client = session.client_address().ip();
            context.reject(&session.client, Rejected::Unheard { client });
            session.terminate(CloseReason::Unheard);
        }
        // The session has ended already: its thread has noticed that the client was dropped.
        None => {
            let client = dropped.client;
            context
                .log
                .send(Event::Rejected(Rejected::Unheard { client }));
        }
    }
}

fn limit_reached(context: &ServerContext, client: IpAddr, limit: AcquireError) -> Rejected {
    let settings = &context.settings;
    match (limit, settings.max_per_client) {
        (AcquireError::PerKey, Some(max_per_client)) => Rejected::PerClientLimit {
            client,
            max_per_client,
        },
        _ => Rejected::AtCapacity {
            max_sessions: settings.max_sessions,
        },
    }
}
