//! The lookup of the name in a request: on another thread, since nothing can interrupt the resolver.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, select};

use crate::events::RequestError;
use crate::net::{self, Deadline, resolve};
use crate::protocol::HostName;
use crate::server::lookup_queue::NameSource;
use crate::server::pending_request::PendingRequest;
use crate::server::session::SessionSlot;
use crate::sync::{OrderedMutex, Rank};
use crate::trace::{self, Wait};

/// How often a session that waits for a lookup looks whether its client is still there.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The name of one request, while its session waits.
#[derive(Debug)]
struct NameLookup {
    name: HostName,
    port: u16,
    /// Where the result is sent; a leaf in the lock order. The lookup takes it, so a panic
    /// drops it, and the session does not wait for ever.
    answer: OrderedMutex<Option<Sender<LookupResult>>>,
    /// A lookup that outlasts its session still counts as a session.
    _slot: Arc<SessionSlot>,
}

type LookupResult = Result<Vec<SocketAddr>, RequestError>;

impl PendingRequest<'_> {
    /// Resolves a name on a thread of the pool, when the client has a turn. The wait ends at
    /// the deadline, and if the session is terminated or its client is gone; the lookup then
    /// leaves the queue, or its result is dropped.
    pub(super) fn look_up(&self, name: &HostName, port: u16, deadline: Deadline) -> LookupResult {
        let (context, session) = (self.context, self.session);
        let (answer, found) = bounded(1);
        let lookup = Arc::new(NameLookup {
            name: name.clone(),
            port,
            answer: OrderedMutex::new(Rank::Leaf, Some(answer)),
            _slot: session.slot(),
        });
        // The queue refers to it weakly: the end of this function takes it out.
        let source: Weak<NameLookup> = Arc::downgrade(&lookup);
        let (queue, prefixes) = (&context.name_lookups, context.source_prefixes(session));
        queue.request(&context.threads, prefixes, source);
        let _wait = trace::wait(|| Wait::Lookup(name.to_string().into()));
        let terminated = session.terminated();
        loop {
            let next_look = deadline.min_after(POLL_INTERVAL);
            let answer = select! {
                recv(found) -> answer => Some(answer),
                recv(terminated) -> _ => return Err(RequestError::ClientLeft),
                default(next_look.remaining()) => None,
            };
            if let Some(answer) = answer {
                return answer.unwrap_or_else(|_| Err(lookup.panicked()));
            }
            if deadline.is_over() {
                return Err(RequestError::TimedOut);
            }
            if net::is_gone(&session.client) {
                return Err(RequestError::ClientLeft);
            }
        }
    }
}

impl NameLookup {
    fn not_found(&self, reason: String) -> RequestError {
        RequestError::NotFound(self.name.clone(), reason)
    }

    /// The thread of the lookup has dropped its end of the channel without a result.
    fn panicked(&self) -> RequestError {
        self.not_found("the lookup ended without a result".to_owned())
    }

    fn send(&self, answer: Option<Sender<LookupResult>>, result: LookupResult) {
        if let Some(answer) = answer {
            // Fails if the session has stopped waiting.
            let _ = answer.send(result);
        }
    }
}

impl NameSource for NameLookup {
    fn look_up_next(self: Arc<NameLookup>) {
        let answer = self.answer.lock().take();
        let found = resolve::lookup(&self.name, self.port);
        let result = found.map_err(|error| self.not_found(error.to_string()));
        self.send(answer, result);
    }

    fn fail(&self, error: io::Error) {
        let answer = self.answer.lock().take();
        let result = Err(RequestError::ResourceExhausted("thread", error));
        self.send(answer, result);
    }
}
