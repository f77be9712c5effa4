//! Datagrams to names: the rules judge each address. Datagrams under many rules.

use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{by_address, by_name};
use crate::support::netns::in_own_network;
use crate::support::proxy::Proxy;
use crate::support::syscall_faults::SyscallFaults;
use crate::support::udp_client::{UdpClient, address_of, close_and_read_log, origin, receive};
use crate::support::wait::{TIMEOUT, until};

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
        let probe = origin_at("127.0.0.13", 0);
        let rules = "deny u - - 127.0.0.9 -\ndeny u - - 127.0.0.13 -\npermit - -\n";
        let proxy = Proxy::start(rules, &["-v"]);
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
        let rules = "permit u - - 127.0.0.11 -\npermit u - - 127.0.0.13 -\n";
        std::fs::write(proxy.config(), rules).unwrap();
        let mut denied_count = client.send_until_permitted(&probe);
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
        let permitted = origin_at("127.0.0.12", 0);
        denied_count += client.send_until_permitted(&permitted);
        client.send(&target, b"denied");
        denied_count += 1;
        client.send_and_receive_at(&permitted, b"permitted");
        for socket in [&denied, &first, &last] {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv_from(&mut [0; 10]).is_err());
        }
        let line = close_and_read_log(&proxy, client);
        let counts = format!("denied={denied_count} dropped=0 ");
        assert!(line.contains(&counts), "{counts}: {line}");
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

/// The check of the rules file takes five seconds, as on a file system that hangs. Datagrams do
/// not wait for it, in either direction.
#[test]
fn u29_a_rules_file_that_hangs_delays_no_datagram() {
    let proxy = Proxy::start("permit - -\n", &[]);
    let client = UdpClient::new(&proxy);
    let host = origin();
    client.send_and_receive_at(&host, b"before");
    let Some(faults) = SyscallFaults::with(&proxy, "statx:delay_enter=5000000") else {
        return proxy.finish();
    };
    let began = Instant::now();
    for number in 0..50 {
        let outer_address = client.send_and_receive_at(&host, &[number]);
        host.send_to(&[number], outer_address).unwrap();
        assert_eq!(client.receive().1, [number]);
    }
    proxy.wait_for_thread("rules");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(faults);
    drop(client);
    proxy.finish();
}

/// The first datagram after a pause is judged by the rules that have changed in the pause. If
/// the machine is so busy that the check of the file takes longer than the datagram waits, the
/// test tries again.
#[test]
fn u32_the_first_datagram_after_a_pause_is_judged_by_changed_rules() {
    let proxy = Proxy::start("permit - -\n", &[]);
    let client = UdpClient::new(&proxy);
    let (other, host) = (origin(), origin_at("127.0.0.2", 0));
    let target = by_address(address_of(&host));
    let is_dropped_at_once = || {
        std::fs::write(proxy.config(), "permit - -\n").unwrap();
        client.send_until_permitted(&host);
        let began = Instant::now();
        until("a pause", || {
            (began.elapsed() > Duration::from_millis(1100)).then_some(())
        });
        std::fs::write(proxy.config(), "deny u - - 127.0.0.2 -\npermit - -\n").unwrap();
        client.send(&target, b"first");
        client.send_and_receive_at(&other, b"second");
        host.set_nonblocking(true).unwrap();
        let is_dropped = host.recv(&mut [0; 10]).is_err();
        host.set_nonblocking(false).unwrap();
        is_dropped
    };
    assert!((0..5).any(|_| is_dropped_at_once()));
    drop(client);
    proxy.finish();
}

/// Several associations notice the same change.
#[test]
fn u29_a_change_is_reported_once() {
    let proxy = Proxy::start("deny u - - 127.0.0.2 -\npermit - -\n", &[]);
    let probe = origin_at("127.0.0.2", 0);
    let clients: Vec<UdpClient> = (0..4).map(|_| UdpClient::new(&proxy)).collect();
    let reports = || {
        let lines = proxy.stderr_lines();
        lines
            .iter()
            .filter(|line| line.ends_with("in force"))
            .count()
    };
    let before = reports();
    proxy.wait_for_rules_mtime();
    std::fs::write(proxy.config(), "permit - -\npermit c -\n").unwrap();
    for client in &clients {
        client.send_until_permitted(&probe);
    }
    proxy.stderr_line("2 rules in force");
    drop(clients);
    // The line about this reload is written after all lines before it.
    proxy.wait_for_rules_mtime();
    assert_eq!(reports(), before + 1, "{:?}", proxy.stderr_lines());
    proxy.finish();
}
