//! The performance goals of threadsocks, and whether the results meet them.

use crate::contender::Contender;
use crate::results::Results;
use crate::statistics::median;

/// What the value of threadsocks is divided by.
#[derive(Clone, Copy)]
pub(crate) enum Reference {
    Contender(Contender),
    /// The best of the other proxies (not the direct connection).
    BestOtherProxy,
    /// Nothing: the goal is for the value itself, in the unit of the metric.
    Absolute,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) struct Goal {
    pub(crate) metric: &'static str,
    pub(crate) bound: Bound,
    pub(crate) reference: Reference,
}

use Bound::{AtLeast, AtMost};
use Contender::{Dante, Direct, Microsocks, Plain};
use Reference::{Absolute, BestOtherProxy};

/// The goal for `most` assumes a limit of 20,000 descriptors: the load generator
/// needs two per connection.
pub(crate) const GOALS: [Goal; 22] = [
    goal("down", AtLeast(0.65), Reference::Contender(Direct)),
    goal("up", AtLeast(0.65), Reference::Contender(Direct)),
    goal("down_cpu", AtMost(0.25), Reference::Contender(Dante)),
    goal("down_cpu", AtMost(0.3), Reference::Contender(Plain)),
    goal("up_cpu", AtMost(0.25), Reference::Contender(Dante)),
    goal("up_cpu", AtMost(0.3), Reference::Contender(Plain)),
    goal("four", AtLeast(0.4), Reference::Contender(Direct)),
    goal("four", AtLeast(2.0), Reference::Contender(Dante)),
    goal("rate_8", AtLeast(1.15), Reference::Contender(Microsocks)),
    goal("rate_64", AtLeast(1.15), Reference::Contender(Microsocks)),
    goal("rate_8_cpu", AtMost(0.9), Reference::Contender(Microsocks)),
    goal("rate_64_cpu", AtMost(0.9), Reference::Contender(Microsocks)),
    goal("trip_p50", AtMost(1.05), BestOtherProxy),
    goal("udp_small", AtLeast(1.5), Reference::Contender(Dante)),
    goal("udp_small_cpu", AtMost(0.6), Reference::Contender(Dante)),
    goal("udp_eight", AtLeast(1.5), Reference::Contender(Dante)),
    goal("udp_trip_p50", AtMost(0.8), Reference::Contender(Dante)),
    goal("idle_memory", AtMost(18.0), Absolute),
    goal("most", AtLeast(8000.0), Absolute),
    goal("most_new", AtMost(5.0), Absolute),
    goal("rules_addresses", AtMost(50.0), Absolute),
    goal("rules_names", AtMost(50.0), Absolute),
];

const fn goal(metric: &'static str, bound: Bound, reference: Reference) -> Goal {
    Goal {
        metric,
        bound,
        reference,
    }
}

impl Goal {
    /// The ratio or value reached; `None` if a metric was not measured.
    pub(crate) fn value(&self, results: &Results) -> Option<f64> {
        let own_samples = results.samples(self.metric, Contender::Threadsocks)?;
        match self.reference {
            Reference::Contender(other) => {
                results.ratio(self.metric, Contender::Threadsocks, other)
            }
            Reference::Absolute => Some(median(own_samples)),
            Reference::BestOtherProxy => {
                let others = [Plain, Microsocks, Dante].into_iter();
                let ratios = others
                    .filter_map(|other| results.ratio(self.metric, Contender::Threadsocks, other));
                match self.bound {
                    AtMost(_) => ratios.reduce(f64::max),
                    AtLeast(_) => ratios.reduce(f64::min),
                }
            }
        }
    }

    pub(crate) fn is_met_by(&self, value: f64) -> bool {
        match self.bound {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
        }
    }

    /// For example `at least 0.65 of direct`.
    pub(crate) fn description(&self) -> String {
        let bound = match self.bound {
            AtLeast(least) => format!("at least {least}"),
            AtMost(most) => format!("at most {most}"),
        };
        match self.reference {
            Reference::Contender(other) => format!("{bound} of {}", other.name()),
            Reference::BestOtherProxy => format!("{bound} of the best proxy"),
            Reference::Absolute => bound,
        }
    }
}
