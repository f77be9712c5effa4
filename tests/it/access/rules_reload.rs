//! `socks.conf` changes under a running server.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use threadsocks::client;

use crate::support::endpoints::{Origin, connect_through, dial, read_exactly, write};
use crate::support::proxy::Proxy;
use crate::support::syscall_faults::SyscallFaults;

const PERMIT: &str = "permit c 127.0.0.1\n";
const DENY: &str = "deny   c 127.0.0.1\n";

/// May a client connect to this origin now?
fn permitted(proxy: &Proxy, origin: &Origin) -> bool {
    client::socks4::connect(dial(proxy.address()), &origin.destination(), b"").is_ok()
}

#[test]
fn f02_no_rules_permit_nothing() {
    for rules in ["", "# only a comment\n\n"] {
        let proxy = Proxy::start(rules, &[]);
        assert!(!permitted(&proxy, &Origin::echo()));
        proxy.stderr_line("every request is denied");
        proxy.finish();
    }
}

#[test]
fn f03_a_missing_file_changes_nothing_and_its_return_does() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    fs::remove_file(proxy.config()).unwrap();
    for _ in 0..3 {
        assert!(permitted(&proxy, &origin));
    }
    proxy.stderr_line("No such file");
    let console_errors = proxy.stderr_lines();
    let count = console_errors
        .iter()
        .filter(|line| line.contains("No such file"))
        .count();
    assert_eq!(count, 1, "told once: {console_errors:#?}");
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f04_the_request_after_a_replacement_uses_the_new_rules() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let new = proxy.folder().join("new");
    for round in 0..100 {
        let expected = round % 2 == 1;
        fs::write(&new, if expected { PERMIT } else { DENY }).unwrap();
        fs::rename(&new, proxy.config()).unwrap();
        assert_eq!(permitted(&proxy, &origin), expected, "round {round}");
    }
    proxy.stderr_line("1 rule in force");
    proxy.finish();
}

#[test]
fn f04_no_request_sees_anything_but_the_old_or_the_new_rules() {
    // Both files permit this origin, by different lines.
    let rules = ["deny c 9.9.9.9\npermit c 127.\n", "permit c 127.0.0.1\n"];
    let proxy = Proxy::start(rules[0], &[]);
    let origin = Origin::echo();
    let replacing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let new = proxy.folder().join("new");
            for round in 0..1000 {
                fs::write(&new, rules[round % 2]).unwrap();
                fs::rename(&new, proxy.config()).unwrap();
            }
            replacing.store(false, Ordering::Relaxed);
        });
        while replacing.load(Ordering::Relaxed) {
            assert!(permitted(&proxy, &origin));
        }
    });
    proxy.finish();
}

#[test]
fn f05_a_half_written_file_is_never_used() {
    // The permission comes last: any part of the file denies.
    let whole = format!("{}{PERMIT}", "# a long comment in front\n".repeat(200));
    let proxy = Proxy::start(&whole, &[]);
    let origin = Origin::echo();
    // As an editor does: empty the file, then fill it in pieces.
    let rewrite = || {
        let began = Instant::now();
        let mut file = File::create(proxy.config()).unwrap();
        for piece in whole.as_bytes().chunks(1500) {
            file.write_all(piece).unwrap();
            thread::yield_now();
        }
        began.elapsed()
    };
    let writing = AtomicBool::new(true);
    let (slowest, denied) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let slowest = (0..300).map(|_| rewrite()).max();
            writing.store(false, Ordering::Relaxed);
            slowest.unwrap()
        });
        let mut denied = 0;
        while writing.load(Ordering::Relaxed) {
            denied += usize::from(!permitted(&proxy, &origin));
        }
        (writer.join().unwrap(), denied)
    });
    // A writer that was kept from its work for longer than the server waits
    // has left a file that nobody can tell from a finished one.
    let waits = Duration::from_millis(10);
    assert!(denied == 0 || slowest >= waits, "{denied}, {slowest:?}");
    assert!(permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f06_a_broken_file_is_reported_with_its_line_and_changes_nothing() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    fs::write(proxy.config(), "deny c 127.0.0.1\npermit c 256.1.1.1\n").unwrap();
    assert!(permitted(&proxy, &origin));
    proxy.stderr_line("socks.conf:2: \"256.1.1.1\" is not a destination");
    proxy.stderr_line("last good rules stay in force");
    assert!(permitted(&proxy, &origin));
    let console_errors = proxy.stderr_lines();
    let count = console_errors
        .iter()
        .filter(|line| line.contains("256.1.1.1"))
        .count();
    assert_eq!(count, 1, "told once: {console_errors:#?}");
    // Back to what was in force: that is a change of the file all the same.
    fs::write(proxy.config(), PERMIT).unwrap();
    assert!(permitted(&proxy, &origin));
    proxy.stderr_line("1 rule in force");
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f07_what_is_no_regular_file_hangs_nothing() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let config = proxy.config();
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    assert!(permitted(&proxy, &origin));
    fs::remove_dir(&config).unwrap();
    nix::unistd::mkfifo(&config, Mode::S_IRUSR).unwrap();
    let began = Instant::now();
    assert!(permitted(&proxy, &origin));
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.stderr_line("not a regular file");
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("socks.conf", &config).unwrap();
    assert!(permitted(&proxy, &origin));
    proxy.stderr_line("symbolic links");
    fs::remove_file(&config).unwrap();
    fs::write(&config, "#".repeat(5 << 20)).unwrap();
    assert!(permitted(&proxy, &origin));
    proxy.stderr_line("larger than");
    fs::write(&config, DENY).unwrap();
    assert!(!permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f07_f08_a_file_that_cannot_be_opened_changes_nothing() {
    for (error, words) in [
        ("EMFILE", "Too many open files"),
        ("ENFILE", "Too many open files in system"),
        ("EIO", "Input/output error"),
        ("EACCES", "Permission denied"),
    ] {
        let proxy = Proxy::start(PERMIT, &[]);
        let origin = Origin::echo();
        let Some(syscall_faults) = SyscallFaults::with(&proxy, &format!("openat:error={error}"))
        else {
            return proxy.finish();
        };
        fs::write(proxy.config(), DENY).unwrap();
        assert!(permitted(&proxy, &origin));
        proxy.stderr_line(words);
        drop(syscall_faults);
        assert!(!permitted(&proxy, &origin));
        proxy.finish();
    }
}

#[test]
fn f09_edits_of_equal_size_within_one_tick_of_the_clock() {
    assert_eq!(PERMIT.len(), DENY.len());
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    for round in 0..60 {
        let expected = round % 2 == 1;
        fs::write(proxy.config(), if expected { PERMIT } else { DENY }).unwrap();
        assert_eq!(permitted(&proxy, &origin), expected, "round {round}");
    }
    // And from a state in which the stamp is trusted.
    proxy.wait_for_rules_mtime();
    assert!(permitted(&proxy, &origin));
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f12_live_sessions_outlast_a_stricter_file() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let live = connect_through(proxy.address(), &origin.destination());
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!permitted(&proxy, &origin));
    write(&live, b"still here");
    assert_eq!(read_exactly(&live, 10), b"still here");
    drop(live);
    proxy.finish();
}

#[test]
fn o06_hangup_rereads_the_rules_and_says_so() {
    let proxy = Proxy::start(PERMIT, &[]);
    proxy.wait_for_rules_mtime();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("read again, nothing has changed");
    fs::write(proxy.config(), "permit c 127.\ndeny b -\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("2 rules in force");
    fs::write(proxy.config(), "nonsense\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("socks.conf:1: a rule begins with permit or deny");
    // Who asks again is told again.
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr("socks.conf:1: a rule begins with permit or deny", 2);
    assert!(permitted(&proxy, &Origin::echo()));
    proxy.finish();
}

#[test]
fn rules_about_the_source_see_the_client() {
    let proxy = Proxy::start("permit c 127.0.0.2 - - -\n", &[]);
    let origin = Origin::echo();
    assert!(!permitted(&proxy, &origin));
    let second_host = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let client = crate::support::endpoints::dial_from(second_host, proxy.address());
    client::socks4::connect(client, &origin.destination(), b"").expect("permitted");
    proxy.finish();
}

/// While nothing changes, a request costs one look at the file and no reading.
#[test]
fn an_unchanged_file_is_not_read_again() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    proxy.wait_for_rules_mtime();
    assert!(permitted(&proxy, &origin));
    // From now on opening any file would fail, and be complained about.
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "openat:error=EMFILE") else {
        return proxy.finish();
    };
    for _ in 0..10 {
        assert!(permitted(&proxy, &origin));
    }
    drop(syscall_faults);
    assert!(
        !proxy
            .stderr_lines()
            .iter()
            .any(|line| line.contains("Too many"))
    );
    proxy.finish();
}

#[test]
fn f11_ten_thousand_rules_cost_less_than_a_millisecond() {
    let rule = |number: usize| format!("deny c 10.{}.{}.0/24 - - -\n", number / 256, number % 256);
    let many: String = (0..10_000).map(rule).collect();
    let quickest = |rules: &str| {
        let proxy = Proxy::start(rules, &[]);
        proxy.wait_for_rules_mtime();
        let origin = Origin::echo();
        let request = |_| {
            let began = Instant::now();
            drop(connect_through(proxy.address(), &origin.destination()));
            began.elapsed()
        };
        let quickest = (0..50).map(request).min().unwrap();
        proxy.finish();
        quickest
    };
    let (few, all) = (quickest(PERMIT), quickest(&(many + PERMIT)));
    let cost = all.saturating_sub(few);
    assert!(cost < Duration::from_millis(1), "{few:?}, then {all:?}");
}
