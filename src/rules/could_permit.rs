//! What the rules say of a client before its request is known.

use std::net::IpAddr;

use super::evaluate::Rules;
use super::matchers::CommandSet;
use super::query::judged_source;
use crate::protocol::Nat64Prefix;

impl Rules {
    /// Could the rules permit anything to a client with this address, at any time and
    /// whatever user it has? If that is not certain, the answer is yes. `nat64`: as in an
    /// [`AccessQuery`](super::AccessQuery).
    pub fn could_permit(&self, client: IpAddr, nat64: &[Nat64Prefix]) -> bool {
        let client = judged_source(client, nat64);
        let mut denied = CommandSet::NONE;
        for rule in self.iter().filter(|rule| rule.source.contains(client)) {
            if rule.permits && !rule.commands.is_within(denied) {
                return true;
            }
            if !rule.permits && rule.tests_only_the_source() {
                denied = denied.union(rule.commands);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::parse;

    #[test]
    fn s25_a_client_is_without_a_permit_only_if_that_is_certain() {
        for (text, expected) in [
            ("", false),
            ("permit c 10.0.0.5 - - -\n", true),
            ("permit c ::ffff:10.0.0.5 - - -\n", true),
            ("permit c 10.0.0.6 - - -\n", false),
            ("permit c 2001:db8::/32 - - -\n", false),
            // A denial of everything hides the rules after it, for its commands.
            ("deny - 10.0.0.5 - - -\npermit - - - - -\n", false),
            ("deny c 10.0.0.5 - - -\npermit c - - - -\n", false),
            ("deny c 10.0.0.5 - - -\npermit cb - - - -\n", true),
            (
                "deny cb 10. - - -\ndeny u 10. - - -\npermit - - - - -\n",
                false,
            ),
            ("deny - 10.0.0.6 - - -\npermit - - - - -\n", true),
            // Denials that leave something open.
            ("deny - 10. 1-1023 - -\npermit - - - - -\n", true),
            ("deny - - - 127. -\npermit - - - - -\n", true),
            ("deny - - - - 25\npermit - - - - -\n", true),
            ("deny - - - *.example -\npermit - - - - -\n", true),
            ("deny - - - - - user=bob\npermit - - - - -\n", true),
            (
                "deny - - - - - time=sat-sun/00:00-24:00\npermit - - - - -\n",
                true,
            ),
            // Permits on conditions that the request may meet.
            ("permit c - 1 - - user=bob\n", true),
            ("permit c - - - - auth\n", true),
            (
                "permit u - - a.example 1 time=mon/09:00-10:00 ident\n",
                true,
            ),
        ] {
            let rules = parse(text.as_bytes()).expect(text);
            for client in ["10.0.0.5", "::ffff:10.0.0.5", "64:ff9b::10.0.0.5"] {
                let could_permit = rules.could_permit(client.parse().unwrap(), &[]);
                assert_eq!(could_permit, expected, "{client} {text}");
            }
        }
    }
}
