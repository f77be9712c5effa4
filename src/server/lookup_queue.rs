//! Which session or association has the next name lookup.
//!
//! A lookup takes a thread and memory, and nothing can interrupt it. So their number is
//! limited, and names wait. Clients take turns, and so do the sessions and associations of
//! one client. A thread that has finished a lookup takes the next turn, until no source waits
//! that may have one; no thread waits for a turn.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Weak};

use crate::server::limits::name_lookups::of_one_client;
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::semaphore::{AcquireError, KeyedSemaphore, SlotGuard};
use crate::sync::thread_pool::ThreadPool;
use crate::sync::{OrderedMutex, Rank};

/// A source of names: a request, or an association, as the thread of a lookup sees it.
pub(crate) trait NameSource: Debug + Send + Sync {
    /// Looks up the next name that waits, on this thread. An association enters the queue
    /// again, before and after that, if more of its names wait and it may have one more
    /// lookup. It must not hold the association during the lookup.
    fn look_up_next(self: Arc<Self>);

    /// No thread can look up the names that wait.
    fn fail(&self, error: io::Error);
}

/// A source that waits. It may end while it waits.
type Waiting = Weak<dyn NameSource>;

/// The turn of one source.
#[derive(Debug)]
struct Turn {
    source: Waiting,
    /// The slot for its lookup.
    slot: SlotGuard<SourcePrefix>,
}

/// The sources of one client that wait, at least one.
#[derive(Debug)]
struct WaitingClient {
    /// An IPv6 client has its turn as a /64, and its slot as all its prefixes.
    prefixes: SourcePrefixes,
    sources: VecDeque<Waiting>,
}

/// The clients that wait. The one that stands first has its turn first.
#[derive(Debug)]
struct WaitingClients {
    clients: VecDeque<WaitingClient>,
    /// Sources of all clients, those that have ended included.
    count: usize,
    /// At this count, those that have ended are removed.
    max_count: usize,
}

/// The sources with names that wait for a lookup, each at most once.
#[derive(Debug)]
pub(crate) struct LookupQueue {
    /// Lookups that are going on, per source prefix.
    slots: KeyedSemaphore<SourcePrefix>,
    /// The holder of the lock takes a slot, so that none is free while a source waits that
    /// may use it.
    waiting: OrderedMutex<WaitingClients>,
}

/// Fewer sources that have ended are not worth a look at all.
const MIN_COUNT_TO_REMOVE: usize = 64;

impl LookupQueue {
    /// So many lookups at a time, of which one client may have a quarter.
    pub(super) fn new(max_lookups: usize) -> LookupQueue {
        let waiting = WaitingClients {
            clients: VecDeque::new(),
            count: 0,
            max_count: MIN_COUNT_TO_REMOVE,
        };
        LookupQueue {
            slots: KeyedSemaphore::new(max_lookups, of_one_client(max_lookups)),
            waiting: OrderedMutex::new(Rank::LookupQueue, waiting),
        }
    }

    /// Adds a source of this client, and starts a thread of the pool if a source may look up
    /// a name now; perhaps another one.
    pub(crate) fn request(
        self: &Arc<LookupQueue>,
        threads: &ThreadPool,
        prefixes: SourcePrefixes,
        source: Waiting,
    ) {
        self.push(prefixes, source);
        while let Some(turn) = self.next() {
            let next = Weak::clone(&turn.source);
            let started = threads.start("lookup".to_owned(), {
                let queue = Arc::clone(self);
                move || queue.run(turn)
            });
            let Err(error) = started else {
                return;
            };
            // Perhaps no lookup is going on, whose thread would take the turn later.
            if let Some(next) = next.upgrade() {
                next.fail(error);
            }
        }
    }

    /// Adds a source of this client, for the thread of a lookup: it takes the next turn when
    /// its lookup has ended. Other threads call [`request`](Self::request).
    pub(crate) fn push(&self, prefixes: SourcePrefixes, source: Waiting) {
        self.waiting.lock().push(prefixes, source);
    }

    /// Takes the turn of the source that is next, and a slot for its lookup. `None` if none
    /// waits, or no slot is free for those that wait: then a thread that drops a slot calls
    /// this after that.
    fn next(&self) -> Option<Turn> {
        let mut waiting = self.waiting.lock();
        let acquire = |client: &WaitingClient| {
            let keys = client.prefixes.with_factors();
            self.slots.try_acquire(keys)
        };
        let mut slots = waiting.clients.iter().map(acquire).enumerate();
        let is_decided =
            |slot: &Result<_, AcquireError>| !matches!(slot, Err(AcquireError::PerKey));
        // If all slots are in use, no other client gets one either.
        let (position, slot) = slots.find(|(_, slot)| is_decided(slot))?;
        let slot = slot.ok()?;
        let source = waiting.take(position)?;
        Some(Turn { source, slot })
    }

    /// Carries out this turn, and then others while there are any.
    fn run(&self, turn: Turn) {
        let mut next = Some(turn);
        while let Some(Turn { source, slot }) = next {
            if let Some(source) = source.upgrade() {
                source.look_up_next();
            }
            // First the slot: the turn that is taken next may need it.
            drop(slot);
            next = self.next();
        }
    }
}

impl WaitingClients {
    fn push(&mut self, prefixes: SourcePrefixes, source: Waiting) {
        if self.count >= self.max_count {
            self.remove_ended();
        }
        self.count += 1;
        let is_same =
            |client: &&mut WaitingClient| client.prefixes.smallest() == prefixes.smallest();
        match self.clients.iter_mut().find(is_same) {
            Some(client) => client.sources.push_back(source),
            None => self.clients.push_back(WaitingClient {
                prefixes,
                sources: VecDeque::from([source]),
            }),
        }
    }

    /// Removes the sources that have ended. The next time is when there are twice as many as
    /// now, so a source costs the same however many wait.
    fn remove_ended(&mut self) {
        self.count = 0;
        for client in &mut self.clients {
            client.sources.retain(|source| source.strong_count() > 0);
            self.count += client.sources.len();
        }
        self.clients.retain(|client| !client.sources.is_empty());
        self.max_count = MIN_COUNT_TO_REMOVE.max(2 * self.count);
    }

    /// The next source of this client, which goes to the end of the clients.
    fn take(&mut self, position: usize) -> Option<Waiting> {
        let mut client = self.clients.remove(position)?;
        let source = client.sources.pop_front()?;
        self.count -= 1;
        if !client.sources.is_empty() {
            self.clients.push_back(client);
        }
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    const LOOKUPS: usize = 32;

    struct Source(&'static str);

    impl fmt::Debug for Source {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }
    }

    impl NameSource for Source {
        fn look_up_next(self: Arc<Self>) {}

        fn fail(&self, _: io::Error) {}
    }

    fn client(number: u8) -> SourcePrefixes {
        SourcePrefixes::of([192, 0, 2, number].into())
    }

    /// A queue with these associations, each with the number of its client.
    fn queue(names: &[(u8, &'static str)]) -> (LookupQueue, Vec<Arc<Source>>) {
        let queue = LookupQueue::new(LOOKUPS);
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
            let source = turn.source.upgrade().expect("a source");
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
        assert_eq!(order.len(), LOOKUPS / 4 + 1);
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
        assert_eq!(order.len(), LOOKUPS);
        drop(slots);
        assert_eq!(turns(&queue).0.len(), 40 - LOOKUPS);
        assert!(queue.waiting.lock().clients.is_empty());
    }

    #[test]
    fn u18_d27_sources_that_have_ended_leave_the_queue() {
        let (queue, sources) = queue(&[(1, "a"), (1, "b"), (2, "c")]);
        drop(sources);
        let living = Arc::new(Source("living"));
        let waiting: Waiting = Arc::downgrade(&living) as Waiting;
        queue.push(client(3), waiting);
        let sources = std::iter::from_fn(|| queue.next()).map(|turn| turn.source);
        assert_eq!(sources.filter_map(|it| it.upgrade()).count(), 1);
    }

    /// While lookups hang, sessions come and go.
    #[test]
    fn d27_the_queue_is_not_much_longer_than_the_list_of_those_that_wait() {
        let (queue, _sources) = queue(&[(1, "hangs"); LOOKUPS]);
        let (_, _slots) = turns(&queue);
        for number in 0..100_000 {
            let source = Arc::new(Source("short"));
            let waiting: Waiting = Arc::downgrade(&source) as Waiting;
            queue.push(client((number % 8) as u8), waiting);
            let waiting = queue.waiting.lock();
            let lengths = waiting.clients.iter().map(|client| client.sources.len());
            assert_eq!(lengths.sum::<usize>(), waiting.count);
            assert!(
                waiting.count <= 2 * MIN_COUNT_TO_REMOVE,
                "{}",
                waiting.count
            );
        }
    }
}
