//! Remarks on the rules and the users: the same at the start, at a reload and at SIGHUP.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use threadsocks::auth::users_file_line;
use threadsocks::client::socks5;

use crate::support::endpoints::{Origin, dial};
use crate::support::proxy::{Proxy, binary};

/// Rules without a remark.
const QUIET: &str = "permit c 127.0.0.1 - 127.0.0.1 - auth\n";

/// Rules with a remark of each kind.
const REMARKABLE: &str = "deny c 127.0.0.0/8\n\
    permit cbu - - - -\n\
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
    assert_eq!(expected.len(), 10, "{expected:#?}");
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
        proxy.wait_for_stderr("9 rules in force", round);
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
    fs::write(&users, users_file_line("alice", b"secret").unwrap()).unwrap();
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

/// Runs `--check` on these files, with these options. Returns the exit status, and the output
/// on stdout and stderr.
fn check(rules: &Path, users: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output = binary()
        .args(["--check", "-c"])
        .arg(rules)
        .arg("--users")
        .arg(users)
        .args(options)
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn f27_a_permit_without_a_newline_is_reported_with_its_line() {
    let whole = "# rules\npermit c 127. - 127. - user=alice auth\n";
    let cut_off = whole.trim_end_matches(" auth\n");
    let warning = "socks.conf: warning: line 2 has no newline at its end; if it is cut off, it may \
                   permit more than meant";
    let started = Proxy::start(cut_off, &[]);
    started.stderr_line(warning);
    // While the file stays so, and when it is complete again.
    started.signal(Signal::SIGHUP);
    started.wait_for_stderr(warning, 2);
    fs::write(started.config(), whole).unwrap();
    started.signal(Signal::SIGHUP);
    started.wait_for_stderr("1 rule in force", 2);
    started.stderr_line("line 2 requires a login");
    assert_eq!(started.wait_for_stderr(warning, 2), 2);
    started.finish();
    let proxy = Proxy::start(whole, &[]);
    fs::write(proxy.config(), cut_off).unwrap();
    request(&proxy);
    proxy.stderr_line(warning);
    proxy.finish();
}

#[test]
fn f27_f28_check_warns_of_a_missing_newline_and_strict_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let [rules, users] = ["rules", "users"].map(|name| folder.path().join(name));
    fs::write(&users, users_file_line("alice", b"secret").unwrap()).unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    let permits_more = "it may permit more than meant";
    for (text, line, effect) in [
        ("# comment\npermit c 10. - 10. - auth\n", None, ""),
        ("permit c 10. - 10. - auth\n", None, ""),
        ("permit c 10. - 10. - auth\r\n \t", None, ""),
        ("permit c 10. - 10. - auth", Some(1), permits_more),
        ("permit c 10. - 10. - auth\r", Some(1), permits_more),
        ("\n\npermit c 10. - 10. - auth # x", Some(3), permits_more),
        (
            "permit c 10. - 10. - auth\n# x",
            Some(2),
            "rules are missing",
        ),
        (
            "permit c 10. - 10. - auth\ndeny c -",
            Some(2),
            "rules are missing",
        ),
    ] {
        fs::write(&rules, text).unwrap();
        let (status, report) = check(&rules, &users, &[]);
        assert_eq!(status, Some(0), "{report}");
        let (status, refusal) = check(&rules, &users, &["--strict"]);
        match line {
            None => {
                assert!(!report.contains("newline"), "{text:?}: {report}");
                assert_eq!(status, Some(0), "{text:?}: {refusal}");
            }
            Some(line) => {
                let warning = format!(
                    "rules: warning: line {line} has no newline at its end; if it is cut off, \
                     {effect}\n"
                );
                assert!(report.contains(&warning), "{text:?}: {report}");
                assert_eq!(status, Some(2), "{text:?}");
                // On stdout, and as an error on stderr.
                assert_eq!(refusal.matches(&warning).count(), 2, "{text:?}: {refusal}");
                assert!(refusal.contains("--strict: a warning is an error"));
            }
        }
    }
}

#[test]
fn f33_check_and_the_users_file_name_the_line_that_is_shown_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let [rules, users] = ["rules", "users"].map(|name| folder.path().join(name));
    let no_user = "# no user\n";
    for (place, hidden) in [
        ("U+2028", "# all\u{2028}permit c 10.\n"),
        ("U+0085", "# all\u{85}permit c 10.\n"),
        ("U+202E", "# \u{202E}.01 c timrep\n"),
        ("U+2066", "# a\u{2066}b\n"),
    ] {
        let invalid = format!("# first\n{hidden}");
        for (rules_text, users_text, file) in
            [(&*invalid, no_user, &rules), (QUIET, &*invalid, &users)]
        {
            fs::write(&rules, rules_text).unwrap();
            fs::write(&users, users_text).unwrap();
            let (code, report) = check(&rules, &users, &[]);
            let expected = format!("{}:2: the line contains {place}, so", file.display());
            assert_eq!(code, Some(2), "{invalid:?}");
            assert!(report.contains(&expected), "{report}");
        }
    }
    // A changed users file is not used either.
    fs::write(&users, no_user).unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    let proxy = Proxy::start(QUIET, &["--users", users.to_str().unwrap()]);
    fs::write(&users, "# all\u{2029}alice\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("users:1: the line contains U+2029, so");
    proxy.finish();
}

#[test]
fn f29_users_without_a_newline_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let [rules, users] = ["rules", "users"].map(|name| folder.path().join(name));
    fs::write(&rules, QUIET).unwrap();
    let line = users_file_line("alice", b"secret").unwrap();
    fs::write(&users, &line).unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(check(&rules, &users, &["--strict"]).0, Some(0));
    let proxy = Proxy::start(QUIET, &["--users", users.to_str().unwrap()]);
    // 20 of the 32 bytes of the hash are still a valid hash.
    let cut_off = line.rsplit_once('$').unwrap().0.to_owned() + "$AAAAAAAAAAAAAAAAAAAAAAAAAAA";
    fs::write(&users, &cut_off).unwrap();
    proxy.signal(Signal::SIGHUP);
    let warning = "users: warning: line 1 has no newline at its end; if it is cut off, users are \
                   missing, or cannot log in";
    proxy.stderr_line(warning);
    proxy.finish();
    let (status, report) = check(&rules, &users, &[]);
    assert_eq!(status, Some(0));
    assert!(report.contains(warning), "{report}");
    let (status, refusal) = check(&rules, &users, &["--strict"]);
    assert_eq!(status, Some(2));
    assert_eq!(refusal.matches(warning).count(), 2, "{refusal}");
}

#[test]
fn f30_check_and_the_start_warn_of_denials_of_ipv4_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [rules, users] = ["rules", "users"].map(|name| folder.path().join(name));
    fs::write(&users, "").unwrap();
    let warning = "warning: line 1 (and 1 more) denies IPv4 addresses only, and a later line \
                   permits any address, also of IPv6";
    for (text, is_warned_of) in [
        ("deny - 127.\ndeny - 10.\npermit c 127. - - 80\n", true),
        (
            "deny - loopback\ndeny - private\npermit c 127. - - 80\n",
            false,
        ),
    ] {
        fs::write(&rules, text).unwrap();
        let (_, report) = check(&rules, &users, &[]);
        assert_eq!(report.contains(warning), is_warned_of, "{report}");
        let proxy = Proxy::start(text, &[]);
        let found = remarks(&proxy, &proxy.config());
        let found = found.iter().any(|remark| remark.starts_with(warning));
        assert_eq!(found, is_warned_of);
        proxy.finish();
    }
}
