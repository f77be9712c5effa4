//! The rules by which an association judges its datagrams, at most a millisecond old.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rules::Rules;
use crate::sync::{OrderedMutex, Rank};

/// How long the rules are used before the file is checked again. A check for each datagram
/// would cost a quarter of the throughput (docs/performance.md).
const RULES_TTL: Duration = Duration::from_millis(1);

/// The rules at the last check of the file, for both directions.
#[derive(Debug)]
pub(super) struct RecentRules {
    /// The rules, and when their check began; a leaf in the lock order.
    checked: OrderedMutex<Option<(Arc<Rules>, Instant)>>,
}

impl Default for RecentRules {
    fn default() -> RecentRules {
        RecentRules {
            checked: OrderedMutex::new(Rank::Leaf, None),
        }
    }
}

impl RecentRules {
    /// The rules of the last check, or those that `check` returns, if that is too long ago.
    ///
    /// The lock is released during `check`, which may read the file. If the other direction
    /// has begun its check later, its rules count: the rules never go back to an older
    /// version.
    pub(super) fn get(&self, check: impl FnOnce() -> Arc<Rules>) -> Arc<Rules> {
        let now = Instant::now();
        let is_recent = |began: Instant| now.saturating_duration_since(began) < RULES_TTL;
        if let Some((rules, began)) = &*self.checked.lock()
            && is_recent(*began)
        {
            return Arc::clone(rules);
        }
        let current = check();
        let mut checked = self.checked.lock();
        match &*checked {
            Some((rules, began)) if *began >= now => Arc::clone(rules),
            _ => {
                *checked = Some((Arc::clone(&current), now));
                current
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::parse;

    #[test]
    fn a_check_that_began_later_counts() {
        let [old, new] = ["permit - -\n", "deny - -\n"]
            .map(|text| Arc::new(parse(text.as_bytes()).expect("valid rules")));
        let recent = RecentRules::default();
        let used = recent.get(|| {
            // The other direction overtakes this check.
            assert_eq!(recent.get(|| Arc::clone(&new)), new);
            Arc::clone(&old)
        });
        assert_eq!(used, new);
    }

    #[test]
    fn a_check_is_repeated_after_a_millisecond_and_not_before() {
        let rules = Arc::new(Rules::default());
        let recent = RecentRules::default();
        let (began, mut checks) = (Instant::now(), 0);
        while checks < 3 {
            recent.get(|| {
                checks += 1;
                Arc::clone(&rules)
            });
        }
        assert!(began.elapsed() >= 2 * RULES_TTL);
    }
}
