//! The address on which the server listens: one that comes late, and both address families.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use threadsocks::client::socks5;
use threadsocks::protocol::Host;

use crate::support::endpoints::{
    Origin, by_address, by_name, connect_through, dial, dial_from, read_exactly, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, binary};
use crate::support::syscall_faults::SyscallFaults;

/// The value of this key in the systemd unit.
fn unit_setting(key: &str) -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threadsocks.service");
    let unit = fs::read_to_string(unit).unwrap();
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    unit.lines()
        .find_map(value)
        .unwrap_or_else(|| panic!("{key} is missing"))
}

#[test]
fn o13_systemd_restarts_the_server_until_its_address_is_there() {
    assert_eq!(unit_setting("Restart"), "on-failure");
    assert_eq!(unit_setting("StartLimitIntervalSec"), "0");
    let seconds: u32 = unit_setting("RestartSec").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    let not_restarted: i32 = unit_setting("RestartPreventExitStatus").parse().unwrap();
    in_own_network(|network| {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("socks.conf");
        fs::write(&rules, PERMIT_ALL).unwrap();
        let start = |arguments: &[&str]| {
            let mut command = binary();
            command.args(arguments).arg("--config").arg(&rules);
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            (output.status.code().unwrap(), stderr)
        };
        let (status, stderr) = start(&["--bind", "10.9.0.1", "0"]);
        assert_ne!(status, not_restarted);
        assert!(
            stderr.contains("cannot listen on 10.9.0.1:0: Cannot assign"),
            "{stderr}"
        );
        network.ip("addr add 10.9.0.1/24 dev lo");
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", "10.9.0.1"]);
        assert_eq!(proxy.address().ip(), IpAddr::from([10, 9, 0, 1]));
        proxy.finish();
        // An error that no restart mends.
        assert_eq!(start(&["--bind", "nowhere", "0"]).0, not_restarted);
        fs::write(&rules, "permit everything\n").unwrap();
        assert_eq!(start(&["--bind", "127.0.0.1", "0"]).0, not_restarted);
    });
}

#[test]
fn o14_an_ipv6_listener_accepts_ipv4_whatever_the_default_of_the_system_is() {
    in_own_network(|network| {
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
        network.write_hosts("127.0.0.9 both.test\n::1 both.test\n");
        let proxy = Proxy::start(PERMIT_ALL, &["--bind", "::"]);
        let origin = Origin::echo();
        let port = proxy.address().port();
        let loopback = [IpAddr::V6(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()];
        for address in loopback {
            let client = connect_through((address, port).into(), &origin.destination());
            write(&client, b"up");
            assert_eq!(read_exactly(&client, 2), b"up");
        }
        // BIND for a name with addresses of both families, and for any peer.
        let any = by_address((Ipv6Addr::UNSPECIFIED, 0).into());
        for expected in [by_name("both.test", 0), any] {
            let client = dial((Ipv6Addr::LOCALHOST, port).into());
            let binding = socks5::bind(client, None, &expected).expect("listening");
            let listener = (Ipv4Addr::LOCALHOST, binding.address.port);
            let peer = dial_from(([127, 0, 0, 9], 0).into(), listener.into());
            let (client, reported) = binding.wait().expect("granted");
            assert_eq!(reported.host, Host::Address([127, 0, 0, 9].into()));
            write(&peer, b"down");
            assert_eq!(read_exactly(&client, 4), b"down");
        }
        proxy.finish();
    });
}

#[test]
fn o14_a_bind_on_a_system_without_ipv6_waits_for_ipv4() {
    let proxy = Proxy::open();
    // The first socket of the session's thread is the one that listens.
    let fault = "socket:error=EAFNOSUPPORT:when=1";
    let Some(faults) = SyscallFaults::with(&proxy, fault) else {
        return proxy.finish();
    };
    let any = by_address((Ipv6Addr::UNSPECIFIED, 0).into());
    let binding = socks5::bind(dial(proxy.address()), None, &any).expect("listening");
    let peer = dial((Ipv4Addr::LOCALHOST, binding.address.port).into());
    let (client, _) = binding.wait().expect("granted");
    write(&peer, b"down");
    assert_eq!(read_exactly(&client, 4), b"down");
    drop((client, peer, faults));
    proxy.finish();
}
