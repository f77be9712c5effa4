//! The clients that have not sent their request: a limited number, so that they cannot take all sessions.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drop_order::{DropOrder, Source, Weight};
use crate::sync::{Condvar, OrderedMutex, Rank};

/// Time for the request of a client to which the rules permit nothing. The request is only
/// needed for the reply that refuses it.
const UNPERMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// While all sessions are in use, a client without a request has this time before it is dropped
/// for its age. Most clients need less for their request. If this time did not end, a few
/// silent clients could keep all new clients out.
const PROTECTED_TIME: Duration = Duration::from_secs(5);

/// The clients whose request, with the login before it, is not complete.
///
/// Nothing is known of such a client but its address, and it costs the client nothing to be
/// one. So their number has a limit, and if one more comes, one of them is dropped: see
/// [`DropOrder`]. OpenSSH calls this limit `MaxStartups`; it drops the new client, at
/// random.
#[derive(Debug)]
pub(crate) struct UnheardClients {
    max: usize,
    /// A leaf in the lock order.
    order: OrderedMutex<DropOrder>,
    /// Notified after a client has left.
    left: Condvar,
}

/// One client that is counted. Dropping its place removes it from the count.
#[derive(Debug)]
pub(crate) struct UnheardPlace {
    clients: Arc<UnheardClients>,
    session: u64,
    source: Source,
    /// Set when the client leaves: was it still counted?
    was_counted: OnceCell<bool>,
}

/// A client that is to be dropped. It is not counted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The number of its session.
    pub(super) session: u64,
    pub(super) client: IpAddr,
}

impl UnheardClients {
    /// At most this many clients at a time, and one more that is just being accepted.
    pub(super) fn new(max: usize) -> UnheardClients {
        UnheardClients {
            max,
            order: OrderedMutex::new(Rank::Leaf, DropOrder::default()),
            left: Condvar::new(),
        }
    }

    /// Counts a new client, with the number of its session. If there is one too many now,
    /// [`drop_first`](Self::drop_first) says which. Each thread that adds a client then calls
    /// that, so the limit holds.
    pub(super) fn enter(self: &Arc<UnheardClients>, session: u64, source: Source) -> UnheardPlace {
        self.order.lock().add(session, source, Instant::now());
        UnheardPlace {
            clients: Arc::clone(self),
            session,
            source,
            was_counted: OnceCell::new(),
        }
    }

    /// The session of the client that is to be dropped, if this new client exceeds the limit.
    /// That client may be the new one. The client of a listed proxy has no place yet: it does
    /// not count, and has the weight of a source with one client.
    ///
    /// If all sessions are in use, one client must be dropped in any case. Then the new client
    /// is dropped, unless an older client has a greater weight, or has had [`PROTECTED_TIME`].
    pub(super) fn first_to_drop(
        &self,
        new: Option<&UnheardPlace>,
        all_sessions_in_use: bool,
    ) -> Option<u64> {
        let order = self.order.lock();
        self.select(&order, new, all_sessions_in_use, Instant::now())
    }

    /// Removes the client that is to be dropped, if there is one too many with this new
    /// client. The caller ends its session.
    pub(super) fn drop_first(
        &self,
        new: Option<&UnheardPlace>,
        all_sessions_in_use: bool,
    ) -> Option<Dropped> {
        let mut order = self.order.lock();
        let session = self.select(&order, new, all_sessions_in_use, Instant::now())?;
        let client = order.remove(session)?.client();
        Some(Dropped { session, client })
    }

    fn select(
        &self,
        order: &DropOrder,
        new: Option<&UnheardPlace>,
        all_sessions_in_use: bool,
        now: Instant,
    ) -> Option<u64> {
        let is_too_many = all_sessions_in_use || new.is_some() && order.len() > self.max;
        let first = order.first().filter(|_| is_too_many)?;
        let weight = new.map_or(Some(Weight::OF_ONE), |new| order.weight(new.source));
        let is_worse = Some(first.weight) > weight;
        if !all_sessions_in_use || is_worse {
            return Some(first.client());
        }
        let had_time = |since: Instant| now.saturating_duration_since(since) >= PROTECTED_TIME;
        let is_unpermitted = new.is_some_and(|new| new.source.is_unpermitted());
        let oldest = order.oldest().filter(|_| !is_unpermitted);
        let oldest = oldest.filter(|&(_, since)| had_time(since));
        let oldest = oldest.map(|(client, _)| client);
        oldest.or(new.map(|new| new.session))
    }

    /// Waits until the client of this session leaves, for at most `limit`.
    pub(super) fn wait_until_left(&self, session: u64, limit: Duration) {
        let order = self.order.lock();
        let is_counted = |order: &mut DropOrder| order.contains(session);
        drop(order.wait_timeout_while(&self.left, limit, is_counted));
    }
}

impl UnheardPlace {
    /// Removes the client from the count: its request is complete, or it is about to get its
    /// last reply. Each call returns false if the client was dropped before: then another
    /// thread closes the connection, and the caller must send no reply.
    pub(super) fn leave(&self) -> bool {
        *self.was_counted.get_or_init(|| {
            let removed = self.clients.order.lock().remove(self.session);
            self.clients.left.notify_all();
            removed.is_some()
        })
    }

    /// The number of the client's session.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// The time for its request, if others have `timeout`.
    pub(super) fn timeout(&self, timeout: Duration) -> Duration {
        match self.source.is_unpermitted() {
            true => timeout.min(UNPERMITTED_TIMEOUT),
            false => timeout,
        }
    }
}

impl Drop for UnheardPlace {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enters a client from 10.0.0.`host`; returns its place and the session that is dropped.
    fn enter(
        clients: &Arc<UnheardClients>,
        session: u64,
        host: u8,
        is_unpermitted: bool,
        all_sessions_in_use: bool,
    ) -> (UnheardPlace, Option<u64>) {
        let source = Source::new([10, 0, 0, host].into(), is_unpermitted);
        let place = clients.enter(session, source);
        let dropped = clients.drop_first(Some(&place), all_sessions_in_use);
        (place, dropped.map(|it| it.session))
    }

    fn count(clients: &UnheardClients) -> usize {
        clients.order.lock().len()
    }

    #[test]
    fn s24_one_client_more_than_the_limit_drops_one() {
        let clients = Arc::new(UnheardClients::new(2));
        let (first, dropped) = enter(&clients, 1, 1, false, false);
        assert_eq!(dropped, None);
        let (second, dropped) = enter(&clients, 2, 2, false, false);
        assert_eq!(dropped, None);
        let (third, dropped) = enter(&clients, 3, 2, false, false);
        assert_eq!(dropped, Some(2));
        // It has its answer once and for all, and its end changes nothing.
        assert!(!second.leave() && !second.leave());
        drop(second);
        assert_eq!(count(&clients), 2);
        assert!(first.leave() && first.leave());
        assert_eq!(count(&clients), 1);
        drop((first, third));
        assert_eq!(count(&clients), 0);
    }

    #[test]
    fn s25_a_new_client_without_a_permit_drops_no_other() {
        let clients = Arc::new(UnheardClients::new(2));
        let _held = [1, 2].map(|it| enter(&clients, it, 1, false, false));
        let (unpermitted, dropped) = enter(&clients, 3, 2, true, false);
        assert_eq!(dropped, Some(3));
        assert!(!unpermitted.leave());
    }

    #[test]
    fn s28_while_all_sessions_are_in_use_age_alone_drops_no_client_for_five_seconds() {
        let clients = Arc::new(UnheardClients::new(8));
        let _first = enter(&clients, 1, 1, false, false);
        // Another source with as many clients, and the same source.
        assert_eq!(enter(&clients, 2, 2, false, true).1, Some(2));
        assert_eq!(enter(&clients, 3, 1, false, true).1, Some(3));
        // A source with more than the new client's, and one without a permit.
        let _second = enter(&clients, 4, 1, false, false);
        let _other = enter(&clients, 5, 2, false, true);
        assert_eq!(_other.1, Some(1));
        let _unpermitted = enter(&clients, 6, 3, true, false);
        assert_eq!(enter(&clients, 7, 4, false, true).1, Some(6));
        assert_eq!(enter(&clients, 8, 4, true, true).1, Some(8));
        // Later the oldest is dropped, whatever its weight, unless no rule permits the new one.
        let network =
            |number: u16| Source::new([0x2001, 0xdb8, number, 0, 0, 0, 0, 1].into(), false);
        let later = Instant::now() + PROTECTED_TIME;
        for (source, expected) in [
            (network(1), 4),
            (Source::new([10, 0, 0, 9].into(), true), 9),
        ] {
            let new = clients.enter(9, source);
            let select = |now| clients.select(&clients.order.lock(), Some(&new), true, now);
            assert_eq!(select(Instant::now()), Some(9));
            assert_eq!(select(later), Some(expected));
        }
    }

    #[test]
    fn x34_while_all_sessions_are_in_use_a_proxy_has_the_weight_of_one_client() {
        let clients = Arc::new(UnheardClients::new(2));
        let proxy = |all_sessions_in_use, now| {
            clients.select(&clients.order.lock(), None, all_sessions_in_use, now)
        };
        let now = Instant::now();
        assert_eq!(proxy(true, now), None);
        let _one_of_each = [1, 2].map(|it| enter(&clients, it, it as u8, false, false));
        assert_eq!((proxy(false, now), proxy(true, now)), (None, None));
        assert_eq!(proxy(true, now + 2 * PROTECTED_TIME), Some(1));
        let _place = clients.enter(3, Source::new([10, 0, 0, 2].into(), false));
        assert_eq!((proxy(false, now), proxy(true, now)), (None, Some(2)));
        let _unpermitted = clients.enter(4, Source::new([10, 0, 0, 3].into(), true));
        assert_eq!(proxy(true, now), Some(4));
    }

    #[test]
    fn s25_the_time_for_a_request_is_short_without_a_permit() {
        let clients = Arc::new(UnheardClients::new(8));
        let seconds = Duration::from_secs;
        let (permitted, _) = enter(&clients, 1, 1, false, false);
        let (unpermitted, _) = enter(&clients, 2, 2, true, false);
        assert_eq!(permitted.timeout(seconds(30)), seconds(30));
        assert_eq!(unpermitted.timeout(seconds(30)), seconds(5));
        assert_eq!(unpermitted.timeout(seconds(2)), seconds(2));
    }
}
