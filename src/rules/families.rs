//! A warning of rules that deny IPv4 addresses only, before a rule that permits every address.

use super::conditions::MAX_CONDITIONS;
use super::evaluate::Rules;
use super::matchers::AddressSet;
use super::networks::NetworkGroup;
use super::rule::Rule;
use crate::protocol::Command;

/// Each is examined alone: a denial of BIND does not concern CONNECT.
const COMMANDS: [Command; 3] = [Command::Connect, Command::Bind, Command::Associate];

/// Groups of networks: for each of [`NetworkGroup::ALL`], is it one of them?
type Groups = [bool; NetworkGroup::ALL.len()];

/// A rule that denies IPv4 addresses, and no IPv6 address.
struct DenialOfIpv4<'a> {
    rule: &'a Rule,
    /// The groups that contain its addresses.
    inside: Groups,
    /// The groups of which it contains a network.
    around: Groups,
}

/// IPv6 addresses that rules with the same conditions deny.
struct DeniedIpv6<'a> {
    /// One of these rules.
    rule: &'a Rule,
    groups: Groups,
}

impl Rules {
    /// The lines that deny IPv4 addresses, where a later line permits every address, and the
    /// IPv6 addresses in the same groups of networks are not denied before it. For addresses
    /// in no group a denial of any IPv6 address suffices: the program cannot know which one
    /// belongs to the same host. A denial of IPv6 addresses counts only if its other columns
    /// match everything that those of the denial of IPv4 addresses match.
    pub(super) fn denials_of_ipv4_only(&self) -> Vec<usize> {
        let of_command = |command: &Command| self.denials_of_ipv4_only_for(*command);
        let mut lines: Vec<usize> = COMMANDS.iter().flat_map(of_command).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// The same for one command.
    fn denials_of_ipv4_only_for(&self, command: Command) -> Vec<usize> {
        let (mut ipv4, mut ipv6) = (Vec::<DenialOfIpv4<'_>>::new(), Vec::new());
        let mut lines = Vec::new();
        for rule in self.iter().filter(|rule| rule.commands.contains(command)) {
            match rule.destination.addresses() {
                Some(addresses) if rule.permits && addresses.contains_all_ipv6() => {
                    let exposed = ipv4.drain(..).filter(|it| it.is_exposed(&ipv6));
                    lines.extend(exposed.map(|denial| denial.rule.line));
                }
                Some(addresses) if !rule.permits => {
                    ipv4.extend(DenialOfIpv4::new(rule, addresses));
                    deny_ipv6(&mut ipv6, rule, addresses);
                }
                _ => {}
            }
        }
        lines
    }
}

impl DenialOfIpv4<'_> {
    /// `None` if the rule with these addresses denies other addresses too.
    fn new(rule: &Rule, addresses: AddressSet) -> Option<DenialOfIpv4<'_>> {
        let (value, mask) = addresses.as_ipv4()?;
        let [inside, around] = [
            NetworkGroup::ALL.map(|group| group.contains_ipv4(value, mask)),
            NetworkGroup::ALL.map(|group| group.is_within_ipv4(value, mask)),
        ];
        Some(DenialOfIpv4 {
            rule,
            inside,
            around,
        })
    }

    /// Are the IPv6 addresses that belong to these IPv4 addresses not denied?
    fn is_exposed(&self, denied: &[DeniedIpv6<'_>]) -> bool {
        let mut denied_groups = None;
        for it in denied {
            if self.rule.conditions_are_within(it.rule) {
                add(denied_groups.get_or_insert_default(), it.groups);
            }
        }
        let Some(denied_groups) = denied_groups else {
            return true;
        };
        let contains_one = |groups: &Groups, is_denied: bool| {
            let mut groups = groups.iter().zip(denied_groups);
            groups.any(|(is_one, denied)| *is_one && denied == is_denied)
        };
        match (self.inside.contains(&true), self.around.contains(&true)) {
            // One word suffices for an address in several groups, as 169.254.169.254.
            (true, _) => !contains_one(&self.inside, true),
            (false, true) => contains_one(&self.around, false),
            (false, false) => false,
        }
    }
}

/// Adds the IPv6 addresses of a rule that denies these addresses, if it has any. If the list
/// is full, and the conditions of the rule are new, its denial does not count.
fn deny_ipv6<'a>(denied: &mut Vec<DeniedIpv6<'a>>, rule: &'a Rule, addresses: AddressSet) {
    let groups = match (addresses, addresses.as_ipv6()) {
        (AddressSet::Any, _) => [true; NetworkGroup::ALL.len()],
        (AddressSet::Group(denied), _) => NetworkGroup::ALL.map(|group| group == denied),
        (_, Some((first, bits))) => NetworkGroup::ALL.map(|group| group.meets_ipv6(first, bits)),
        _ => return,
    };
    let is_full = denied.len() == MAX_CONDITIONS;
    let mut same = denied.iter_mut();
    match same.find(|it| it.rule.has_conditions_of(rule)) {
        Some(same) => add(&mut same.groups, groups),
        None if is_full => {}
        None => denied.push(DeniedIpv6 { rule, groups }),
    }
}

fn add(groups: &mut Groups, more: Groups) {
    for (is_denied, denied) in groups.iter_mut().zip(more) {
        *is_denied |= denied;
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_CONDITIONS;
    use crate::rules::parse;

    #[test]
    fn f32_a_denial_of_ipv6_counts_only_under_the_same_conditions() {
        for (text, lines) in [
            // Narrower denials of IPv6 addresses.
            ("deny - 127.\ndeny - ::1 user=bob\npermit - -\n", &[1][..]),
            ("deny - 127.\ndeny - ::1 80\npermit - -\n", &[1]),
            ("deny - 127.\ndeny - 10. - loopback\npermit - -\n", &[1]),
            ("deny - 127.\ndeny - - 1-1023 loopback\npermit - -\n", &[1]),
            (
                "deny - 127.\ndeny - ::1 time=mon/08:00-09:00\npermit - -\n",
                &[1],
            ),
            ("deny - 127.\ndeny c ::1\npermit - -\n", &[1]),
            ("deny - 127.\ndeny cb ::1\npermit u -\n", &[1]),
            ("deny - 127. 80,443\ndeny - ::1 80\npermit - -\n", &[1]),
            ("deny - 10. - 127.\ndeny - 10.1. - ::1\npermit - -\n", &[1]),
            (
                "deny - 10. - 127.\ndeny - fd00::/8 - ::1\npermit - -\n",
                &[1],
            ),
            (
                "deny - 127. user=a,b\ndeny - ::1 user=a\npermit - -\n",
                &[1],
            ),
            (
                "deny - 140.113.\ndeny - 2001:db8::/32 80\npermit - -\n",
                &[1],
            ),
            // Half of the conditions in each of two rules.
            (
                "deny - 127.\ndeny - ::1 0-99\ndeny - ::1 100-65535\npermit - -\n",
                &[1],
            ),
            // The same or wider conditions.
            ("deny - 127. 80\ndeny - ::1 80\npermit - -\n", &[]),
            ("deny - 127. 80\ndeny - ::1 1-1023\npermit - -\n", &[]),
            ("deny - 127. 80\ndeny - ::1\npermit - -\n", &[]),
            ("deny - 10.1. - 127.\ndeny - 10. - ::1\npermit - -\n", &[]),
            ("deny c 127.\ndeny - ::1\npermit - -\n", &[]),
            ("deny - 127. user=a\ndeny - ::1 user=a,b\npermit - -\n", &[]),
            ("deny - 127. 0-65535\ndeny - ::1\npermit - -\n", &[]),
            ("deny - 127.\ndeny - ::1 0-65535\npermit - -\n", &[]),
            // Each of the two groups has its own conditions.
            (
                "deny - 126.0.0.0/7 80\ndeny - ::1 80\ndeny - 126.0.0.0/7 user=a\npermit - -\n",
                &[3],
            ),
            // A denial of every address is one of every IPv6 address.
            ("deny - 127.\ndeny - -\npermit - -\n", &[]),
            ("deny - 127.\ndeny - ::/0\npermit - -\n", &[]),
            ("deny - 127.\ndeny c -\npermit - -\n", &[1]),
            ("deny - 127.\ndeny - - 25\npermit - -\n", &[1]),
            ("deny - 127. 25\ndeny - - 25\npermit - -\n", &[]),
            ("deny - 127.\ndeny - - user=a\npermit - -\n", &[1]),
        ] {
            let rules = parse(text.as_bytes()).expect("valid rules");
            assert_eq!(rules.denials_of_ipv4_only(), lines, "{text}");
        }
    }

    #[test]
    fn f32_of_many_conditions_only_the_first_count() {
        let denials: String = (1..=MAX_CONDITIONS + 1)
            .map(|port| format!("deny - 127. {port}\ndeny - ::1 {port}\n"))
            .collect();
        let rules = parse(format!("{denials}permit - -\n").as_bytes()).expect("valid rules");
        let last = 2 * MAX_CONDITIONS + 1;
        assert_eq!(rules.denials_of_ipv4_only(), [last]);
    }

    #[test]
    fn f30_denials_of_ipv4_before_a_permit_of_every_address_are_found() {
        for (text, lines) in [
            ("deny - 127.\npermit - -\n", &[1][..]),
            ("deny - 127.0.0.0/8\npermit c 10. - - 80,443\n", &[1]),
            ("deny - 127.0.0.1\npermit - ::/0\n", &[1]),
            ("deny - ::ffff:127.0.0.1\npermit - -\n", &[1]),
            ("deny - 169.254.169.254\npermit - -\n", &[1]),
            ("deny - 10.\ndeny - 172.16.0.0/12\npermit - -\n", &[1, 2]),
            ("deny - *.*.99.0\npermit - -\n", &[1]),
            ("deny - 140.113.0.0\npermit - -\n", &[1]),
            ("deny - 0.0.0.0/0\npermit - -\n", &[1]),
            ("deny cu 127.\ndeny b ::1\npermit - -\n", &[1]),
            // Each group needs its own denial.
            ("deny - 127.\ndeny - private\npermit - -\n", &[1]),
            ("deny - 127.\ndeny - 2001:db8::/32\npermit - -\n", &[1]),
            (
                "deny - 126.0.0.0/7\ndeny - 2001:db8::/32\npermit - -\n",
                &[1],
            ),
            // A denial after the permit comes too late.
            ("deny - 127.\npermit - -\ndeny - loopback\n", &[1]),
            ("deny - 127.\ndeny - ::1\npermit - -\n", &[]),
            ("deny - 127.\ndeny - loopback\npermit - -\n", &[]),
            ("deny - ::/0\ndeny - 127.\npermit - -\n", &[]),
            ("deny - 169.254.169.254\ndeny - metadata\npermit - -\n", &[]),
            ("deny - 169.254.\ndeny - fe80::/64\npermit - -\n", &[]),
            ("deny - 10.1.\ndeny - fd00::/8\npermit - -\n", &[]),
            ("deny - 140.113.9.\ndeny - 2001:db8::/32\npermit - -\n", &[]),
            ("deny - loopback\ndeny - private\npermit - -\n", &[]),
            // No permit of every IPv6 address.
            ("deny - 127.\n", &[]),
            ("deny - 127.\npermit - 0.0.0.0/0\n", &[]),
            ("deny - 127.\npermit - *.example.org\n", &[]),
            ("deny b 127.\npermit cu -\n", &[]),
            ("permit - -\ndeny - 127.\n", &[]),
            // A denial of clients, not of destinations.
            ("deny - 127. - - -\npermit - -\n", &[]),
        ] {
            let rules = parse(text.as_bytes()).expect("valid rules");
            assert_eq!(rules.denials_of_ipv4_only(), lines, "{text}");
        }
    }
}
