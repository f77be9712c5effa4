//! Remarks on the rules and the users: the same at the start, at a reload and at SIGHUP.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use threadsocks::client::socks5;

use crate::support::endpoints::{Origin, dial};
use crate::support::proxy::Proxy;

/// Rules without a remark.
const QUIET: &str = "permit c 127.0.0.1 - 127.0.0.1 - auth\n";

/// Rules with a remark of each kind.
const REMARKABLE: &str = "permit cbu - - - -\n\
    deny c a.test\n\
    deny c - user=bob\n\
    permit c - user=carol\n\
    permit c - user=carol ident\n\
    permit c *.b.test local\n\
    permit c 140.113.0.0\n\
    deny c 140.113.9.9 time=mon/08:00-09:00\n";

const NONE: [String; 0] = [];

/// The remarks on stderr so far, in order, without the path of the file.
fn remarks(proxy: &Proxy, file: &Path) -> Vec<String> {
    let prefix = format!("threadsocks: {}: ", file.display());
    let lines = proxy.stderr_lines().into_iter();
    let of_file = lines.filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned));
    // The minute of the local time may change between two of them.
    let untimed = of_file.map(|line| match line.split_once("which is ") {
        Some((remark, _)) => remark.to_owned(),
        None => line,
    });
    untimed
        .filter(|line| line.starts_with("warning") || line.starts_with("some rules"))
        .collect()
}

/// Sends a request, so that the server checks its files.
fn request(proxy: &Proxy) {
    let _ = socks5::connect(dial(proxy.address()), None, &Origin::echo().destination());
}

#[test]
fn f26_a_reload_prints_the_remarks_of_the_start() {
    let started = Proxy::start(REMARKABLE, &[]);
    started.stderr_line("up to ");
    let expected = remarks(&started, &started.config());
    assert_eq!(expected.len(), 8, "{expected:#?}");
    started.finish();
    let proxy = Proxy::start(QUIET.trim_end_matches(" auth\n"), &[]);
    for (round, by_signal) in [(1, false), (2, true)] {
        fs::write(proxy.config(), QUIET).unwrap();
        request(&proxy);
        fs::write(proxy.config(), REMARKABLE).unwrap();
        match by_signal {
            true => proxy.signal(Signal::SIGHUP),
            false => request(&proxy),
        }
        proxy.wait_for_stderr("8 rules in force", round);
        proxy.wait_for_stderr(expected.last().unwrap(), round);
        let found = remarks(&proxy, &proxy.config());
        let found: Vec<_> = found
            .into_iter()
            .filter(|remark| expected.contains(remark))
            .collect();
        assert_eq!(found, vec![expected.clone(); round].concat());
    }
    // The operator asks for them with SIGHUP, also if the file has not changed.
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("checked, nothing has changed");
    proxy.wait_for_stderr(expected.last().unwrap(), 3);
    proxy.finish();
}

#[test]
fn f26_a_reload_with_users_prints_the_remarks_of_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "").unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    let proxy = Proxy::start(QUIET, &["--users", users.to_str().unwrap()]);
    proxy.stderr_line("up to ");
    assert_eq!(remarks(&proxy, &proxy.config()), NONE);
    assert_eq!(remarks(&proxy, &users), NONE);
    // The remarks depend on whether clients can log in.
    fs::write(proxy.config(), QUIET.replace(" auth", "")).unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("line 1 permits SOCKS4 clients, which cannot log in");
    fs::set_permissions(&users, Permissions::from_mode(0o644)).unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("other accounts have access to this file");
    proxy.finish();
}

#[test]
fn f26_a_file_that_is_not_in_force_has_no_remarks() {
    let proxy = Proxy::start(QUIET, &["--socks", "4"]);
    fs::write(proxy.config(), "permit cbu - - - -\nnonsense\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("the last valid rules stay in force");
    fs::write(proxy.config(), "permit cbu - - - -\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("open relay");
    let found = remarks(&proxy, &proxy.config());
    assert_eq!(found.len(), 1, "{found:#?}");
    proxy.finish();
}
