//! `--enforce`: live sessions that the rules no longer permit are terminated.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};

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

/// Judges all sessions again when the verdicts may have changed.
#[derive(Debug)]
pub(crate) struct Enforcer {
    /// When to look; never without `--enforce`.
    pub(crate) ticks: Receiver<Instant>,
    /// The rules and the time by which all sessions were judged last.
    last: Option<(Arc<Rules>, WeekTime)>,
}

impl Enforcer {
    pub(crate) fn new(enforce: bool) -> Enforcer {
        Enforcer {
            ticks: if enforce {
                tick(ENFORCE_INTERVAL)
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
        let (rules, now) = (context.rules_after_check(), context.clock.now());
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
    let query = access_query(&grant.request, session.client_address, now, nat64);
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
