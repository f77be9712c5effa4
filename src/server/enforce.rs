//! Sessions that the rules no longer permit are ended, with `--enforce`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};

use super::House;
use super::notes::{Notes, Standing};
use super::permission::question;
use super::registry::Visit;
use crate::event::{Asked, Cause, Ending};
use crate::firewall::{Moment, Question, Rules, Verdict};

/// The rules are looked at this often, also while nobody asks for anything.
const LOOK: Duration = Duration::from_secs(1);

/// Judges everybody again when the verdicts may have changed.
#[derive(Debug)]
pub(super) struct Enforcer {
    /// When to look; never, unless that is wished.
    pub(super) round: Receiver<Instant>,
    /// By what everybody was judged last.
    last: Option<(Arc<Rules>, Moment)>,
}

impl Enforcer {
    pub(super) fn new(enforce: bool) -> Enforcer {
        Enforcer {
            round: if enforce { tick(LOOK) } else { never() },
            last: None,
        }
    }

    /// Ends the sessions that are no longer permitted, if that is wished and the
    /// rules have changed or, where they mention hours, the time has.
    pub(super) fn look(&mut self, house: &House) {
        if !house.settings.enforce {
            return;
        }
        let (rules, now) = (house.rules(), house.clock.now());
        let is_settled = self.last.as_ref().is_some_and(|(last, then)| {
            Arc::ptr_eq(last, &rules) && (now == *then || !rules.ask_for_time())
        });
        if is_settled {
            return;
        }
        for visit in house.registry.present() {
            if let Err(verdict) = judge_again(&visit, &rules) {
                visit.cut(Ending::Withdrawn(verdict));
            }
        }
        self.last = Some((rules, now));
    }
}

/// From now on the visit is judged again whenever the rules change, as one to
/// any of these addresses. The rules may have changed since it was judged, so
/// that is done once here.
pub(super) fn subject(
    visit: &Visit,
    asked: &Asked,
    addresses: Vec<Option<IpAddr>>,
    notes: &Notes,
) -> Result<(), Cause> {
    if !visit.house.settings.enforce {
        return Ok(());
    }
    visit.stands(Standing {
        asked: asked.clone(),
        addresses,
        confirmed: notes.confirmed,
    });
    judge_again(visit, &visit.house.rules()).map_err(Cause::Denied)
}

/// Is what the visit stands for still permitted? Identd is not asked again: who
/// was not asked when he came is not confirmed.
fn judge_again(visit: &Visit, rules: &Rules) -> Result<(), Verdict> {
    visit.while_it_stands(|standing| {
        let asked = question(visit, &standing.asked);
        let mut denied = Ok(());
        for &address in &standing.addresses {
            let verdict = rules.judge(&Question {
                address,
                // Whoever comes may come to any port.
                port: address.and(asked.port),
                ..asked
            });
            if verdict.grants(standing.confirmed) {
                return Ok(());
            }
            denied = denied.and(Err(verdict));
        }
        denied
    })
}
