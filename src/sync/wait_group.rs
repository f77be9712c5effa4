//! A wait group: one thread waits until every holder of a token has dropped it.
//!
//! It is a channel on which no message is ever sent. When the last sender is dropped,
//! the channel is disconnected, which wakes the receiver. A counter with a condition
//! variable would do the same, but only a channel can take part in a `select!`.

use std::convert::Infallible;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Held by a task of the group; dropped when the task is done. Clones belong to the
/// same group.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    _sender: Sender<Infallible>,
}

/// Disconnected when all tokens are dropped. It never receives a message.
pub(crate) type AllDone = Receiver<Infallible>;

/// A new group, with its first token.
// In a report of the models, the caller's place gives the group its name.
#[track_caller]
pub(crate) fn wait_group() -> (Token, AllDone) {
    let (sender, all_done) = bounded(0);
    (Token { _sender: sender }, all_done)
}
