//! Addresses in rules: words for networks, and warnings, as an operator sees them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::endpoints::{Origin, dial, read_exactly, write};
use crate::support::proxy::{Proxy, binary};

const SECURITY: &str = include_str!("../../../SECURITY.md");
const MANUAL: &str = include_str!("../../../docs/socks.conf.5");

/// The code of the reply to a SOCKS5 CONNECT whose address field, with its type, has these
/// bytes.
fn connect_reply(proxy: &Proxy, address: &[u8], port: u16) -> u8 {
    let client = dial(proxy.address());
    write(&client, b"\x05\x01\x00");
    assert_eq!(read_exactly(&client, 2), b"\x05\x00");
    let request = [&b"\x05\x01\x00"[..], address, &port.to_be_bytes()].concat();
    write(&client, &request);
    read_exactly(&client, 4)[1]
}

fn v4(address: [u8; 4]) -> Vec<u8> {
    [&[1][..], &address].concat()
}

fn v6(address: Ipv6Addr) -> Vec<u8> {
    [&[4][..], &address.octets()].concat()
}

fn name(name: &str) -> Vec<u8> {
    [&[3, name.len() as u8][..], name.as_bytes()].concat()
}

/// The rules that SECURITY.md recommends, for clients on this machine and any port.
fn recommended_rules() -> String {
    let example = SECURITY.split("```").find(|part| part.contains("loopback"));
    let example = example.expect("the example with the word loopback");
    let rules = example.replace("192.168.7.0/24", "127.0.0.1");
    rules.replace("80,443", "-")
}

#[test]
fn f17_the_recommended_rules_deny_internal_destinations_of_both_families() {
    let rules = recommended_rules();
    let permits: String = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with("deny"))
        .map(|line| format!("{line}\n"))
        .collect();
    let four = Origin::echo().port();
    let six = Origin::start_at(IpAddr::V6(Ipv6Addr::LOCALHOST), drop).port();
    let loopback: [(Vec<u8>, u16); 4] = [
        (v4([127, 0, 0, 1]), four),
        (v6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), four),
        (v6(Ipv6Addr::LOCALHOST), six),
        (name("localhost"), four),
    ];
    // Without the denials the origins can be reached.
    let open = Proxy::start(&permits, &[]);
    for (address, port) in &loopback {
        assert_eq!(connect_reply(&open, address, *port), 0, "{address:?}");
    }
    open.finish();
    let proxy = Proxy::start(&rules, &[]);
    let internal = [
        v4([127, 255, 0, 1]),
        v4([169, 254, 169, 254]),
        v6(Ipv4Addr::new(169, 254, 169, 254).to_ipv6_mapped()),
        v4([10, 0, 0, 1]),
        v4([172, 16, 0, 1]),
        v4([192, 168, 1, 1]),
        v4([100, 100, 100, 200]),
        v6("fe80::1".parse().unwrap()),
        v6("fd00:ec2::254".parse().unwrap()),
        v6("fc00::1".parse().unwrap()),
    ];
    let internal = internal.into_iter().map(|address| (address, 80));
    for (address, port) in loopback.into_iter().chain(internal) {
        assert_eq!(connect_reply(&proxy, &address, port), 2, "{address:?}");
    }
    proxy.finish();
}

#[test]
fn f16_the_manual_lists_the_networks_of_each_word() {
    let networks = [
        "127.0.0.0/8",
        "::1",
        "169.254.0.0/16",
        "fe80::/10",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fec0::/10",
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
    ];
    for network in networks {
        assert!(MANUAL.contains(network), "manual: {network}");
        // The program agrees: the first address of the network is in one of the groups.
        let address = network.split('/').next().unwrap();
        let rules =
            "deny - loopback\ndeny - linklocal\ndeny - private\ndeny - metadata\npermit - -\n";
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("socks.conf");
        fs::write(&config, rules).unwrap();
        let explained = binary()
            .args(["--explain", &format!("c 9.9.9.9 {address} 80"), "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let output = String::from_utf8(explained.stdout).unwrap();
        assert!(output.starts_with("deny: "), "{output}");
        assert!(output.contains(": deny   - - - "), "{output}");
    }
}

#[test]
fn f15_check_and_the_start_ask_about_zeros_at_the_end() {
    let rules = "permit c 127.0.0.1 - 140.113.0.0 -\npermit b 127.0.0.1 - 0.0.0.0 -\n";
    let proxy = Proxy::start(rules, &[]);
    let warning = "line 1 (and 1 more) has 140.113.0.0, which is one address; did you mean \
                   140.113.*.*? If not, write 140.113.0.0/32";
    proxy.stderr_line(warning);
    let checked = binary()
        .args(["--check", "--config"])
        .arg(proxy.config())
        .output()
        .unwrap();
    let output = String::from_utf8(checked.stdout).unwrap();
    assert!(output.contains(warning), "{output}");
    proxy.finish();
}
