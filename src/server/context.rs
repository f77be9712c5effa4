//! What all sessions share.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};

use super::background_check::BackgroundCheck;
use super::limits::{MAX_NEXT_LOGINS_PER_USER, MAX_WAITING_LOGINS_PER_USER, max_extra_attempts};
use super::lookup_queue::LookupQueue;
use super::session::{Session, SessionRegistry};
use super::udp::bindings::UdpBindings;
use super::unheard::UnheardClients;
use crate::auth::{Authenticator, LoginKey, LoginRateLimiter, Users};
use crate::config::{Content, ReloadEvent, Settings, WatchedFile};
use crate::events::{Event, Rejected};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net::{self, PortRange};
use crate::protocol::socks4;
use crate::rules::{Rules, RulesFile, judged_source};
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::semaphore::KeyedSemaphore;
use crate::sync::thread_pool::ThreadPool;
use crate::sync::{OnceLock, OrderedMutex, Rank};
use crate::trace::{self, Mark};

/// One client may have a quarter of all lingering closes, and of all queries of identd, so that
/// others have some as well.
const PART_OF_ONE_CLIENT: usize = 4;

/// The shared state of a server. Each part has a lock of its own, if it needs one.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) settings: Settings,
    rules_file: RulesFile,
    /// The checks of the rules file for datagrams.
    background_check: Arc<BackgroundCheck>,
    /// Set before the server runs, or never: then no client can log in.
    pub(super) authenticator: OnceLock<Authenticator>,
    pub(super) login_rate: LoginRateLimiter,
    pub(super) clock: LocalClock,
    pub(crate) log: Log,
    pub(crate) registry: Arc<SessionRegistry>,
    pub(super) unheard: Arc<UnheardClients>,
    /// The last client of [`is_unpermitted`](Self::is_unpermitted), the answer, and the rules
    /// that gave it; a leaf in the lock order. Clients often connect several times in a row,
    /// and many rules take long.
    last_unpermitted: OrderedMutex<Option<(IpAddr, bool, Weak<Rules>)>>,
    /// Lingering closes that are going on, per source prefix.
    pub(super) lingering_closes: KeyedSemaphore<SourcePrefix>,
    /// Queries of identd that are going on, per source prefix.
    pub(super) ident_queries: KeyedSemaphore<SourcePrefix>,
    pub(super) threads: ThreadPool,
    /// Attempts to connect beside the oldest of each session, per source prefix.
    pub(super) extra_attempts: KeyedSemaphore<SourcePrefix>,
    /// Lookups of the names in requests and datagrams. The threads that look up names hold it,
    /// and not the context, since nothing can interrupt them.
    pub(super) name_lookups: Arc<LookupQueue>,
    /// Logins that wait for the rate limiter, per source prefix and user name.
    pub(super) waiting_logins: KeyedSemaphore<LoginKey>,
    /// Those of them that may take the next turn of their address.
    pub(super) next_logins: KeyedSemaphore<LoginKey>,
    pub(super) udp_bindings: UdpBindings,
    pub(super) ports: PortRange,
    /// The ports on which the server accepts clients. Set before the first client.
    pub(super) listening_ports: OnceLock<Vec<u16>>,
}

impl ServerContext {
    pub(super) fn new(
        settings: Settings,
        rules_file: RulesFile,
        clock: LocalClock,
        log: Log,
    ) -> ServerContext {
        let extra_attempts = max_extra_attempts(settings.max_sessions);
        let max_unheard = settings.max_unheard();
        let max_of_one = max_unheard.div_ceil(PART_OF_ONE_CLIENT);
        ServerContext {
            rules_file,
            background_check: Arc::default(),
            authenticator: OnceLock::new(),
            login_rate: LoginRateLimiter::default(),
            clock,
            log,
            registry: Arc::new(SessionRegistry::new(&settings)),
            unheard: Arc::new(UnheardClients::new(max_unheard)),
            lingering_closes: KeyedSemaphore::new(max_unheard, max_of_one),
            ident_queries: KeyedSemaphore::new(max_unheard, max_of_one),
            last_unpermitted: OrderedMutex::new(Rank::Leaf, None),
            threads: ThreadPool::default(),
            extra_attempts: KeyedSemaphore::new(extra_attempts, extra_attempts.div_ceil(4)),
            name_lookups: Arc::new(LookupQueue::new(settings.max_name_lookups)),
            waiting_logins: KeyedSemaphore::new(usize::MAX, MAX_WAITING_LOGINS_PER_USER),
            next_logins: KeyedSemaphore::new(usize::MAX, MAX_NEXT_LOGINS_PER_USER),
            udp_bindings: UdpBindings::new(settings.max_associations),
            ports: PortRange::new(settings.bind_ports.clone()),
            listening_ports: OnceLock::new(),
            settings,
        }
    }

    /// The rules in force now. It may read the file: the caller must hold no lock.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        let (rules, event) = self.rules_file.current();
        self.log_reload(&self.rules_file, event, || self.rules_remarks());
        rules
    }

    /// The rules in force, for datagrams. If a check of the file is due, a thread of the pool
    /// begins it. After a pause this call waits for its end, some milliseconds at most;
    /// otherwise later calls return the rules that it has found. If no thread can start, a
    /// later call tries again.
    pub(super) fn rules_for_datagrams(self: &Arc<ServerContext>) -> Arc<Rules> {
        if let Some(running) = self.background_check.begin() {
            let context = Arc::clone(self);
            let check = move || {
                let _running = running;
                context.rules();
            };
            let _ = self.threads.start("rules".to_owned(), check);
        }
        self.background_check.wait_after_pause();
        self.rules_file.content()
    }

    /// The same as [`rules`](Self::rules), after a check of the file that a session has
    /// begun, and whether the file is being written: for the main thread, which must miss no
    /// change.
    pub(super) fn rules_after_check(&self) -> (Arc<Rules>, bool) {
        let (rules, event) = self.rules_file.current_after_check();
        if event == Some(ReloadEvent::BeingWritten) {
            return (rules, true);
        }
        self.log_reload(&self.rules_file, event, || self.rules_remarks());
        (rules, false)
    }

    /// The address under which a client counts for limits. As in the rules, a client behind NAT64
    /// is the IPv4 address in its address: otherwise all of them would be one client.
    pub(super) fn counted_address(&self, client: IpAddr) -> IpAddr {
        judged_source(client, &self.settings.nat64)
    }

    /// What counts as the same client as that of this session.
    pub(super) fn source_prefixes(&self, session: &Session) -> SourcePrefixes {
        SourcePrefixes::of(self.counted_address(session.client_address().ip()))
    }

    /// Do the rules in force permit nothing to a client with this address? This function does
    /// not read the file, so after a change it may answer by the old rules.
    pub(super) fn is_unpermitted(&self, client: IpAddr) -> bool {
        let rules = self.rules_file.content();
        if let Some((of, answer, by)) = &*self.last_unpermitted.lock()
            && *of == client
            && by.as_ptr() == Arc::as_ptr(&rules)
        {
            return *answer;
        }
        let answer = !rules.could_permit(client, &self.settings.nat64);
        *self.last_unpermitted.lock() = Some((client, answer, Arc::downgrade(&rules)));
        answer
    }

    /// Does this connection lead to a listener of this server, while proxies may announce their
    /// clients? Then the client could send a header and choose its own address. The accepted end
    /// is refused as a loop only while the registry has this connection, and the session of a
    /// client that leaves at once may end before that. So no byte may be relayed.
    pub(super) fn leads_to_own_listener(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is_own_port = || {
            let ports = self.listening_ports.get();
            ports.is_some_and(|ports| ports.contains(&remote.port()))
        };
        // A connection to an address of this machine comes from the same one, or from loopback.
        let to_this_machine = local.ip() == remote.ip() || remote.ip().to_canonical().is_loopback();
        !self.settings.proxy_from.is_empty() && to_this_machine && is_own_port()
    }

    /// The users in force now. It may read the file: the caller must hold no lock.
    pub(super) fn users(&self, authenticator: &Authenticator) -> Arc<Users> {
        let users_file = authenticator.users_file();
        let (users, event) = users_file.current();
        self.log_reload(users_file, event, || users_file.remarks());
        users
    }

    /// How many rules are in force. Does not look at the file.
    pub(super) fn rule_count(&self) -> usize {
        self.rules_file.content().len()
    }

    /// How many users there are; 0 without a users file.
    pub(super) fn user_count(&self) -> usize {
        let authenticator = self.authenticator.get();
        authenticator.map_or(0, |it| it.users_file().content().len())
    }

    /// Reads the rules, and the users if there are any, again, and reports the result, also
    /// if nothing has changed: the operator asks for it.
    pub(super) fn reload_files(&self) {
        self.reload(&self.rules_file, || self.rules_remarks());
        if let Some(authenticator) = self.authenticator.get() {
            let users_file = authenticator.users_file();
            self.reload(users_file, || users_file.remarks());
        }
    }

    fn reload<T: Content>(&self, file: &WatchedFile<T>, remarks: impl FnOnce() -> Vec<String>) {
        match file.reload() {
            Some(event) => self.log_reload(file, Some(event), remarks),
            None => self.log.send(Event::FileUnchanged {
                path: file.path().to_owned(),
                about: T::NAME,
                remarks: remarks(),
            }),
        }
    }

    /// Reports the event, and with new content the remarks on it. They take some milliseconds
    /// if there are many rules, and up to seconds if many of these have long lists. No lock is
    /// held then: only this session waits.
    fn log_reload<T: Content>(
        &self,
        file: &WatchedFile<T>,
        event: Option<ReloadEvent>,
        remarks: impl FnOnce() -> Vec<String>,
    ) {
        let Some(event) = event else {
            return;
        };
        let remarks = match event {
            ReloadEvent::Reloaded { .. } => remarks(),
            ReloadEvent::Kept(_) | ReloadEvent::BeingWritten => Vec::new(),
        };
        self.log.send(Event::FileReloaded {
            path: file.path().to_owned(),
            about: T::NAME,
            event,
            remarks,
        });
    }

    fn rules_remarks(&self) -> Vec<String> {
        let clients = self
            .settings
            .client_kinds(self.authenticator.get().is_some());
        self.rules_file.remarks(self.clock.now(), clients)
    }

    /// Rejects a client before its request is read, without waiting for anything.
    pub(super) fn reject(&self, client: &TcpStream, reason: Rejected) {
        trace::mark(|| Mark::Reject(reason.to_string()));
        // The client's version is not known yet. A SOCKS5 client reads a SOCKS4 rejection as
        // an invalid method selection, and gives up as well.
        let _ = net::send_nonblocking(client, &socks4::Reply::REJECTED.encode());
        self.log.send(Event::Rejected(reason));
    }
}
