//! `--enforce`: live sessions that the rules no longer permit are terminated.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never};

use super::permit::access_query;
use crate::events::{CloseReason, RequestError};
use crate::protocol::Nat64Prefix;
use crate::rules::{AccessQuery, Rules, Verdict, WeekTime};
use crate::server::context::ServerContext;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;
use crate::server::session::{Grant, Session};

/// Time between two checks of the rules, so that a change takes effect within a second even
/// while no client sends a request.
const ENFORCE_INTERVAL: Duration = Duration::from_secs(1);

/// The same while the file is being written: a change that is complete soon takes effect within
/// a second as well.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Judges all sessions again when the verdicts may have changed.
#[derive(Debug)]
pub(crate) struct Enforcer {
    /// When to look next; never without `--enforce`.
    pub(crate) next: Receiver<Instant>,
    /// The rules and the time by which all sessions were judged last.
    last: Option<(Arc<Rules>, WeekTime)>,
}

impl Enforcer {
    pub(crate) fn new(enforce: bool) -> Enforcer {
        Enforcer {
            next: if enforce {
                after(ENFORCE_INTERVAL)
            } else {
                never()
            },
            last: None,
        }
    }

    /// Terminates the sessions that are no longer permitted, if the rules have changed or,
    /// where they depend on the time, the time has.
    pub(crate) fn check(&mut self, context: &ServerContext) {
        if !context.settings.enforce {
            return;
        }
        let (rules, is_being_written) = context.rules_after_check();
        self.next = after(match is_being_written {
            true => RETRY_INTERVAL,
            false => ENFORCE_INTERVAL,
        });
        let now = context.clock.now();
        let is_unchanged = self.last.as_ref().is_some_and(|(last, then)| {
            Arc::ptr_eq(last, &rules) && (now == *then || !rules.depend_on_time())
        });
        if is_unchanged {
            return;
        }
        let nat64 = &context.settings.nat64;
        for session in context.registry.live() {
            if let Err(verdict) = recheck(&session, &rules, now, nat64) {
                session.terminate(CloseReason::PermitWithdrawn(verdict));
            }
        }
        self.last = Some((rules, now));
    }
}

/// Publishes what the session is about to be granted, so that it is judged again whenever
/// the rules change. The rules may have changed since the request was judged, so it is
/// judged again here: after the grant is published, no change is missed.
///
/// # Errors
///
/// The rules do not permit it any more.
pub(crate) fn publish_and_recheck(
    pending: PendingRequest<'_>,
    addresses: Vec<Option<IpAddr>>,
    request_log: &RequestLog,
) -> Result<(), RequestError> {
    let PendingRequest {
        context,
        session,
        request,
    } = pending;
    if !context.settings.enforce {
        return Ok(());
    }
    session.set_grant(Grant {
        request: request.clone(),
        addresses,
        confirmed: request_log.confirmed,
    });
    let nat64 = &context.settings.nat64;
    let rechecked = recheck(session, &context.rules(), context.clock.now(), nat64);
    rechecked.map_err(RequestError::Denied)
}

/// Is what the session was granted still permitted? identd is not asked again: a user who
/// was not confirmed at the start is not confirmed.
fn recheck(
    session: &Session,
    rules: &Rules,
    now: WeekTime,
    nat64: &[Nat64Prefix],
) -> Result<(), Verdict> {
    let Some(grant) = session.grant() else {
        return Ok(());
    };
    let query = access_query(&grant.request, session.client_address(), now, nat64);
    let mut denied = Ok(());
    for &address in &grant.addresses {
        let verdict = rules.evaluate(&AccessQuery {
            address,
            // While any peer may connect, it may have any port.
            port: address.and(query.port),
            ..query
        });
        if verdict.grants(grant.confirmed) {
            return Ok(());
        }
        denied = denied.and(Err(verdict));
    }
    denied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::local_time::LocalClock;
    use crate::logger::{Log, LogFormat, Verbosity};
    use crate::rules::RulesFile;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn f35_the_enforcer_looks_again_soon_at_a_file_that_is_being_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rules");
        fs::write(&path, "permit - -\n").expect("written");
        let settings = Settings {
            enforce: true,
            ..Settings::default()
        };
        let rules = RulesFile::open(&path).expect("valid rules");
        let clock = LocalClock::from_fn(|| WeekTime::MONDAY);
        let (log, _queue) = Log::new(Verbosity::Sessions, LogFormat::None, 8);
        let context = ServerContext::new(settings, rules, clock, log);
        let mut enforcer = Enforcer::new(true);
        let stop = AtomicBool::new(false);
        let waits = std::thread::scope(|scope| {
            scope.spawn(|| {
                // In place, so the file is never complete for long.
                for text in ["deny - -\n", "deny c -\n"].iter().cycle() {
                    fs::write(&path, text).expect("written");
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            // Under load the writer may pause for so long that the file counts as complete.
            let waits = [(); 10].map(|()| {
                enforcer.check(&context);
                let began = Instant::now();
                enforcer.next.recv().expect("a tick");
                began.elapsed()
            });
            stop.store(true, Ordering::Relaxed);
            waits
        });
        let shortest = waits.into_iter().min().unwrap_or_default();
        assert!(shortest < ENFORCE_INTERVAL / 2, "{waits:?}");
    }
}
