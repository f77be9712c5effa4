//! The two directions of a session, a thread for each.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::registry::Visit;
use super::workers::Worker;
use crate::event::{Cause, Ending};

/// A request that can be granted: everything its relay needs is there.
#[derive(Debug)]
pub(super) struct Ready {
    /// Port and address of the reply.
    pub(super) reply_address: SocketAddrV4,
    /// The thread for the second direction.
    pub(super) down: Down,
}

/// The thread for the direction from remote to client. It is reserved before
/// the client hears that its request is granted.
#[derive(Debug)]
pub(super) struct Down(Worker);

impl Down {
    pub(super) fn reserve(visit: &Visit) -> Result<Down, Cause> {
        let worker = visit.house.workers.reserve();
        worker
            .map(Down)
            .map_err(|error| Cause::Exhausted("thread", error))
    }

    /// Relays between client and remote. The calling thread becomes the pump
    /// from client to remote, and is done when that direction has ended; the
    /// last of the two to leave ends the visit.
    pub(super) fn relay(self, visit: &Arc<Visit>) {
        self.0.start(format!("s{}-down", visit.number()), {
            let visit = Arc::clone(visit);
            move || {
                let _guard = CutOnPanic(&visit);
                if let Some(remote) = visit.remote() {
                    let result = visit.meter.pump_down().run(remote, &visit.client);
                    note_break(&visit, result);
                }
            }
        });
        if let Some(remote) = visit.remote() {
            let result = visit.meter.pump_up().run(&visit.client, remote);
            note_break(visit, result);
        }
    }
}

fn note_break(visit: &Visit, result: io::Result<()>) {
    if let Err(error) = result {
        visit.ends_because(Ending::Broken(error));
    }
}

/// A thread that panics takes the session's sockets, and with them its other
/// thread, along.
pub(super) struct CutOnPanic<'a>(pub(super) &'a Visit);

impl Drop for CutOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cut(Ending::Panicked);
        }
    }
}
