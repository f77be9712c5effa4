//! The turns to compute a hash: one login at a time, in the order in which the logins have come.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::error::AuthError;
use super::password_hash::HashBuffer;
use crate::sync::wait_group::AllDone;
use crate::sync::{OrderedMutex, Rank};

/// How often a login that waits for its turn looks whether it is still wanted.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The memory in which hashes are computed, and the logins that wait for it. One hash is
/// computed at a time, so the memory is bounded, and the other processors stay free for live
/// sessions.
pub(super) struct HashTurns {
    /// A leaf in the lock order: it is not held during a wait or a hash.
    state: OrderedMutex<State>,
}

struct State {
    /// `None` while a login has its turn.
    buffer: Option<HashBuffer>,
    /// The logins that wait, the oldest first; at most one for each session. None waits while
    /// the buffer is here.
    waiting: VecDeque<Waiting>,
    /// The number of the next login.
    next: u64,
}

/// A login that waits.
struct Waiting {
    number: u64,
    /// Its turn is sent here once.
    grant: Sender<HashBuffer>,
}

/// The place of a login in the queue. Its drop removes the login, and passes on a turn that
/// came too late.
struct Place<'a> {
    turns: &'a HashTurns,
    number: u64,
    granted: Receiver<HashBuffer>,
}

/// The right to compute a hash. Dropping it gives the turn to the next login, also after a
/// panic.
pub(super) struct HashTurn<'a> {
    turns: &'a HashTurns,
    pub(super) buffer: HashBuffer,
}

impl HashTurns {
    pub(super) fn new(buffer: HashBuffer) -> HashTurns {
        let state = State {
            buffer: Some(buffer),
            waiting: VecDeque::new(),
            next: 0,
        };
        HashTurns {
            state: OrderedMutex::new(Rank::Leaf, state),
        }
    }

    /// Waits until all logins before this one have had their turn or have left. The session's
    /// end, which disconnects `terminated`, ends the wait at once. An error of `still_wanted`
    /// ends it within [`POLL_INTERVAL`]. So a login without a client holds no session.
    ///
    /// # Errors
    ///
    /// The session was terminated, or the error of `still_wanted`, which is also called when
    /// the turn has come.
    pub(super) fn wait(
        &self,
        terminated: &AllDone,
        still_wanted: impl Fn() -> Result<(), AuthError>,
    ) -> Result<HashTurn<'_>, AuthError> {
        let place = self.enter();
        loop {
            let granted = select! {
                // A sender leaves the queue only after it has sent.
                recv(place.granted) -> buffer => buffer.ok(),
                recv(terminated) -> _ => return Err(AuthError::ClientLeft),
                default(POLL_INTERVAL) => None,
            };
            let turns = self;
            let turn = granted.map(|buffer| HashTurn { turns, buffer });
            still_wanted()?;
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
    }

    /// Adds a login to the queue. If no login has the turn, it is granted at once.
    fn enter(&self) -> Place<'_> {
        let (grant, granted) = bounded(1);
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        match state.buffer.take() {
            Some(buffer) => send(&grant, buffer),
            None => state.waiting.push_back(Waiting { number, grant }),
        }
        Place {
            turns: self,
            number,
            granted,
        }
    }

    /// Gives the turn to the login that has waited longest.
    fn pass_on(&self, buffer: HashBuffer) {
        let mut state = self.state.lock();
        match state.waiting.pop_front() {
            Some(next) => send(&next.grant, buffer),
            None => state.buffer = Some(buffer),
        }
    }
}

/// Never waits, since each login gets one turn. Never fails: a login removes itself from the
/// queue, under the lock that the caller holds, before it drops the receiver.
fn send(grant: &Sender<HashBuffer>, buffer: HashBuffer) {
    let _ = grant.send(buffer);
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.waiting.retain(|login| login.number != self.number);
        drop(state);
        // The turn has come after the wait has ended.
        if let Some(buffer) = self.granted.try_iter().next() {
            self.turns.pass_on(buffer);
        }
    }
}

impl Drop for HashTurn<'_> {
    fn drop(&mut self) {
        self.turns.pass_on(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::wait_group::wait_group;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn turns() -> HashTurns {
        HashTurns::new(HashBuffer::default())
    }

    impl HashTurns {
        fn wait_for(&self, waiting: usize) {
            while self.state.lock().waiting.len() != waiting {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn s45_the_end_of_the_session_ends_the_wait() {
        let turns = turns();
        let (_token, running) = wait_group();
        let _turn = turns.wait(&running, || Ok(())).expect("the first");
        std::thread::scope(|scope| {
            let (token, terminated) = wait_group();
            let turns = &turns;
            let waits = scope.spawn(move || turns.wait(&terminated, || Ok(())).err());
            turns.wait_for(1);
            drop(token);
            assert_eq!(waits.join().expect("no panic"), Some(AuthError::ClientLeft));
        });
        turns.wait_for(0);
    }

    #[test]
    fn s45_a_login_that_is_not_wanted_any_more_ends_its_wait() {
        let turns = turns();
        let (_token, running) = wait_group();
        let _turn = turns.wait(&running, || Ok(())).expect("the first");
        let is_over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let still_wanted = move || match is_over.load(Ordering::Relaxed) {
                true => Err(AuthError::TimedOut),
                false => Ok(()),
            };
            let (turns, running) = (&turns, &running);
            let waits = scope.spawn(move || turns.wait(running, still_wanted).err());
            turns.wait_for(1);
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(waits.join().expect("no panic"), Some(AuthError::TimedOut));
        });
        turns.wait_for(0);
    }

    #[test]
    fn s45_those_that_stay_have_their_turns_in_the_order_in_which_they_came() {
        const LOGINS: usize = 12;
        let (turns, order) = (turns(), Mutex::new(Vec::new()));
        let (_token, running) = wait_group();
        let first = turns.wait(&running, || Ok(())).expect("the first");
        std::thread::scope(|scope| {
            let mut leaving = Vec::new();
            for number in 0..LOGINS {
                let (token, terminated) = wait_group();
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    if let Ok(_turn) = turns.wait(&terminated, || Ok(())) {
                        order.lock().expect("no panic").push(number);
                    }
                });
                turns.wait_for(number + 1);
                leaving.push(token);
            }
            // Each third login leaves, the oldest and the newest among them.
            let mut number = 0;
            leaving.retain(|_| {
                number += 1;
                number % 3 != 1 && number != LOGINS
            });
            turns.wait_for(leaving.len());
            drop(first);
            // The tokens are held until all have had their turn.
            turns.wait_for(0);
            let last = turns.wait(&running, || Ok(())).expect("a turn");
            drop((last, leaving));
        });
        let order = order.into_inner().expect("no panic");
        assert_eq!(order, [1, 2, 4, 5, 7, 8, 10]);
    }

    /// The turn comes at the moment at which the wait ends.
    #[test]
    fn s45_no_turn_is_lost() {
        let turns = turns();
        let (_token, running) = wait_group();
        for _ in 0..2000 {
            let turn = turns.wait(&running, || Ok(())).expect("a turn");
            std::thread::scope(|scope| {
                let (token, terminated) = wait_group();
                let turns = &turns;
                scope.spawn(move || drop(turns.wait(&terminated, || Ok(()))));
                turns.wait_for(1);
                scope.spawn(move || drop(token));
                drop(turn);
            });
            assert!(turns.state.lock().buffer.is_some());
        }
    }
}
