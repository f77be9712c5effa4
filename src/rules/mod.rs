//! The firewall: `socks.conf` becomes a verdict.
//!
//! From text to verdict: [`parse`] understands a rules file, [`Rules::evaluate`]
//! answers a [`AccessQuery`], and the [`RulesFile`] keeps the rules in force equal
//! to the file without a restart, as every [`WatchedFile`] does.

mod evaluate;
mod matchers;
mod parser;
mod reserved;
mod schedule;

use crate::config::{Content, SyntaxError, WatchedFile};

pub(crate) use evaluate::canonical;
pub use evaluate::{AccessQuery, Column, Rule, Rules, Verdict};
pub use parser::parse;
pub use reserved::unusable_reason;
pub use schedule::WeekTime;

/// The rules in force, and the file they come from.
pub type RulesFile = WatchedFile<Rules>;

impl Content for Rules {
    const NAME: &'static str = "rules";

    fn parse(text: &[u8]) -> Result<Rules, Vec<SyntaxError>> {
        parse(text)
    }
}
