//! What we want to reach, and whether we have.

use crate::peers::Contender;
use crate::results::{Results, median};

/// Compared with whom.
#[derive(Clone, Copy)]
pub(crate) enum Than {
    Contender(Contender),
    /// The one that does it best, but us and the direct connection.
    BestProxy,
    /// Nobody: the number itself.
    Nobody,
}

#[derive(Clone, Copy)]
pub(crate) enum Wish {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) struct Goal {
    pub(crate) measure: &'static str,
    pub(crate) wish: Wish,
    pub(crate) than: Than,
}

use Contender::{Dante, Direct, Microsocks, Plain};
use Than::{BestProxy, Nobody};
use Wish::{AtLeast, AtMost};

/// Those of connections that fit are meant for a machine that allows 20,000
/// descriptors: the load generator itself needs two for each.
pub(crate) const GOALS: [Goal; 22] = [
    goal("down", AtLeast(0.65), Than::Contender(Direct)),
    goal("up", AtLeast(0.65), Than::Contender(Direct)),
    goal("down_cpu", AtMost(0.25), Than::Contender(Dante)),
    goal("down_cpu", AtMost(0.3), Than::Contender(Plain)),
    goal("up_cpu", AtMost(0.25), Than::Contender(Dante)),
    goal("up_cpu", AtMost(0.3), Than::Contender(Plain)),
    goal("four", AtLeast(0.4), Than::Contender(Direct)),
    goal("four", AtLeast(2.0), Than::Contender(Dante)),
    goal("rate_8", AtLeast(1.15), Than::Contender(Microsocks)),
    goal("rate_64", AtLeast(1.15), Than::Contender(Microsocks)),
    goal("rate_8_cpu", AtMost(0.9), Than::Contender(Microsocks)),
    goal("rate_64_cpu", AtMost(0.9), Than::Contender(Microsocks)),
    goal("trip_p50", AtMost(1.05), BestProxy),
    goal("udp_small", AtLeast(1.5), Than::Contender(Dante)),
    goal("udp_small_cpu", AtMost(0.6), Than::Contender(Dante)),
    goal("udp_eight", AtLeast(1.5), Than::Contender(Dante)),
    goal("udp_trip_p50", AtMost(0.8), Than::Contender(Dante)),
    goal("idle_memory", AtMost(18.0), Nobody),
    goal("most", AtLeast(8000.0), Nobody),
    goal("most_new", AtMost(5.0), Nobody),
    goal("rules_addresses", AtMost(50.0), Nobody),
    goal("rules_names", AtMost(50.0), Nobody),
];

const fn goal(measure: &'static str, wish: Wish, than: Than) -> Goal {
    Goal {
        measure,
        wish,
        than,
    }
}

impl Goal {
    /// What we have reached; none if one of the two was not measured.
    pub(crate) fn value(&self, results: &Results) -> Option<f64> {
        let ours = results.samples(self.measure, Contender::Ours)?;
        match self.than {
            Than::Contender(other) => results.ratio(self.measure, Contender::Ours, other),
            Than::Nobody => Some(median(ours)),
            Than::BestProxy => {
                let others = [Plain, Microsocks, Dante].into_iter();
                let ratios =
                    others.filter_map(|it| results.ratio(self.measure, Contender::Ours, it));
                match self.wish {
                    AtMost(_) => ratios.reduce(f64::max),
                    AtLeast(_) => ratios.reduce(f64::min),
                }
            }
        }
    }

    pub(crate) fn is_met_by(&self, value: f64) -> bool {
        match self.wish {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
        }
    }

    /// As `at least 0.65 of direct`.
    pub(crate) fn words(&self) -> String {
        let wish = match self.wish {
            AtLeast(least) => format!("at least {least}"),
            AtMost(most) => format!("at most {most}"),
        };
        match self.than {
            Than::Contender(other) => format!("{wish} of {}", other.name()),
            Than::BestProxy => format!("{wish} of the best proxy"),
            Than::Nobody => wish,
        }
    }
}
