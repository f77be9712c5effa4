//! Clients that were rejected: at most one object a second for each cause, with a count.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use super::super::throttle::Throttle;
use super::object::JsonObject;
use crate::events::Rejected;

/// The rate limits of the causes. There are as many as [`Rejected::word`] has words.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    causes: HashMap<&'static str, Cause>,
}

#[derive(Debug, Default)]
struct Cause {
    throttle: Throttle,
    limit: Option<usize>,
}

impl Rejections {
    /// The object, unless the rate limit of its cause does not permit it.
    pub(super) fn line(
        &mut self,
        time: SystemTime,
        reason: &Rejected,
        now: Instant,
    ) -> Option<String> {
        let word = reason.word();
        let cause = self.causes.entry(word).or_default();
        cause.limit = reason.limit();
        let suppressed = cause.throttle.try_pass(now)?;
        let mut object = JsonObject::new(time, "rejected");
        object.optional_address("client", reason.client());
        object.text("cause", word);
        object.optional_number("limit", cause.limit);
        object.number("count", suppressed + 1);
        Some(object.finish())
    }

    /// Objects without a client, for the rejections that were only counted.
    pub(super) fn suppressed_lines(&mut self, time: SystemTime, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (word, cause) in &mut self.causes {
            let count = cause.throttle.take_suppressed(now);
            if count > 0 {
                let mut object = JsonObject::new(time, "rejected");
                object.text("cause", word);
                object.optional_number("limit", cause.limit);
                object.number("count", count);
                lines.push(object.finish());
            }
        }
        lines
    }

    pub(super) fn has_suppressed(&self) -> bool {
        let mut causes = self.causes.values();
        causes.any(|cause| cause.throttle.has_suppressed())
    }

    pub(super) fn reset(&mut self) {
        let causes = self.causes.values_mut();
        causes.for_each(|cause| cause.throttle.reset());
    }
}
