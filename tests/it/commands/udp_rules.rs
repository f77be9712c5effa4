//! Datagrams to names: the rules judge each address. Datagrams under many rules.

use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::by_name;
use crate::support::netns::in_own_network;
use crate::support::proxy::Proxy;
use crate::support::udp_client::{
    UdpClient, address_of, close_and_read_log, origin, receive, wait_for_fresh_rules,
};
use crate::support::wait::TIMEOUT;

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

/// A flow keeps its address only as long as the rules permit it.
#[test]
fn u20_a_flow_leaves_an_address_that_is_denied() {
    in_own_network(|_| {
        let hosts = ["127.0.0.9", "127.0.0.10", "127.0.0.11"];
        let _names = NameServer::start(move |_| addresses(&hosts));
        let first = origin_at(hosts[1], 0);
        let port = address_of(&first).port();
        let (denied, last) = (origin_at(hosts[0], port), origin_at(hosts[2], port));
        let proxy = Proxy::start("deny u - - 127.0.0.9 -\npermit - -\n", &["-v"]);
        let client = UdpClient::new(&proxy);
        let target = by_name("three.test", port);
        for number in 0..10 {
            client.send(&target, &[number]);
            let (data, outer_address) = receive(&first);
            assert_eq!(data, [number]);
            first.send_to(b"answer", outer_address).unwrap();
            client.receive();
        }
        proxy.wait_for_rules_mtime();
        std::fs::write(proxy.config(), "permit u - - 127.0.0.11 -\n").unwrap();
        wait_for_fresh_rules();
        for number in 0..10 {
            client.send(&target, &[number]);
            let (data, outer_address) = receive(&last);
            assert_eq!(data, [number]);
            last.send_to(b"answer", outer_address).unwrap();
            client.receive();
        }
        // No address is permitted: each datagram is counted once.
        proxy.wait_for_rules_mtime();
        std::fs::write(proxy.config(), "permit u - - 127.0.0.12 -\n").unwrap();
        wait_for_fresh_rules();
        client.send(&target, b"denied");
        client.send_and_receive_at(&origin_at("127.0.0.12", 0), b"permitted");
        for socket in [&denied, &first, &last] {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv_from(&mut [0; 10]).is_err());
        }
        let line = close_and_read_log(&proxy, client);
        assert!(line.contains("denied=1 dropped=0 "), "{line}");
        proxy.finish();
    });
}

/// A host at this address of loopback; port 0 is any free one.
fn origin_at(ip: &str, port: u16) -> UdpSocket {
    let ip: IpAddr = ip.parse().unwrap();
    let socket = UdpSocket::bind((ip, port)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}
