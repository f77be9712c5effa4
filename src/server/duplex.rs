//! The two directions of a session, a thread for each.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::registry::Visit;
use super::workers;
use crate::event::{Cause, Ending};
use crate::relay::{self, Meter, Pump};

/// A request that can be granted: everything its relay needs is there.
#[derive(Debug)]
pub(super) struct Ready {
    /// Port and address of the reply.
    pub(super) reply_address: SocketAddrV4,
    /// The thread for the second direction.
    pub(super) down: Down,
}

/// The thread for the direction from remote to client. It exists before the
/// client hears that its request is granted, and waits for the word to start;
/// dropped without it, the thread leaves.
#[derive(Debug)]
pub(super) struct Down {
    start: Sender<()>,
    up: Pump,
}

impl Down {
    /// Reserves the thread; it will relay from the remote that the visit has
    /// when it starts.
    pub(super) fn reserve(visit: &Arc<Visit>) -> Result<Down, Cause> {
        let (up, down) = relay::pumps();
        let (start, started) = bounded(0);
        workers::start(format!("s{}-down", visit.number), {
            let visit = Arc::clone(visit);
            move || {
                let _guard = CutOnPanic(&visit);
                if let (Ok(()), Some(remote)) = (started.recv(), visit.remote()) {
                    let Meter { up, down: gauge } = &visit.meter;
                    let result = down.run(remote, &visit.client, gauge, up);
                    note_break(&visit, result);
                }
                // Only now does the session see that this direction has ended.
                drop(down);
            }
        })
        .map_err(|error| Cause::Exhausted("thread", error))?;
        Ok(Down { start, up })
    }

    /// Relays until both directions have ended. The calling thread becomes the
    /// pump from client to remote.
    pub(super) fn relay(self, visit: &Visit) -> Ending {
        let Down { start, up } = self;
        if let (Ok(()), Some(remote)) = (start.send(()), visit.remote()) {
            let Meter { up: gauge, down } = &visit.meter;
            let result = up.run(&visit.client, remote, gauge, down);
            note_break(visit, result);
        }
        up.join();
        Ending::Finished
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
