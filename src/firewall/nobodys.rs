//! Addresses that can be nobody's, whatever the rules say.

use std::net::IpAddr;

/// Why this address and port can be no server's, whatever the rules say.
/// (Linux would take 0.0.0.0 for the machine itself.)
pub fn nobodys(address: IpAddr, port: u16) -> Option<&'static str> {
    let IpAddr::V4(v4) = address.to_canonical() else {
        return None;
    };
    if port == 0 {
        Some("nobody listens on port 0")
    } else if v4.is_unspecified() {
        Some("0.0.0.0 is nobody's address")
    } else if v4.is_multicast() {
        Some("a multicast address cannot be connected to")
    } else if v4.octets() >= [240, 0, 0, 0] {
        Some("a broadcast or reserved address cannot be connected to")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::nobodys;

    #[test]
    fn c05_c11_what_is_nobodys_is_told_from_what_the_rules_decide() {
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
        ] {
            let why = nobodys(address.parse().unwrap(), port);
            assert_eq!(why.is_some(), refused, "{address}:{port}");
        }
    }
}
