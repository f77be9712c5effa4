//! The firewall: `socks.conf` becomes a verdict.
//!
//! From text to verdict: [`parse`] understands a rules file, [`Rules::judge`]
//! answers a [`Question`], and the [`Rulebook`] keeps the rules in force equal
//! to the file without a restart.

mod columns;
mod grammar;
mod hours;
mod nobodys;
mod rulebook;
mod rules;

pub use grammar::{MOST_MISTAKES, Mistake, parse};
pub use hours::Moment;
pub use nobodys::nobodys;
pub use rulebook::{News, Rulebook, Unusable};
pub(crate) use rules::canonical;
pub use rules::{Part, Question, Rule, Rules, Verdict};
