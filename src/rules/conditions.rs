//! Says whether one rule matches every client, port, user and time that another one matches.
//!
//! Warnings depend on it. Where a sure answer would take too long, the answer is no, and the
//! warning is printed.

use std::ops::RangeInclusive;

use super::matchers::{AddressSet, DestinationSet, Match, PortSet, UserSet};
use super::rule::Rule;
use super::schedule::Schedule;

/// How many different conditions a warning compares with each rule; a bound on the time of a
/// reload. Denials with further conditions do not count.
pub(super) const MAX_CONDITIONS: usize = 1000;

/// Ranges of a port list, and names of a user list, that a warning compares one by one; the same
/// bound on time. Longer lists count as different unless they are equal.
const MAX_COMPARED: usize = 16;

const ANY_PORT: &[RangeInclusive<u16>] = &[0..=u16::MAX];

impl Rule {
    /// Does the other rule match every query that this one matches, as far as source, ports,
    /// user and time decide? Commands and destinations are not compared. Denials have neither
    /// `ident` nor `auth`.
    pub(super) fn conditions_are_within(&self, other: &Rule) -> bool {
        self.source.is_within(other.source)
            && self.source_ports.is_within(&other.source_ports)
            && self.destination_ports.is_within(&other.destination_ports)
            && self.users.is_within(&other.users)
            && self.schedule.is_within(&other.schedule)
    }

    /// Does an earlier rule match every query that this one matches, so that this one never decides?
    pub(super) fn is_covered_by(&self, earlier: &Rule) -> bool {
        // Such a rule does not match every address of its names.
        let excludes_local = |rule: &Rule| rule.permits && !rule.local;
        self.commands.is_within(earlier.commands)
            && self.destination.is_within(&earlier.destination)
            && self.conditions_are_within(earlier)
            && (!earlier.destination.is_of_a_zone()
                || !excludes_local(earlier)
                || excludes_local(self))
    }

    /// Have both rules the same conditions?
    pub(super) fn has_conditions_of(&self, other: &Rule) -> bool {
        self.source == other.source
            && self.source_ports == other.source_ports
            && self.destination_ports == other.destination_ports
            && self.users == other.users
            && self.schedule == other.schedule
    }
}

impl AddressSet {
    /// Are all addresses of this set in the other one? The answer for a group is no if the other
    /// set is a range, even one that contains all its networks.
    fn is_within(self, other: AddressSet) -> bool {
        if other == AddressSet::Any || self == other {
            return true;
        }
        match (self.as_ipv4(), other.as_ipv4(), other) {
            (Some((value, mask)), Some((other_value, other_mask)), _) => {
                mask & other_mask == other_mask && value & other_mask == other_value
            }
            (Some((value, mask)), None, AddressSet::Group(group)) => {
                group.contains_ipv4(value, mask)
            }
            _ => match (self.as_ipv6(), other.as_ipv6()) {
                (Some((first, bits)), Some((_, other_bits))) => {
                    bits >= other_bits && other.contains(first.into())
                }
                _ => false,
            },
        }
    }
}

impl DestinationSet {
    /// Are all destinations of this set in the other one?
    fn is_within(&self, other: &DestinationSet) -> bool {
        use DestinationSet::{Addresses, Name, Subdomains};
        match (self, other) {
            (_, Addresses(AddressSet::Any)) => true,
            (Addresses(addresses), Addresses(others)) => addresses.is_within(*others),
            (Name(name), Name(_) | Subdomains(_)) => other.matches(Some(name), None) == Match::Yes,
            (Subdomains(domain), Subdomains(_)) => {
                self == other || other.matches(Some(domain), None) == Match::Yes
            }
            _ => false,
        }
    }
}

impl PortSet {
    /// The number of its ports without 0: no request for port 0 is granted. The list is sorted
    /// once, so the time hardly grows faster than its length.
    pub(super) fn count_usable(&self) -> usize {
        let ranges = merged(&[self]).into_iter();
        let counts = ranges.map(|(first, end)| end - first.max(1));
        counts.sum::<u32>() as usize
    }

    /// Are all ports of this set in the other one?
    pub(super) fn is_within(&self, other: &PortSet) -> bool {
        if *other == PortSet::Any || self == other {
            return true;
        }
        // A test without sorting first: most lists already differ in their first port.
        let first = self.ranges().first().map(|range| *range.start());
        self.ranges().len().max(other.ranges().len()) <= MAX_COMPARED
            && other.matches(first) == Match::Yes
            && self.adds_nothing_to(other)
    }

    /// As [`is_within`](Self::is_within), for lists of any length.
    fn adds_nothing_to(&self, other: &PortSet) -> bool {
        merged(&[self, other]) == merged(&[other])
    }

    fn ranges(&self) -> &[RangeInclusive<u16>] {
        match self {
            PortSet::Any => ANY_PORT,
            PortSet::Ranges(ranges) => ranges,
        }
    }
}

/// The ports of these sets as ranges in ascending order that do not touch: the first port of
/// each, and the port after its last one.
fn merged(sets: &[&PortSet]) -> Vec<(u32, u32)> {
    let ranges = sets.iter().flat_map(|set| set.ranges());
    let ends = ranges.map(|range| (u32::from(*range.start()), u32::from(*range.end()) + 1));
    let mut ranges: Vec<(u32, u32)> = ends.collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, previous| {
        let touches = next.0 <= previous.1;
        if touches {
            previous.1 = previous.1.max(next.1);
        }
        touches
    });
    ranges
}

impl UserSet {
    fn is_within(&self, other: &UserSet) -> bool {
        match (self, other) {
            (_, UserSet::Any) => true,
            (UserSet::Any, UserSet::Names(_)) => false,
            (UserSet::Names(names), UserSet::Names(others)) => {
                self == other
                    || names.len().max(others.len()) <= MAX_COMPARED
                        && names.iter().all(|name| other.contains(name))
            }
        }
    }
}

impl Schedule {
    /// Are all times of this schedule in the other one? Two schedules count as different
    /// unless they are written with the same ranges.
    fn is_within(&self, other: &Schedule) -> bool {
        *other == Schedule::Always || self == other
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_COMPARED;
    use crate::rules::parse;

    /// Are the conditions of the first rule within those of the second, and the other way
    /// round?
    fn are_within(columns: [&str; 2]) -> [bool; 2] {
        let text = columns
            .map(|columns| format!("deny c {columns}\n"))
            .concat();
        let rules = parse(text.as_bytes()).expect(&text);
        let rules: Vec<_> = rules.iter().collect();
        let [first, second] = rules.as_slice() else {
            panic!("{text}")
        };
        [
            first.conditions_are_within(second),
            second.conditions_are_within(first),
        ]
    }

    #[test]
    fn f32_conditions_are_compared_column_by_column() {
        const SAME: [bool; 2] = [true, true];
        const NARROWER: [bool; 2] = [true, false];
        const DIFFERENT: [bool; 2] = [false, false];
        for (first, second, expected) in [
            ("-", "- - 127. -", SAME),
            ("10. - -", "- - -", NARROWER),
            ("10.1. - -", "10. - -", NARROWER),
            ("10.1.1.1 - -", "10.*.*.1 - -", NARROWER),
            ("10.1.1.1 - -", "10.*.*.2 - -", DIFFERENT),
            ("10. - -", "11. - -", DIFFERENT),
            ("10.0.0.0 - -", "10.0.0.0/32 - -", SAME),
            ("10.0.0.0 - -", "10. - -", NARROWER),
            ("10. - -", "0.0.0.0/0 - -", NARROWER),
            ("0.0.0.0/0 - -", "- - -", NARROWER),
            ("0.0.0.0/0 - -", "::/0 - -", DIFFERENT),
            ("10.1. - -", "private - -", NARROWER),
            ("10. - -", "loopback - -", DIFFERENT),
            ("private - -", "- - -", NARROWER),
            ("private - -", "private - -", SAME),
            ("fd00::/16 - -", "fc00::/7 - -", NARROWER),
            ("2001:db8:: - -", "2001:db8::/32 - -", NARROWER),
            ("fd00::/16 - -", "fe00::/16 - -", DIFFERENT),
            ("- 5 -", "- - -", NARROWER),
            ("- 5 -", "- 1,4-6 -", NARROWER),
            ("- 5 -", "- 6 -", DIFFERENT),
            ("- 0-65535 -", "- - -", SAME),
            ("- 65535,0-65534 -", "- - -", SAME),
            ("- 1-65535 -", "- - -", NARROWER),
            ("- 80", "-", NARROWER),
            ("- 80,443", "- 440-450,80", NARROWER),
            ("- 1-9", "- 5-9,1-4", SAME),
            ("- 1-9", "- 6-9,1-4", [false, true]),
            ("- 1-5,3-4,5-9", "- 2-9,1", SAME),
            ("- 80 user=a", "- 81 user=a", DIFFERENT),
            ("- user=a", "-", NARROWER),
            ("- user=a", "- user=b,a", NARROWER),
            ("- user=a,b", "- user=b,a,b", SAME),
            ("- user=a", "- user=A", DIFFERENT),
            ("- time=mon/08:00-09:00", "-", NARROWER),
            ("- time=mon/08:00-09:00", "- time=mon/8:00-9:00", SAME),
            (
                "- time=mon/08:00-09:00",
                "- time=tue/08:00-09:00",
                DIFFERENT,
            ),
            // Narrower in one column, wider in another one.
            ("10. - - - user=a", "- - - - user=b,a", NARROWER),
            ("10. - - - user=a", "- - - 80", DIFFERENT),
        ] {
            assert_eq!(are_within([first, second]), expected, "{first} | {second}");
            let [there, back] = expected;
            assert_eq!(
                are_within([second, first]),
                [back, there],
                "{second} | {first}"
            );
        }
    }

    #[test]
    fn f32_long_lists_are_within_others_only_if_they_are_equal() {
        let list = |count: usize| (1..=count).map(|it| format!("{}", 2 * it));
        for (column, separator) in [("- ", ","), ("- - - - user=u", ",u")] {
            let [short, long, longer] = [MAX_COMPARED, MAX_COMPARED + 1, MAX_COMPARED + 2]
                .map(|count| list(count).collect::<Vec<_>>().join(separator))
                .map(|list| format!("{column}{list}"));
            assert_eq!(are_within([&long, &long]), [true, true], "{long}");
            assert_eq!(are_within([&short, &long]), [false, false], "{short}");
            assert_eq!(are_within([&long, &longer]), [false, false], "{long}");
            let shorter = format!("{column}2");
            assert_eq!(are_within([&shorter, &short]), [true, false], "{short}");
        }
    }
}
