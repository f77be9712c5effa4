//! The firewall: `socks.conf` becomes a verdict.
//!
//! From text to verdict: [`parse`] understands a rules file, [`Rules::judge`]
//! answers a [`Question`], and the [`Rulebook`] keeps the rules in force equal
//! to the file without a restart, as every [`Book`] does.

mod columns;
mod grammar;
mod hours;
mod nobodys;
mod rules;

use crate::book::{Book, Content, Mistake};

pub use grammar::parse;
pub use hours::Moment;
pub use nobodys::nobodys;
pub(crate) use rules::canonical;
pub use rules::{Part, Question, Rule, Rules, Verdict};

/// The rules in force, and the file they come from.
pub type Rulebook = Book<Rules>;

impl Content for Rules {
    const NAME: &'static str = "rules";

    fn parse(text: &[u8]) -> Result<Rules, Vec<Mistake>> {
        parse(text)
    }
}
