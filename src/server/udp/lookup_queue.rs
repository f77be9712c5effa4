//! Which association has the next name lookup.
//!
//! Clients take turns, and so do the associations of one client. A lookup takes a thread, and
//! nothing can interrupt it. So their number is limited, and names wait. A thread that has
//! finished a lookup takes the next turn, until no association waits that may have one; no
//! thread waits for a turn.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use crate::server::limits::{MAX_NAME_LOOKUPS, MAX_NAME_LOOKUPS_PER_CLIENT};
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::semaphore::{KeyedSemaphore, SlotGuard};
use crate::sync::{OrderedMutex, Rank};

/// An association, as the thread of a lookup sees it.
pub(crate) trait NameSource: Debug + Send + Sync {
    /// Looks up the next name that waits, on this thread. Before and after that it enters the
    /// queue again if more names wait and the association may have one more lookup. It must
    /// not hold the association during the lookup.
    fn look_up_next(self: Arc<Self>);

    /// Drops all names that wait, with their datagrams: no thread can look them up.
    fn drop_waiting(&self);
}

/// A waiting association. It may end while it waits.
type Waiting = Weak<dyn NameSource>;

/// The turn of one association.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) association: Waiting,
    /// The slot for its lookup.
    slot: SlotGuard<SourcePrefix>,
}

/// The associations of one client that wait, at least one.
#[derive(Debug)]
struct WaitingClient {
    /// An IPv6 client has its turn as a /64, and its slot as all its prefixes.
    prefixes: SourcePrefixes,
    associations: VecDeque<Waiting>,
}

/// The associations with names that wait for a lookup, each at most once.
#[derive(Debug)]
pub(crate) struct LookupQueue {
    /// Lookups that are going on, per source prefix.
    slots: KeyedSemaphore<SourcePrefix>,
    /// The client that stands first has its turn first. The holder of the lock takes a slot,
    /// so that none is free while an association waits that may use it.
    clients: OrderedMutex<VecDeque<WaitingClient>>,
}

impl Default for LookupQueue {
    fn default() -> LookupQueue {
        LookupQueue {
            slots: KeyedSemaphore::new(MAX_NAME_LOOKUPS, MAX_NAME_LOOKUPS_PER_CLIENT),
            clients: OrderedMutex::new(Rank::LookupQueue, VecDeque::new()),
        }
    }
}

impl LookupQueue {
    /// Adds an association of this client. After that the caller takes the
    /// [`next`](Self::next) turn, if there is one.
    pub(super) fn push(&self, prefixes: SourcePrefixes, association: Waiting) {
        let mut clients = self.clients.lock();
        // Those that have ended: the queue is no longer than the list of associations.
        for client in &mut *clients {
            let waiting = &mut client.associations;
            waiting.retain(|association| association.strong_count() > 0);
        }
        clients.retain(|client| !client.associations.is_empty());
        let is_same = |client: &&mut WaitingClient| client.prefixes.host() == prefixes.host();
        match clients.iter_mut().find(is_same) {
            Some(client) => client.associations.push_back(association),
            None => clients.push_back(WaitingClient {
                prefixes,
                associations: VecDeque::from([association]),
            }),
        }
    }

    /// Takes the turn of the association that is next, and a slot for its lookup. `None` if
    /// none waits, or no slot is free for those that wait: then a thread that drops a slot
    /// calls this after that.
    pub(super) fn next(&self) -> Option<Turn> {
        let mut clients = self.clients.lock();
        let acquire = |client: &WaitingClient| {
            let keys = client.prefixes.with_factors();
            self.slots.try_acquire(keys).ok()
        };
        let slots = clients.iter().map(acquire).enumerate();
        let (position, slot) = slots.filter_map(|(at, slot)| Some((at, slot?))).next()?;
        let mut client = clients.remove(position)?;
        let association = client.associations.pop_front()?;
        if !client.associations.is_empty() {
            clients.push_back(client);
        }
        Some(Turn { association, slot })
    }

    /// Carries out this turn, and then others while there are any.
    pub(super) fn run(&self, turn: Turn) {
        let mut next = Some(turn);
        while let Some(Turn { association, slot }) = next {
            if let Some(association) = association.upgrade() {
                association.look_up_next();
            }
            // First the slot: the turn that is taken next may need it.
            drop(slot);
            next = self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    struct Source(&'static str);

    impl fmt::Debug for Source {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }
    }

    impl NameSource for Source {
        fn look_up_next(self: Arc<Self>) {}

        fn drop_waiting(&self) {}
    }

    fn client(number: u8) -> SourcePrefixes {
        SourcePrefixes::of([192, 0, 2, number].into())
    }

    /// A queue with these associations, each with the number of its client.
    fn queue(names: &[(u8, &'static str)]) -> (LookupQueue, Vec<Arc<Source>>) {
        let queue = LookupQueue::default();
        let mut sources = Vec::new();
        for &(number, name) in names {
            let source = Arc::new(Source(name));
            let waiting: Waiting = Arc::downgrade(&source) as Waiting;
            queue.push(client(number), waiting);
            sources.push(source);
        }
        (queue, sources)
    }

    /// The associations in the order of their turns, each with its slot.
    fn turns(queue: &LookupQueue) -> (Vec<String>, Vec<SlotGuard<SourcePrefix>>) {
        let turns = std::iter::from_fn(|| queue.next());
        let named = |turn: Turn| {
            let source = turn.association.upgrade().expect("an association");
            (format!("{source:?}"), turn.slot)
        };
        turns.map(named).unzip()
    }

    #[test]
    fn u18_clients_take_turns_and_so_do_their_associations() {
        let names = [
            (1, "1a"),
            (1, "1b"),
            (1, "1c"),
            (2, "2a"),
            (3, "3a"),
            (2, "2b"),
        ];
        let (queue, _sources) = queue(&names);
        let (order, _slots) = turns(&queue);
        assert_eq!(order, ["1a", "2a", "3a", "1b", "2b", "1c"]);
    }

    #[test]
    fn u18_a_client_with_all_its_slots_does_not_delay_others() {
        let busy = [(1, "busy"); 20];
        let (queue, _sources) = queue(&[&busy[..], &[(2, "other")]].concat());
        let (order, slots) = turns(&queue);
        assert_eq!(order.len(), MAX_NAME_LOOKUPS_PER_CLIENT + 1);
        assert_eq!(order[1], "other");
        // Each slot that is free again serves one more.
        for slot in slots.into_iter().take(3) {
            drop(slot);
            assert!(queue.next().is_some());
        }
    }

    #[test]
    fn u18_all_slots_are_used_and_no_more() {
        let (queue, _sources) = queue(&(0..40).map(|number| (number, "one")).collect::<Vec<_>>());
        let (order, slots) = turns(&queue);
        assert_eq!(order.len(), MAX_NAME_LOOKUPS);
        drop(slots);
        assert_eq!(turns(&queue).0.len(), 40 - MAX_NAME_LOOKUPS);
        assert!(queue.clients.lock().is_empty());
    }

    #[test]
    fn u18_associations_that_have_ended_leave_the_queue() {
        let (queue, sources) = queue(&[(1, "a"), (1, "b"), (2, "c")]);
        drop(sources);
        let living = Arc::new(Source("living"));
        let waiting: Waiting = Arc::downgrade(&living) as Waiting;
        queue.push(client(3), waiting);
        let (order, _slots) = turns(&queue);
        assert_eq!(order, ["living"]);
    }
}
