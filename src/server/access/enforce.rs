//! Sessions that the rules no longer permit are ended, with `--enforce`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};

use crate::events::{ClientRequest, CloseReason, RequestError};
use crate::rules::{AccessQuery, Rules, Verdict, WeekTime};
use crate::server::ServerContext;
use crate::server::access::permission::query;
use crate::server::request_log::{Grant, RequestLog};
use crate::server::session::registry::Session;

/// The rules are looked at this often, also while nobody asks for anything.
const ENFORCE_INTERVAL: Duration = Duration::from_secs(1);

/// Judges everybody again when the verdicts may have changed.
#[derive(Debug)]
pub(crate) struct Enforcer {
    /// When to look; never, unless that is wished.
    pub(crate) round: Receiver<Instant>,
    /// By what everybody was judged last.
    last: Option<(Arc<Rules>, WeekTime)>,
}

impl Enforcer {
    pub(crate) fn new(enforce: bool) -> Enforcer {
        Enforcer {
            round: if enforce {
                tick(ENFORCE_INTERVAL)
            } else {
                never()
            },
            last: None,
        }
    }

    /// Ends the sessions that are no longer permitted, if that is wished and the
    /// rules have changed or, where they mention hours, the time has.
    pub(crate) fn look(&mut self, context: &ServerContext) {
        if !context.settings.enforce {
            return;
        }
        let (rules, now) = (context.rules(), context.clock.now());
        let is_settled = self.last.as_ref().is_some_and(|(last, then)| {
            Arc::ptr_eq(last, &rules) && (now == *then || !rules.ask_for_time())
        });
        if is_settled {
            return;
        }
        for session in context.registry.present() {
            if let Err(verdict) = recheck(&session, &rules) {
                session.terminate(CloseReason::PermitWithdrawn(verdict));
            }
        }
        self.last = Some((rules, now));
    }
}

/// From now on the session is judged again whenever the rules change, as one to
/// any of these addresses. The rules may have changed since it was judged, so
/// that is done once here.
pub(crate) fn publish_and_recheck(
    session: &Session,
    request: &ClientRequest,
    addresses: Vec<Option<IpAddr>>,
    log_entry: &RequestLog,
) -> Result<(), RequestError> {
    if !session.context.settings.enforce {
        return Ok(());
    }
    session.set_grant(Grant {
        request: request.clone(),
        addresses,
        confirmed: log_entry.confirmed,
    });
    recheck(session, &session.context.rules()).map_err(RequestError::Denied)
}

/// Is what the session set_grant for still permitted? Identd is not request again: who
/// was not request when he came is not confirmed.
fn recheck(session: &Session, rules: &Rules) -> Result<(), Verdict> {
    session.with_grant(|grant| {
        let request = query(session, &grant.request);
        let mut denied = Ok(());
        for &address in &grant.addresses {
            let verdict = rules.evaluate(&AccessQuery {
                address,
                // Whoever comes may come to any port.
                port: address.and(request.port),
                ..request
            });
            if verdict.grants(grant.confirmed) {
                return Ok(());
            }
            denied = denied.and(Err(verdict));
        }
        denied
    })
}
