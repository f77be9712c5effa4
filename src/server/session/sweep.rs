//! The sweep: the main thread terminates idle sessions, and at the stop all sessions.

use std::time::Instant;

use super::SessionRegistry;
use crate::config::Settings;
use crate::events::CloseReason;

impl SessionRegistry {
    /// One round of the sweep: terminates the sessions that have exceeded their idle
    /// timeout.
    pub(crate) fn terminate_idle(&self, settings: &Settings) {
        let now = Instant::now();
        for session in self.live() {
            if let Some(reason) = session.idle_reason(settings, now) {
                session.terminate(reason);
            }
        }
    }

    /// Terminates all sessions. Returns how many there were.
    pub(crate) fn terminate_all(&self) -> usize {
        let live = self.live();
        for session in &live {
            session.terminate(CloseReason::ServerStopped);
        }
        live.len()
    }
}
