//! The tables of sessions and threads that the operator asks for with SIGUSR1.
//!
//! A thread of its own makes them, so neither the main thread nor a session waits for /proc. It
//! holds no lock while it formats, and the server only until the tables are in the queue of the
//! logger.

mod columns;
mod sessions;
#[cfg(target_os = "linux")]
mod system_calls;
#[cfg(target_os = "linux")]
mod threads;

use std::sync::{Arc, Weak};

use super::context::ServerContext;
use crate::events::{Event, Status};
use crate::sync::wait_group::wait_group;
use sessions::Sessions;

/// Prints the tables of a server.
#[derive(Debug)]
pub struct StatusReporter {
    /// Weak: the reporter does not keep the server, and with it the logger, from ending.
    context: Weak<ServerContext>,
}

impl StatusReporter {
    pub(super) fn new(context: &Arc<ServerContext>) -> StatusReporter {
        let context = Arc::downgrade(context);
        StatusReporter { context }
    }

    /// Sends the tables to the log, and waits until they are printed or lost. So a caller that
    /// calls again fills neither the queue nor memory while stderr is not read.
    pub fn report(&self) {
        let (token, printed) = wait_group();
        {
            // `None`: the server has ended.
            let Some(context) = self.context.upgrade() else {
                return;
            };
            let sessions = Sessions::of(&context);
            let (summary, threads) = (sessions.summary(), threads_table(&context));
            // The JSON log has an object for each row instead of the table.
            let (text, rows) = match context.log.is_json() {
                true => (format!("{summary}\n{threads}"), sessions.rows),
                false => {
                    let table = sessions.table();
                    (format!("{summary}\n{table}\n{threads}"), Vec::new())
                }
            };
            context.log.send(Event::Status(Status {
                text,
                rows,
                _token: token,
            }));
        }
        // Disconnected means that the logger has dropped the event.
        let _ = printed.recv();
    }
}

#[cfg(target_os = "linux")]
fn threads_table(context: &ServerContext) -> String {
    threads::table(&context.registry)
}

/// On other systems no file says what a thread waits for.
#[cfg(not(target_os = "linux"))]
fn threads_table(_: &ServerContext) -> String {
    "threads: this system does not say what they wait for".to_owned()
}
