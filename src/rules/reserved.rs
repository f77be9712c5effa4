//! Addresses and ports that no server can have, whatever the rules say.

use std::net::{IpAddr, Ipv6Addr};

use crate::protocol::{Nat64Prefix, judged_address};

/// Why no server can have this address and port; `None` if one can.
pub fn unusable_reason(address: IpAddr, port: u16, nat64: &[Nat64Prefix]) -> Option<&'static str> {
    match port {
        0 => Some("no server can listen on port 0"),
        _ => unusable_address(address, nat64),
    }
}

/// Why no host can have this address; `None` if one can. Checked beside the rules: for
/// 0.0.0.0 Linux connects to the machine itself, past a rule that denies 127.0.0.1. `nat64`
/// has the network's own prefixes.
pub fn unusable_address(address: IpAddr, nat64: &[Nat64Prefix]) -> Option<&'static str> {
    let address = judged_address(address, nat64);
    if address.is_unspecified() {
        return Some("no host has the address 0.0.0.0 or ::");
    } else if address.is_multicast() {
        return Some("a multicast address cannot be connected to");
    }
    match address {
        IpAddr::V4(v4) if v4.octets() >= [240, 0, 0, 0] => {
            Some("a broadcast or reserved address cannot be connected to")
        }
        IpAddr::V6(v6) if embeds_ipv4(v6) => Some(
            "an IPv6 address that contains an IPv4 address would bypass the rules for that address",
        ),
        _ => None,
    }
}

/// Does the address contain an IPv4 address that a gateway or the system connects to? NAT64
/// with a prefix that is neither well-known nor this network's (RFC 6052, RFC 8215), 6to4
/// (RFC 3056), Teredo (RFC 4380), IPv4-compatible addresses (RFC 4291, section 2.5.5.1),
/// IPv4-translated addresses of SIIT (RFC 2765), and ISATAP (RFC 5214, section 6.1).
fn embeds_ipv4(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x64, 0xFF9B, ..] | [0x2002, ..] | [0x2001, 0, ..] => true,
        [0, 0, 0, 0, 0, 0, ..] => address != Ipv6Addr::LOCALHOST,
        [0, 0, 0, 0, 0xFFFF, 0, ..] => true,
        // The bit that differs says whether the IPv4 address is unique worldwide.
        [_, _, _, _, 0 | 0x0200, 0x5EFE, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_c11_x13_only_addresses_and_ports_that_no_server_can_have_are_unusable() {
        for (address, port, refused) in [
            ("127.0.0.1", 0, true),
            ("0.0.0.0", 80, true),
            ("224.0.0.1", 80, true),
            ("239.255.255.255", 80, true),
            ("240.0.0.1", 80, true),
            ("255.255.255.255", 80, true),
            ("127.0.0.1", 80, false),
            ("169.254.169.254", 80, false),
            ("10.255.255.255", 65535, false),
            ("223.255.255.255", 1, false),
            ("::1", 80, false),
            ("::", 80, true),
            ("::1", 0, true),
            ("ff02::1", 80, true),
            ("::ffff:127.0.0.1", 80, false),
            ("::ffff:0.0.0.0", 80, true),
            ("::127.0.0.1", 80, true),
            ("64:ff9b::7f00:1", 80, false),
            ("64:ff9b::7f00:1", 0, true),
            ("64:ff9b::", 80, true),
            ("64:ff9b::e000:1", 80, true),
            ("64:ff9b::f000:1", 80, true),
            ("64:ff9b:0:0:1::7f00:1", 80, true),
            ("64:ff9b:1::7f00:1", 80, true),
            ("64:ff9b:ffff::7f00:1", 80, true),
            ("2001:db8:64::7f00:1", 80, false),
            ("2001:db8:64::e000:1", 80, true),
            ("2001:db8:64::", 80, true),
            ("::ffff:0:127.0.0.1", 80, true),
            ("::ffff:0:0:1", 80, true),
            ("fe80::5efe:127.0.0.1", 80, true),
            ("fe80::200:5efe:127.0.0.1", 80, true),
            ("2001:db8::5efe:10.0.0.1", 80, true),
            ("2001:db8::200:5efe:10.0.0.1", 80, true),
            ("2001:db8::100:5efe:10.0.0.1", 80, false),
            ("2001:db8::5eff:10.0.0.1", 80, false),
            ("2002:7f00:1::", 80, true),
            ("2001:0:7f00:1::", 80, true),
            ("2001:db8::1", 80, false),
            ("fe80::1", 80, false),
        ] {
            let own = [Nat64Prefix::parse("2001:db8:64::/96").unwrap()];
            let reason = unusable_reason(address.parse().unwrap(), port, &own);
            assert_eq!(reason.is_some(), refused, "{address}:{port}");
        }
    }
}
