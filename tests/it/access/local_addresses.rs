//! A rule by name permits no address of this machine, its link or a metadata service: the owner of the name's zone chooses the address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use threadsocks::client::ClientError;
use threadsocks::client::socks5;
use threadsocks::protocol::ReplyError;

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    Origin, by_name, connect_through, dial, read_exactly, read_until_reset, write,
};
use crate::support::netns::{Network, in_own_network};
use crate::support::proxy::{Proxy, binary};
use crate::support::wait::{TIMEOUT, until};

/// A name server for `*.partner.test`, whose owner leads each name to another address.
fn names_of_a_partner() -> NameServer {
    NameServer::start(|query| match query.name.as_str() {
        "loopback.partner.test" => addresses(&["127.0.0.1", "::1"]),
        "loopback6.partner.test" => addresses(&["::1"]),
        "loopback64.partner.test" => addresses(&["64:ff9b::127.0.0.1"]),
        "mapped.partner.test" => addresses(&["::ffff:127.0.0.1"]),
        "unspecified.partner.test" => addresses(&["0.0.0.0", "::"]),
        "link.partner.test" => addresses(&["169.254.1.1", "fe80::1"]),
        "metadata.partner.test" => addresses(&["169.254.169.254"]),
        "wireserver.partner.test" => addresses(&["168.63.129.16"]),
        "metadata6.partner.test" => addresses(&["fd00:ec2::254"]),
        "private.partner.test" => addresses(&["10.9.9.9"]),
        "several.partner.test" => addresses(&["127.0.0.1", "10.9.9.9", "::1"]),
        _ => addresses(&["127.0.0.1"]),
    })
}

/// The outcome of a CONNECT to this name.
fn connect(proxy: &Proxy, name: &str, port: u16) -> Result<(), ReplyError> {
    match socks5::connect(dial(proxy.address()), None, &by_name(name, port)) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// An origin on every address of the machine, which has 10.9.9.9 too.
fn origin_everywhere(network: &Network) -> Origin {
    for address in ["10.9.9.9/32", "169.254.169.254/32", "168.63.129.16/32"] {
        network.ip(&format!("addr add {address} dev lo"));
    }
    for address in ["64:ff9b::7f00:1", "fd00:ec2::254"] {
        network.ip(&format!("addr add {address}/128 dev lo nodad"));
    }
    Origin::start_at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |stream| {
        let _ = std::io::copy(&mut &stream, &mut &stream);
    })
}

#[test]
fn x14_a_rule_by_name_permits_no_local_address() {
    in_own_network(|network| {
        let port = origin_everywhere(network).port();
        let _names = names_of_a_partner();
        let proxy = Proxy::start("permit c *.partner.test\npermit c www.other.test\n", &[]);
        for name in [
            "loopback.partner.test",
            "LoopBack.Partner.TEST",
            "loopback.partner.test.",
            "loopback6.partner.test",
            "loopback64.partner.test",
            "mapped.partner.test",
            "link.partner.test",
            "metadata.partner.test",
            "wireserver.partner.test",
            "metadata6.partner.test",
            "unspecified.partner.test",
            "www.other.test",
        ] {
            let refused = Err(ReplyError::NotAllowed);
            assert_eq!(connect(&proxy, name, port), refused, "{name}");
        }
        assert_eq!(connect(&proxy, "private.partner.test", port), Ok(()));
        // Of several addresses only those that the rules permit are dialled.
        assert_eq!(connect(&proxy, "several.partner.test", port), Ok(()));
        proxy.finish();
    });
}

#[test]
fn x15_local_permits_local_addresses_and_localhost_needs_no_option() {
    in_own_network(|network| {
        let port = origin_everywhere(network).port();
        network.write_hosts("127.0.0.1 localhost app.localhost\n");
        let _names = names_of_a_partner();
        let rules = "permit c *.partner.test local\npermit c localhost\npermit c *.localhost\n\
                     permit c xlocalhost\npermit c localhost.test\n";
        let proxy = Proxy::start(rules, &[]);
        let denied = Err(ReplyError::NotAllowed);
        for (name, expected) in [
            ("loopback.partner.test", Ok(())),
            ("metadata.partner.test", Ok(())),
            ("loopback64.partner.test", Ok(())),
            // No rule makes an address usable that no host has.
            ("unspecified.partner.test", Err(ReplyError::Rejected)),
            ("localhost", Ok(())),
            ("LocalHost.", Ok(())),
            ("app.localhost", Ok(())),
            ("xlocalhost", denied),
            ("localhost.test", denied),
        ] {
            assert_eq!(connect(&proxy, name, port), expected, "{name}");
        }
        proxy.finish();
        // Rules by address, also `-`, and denials by name do not depend on the option.
        let rules = "deny c loopback6.partner.test\npermit c - - - -\n";
        let proxy = Proxy::start(rules, &[]);
        assert_eq!(connect(&proxy, "loopback.partner.test", port), Ok(()));
        assert_eq!(connect(&proxy, "loopback6.partner.test", port), denied);
        proxy.finish();
    });
}

#[test]
fn x14_bind_by_name_expects_no_local_peer() {
    in_own_network(|_| {
        let _names = names_of_a_partner();
        let proxy = Proxy::start("permit b *.partner.test\n", &[]);
        for (name, is_permitted) in [
            ("loopback.partner.test", false),
            ("loopback6.partner.test", false),
            ("private.partner.test", true),
        ] {
            let bound = socks5::bind(dial(proxy.address()), None, &by_name(name, 0));
            assert_eq!(bound.is_ok(), is_permitted, "{name}");
        }
        proxy.finish();
    });
}

#[test]
fn x14_datagrams_by_name_reach_no_local_address() {
    in_own_network(|network| {
        network.ip("addr add 10.9.9.9/32 dev lo");
        let names = names_of_a_partner();
        let origin = UdpSocket::bind("0.0.0.0:0").unwrap();
        origin.set_read_timeout(Some(TIMEOUT)).unwrap();
        let port = origin.local_addr().unwrap().port();
        let proxy = Proxy::start("permit u *.partner.test\n", &["-v"]);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let control = dial(proxy.address());
        let from = socket.local_addr().unwrap();
        let association =
            socks5::associate(control, None, Ipv4Addr::LOCALHOST.into(), from).expect("granted");
        let send = |name: &str, data: &[u8]| {
            let to = by_name(name, port);
            association.send(&socket, data, &to).unwrap();
        };
        send("loopback.partner.test", b"denied");
        // The datagram waits for the lookup.
        until("the lookup has begun", || {
            (names.query_count("loopback.partner.test", true) > 0).then_some(())
        });
        until("the lookup has ended", || {
            let threads = proxy.threads();
            (!threads.iter().any(|name| name == "lookup")).then_some(())
        });
        // The first address of this name is not permitted, the second is.
        send("several.partner.test", b"passes");
        let mut buffer = [0; 100];
        let (count, _) = origin.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"passes");
        drop(association);
        proxy.stderr_line("denied=1");
        proxy.finish();
    });
}

#[test]
fn x14_explain_and_enforce_judge_names_with_local_addresses_as_requests_do() {
    in_own_network(|network| {
        let port = origin_everywhere(network).port();
        let _names = names_of_a_partner();
        let proxy = Proxy::start("permit c *.partner.test local\n", &["--enforce"]);
        let destination = by_name("loopback.partner.test", port);
        let client = connect_through(proxy.address(), &destination);
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        std::fs::write(proxy.config(), "permit c *.partner.test\n").unwrap();
        assert_eq!(read_until_reset(&client), b"");
        proxy.stderr_line("no longer permitted: rule on line 1 permits the name, but");
        let explained = binary()
            .args(["--explain", "c 127.0.0.1 several.partner.test 80", "-c"])
            .arg(proxy.config())
            .output()
            .expect("the program starts");
        let explained = String::from_utf8(explained.stdout).unwrap();
        for (action, address) in [
            ("deny", "127.0.0.1:80"),
            ("deny", "[::1]:80"),
            ("permit", "10.9.9.9:80"),
        ] {
            let line = format!("{action}: CONNECT from 127.0.0.1 to several.partner.test at ");
            let line = format!("{line}{address}, b");
            assert!(explained.contains(&line), "{line}\n{explained}");
        }
        let why = "socks.conf:1 does not match in local (a name permits a local address only \
                   with this option): permit c - - *.partner.test -";
        assert!(explained.contains(why), "{explained}");
        proxy.finish();
    });
}

#[test]
fn x16_check_warns_of_names_that_lead_to_local_or_private_addresses() {
    let of_local = "warning: line 1 has local: the owner of the name's zone can lead clients to \
                    this machine";
    let of_private = "note: line 2 permits a name, also if the owner of its zone leads it to a \
                      private network";
    let rules = "permit c 127. - *.a.test - local\npermit c 127. - b.test -\n\
                 permit c 127. - localhost -\n";
    let proxy = Proxy::start(rules, &[]);
    proxy.stderr_line(of_local);
    let check = |rules: &str| {
        std::fs::write(proxy.config(), rules).unwrap();
        let output = binary()
            .args(["--check", "-c"])
            .arg(proxy.config())
            .output()
            .expect("the program starts");
        String::from_utf8(output.stdout).unwrap()
    };
    let both = "note: line 1 (and 1 more) permits a name";
    for (rules, warnings) in [
        (rules, &[of_local, both][..]),
        ("deny c private\npermit c b.test\n", &[]),
        ("permit c 127.\npermit c b.test\n", &[of_private]),
        ("deny c a.test\npermit c *.localhost\n", &["denies a name"]),
    ] {
        let report = check(rules);
        let count = report.matches("warning: ").count() + report.matches("note: ").count();
        assert_eq!(count, warnings.len(), "{report}");
        for warning in warnings {
            assert!(report.contains(warning), "{warning}\n{report}");
        }
    }
    proxy.finish();
}
