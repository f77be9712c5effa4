//! Access rules: the text of `socks.conf` becomes a verdict on each request.
//!
//! [`parse`] reads a rules file, [`Rules::evaluate`] answers an [`AccessQuery`], and the
//! [`RulesFile`] follows the file without a restart.

mod addresses;
mod columns;
mod conditions;
mod could_permit;
mod evaluate;
mod families;
mod matchers;
mod networks;
mod parser;
mod query;
mod quote;
mod reserved;
mod rule;
mod schedule;
mod warnings;
mod words;

pub use evaluate::Rules;
pub use parser::{RulesFile, parse};
pub(crate) use query::judged_source;
pub use query::{AccessQuery, Verdict};
pub use reserved::{unusable_address, unusable_reason};
pub use rule::{Column, Rule};
pub use schedule::WeekTime;
pub use words::split_words;
