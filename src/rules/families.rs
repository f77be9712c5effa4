//! A warning of rules that deny IPv4 addresses only, before a rule that permits every address.

use super::evaluate::Rules;
use super::matchers::AddressSet;
use super::networks::NetworkGroup;
use crate::protocol::Command;

/// Each is examined alone: a denial of BIND does not concern CONNECT.
const COMMANDS: [Command; 3] = [Command::Connect, Command::Bind, Command::Associate];

/// Groups of networks: for each of [`NetworkGroup::ALL`], is it one of them?
type Groups = [bool; NetworkGroup::ALL.len()];

/// A rule that denies IPv4 addresses, and no IPv6 address.
struct DenialOfIpv4 {
    line: usize,
    /// The groups that contain its addresses.
    inside: Groups,
    /// The groups of which it contains a network.
    around: Groups,
}

/// IPv6 addresses that rules deny.
#[derive(Default)]
struct DeniedIpv6 {
    groups: Groups,
    any: bool,
}

impl Rules {
    /// The lines that deny IPv4 addresses, where a later line permits every address, and the
    /// IPv6 addresses in the same groups of networks are not denied before it. For addresses
    /// in no group it suffices that some IPv6 address is denied: which one is the same host
    /// is not known.
    pub(super) fn denials_of_ipv4_only(&self) -> Vec<usize> {
        let of_command = |command: &Command| self.denials_of_ipv4_only_for(*command);
        let mut lines: Vec<usize> = COMMANDS.iter().flat_map(of_command).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// The same for one command, in one pass.
    fn denials_of_ipv4_only_for(&self, command: Command) -> Vec<usize> {
        let (mut ipv4, mut ipv6) = (Vec::new(), DeniedIpv6::default());
        let mut lines = Vec::new();
        for rule in self.iter().filter(|rule| rule.commands.contains(command)) {
            match rule.destination.addresses() {
                Some(addresses) if rule.permits && addresses.contains_all_ipv6() => {
                    let exposed = ipv4
                        .drain(..)
                        .filter(|it: &DenialOfIpv4| it.is_exposed(&ipv6));
                    lines.extend(exposed.map(|denial| denial.line));
                }
                Some(addresses) if !rule.permits => {
                    ipv4.extend(DenialOfIpv4::new(rule.line, addresses));
                    ipv6.add(addresses);
                }
                _ => {}
            }
        }
        lines
    }
}

impl DenialOfIpv4 {
    /// `None` if the rule with these addresses denies other addresses too.
    fn new(line: usize, addresses: AddressSet) -> Option<DenialOfIpv4> {
        let (value, mask) = addresses.as_ipv4()?;
        let [inside, around] = [
            NetworkGroup::ALL.map(|group| group.contains_ipv4(value, mask)),
            NetworkGroup::ALL.map(|group| group.is_within_ipv4(value, mask)),
        ];
        Some(DenialOfIpv4 {
            line,
            inside,
            around,
        })
    }

    /// Are the IPv6 addresses that belong to these IPv4 addresses not denied?
    fn is_exposed(&self, denied: &DeniedIpv6) -> bool {
        let is_some = |groups: &Groups, is_denied: bool| {
            let mut groups = groups.iter().zip(denied.groups);
            groups.any(|(is_one, denied)| *is_one && denied == is_denied)
        };
        match (self.inside.contains(&true), self.around.contains(&true)) {
            // One word suffices for an address in several groups, as 169.254.169.254.
            (true, _) => !is_some(&self.inside, true),
            (false, true) => is_some(&self.around, false),
            (false, false) => !denied.any,
        }
    }
}

impl DeniedIpv6 {
    fn add(&mut self, addresses: AddressSet) {
        let groups = match (addresses, addresses.as_ipv6()) {
            (AddressSet::Group(denied), _) => NetworkGroup::ALL.map(|group| group == denied),
            (_, Some((first, bits))) => {
                NetworkGroup::ALL.map(|group| group.meets_ipv6(first, bits))
            }
            _ => return,
        };
        self.any = true;
        for (is_denied, denied) in self.groups.iter_mut().zip(groups) {
            *is_denied |= denied;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::parse;

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
