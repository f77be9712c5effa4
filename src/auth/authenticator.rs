//! The authenticator checks the user and password of a login.
//!
//! A password is checked with Argon2, which is slow on purpose. A browser logs in for
//! each picture of a page, so credentials that were right are cached, and recognised in
//! microseconds at the addresses at which they were right. Wrong credentials always cost
//! one Argon2, whether the user exists or not: the time of the answer reveals nothing.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::try_generate_salt;
use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac, Output};
use crossbeam_channel::Receiver;

use super::error::AuthError;
use super::hash_turns::HashTurns;
use super::password_hash::{HashBuffer, PasswordHash};
use super::rate_limit::MEMORY_OF_FAILURES;
use super::users_file::{Users, UsersFile};
use crate::config::{LoadError, MemoryCheck, SyntaxError};
use crate::protocol::socks5::Credentials;
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::{OnceLock, OrderedMutex, Rank};

/// The hash that stands for a user who does not exist, while the file has no user. No
/// password is known for it.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm8gc3VjaCB1c2VyIQ\
                          $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Addresses that are stored with one cached credential: those of some devices and networks
/// of one person. One more replaces the oldest, and the next login there waits for its turn
/// like a first one.
const MAX_SOURCES: usize = 8;

/// Memory in bytes of one cached credential: a user name of 255 bytes, the hash, and the addresses.
const MEMORY_PER_CREDENTIAL: u64 = 900;

/// Checks logins against the users file.
pub struct Authenticator {
    users_file: UsersFile,
    dummy: PasswordHash,
    /// The memory in KiB that is reserved for `turns`.
    reserved_kib: usize,
    /// The key of the cache: random, made at the start, never shown.
    key: [u8; 16],
    /// Credentials that were right, by user. Only users of the file are in it, which
    /// bounds it. A leaf in the lock order.
    cache: OrderedMutex<HashMap<Vec<u8>, CachedCredential>>,
    /// The memory in which hashes are computed, one at a time.
    turns: HashTurns,
}

/// A password that was right.
struct CachedCredential {
    /// The hash against which it was checked. It counts only while the file has it.
    hash: PasswordHash,
    /// A keyed digest of the password. It can be compared in a microsecond, and reveals
    /// nothing without the key.
    tag: Output<Blake2bMac512>,
    /// The addresses, or the /64 networks, at which it was right, the newest last. Not the
    /// wider IPv6 prefixes: those can have many clients.
    sources: VecDeque<SourcePrefix>,
}

impl CachedCredential {
    /// Adds an address. If there are [`MAX_SOURCES`], it replaces the oldest.
    fn add_source(&mut self, source: SourcePrefix) {
        if self.sources.contains(&source) {
            return;
        }
        if self.sources.len() == MAX_SOURCES {
            self.sources.pop_front();
        }
        self.sources.push_back(source);
    }
}

impl fmt::Debug for Authenticator {
    /// Without secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authenticator({:?})", self.users_file)
    }
}

impl Authenticator {
    /// Opens the users file at this path and reserves address space for its most expensive
    /// hash. A changed file whose hashes need more is invalid: the number of sessions was
    /// computed for this memory.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has errors, `memory` has too little for it, or the system has
    /// no memory or no random numbers.
    pub fn open(path: &Path, memory: MemoryCheck) -> Result<Authenticator, LoadError> {
        let dummy = PasswordHash::parse(DUMMY_HASH).map_err(LoadError::Unreadable)?;
        let minimum = dummy.memory_kib();
        let reserved_kib = Arc::new(OnceLock::new());
        let first = Arc::clone(&reserved_kib);
        let check = move |users: &Users| {
            let (line, needed) = users.largest_hash();
            // Only the first file sets it.
            let _ = first.set(needed.max(minimum));
            check_memory(line, needed, first.get().copied().unwrap_or(minimum))
        };
        let users_file = UsersFile::open_with(path, check, memory)?;
        let reserved_kib = reserved_kib.get().copied().unwrap_or(minimum);
        let key = try_generate_salt();
        let key = key.map_err(|error| LoadError::Unreadable(error.to_string()))?;
        let mut buffer = HashBuffer::default();
        buffer
            .reserve(reserved_kib)
            .map_err(|error| LoadError::Unreadable(error.to_string()))?;
        Ok(Authenticator {
            users_file,
            dummy,
            reserved_kib,
            key,
            cache: OrderedMutex::new(Rank::Leaf, HashMap::new()),
            turns: HashTurns::new(buffer),
        })
    }

    /// The memory in bytes that is reserved for hashes. The first login uses it.
    pub fn hash_memory(&self) -> u64 {
        (self.reserved_kib as u64) << 10
    }

    /// The most memory in bytes that the cached credentials of all users need, and the failures
    /// of the rate limiter.
    pub fn cache_memory(&self) -> u64 {
        let (users, _) = self.users_file.current();
        users.len() as u64 * MEMORY_PER_CREDENTIAL + MEMORY_OF_FAILURES
    }

    /// The users file.
    pub fn users_file(&self) -> &UsersFile {
        &self.users_file
    }

    /// Were the same credentials right before at the address of this client, and do they
    /// still match the file? Takes microseconds, whatever the answer is.
    ///
    /// At another address the answer is no: a guesser there would learn at once, and
    /// without the rate limit of that address, whether a password is right.
    pub fn is_cached(&self, users: &Users, credentials: &Credentials, client: IpAddr) -> bool {
        let source = SourcePrefixes::of(client).smallest();
        let mut cache = self.cache.lock();
        let cached = self.find(&mut cache, users, credentials);
        cached.is_some_and(|cached| cached.sources.contains(&source))
    }

    /// The entry of these credentials, if they still match the file.
    fn find<'a>(
        &self,
        cache: &'a mut HashMap<Vec<u8>, CachedCredential>,
        users: &Users,
        credentials: &Credentials,
    ) -> Option<&'a mut CachedCredential> {
        let cached = cache.get_mut(&credentials.user)?;
        let is_in_force = users.hash(&credentials.user) == Some(&cached.hash);
        let mac = self.mac(&credentials.password)?;
        // Compared in constant time.
        let is_same = mac.verify(&cached.tag).is_ok();
        (is_in_force && is_same).then_some(cached)
    }

    /// Checks the credentials of this client. Waits for its turn first, since one hash is
    /// computed at a time. Cached credentials wait as well, and then cost no hash.
    ///
    /// `still_wanted` is called while the login waits, and when the turn has come: a login
    /// whose time is over or whose client has left is refused without a hash. The end of its
    /// session, which disconnects `terminated`, ends the wait at once. `users` is called when
    /// the turn has come, and again after the hash: a password that was changed meanwhile is
    /// not right any more. No lock is held during these calls.
    ///
    /// # Errors
    ///
    /// Wrong credentials, no memory, the session was terminated, or the error of
    /// `still_wanted`.
    pub fn check(
        &self,
        users: impl Fn() -> Arc<Users>,
        credentials: &Credentials,
        client: IpAddr,
        terminated: &Receiver<Infallible>,
        still_wanted: impl Fn() -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let mut turn = self.turns.wait(terminated, still_wanted)?;
        let now = users();
        let source = SourcePrefixes::of(client).smallest();
        // They were right at another address, or a moment ago in another login.
        if let Some(cached) = self.find(&mut self.cache.lock(), &now, credentials) {
            cached.add_source(source);
            return Ok(());
        }
        let hash_of_user = now.hash(&credentials.user);
        let hash = hash_of_user
            .or_else(|| now.dummy_hash())
            .unwrap_or(&self.dummy);
        let is_right = hash.verify(&credentials.password, &mut turn.buffer)?;
        let now = users();
        match hash_of_user {
            Some(hash) if is_right && now.hash(&credentials.user) == Some(hash) => {
                self.store(&now, credentials, hash, source);
                Ok(())
            }
            _ => Err(AuthError::WrongCredentials),
        }
    }

    /// Caches these credentials, and removes all that the file does not have any more.
    fn store(
        &self,
        users: &Users,
        credentials: &Credentials,
        hash: &PasswordHash,
        source: SourcePrefix,
    ) {
        let Some(mac) = self.mac(&credentials.password) else {
            return;
        };
        let mut cache = self.cache.lock();
        cache.retain(|user, cached| users.hash(user) == Some(&cached.hash));
        let cached = CachedCredential {
            hash: hash.clone(),
            tag: mac.finalize().into_bytes(),
            sources: VecDeque::from([source]),
        };
        cache.insert(credentials.user.clone(), cached);
    }

    /// `None` only for a key that is too long, which this one is not.
    fn mac(&self, password: &[u8]) -> Option<Blake2bMac512> {
        let mac = Blake2bMac512::new_from_slice(&self.key).ok()?;
        Some(mac.chain_update(password))
    }
}

/// Is the memory in KiB that was reserved at the start enough for the hash on this line?
fn check_memory(line: usize, needed: usize, reserved: usize) -> Result<(), SyntaxError> {
    if needed <= reserved {
        return Ok(());
    }
    let reason = format!(
        "the hash needs {needed} KiB of memory, and the server has reserved {reserved} KiB at \
         its start; write a hash with a smaller m, or restart the server"
    );
    Err(SyntaxError { line, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::users_file_line;
    use crate::config::ReloadEvent;
    use crossbeam_channel::never;
    use std::fs;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Barrier;
    use std::time::Instant;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials {
            user: user.into(),
            password: password.into(),
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// An authenticator with two users, and the folder of its file.
    fn alice_and_bob() -> (tempfile::TempDir, Authenticator) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let lines = [("alice", "a"), ("bob", "b")]
            .map(|(user, password)| users_file_line(user, password.as_bytes()).expect("a line"));
        fs::write(&path, lines.concat()).expect("written");
        let authenticator = Authenticator::open(&path, |_| Ok(())).expect("good users");
        (folder, authenticator)
    }

    impl Authenticator {
        fn users(&self) -> Arc<Users> {
            self.users_file.current().0
        }

        fn accepts(&self, user: &str, password: &str) -> bool {
            self.accepts_at(CLIENT, user, password)
        }

        fn accepts_at(&self, client: IpAddr, user: &str, password: &str) -> bool {
            let login = credentials(user, password);
            let checked = self.check(|| self.users(), &login, client, &never(), || Ok(()));
            assert!(matches!(checked, Ok(()) | Err(AuthError::WrongCredentials)));
            checked.is_ok()
        }

        fn has_cached(&self, user: &str, password: &str) -> bool {
            self.has_cached_at(CLIENT, user, password)
        }

        fn has_cached_at(&self, client: IpAddr, user: &str, password: &str) -> bool {
            self.is_cached(&self.users(), &credentials(user, password), client)
        }
    }

    #[test]
    fn credentials_that_were_right_are_cached() {
        let (_folder, authenticator) = alice_and_bob();
        for round in 0..2 {
            assert_eq!(authenticator.has_cached("alice", "a"), round > 0);
            assert!(authenticator.accepts("alice", "a"));
            for (user, password) in [
                ("alice", "b"),
                ("alice", ""),
                ("bob", "a"),
                ("Alice", "a"),
                ("", ""),
                ("", "a"),
                ("carol", "a"),
                ("alice\0", "a"),
            ] {
                assert!(!authenticator.accepts(user, password), "{user} {password}");
                assert!(
                    !authenticator.has_cached(user, password),
                    "{user} {password}"
                );
            }
        }
        assert!(authenticator.has_cached("alice", "a"));
    }

    #[test]
    fn v20_cached_credentials_count_at_the_last_eight_addresses() {
        let (folder, authenticator) = alice_and_bob();
        let v4 = |number: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, number));
        let is_cached = |client| authenticator.has_cached_at(client, "alice", "a");
        for number in 0..8 {
            assert!(!is_cached(v4(number)));
            assert!(authenticator.accepts_at(v4(number), "alice", "a"));
            assert!(is_cached(v4(number)));
            // Another password is not cached, nor does it change what is cached.
            assert!(!authenticator.has_cached_at(v4(number), "alice", "b"));
            assert!(!authenticator.accepts_at(v4(100), "alice", "b") && !is_cached(v4(100)));
        }
        // An address that is known already takes no place of another.
        assert!(authenticator.accepts_at(v4(1), "alice", "a"));
        assert!((0..8).all(|number| is_cached(v4(number))));
        for number in 8..50 {
            assert!(authenticator.accepts_at(v4(number), "alice", "a"));
            let known: Vec<u8> = (0..50).filter(|number| is_cached(v4(*number))).collect();
            assert_eq!(known, (number - 7..=number).collect::<Vec<u8>>());
        }
        // The addresses are those of one user, and of one password.
        assert!(!authenticator.has_cached_at(v4(49), "bob", "b"));
        let path = folder.path().join("users");
        fs::write(&path, users_file_line("alice", b"new").expect("a line")).expect("written");
        assert!(authenticator.accepts_at(v4(200), "alice", "new"));
        let is_cached = |client| authenticator.has_cached_at(client, "alice", "new");
        assert!(is_cached(v4(200)) && !is_cached(v4(49)));
    }

    #[test]
    fn v20_an_ipv6_address_is_a_64_bit_network() {
        let (_folder, authenticator) = alice_and_bob();
        let is_cached = |client| authenticator.has_cached_at(client, "alice", "a");
        let client = |network, host| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into();
        assert!(authenticator.accepts_at(client(1, 1), "alice", "a"));
        assert!(is_cached(client(1, 1)) && is_cached(client(1, 2)));
        // Another /64 of the same /56.
        assert!(!is_cached(client(2, 1)));
        // IPv4 in the form of IPv6 is IPv4.
        assert!(authenticator.accepts("alice", "a"));
        assert!(is_cached(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
    }

    #[test]
    fn without_users_every_login_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        fs::write(&path, "# no users\n").expect("written");
        let authenticator = Authenticator::open(&path, |_| Ok(())).expect("good users");
        assert!(!authenticator.accepts("", ""));
        assert!(!authenticator.accepts("alice", "a"));
    }

    #[test]
    fn cached_credentials_count_only_while_the_file_has_their_hash() {
        let (folder, authenticator) = alice_and_bob();
        let path = folder.path().join("users");
        assert!(authenticator.accepts("alice", "a") && authenticator.accepts("bob", "b"));
        fs::write(&path, users_file_line("alice", b"new").expect("a line")).expect("written");
        assert!(!authenticator.has_cached("alice", "a") && !authenticator.has_cached("bob", "b"));
        assert!(!authenticator.accepts("alice", "a") && !authenticator.accepts("bob", "b"));
        assert!(authenticator.accepts("alice", "new"));
        // Bob and the old password are not in the cache any more.
        assert_eq!(authenticator.cache.lock().len(), 1);
    }

    #[test]
    fn s38_a_changed_file_cannot_need_more_memory_than_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let line = |memory| {
            let hash = DUMMY_HASH.replace("m=19456", &format!("m={memory}"));
            format!("alice:{hash}\n")
        };
        // Without users there is memory for a hash of --new-user.
        for (first, reserved) in [("# no users\n", 19_456), (&line(30_000), 30_000)] {
            fs::write(&path, first).expect("written");
            let authenticator = Authenticator::open(&path, |_| Ok(())).expect("good users");
            assert_eq!(authenticator.hash_memory(), reserved << 10);
            fs::write(&path, line(reserved)).expect("written");
            assert_eq!(authenticator.users().largest_hash(), (1, reserved as usize));
            fs::write(&path, format!("\n{}", line(reserved + 4))).expect("written");
            let event = authenticator.users_file.reload();
            let Some(ReloadEvent::Kept(LoadError::Syntax(errors))) = event else {
                panic!("{event:?}")
            };
            let reason = errors.first().map(ToString::to_string).unwrap_or_default();
            assert!(reason.starts_with("2: the hash needs"), "{reason}");
            assert!(authenticator.users().has(b"alice"));
        }
    }

    #[test]
    fn a_password_that_is_changed_during_the_check_is_no_longer_right() {
        let (_folder, authenticator) = alice_and_bob();
        let (before, calls) = (authenticator.users(), std::cell::Cell::new(0));
        let users = || {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => Arc::clone(&before),
                _ => Arc::default(),
            }
        };
        let login = credentials("alice", "a");
        let checked = authenticator.check(users, &login, CLIENT, &never(), || Ok(()));
        assert_eq!(
            (checked, calls.get()),
            (Err(AuthError::WrongCredentials), 2)
        );
        assert!(authenticator.cache.lock().is_empty());
    }

    #[test]
    fn a_login_that_is_not_wanted_any_more_costs_no_hash() {
        let (_folder, authenticator) = alice_and_bob();
        let no_users = || panic!("the users are read");
        for why in [AuthError::TimedOut, AuthError::ClientLeft] {
            let login = credentials("alice", "a");
            let refused = authenticator.check(no_users, &login, CLIENT, &never(), || Err(why));
            assert_eq!(refused, Err(why));
        }
    }

    /// Of many logins at once with the same new credentials, the first is checked, and
    /// the others find them in the cache.
    #[test]
    fn one_hash_is_computed_at_a_time() {
        const MANY: u32 = 50;
        let (_folder, authenticator) = alice_and_bob();
        let began = Instant::now();
        assert!(authenticator.accepts("bob", "b"));
        let one = began.elapsed();
        let (began, start) = (Instant::now(), Barrier::new(MANY as usize));
        std::thread::scope(|scope| {
            for _ in 0..MANY {
                scope.spawn(|| {
                    start.wait();
                    assert!(authenticator.accepts("alice", "a"));
                });
            }
        });
        assert!(began.elapsed() < one * MANY / 2, "{:?}", began.elapsed());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let (_folder, authenticator) = alice_and_bob();
        assert!(authenticator.accepts("alice", "a"));
        let shown = format!("{authenticator:?}");
        assert!(
            !shown.contains("argon2") && !shown.contains("alice"),
            "{shown}"
        );
    }
}
