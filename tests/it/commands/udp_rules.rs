//! Datagrams under many rules.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::support::proxy::Proxy;
use crate::support::udp_client::{UdpClient, close_and_read_log, origin};

/// The time for one datagram to each of these hosts.
fn time_for(client: &UdpClient, hosts: &[&UdpSocket]) -> Duration {
    let began = Instant::now();
    for host in hosts {
        client.send_and_receive_at(host, b"x");
    }
    began.elapsed()
}

/// The first datagram of a flow is compared with all rules, and the others are not. The
/// second is so much quicker that noise does not matter.
#[test]
fn u22_an_established_flow_does_not_pay_for_many_rules() {
    let mut rules = String::new();
    for number in 0..40_000 {
        writeln!(rules, "deny - - - host{number}.example -").unwrap();
    }
    for time in ["", " time=0:00-24:00"] {
        let last = format!("permit - - - - -{time}\n");
        let proxy = Proxy::start(&(rules.clone() + &last), &["-v"]);
        let client = UdpClient::new(&proxy);
        let hosts: Vec<UdpSocket> = (0..20).map(|_| origin()).collect();
        let hosts: Vec<&UdpSocket> = hosts.iter().collect();
        let first = time_for(&client, &hosts);
        let later = (0..5).map(|_| time_for(&client, &hosts)).min();
        assert!(later < Some(first / 2), "{later:?} after {first:?}");
        close_and_read_log(&proxy, client);
        proxy.finish();
    }
}
