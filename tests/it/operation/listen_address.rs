//! The address on which the server listens, when it comes late.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, binary};

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
