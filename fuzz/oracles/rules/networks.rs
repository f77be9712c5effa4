//! The words for networks, as the manual lists them.

/// The networks that the manual lists for a word; `None` for any other word.
pub fn networks_of(word: &str) -> Option<&'static [&'static str]> {
    Some(match word.to_lowercase().as_str() {
        "loopback" => &["127.0.0.0/8", "::1"],
        "linklocal" => &["169.254.0.0/16", "fe80::/10"],
        "private" => &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
            "fec0::/10",
        ],
        "metadata" => &[
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.42.42",
            "169.254.0.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fe80::a9fe:a9fe",
            "fd00:a9fe:a9fe::1",
            "fd00:42::42",
            "fd00:100::100:200",
        ],
        _ => return None,
    })
}
