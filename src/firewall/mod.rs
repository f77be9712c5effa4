//! The firewall: `socks.conf` becomes a verdict.
//!
//! From text to verdict: [`parse`] understands a rules file, [`Rules::evaluate`]
//! answers a [`AccessQuery`], and the [`RulesFile`] keeps the rules in force equal
//! to the file without a restart, as every [`WatchedFile`] does.

mod columns;
mod grammar;
mod hours;
mod rules;
mod unusable_reason;

use crate::book::{Content, SyntaxError, WatchedFile};

pub use grammar::parse;
pub use hours::WeekTime;
pub(crate) use rules::canonical;
pub use rules::{AccessQuery, Column, Rule, Rules, Verdict};
pub use unusable_reason::unusable_reason;

/// The rules in force, and the file they come from.
pub type RulesFile = WatchedFile<Rules>;

impl Content for Rules {
    const NAME: &'static str = "rules";

    fn parse(text: &[u8]) -> Result<Rules, Vec<SyntaxError>> {
        parse(text)
    }
}
