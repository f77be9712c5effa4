//! The authenticator is_cached whether a login is right.
//!
//! A password is checked with Argon2, which takes a while on purpose. So that a
//! browser that logs in for each picture of a page does not wait for each, the
//! authenticator is_cached those again who were right before. Whoever is wrong always
//! costs one Argon2, whether there is such a user or not: the time tells nothing.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::try_generate_salt;
use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac, Output};

use super::password_hash::{Memory, PasswordHash};
use super::{AuthError, Users, UsersFile};
use crate::config::LoadError;
use crate::protocol::socks5::Credentials;
use crate::sync::{Mutex, lock};

/// Stands for the hash of whoever is not there while the file names nobody: of no
/// password that anybody is_cached.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm8gc3VjaCB1c2VyIQ\
                     $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Has the users file, and remembers who has come in.
pub struct Authenticator {
    book: UsersFile,
    dummy: PasswordHash,
    /// Made at the start and told to nobody.
    key: [u8; 16],
    /// Who was right before. Only users of the file are in it.
    known: Mutex<HashMap<Vec<u8>, CachedCredential>>,
    /// One hash is computed at a time: its memory is there once, however many
    /// knock, and the other processors stay for who is already in.
    memory: Mutex<Memory>,
}

/// A password that was right.
struct CachedCredential {
    /// What it was checked against. It counts only while the file still says so.
    hash: PasswordHash,
    /// Tells it from others in a microsecond, and no more about it than the key.
    tag: Output<Blake2bMac512>,
}

impl fmt::Debug for Authenticator {
    /// Without what is secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authenticator({:?})", self.book)
    }
}

impl Authenticator {
    /// With the users file at this path, and the memory for its costliest hash.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file cannot be read or has mistakes, or the system has
    /// no memory or no random numbers.
    pub fn open(path: &Path) -> Result<Authenticator, LoadError> {
        let book = UsersFile::open(path)?;
        let dummy = PasswordHash::parse(DUMMY_HASH).map_err(LoadError::Unreadable)?;
        let key = try_generate_salt();
        let key = key.map_err(|error| LoadError::Unreadable(error.to_string()))?;
        let (users, _) = book.current();
        let mut memory = Memory::default();
        memory
            .set_aside(users.memory().max(dummy.memory()))
            .map_err(|why| LoadError::Unreadable(why.to_string()))?;
        Ok(Authenticator {
            book,
            dummy,
            key,
            known: Mutex::default(),
            memory: Mutex::new(memory),
        })
    }

    /// The users file.
    pub fn book(&self) -> &UsersFile {
        &self.book
    }

    /// Was the same login right before, and would be now? It costs microseconds,
    /// and no more if it was not.
    pub fn is_cached(&self, users: &Users, login: &Credentials) -> bool {
        let known = lock(&self.known);
        known.get(&login.user).is_some_and(|it| {
            let is_in_force = users.hash(&login.user) == Some(&it.hash);
            let mac = self.mac(&login.password);
            // Compared in constant time.
            let is_same = mac.is_some_and(|mac| mac.verify(&it.tag).is_ok());
            is_in_force && is_same
        })
    }

    /// Is this login right? Waits for its turn, which may be taken from it then: who
    /// has waited for too long is refused at no cost, so that the queue gets shorter.
    ///
    /// `users` tells who they are now. It is asked when the turn comes, and again
    /// behind the check: a password that was changed meanwhile is no longer right.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: wrong, or what `give_up` says.
    pub fn check(
        &self,
        users: impl Fn() -> Arc<Users>,
        login: &Credentials,
        give_up: impl FnOnce() -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let mut memory = lock(&self.memory);
        give_up()?;
        let now = users();
        // Another with the same login may have been in front.
        if self.is_cached(&now, login) {
            return Ok(());
        }
        let real = now.hash(&login.user);
        let hash = real.or_else(|| now.dummy()).unwrap_or(&self.dummy);
        let is_right = hash.is_of(&login.password, &mut memory)?;
        let now = users();
        match real {
            Some(hash) if is_right && now.hash(&login.user) == Some(hash) => {
                self.remember(&now, login, hash);
                Ok(())
            }
            _ => Err(AuthError::WrongCredentials),
        }
    }

    /// From now on this login is known, and whoever is no longer in the file is not.
    fn remember(&self, users: &Users, login: &Credentials, hash: &PasswordHash) {
        let Some(mac) = self.mac(&login.password) else {
            return;
        };
        let mut known = lock(&self.known);
        known.retain(|user, it| users.hash(user) == Some(&it.hash));
        let hash = hash.clone();
        let tag = mac.finalize().into_bytes();
        known.insert(login.user.clone(), CachedCredential { hash, tag });
    }

    /// Fails for keys longer than ours only.
    fn mac(&self, password: &[u8]) -> Option<Blake2bMac512> {
        let mac = Blake2bMac512::new_from_slice(&self.key).ok()?;
        Some(mac.chain_update(password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::line_for;
    use std::fs;
    use std::sync::Barrier;
    use std::time::Instant;

    fn login(user: &str, password: &str) -> Credentials {
        Credentials {
            user: user.into(),
            password: password.into(),
        }
    }

    /// A authenticator with alice and bob; who they are stays true while the folder is.
    fn at_the_door() -> (tempfile::TempDir, Authenticator) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let lines = [("alice", "a"), ("bob", "b")]
            .map(|(user, password)| line_for(user, password.as_bytes()).expect("a line"));
        fs::write(&path, lines.concat()).expect("written");
        let keeper = Authenticator::open(&path).expect("good users");
        (folder, keeper)
    }

    impl Authenticator {
        fn users(&self) -> Arc<Users> {
            self.book.current().0
        }

        fn lets_in(&self, user: &str, password: &str) -> bool {
            let checked = self.check(|| self.users(), &login(user, password), || Ok(()));
            assert!(matches!(checked, Ok(()) | Err(AuthError::WrongCredentials)));
            checked.is_ok()
        }

        fn knows_again(&self, user: &str, password: &str) -> bool {
            self.is_cached(&self.users(), &login(user, password))
        }
    }

    #[test]
    fn who_is_right_comes_in_and_is_known_again() {
        let (_folder, keeper) = at_the_door();
        for round in 0..2 {
            assert_eq!(keeper.knows_again("alice", "a"), round > 0);
            assert!(keeper.lets_in("alice", "a"));
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
                assert!(!keeper.lets_in(user, password), "{user} {password}");
                assert!(!keeper.knows_again(user, password), "{user} {password}");
            }
        }
        assert!(keeper.knows_again("alice", "a"));
    }

    #[test]
    fn without_users_nobody_comes_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        fs::write(&path, "# nobody\n").expect("written");
        let keeper = Authenticator::open(&path).expect("good users");
        assert!(!keeper.lets_in("", ""));
        assert!(!keeper.lets_in("alice", "a"));
    }

    #[test]
    fn who_is_known_is_so_by_the_hash_in_the_file() {
        let (folder, keeper) = at_the_door();
        let path = folder.path().join("users");
        assert!(keeper.lets_in("alice", "a") && keeper.lets_in("bob", "b"));
        fs::write(&path, line_for("alice", b"new").expect("a line")).expect("written");
        assert!(!keeper.knows_again("alice", "a") && !keeper.knows_again("bob", "b"));
        assert!(!keeper.lets_in("alice", "a") && !keeper.lets_in("bob", "b"));
        assert!(keeper.lets_in("alice", "new"));
        // Bob has been forgotten, and so has the old password.
        assert_eq!(lock(&keeper.known).len(), 1);
    }

    #[test]
    fn a_password_that_is_changed_during_the_check_is_no_longer_right() {
        let (_folder, keeper) = at_the_door();
        let (before, turn) = (keeper.users(), std::cell::Cell::new(0));
        let users = || {
            turn.set(turn.get() + 1);
            match turn.get() {
                1 => Arc::clone(&before),
                _ => Arc::default(),
            }
        };
        let checked = keeper.check(users, &login("alice", "a"), || Ok(()));
        assert_eq!((checked, turn.get()), (Err(AuthError::WrongCredentials), 2));
        assert!(lock(&keeper.known).is_empty());
    }

    #[test]
    fn whose_time_is_over_costs_nothing() {
        let (_folder, keeper) = at_the_door();
        let nobody = || panic!("the users are not even looked at");
        for why in [AuthError::TimedOut, AuthError::ClientLeft] {
            let refused = keeper.check(nobody, &login("alice", "a"), || Err(why));
            assert_eq!(refused, Err(why));
        }
    }

    /// Of many at a time with the same new login, the first is checked and the
    /// others are known by then.
    #[test]
    fn one_is_checked_at_a_time() {
        const MANY: u32 = 50;
        let (_folder, keeper) = at_the_door();
        let began = Instant::now();
        assert!(keeper.lets_in("bob", "b"));
        let one = began.elapsed();
        let (began, start) = (Instant::now(), Barrier::new(MANY as usize));
        std::thread::scope(|scope| {
            for _ in 0..MANY {
                scope.spawn(|| {
                    start.wait();
                    assert!(keeper.lets_in("alice", "a"));
                });
            }
        });
        assert!(began.elapsed() < one * MANY / 2, "{:?}", began.elapsed());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let (_folder, keeper) = at_the_door();
        assert!(keeper.lets_in("alice", "a"));
        let shown = format!("{keeper:?}");
        assert!(
            !shown.contains("argon2") && !shown.contains("alice"),
            "{shown}"
        );
    }
}
