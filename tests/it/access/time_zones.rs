//! Rules with `time=` in every form of a time zone: as date(1) understands it, or refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use threadsocks::client;

use crate::support::endpoints::{Origin, dial};
use crate::support::proxy::{Proxy, Setup, binary};

const RULES: &str = "deny c 9.9.9.9\npermit c - time=mon-fri/08:00-18:00\n";

/// The weekday and time that date(1) shows with this value of `TZ`: `fri/09:30`.
fn date(tz: &OsStr) -> String {
    let mut date = Command::new("date");
    let output = date
        .arg("+%a/%H:%M")
        .env("TZ", tz)
        .env("LC_ALL", "C")
        .output();
    let text = String::from_utf8(output.expect("date runs").stdout).unwrap();
    text.trim().to_lowercase()
}

/// The exit status of this action on the rules with `TZ`, and its output.
fn run(tz: &OsStr, action: &[&str], config: &Path) -> (Option<i32>, String) {
    let mut command = binary();
    command
        .args(action)
        .arg("--config")
        .arg(config)
        .env("TZ", tz);
    let output = command.output().expect("threadsocks starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn f22_the_zone_is_that_of_date_or_rules_with_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    fs::write(&config, RULES).unwrap();
    let explain = ["--explain", "c 10.0.0.5 1.2.3.4 80"];
    let refuses = |tz: &OsStr| {
        for action in [&["--check"][..], &explain, &["--bind", "127.0.0.1", "0"]] {
            let (status, output) = run(tz, action, &config);
            assert_eq!(status, Some(2), "{tz:?}: {output}");
            let reason = "socks.conf:2: time= needs the local time, but TZ=\"";
            assert!(output.contains(reason), "{tz:?}: {output}");
        }
    };
    for tz in [
        "CET-1",
        "CET-1CEST",
        "NZST-12NZDT",
        "EST5EDT4",
        "<+0545>-5:45",
        "",
        ":",
        "UTC0",
        "Europe/Berlin",
        ":Europe/Berlin",
        "posix/Asia/Tokyo",
        "/usr/share/zoneinfo/Asia/Tokyo",
        "America/New_York",
        "/etc/localtime",
    ] {
        let tz = OsStr::new(tz);
        let name = tz.as_bytes().strip_prefix(b":").unwrap_or(tz.as_bytes());
        let file = Path::new("/usr/share/zoneinfo").join(OsStr::from_bytes(name));
        let is_name = name.contains(&b'/') && name != b"/etc/localtime";
        if is_name && !file.is_file() {
            // This machine does not know the zone, and date(1) would show UTC.
            refuses(tz);
            continue;
        }
        let before = date(tz);
        let (status, output) = run(tz, &["--check"], &config);
        let after = date(tz);
        assert_eq!(status, Some(0), "{tz:?}: {output}");
        let shows = |time: &str| output.contains(&format!("the clock shows {time}"));
        assert!(
            shows(&before) || shows(&after),
            "{tz:?}: {before}, {output}"
        );
        // Permitted or denied: that depends on the time of the test.
        let (status, output) = run(tz, &explain, &config);
        assert!([Some(0), Some(3)].contains(&status), "{tz:?}: {output}");
    }
    for tz in [
        &b"Europe/Nowhere"[..],
        b"europe/berlin",
        b"Europe",
        b"FOO",
        b"\xff",
        b"right/Asia/Tokyo",
    ] {
        refuses(OsStr::from_bytes(tz));
    }
    // Rules without times need no zone.
    fs::write(&config, "permit c 10.\n").unwrap();
    let (status, output) = run(OsStr::new("Europe/Nowhere"), &["--check"], &config);
    assert_eq!(status, Some(0), "{output}");
}

#[test]
fn f23_without_a_zone_a_reload_that_brings_times_keeps_the_rules_in_force() {
    let proxy = Proxy::with(Setup {
        rules: "permit c 127.0.0.1\n",
        wrapper: &["env", "TZ=Europe/Nowhere"],
        ..Setup::default()
    });
    let origin = Origin::echo();
    let is_permitted =
        || client::socks4::connect(dial(proxy.address()), &origin.destination(), b"").is_ok();
    assert!(is_permitted());
    fs::write(proxy.config(), RULES.replace("permit", "deny")).unwrap();
    assert!(is_permitted());
    let reason = "socks.conf:2: time= needs the local time, but TZ=\"Europe/Nowhere\" is neither";
    proxy.stderr_line(reason);
    proxy.stderr_line("last valid rules stay in force");
    // A second request reports nothing, and SIGHUP the same again.
    assert!(is_permitted());
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr(reason, 2);
    fs::write(proxy.config(), "deny c 127.0.0.1\n").unwrap();
    assert!(!is_permitted());
    proxy.finish();
}
