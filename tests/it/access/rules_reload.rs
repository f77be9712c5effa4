//! Changes of the rules file take effect while the server runs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use threadsocks::client;

use crate::support::endpoints::{
    Origin, connect_through, dial, dial_from, read_exactly, read_until_reset, write,
};
use crate::support::proxy::Proxy;
use crate::support::syscall_faults::SyscallFaults;
use crate::support::wait::until;

const PERMIT: &str = "permit c 127.0.0.1\n";
const DENY: &str = "deny   c 127.0.0.1\n";

/// Whether the rules in force permit a client to connect to this origin.
fn is_permitted(proxy: &Proxy, origin: &Origin) -> bool {
    client::socks4::connect(dial(proxy.address()), &origin.destination(), b"").is_ok()
}

#[test]
fn f02_an_empty_rules_file_denies_every_request() {
    for rules in ["", "# only a comment\n\n"] {
        let proxy = Proxy::start(rules, &[]);
        assert!(!is_permitted(&proxy, &Origin::echo()));
        proxy.stderr_line("every request is denied");
        proxy.finish();
    }
}

#[test]
fn f03_a_missing_file_keeps_the_rules_and_a_restored_file_is_read() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    fs::remove_file(proxy.config()).unwrap();
    for _ in 0..3 {
        assert!(is_permitted(&proxy, &origin));
    }
    proxy.stderr_line("No such file");
    let stderr_lines = proxy.stderr_lines();
    let count = stderr_lines
        .iter()
        .filter(|line| line.contains("No such file"))
        .count();
    assert_eq!(count, 1, "reported once: {stderr_lines:#?}");
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f04_the_request_after_a_replacement_uses_the_new_rules() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let new_file = proxy.folder().join("new");
    for round in 0..100 {
        let expected = round % 2 == 1;
        fs::write(&new_file, if expected { PERMIT } else { DENY }).unwrap();
        fs::rename(&new_file, proxy.config()).unwrap();
        assert_eq!(is_permitted(&proxy, &origin), expected, "round {round}");
    }
    proxy.stderr_line("1 rule in force");
    proxy.finish();
}

#[test]
fn f04_every_request_uses_either_the_old_or_the_new_rules() {
    // Both files permit this origin, so a denial shows that a request used neither.
    let rules = ["deny c 9.9.9.9\npermit c 127.\n", "permit c 127.0.0.1\n"];
    let proxy = Proxy::start(rules[0], &[]);
    let origin = Origin::echo();
    // This flag publishes no other data, so Relaxed suffices.
    let replacing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let new_file = proxy.folder().join("new");
            for round in 0..1000 {
                fs::write(&new_file, rules[round % 2]).unwrap();
                fs::rename(&new_file, proxy.config()).unwrap();
            }
            replacing.store(false, Ordering::Relaxed);
        });
        while replacing.load(Ordering::Relaxed) {
            assert!(is_permitted(&proxy, &origin));
        }
    });
    proxy.finish();
}

/// Replaces the rules file all the time by rename(2), with the same denial or with denials of
/// which each differs from the one before, while `observe` runs. There are several writers, so
/// that the file never stays for long even if the system suspends one of them.
fn while_replaced<T>(proxy: &Proxy, same: bool, observe: impl FnOnce() -> T) -> T {
    let stop = &AtomicBool::new(false);
    let replace = |writer: u32| {
        let new_file = proxy.folder().join(format!("new{writer}"));
        for number in 0.. {
            let number = if same { 0 } else { 10 * number + writer };
            fs::write(&new_file, format!("{DENY}# {number}\n")).unwrap();
            fs::rename(&new_file, proxy.config()).unwrap();
            // Relaxed: the flag publishes no other data.
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || replace(writer));
        }
        let observed = observe();
        stop.store(true, Ordering::Relaxed);
        observed
    })
}

#[test]
fn f35_a_file_that_is_replaced_all_the_time_is_used() {
    for same in [true, false] {
        let proxy = Proxy::start(PERMIT, &[]);
        let origin = Origin::echo();
        let time = while_replaced(&proxy, same, || {
            let began = Instant::now();
            while is_permitted(&proxy, &origin) && began.elapsed() < Duration::from_secs(5) {}
            began.elapsed()
        });
        assert!(time < Duration::from_secs(1), "{time:?}");
        proxy.finish();
    }
}

#[test]
fn f35_enforce_ends_sessions_while_the_file_is_replaced_all_the_time() {
    for same in [true, false] {
        let proxy = Proxy::start(PERMIT, &["--enforce"]);
        let origin = Origin::echo();
        let session = connect_through(proxy.address(), &origin.destination());
        let time = while_replaced(&proxy, same, || {
            let began = Instant::now();
            assert_eq!(read_until_reset(&session), b"");
            began.elapsed()
        });
        assert!(time < Duration::from_millis(2500), "{time:?}");
        proxy.finish();
    }
}

#[test]
fn f05_a_half_written_file_is_never_used() {
    // The only rule is the last line, so every truncated version of the file denies.
    let whole = format!("{}{PERMIT}", "# a comment before a rule\n".repeat(200));
    let proxy = Proxy::start(&whole, &[]);
    let origin = Origin::echo();
    // Some editors write like this: truncate the file, then write it in pieces.
    let rewrite = || {
        let began = Instant::now();
        let mut file = File::create(proxy.config()).unwrap();
        for piece in whole.as_bytes().chunks(1500) {
            file.write_all(piece).unwrap();
            thread::yield_now();
        }
        began.elapsed()
    };
    // This flag publishes no other data, so Relaxed suffices.
    let writing = AtomicBool::new(true);
    let (slowest, denied) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let slowest = (0..300).map(|_| rewrite()).max();
            writing.store(false, Ordering::Relaxed);
            slowest.unwrap()
        });
        let mut denied = 0;
        while writing.load(Ordering::Relaxed) {
            denied += usize::from(!is_permitted(&proxy, &origin));
        }
        (writer.join().unwrap(), denied)
    });
    // If the scheduler suspends the writer for longer than the server waits, a truncated
    // file looks complete to the server.
    let settle_time = Duration::from_millis(10);
    assert!(
        denied == 0 || slowest >= settle_time,
        "{denied} denied, slowest write {slowest:?}"
    );
    assert!(is_permitted(&proxy, &origin));
    proxy.finish();
}

/// While the file is written, and ends within a line, a check takes 100 ms. If each request
/// made its own check after the one before it, the last would wait for six seconds.
#[test]
fn f25_while_one_request_checks_the_file_others_use_the_rules_in_force() {
    const REQUESTS: usize = 60;
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let stop = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: the flag publishes no other data.
            for text in ["deny", "deny c"].iter().cycle() {
                fs::write(proxy.config(), text).unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let request = || {
            let began = Instant::now();
            assert!(is_permitted(&proxy, &origin));
            began.elapsed()
        };
        let requests: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(request)).collect();
        let times: Vec<_> = requests.into_iter().map(|it| it.join()).collect();
        // Before a failed request ends the test: the scope waits for the writer.
        stop.store(true, Ordering::Relaxed);
        times.into_iter().map(Result::unwrap).max().unwrap()
    });
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    // The request that notices the end of the writing uses the new rules.
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f06_a_syntax_error_is_reported_with_its_line_and_changes_nothing() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    fs::write(proxy.config(), "deny c 127.0.0.1\npermit c 256.1.1.1\n").unwrap();
    assert!(is_permitted(&proxy, &origin));
    proxy.stderr_line("socks.conf:2: \"256.1.1.1\" is not an address");
    proxy.stderr_line("last valid rules stay in force");
    assert!(is_permitted(&proxy, &origin));
    let stderr_lines = proxy.stderr_lines();
    let count = stderr_lines
        .iter()
        .filter(|line| line.contains("256.1.1.1"))
        .count();
    assert_eq!(count, 1, "reported once: {stderr_lines:#?}");
    // The rules in force are restored. That too is a change of the file, and is reported.
    fs::write(proxy.config(), PERMIT).unwrap();
    assert!(is_permitted(&proxy, &origin));
    proxy.stderr_line("1 rule in force");
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f31_f33_a_line_that_hides_a_part_of_itself_changes_nothing() {
    let proxy = Proxy::start(DENY, &[]);
    let origin = Origin::echo();
    // Without the part after `#` or the CR, each of them would permit this request.
    for (text, reason) in [
        ("permit c 127.0.0.1#7\n", "\"127.0.0.1#7\" has a # within"),
        (
            "permit c - 0-65535#auth\n",
            "\"0-65535#auth\" has a # within",
        ),
        (
            "# all\rdeny - -\npermit - -\n",
            "the line contains the control character \\x0d",
        ),
        (
            "# all\u{2028}deny - -\npermit - -\n",
            "the line contains U+2028",
        ),
        ("permit - - # \u{202E}dlo\n", "the line contains U+202E"),
    ] {
        fs::write(proxy.config(), text).unwrap();
        assert!(!is_permitted(&proxy, &origin), "{text}");
        proxy.stderr_line(&format!("socks.conf:1: {reason}"));
    }
    fs::write(proxy.config(), "permit c 127.0.0.1 #7\r\n").unwrap();
    assert!(is_permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f07_a_path_that_is_no_regular_file_changes_nothing_and_blocks_no_request() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let config = proxy.config();
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    assert!(is_permitted(&proxy, &origin));
    fs::remove_dir(&config).unwrap();
    nix::unistd::mkfifo(&config, Mode::S_IRUSR).unwrap();
    let began = Instant::now();
    assert!(is_permitted(&proxy, &origin));
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.stderr_line("not a regular file");
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("socks.conf", &config).unwrap();
    assert!(is_permitted(&proxy, &origin));
    proxy.stderr_line("symbolic links");
    fs::remove_file(&config).unwrap();
    fs::write(&config, "#".repeat(5 << 20)).unwrap();
    assert!(is_permitted(&proxy, &origin));
    proxy.stderr_line("larger than");
    fs::write(&config, DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    proxy.finish();
}

#[test]
fn f07_f08_a_file_that_cannot_be_opened_changes_nothing() {
    for (error, message) in [
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
        assert!(is_permitted(&proxy, &origin));
        proxy.stderr_line(message);
        drop(syscall_faults);
        assert!(!is_permitted(&proxy, &origin));
        proxy.finish();
    }
}

#[test]
fn f09_edits_of_equal_size_within_one_clock_tick_are_noticed() {
    assert_eq!(PERMIT.len(), DENY.len());
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    for round in 0..60 {
        let expected = round % 2 == 1;
        fs::write(proxy.config(), if expected { PERMIT } else { DENY }).unwrap();
        assert_eq!(is_permitted(&proxy, &origin), expected, "round {round}");
    }
    // The same after the file has been unchanged for so long that the server no longer
    // reads it while its time stamp stays the same.
    proxy.wait_for_rules_mtime();
    assert!(is_permitted(&proxy, &origin));
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    proxy.finish();
}

/// A program that has mapped the file into its memory: only its first write to a page changes the
/// time stamp.
#[test]
fn f36_a_change_without_a_new_time_stamp_is_noticed_at_sighup() {
    const WRITER: &str = "import mmap, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        memory = mmap.mmap(file.fileno(), 0)\n\
        for line in sys.stdin:\n\
        \x20   memory[:] = line.encode()\n\
        \x20   print('written', flush=True)\n";
    assert_eq!(PERMIT.len(), DENY.len());
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let mut writer = std::process::Command::new("python3")
        .args(["-c", WRITER, proxy.config().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    let mut written = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut change = |rules: &str| {
        input.write_all(rules.as_bytes()).unwrap();
        assert_eq!(written.next().unwrap().unwrap(), "written");
    };
    change(PERMIT);
    let modified = fs::metadata(proxy.config()).unwrap().modified().unwrap();
    // The server trusts a time stamp that is old enough.
    until("an older time stamp", || {
        let age = SystemTime::now().duration_since(modified).unwrap();
        (age > Duration::from_millis(2500)).then_some(())
    });
    assert!(is_permitted(&proxy, &origin));
    change(DENY);
    let now = fs::metadata(proxy.config()).unwrap().modified().unwrap();
    assert_eq!(now, modified, "the time stamp of the file is the same");
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr("1 rule in force", 2);
    assert!(!is_permitted(&proxy, &origin));
    drop(input);
    assert!(writer.wait().unwrap().success());
    proxy.finish();
}

#[test]
fn f12_live_sessions_continue_under_stricter_rules() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    let session = connect_through(proxy.address(), &origin.destination());
    fs::write(proxy.config(), DENY).unwrap();
    assert!(!is_permitted(&proxy, &origin));
    write(&session, b"still here");
    assert_eq!(read_exactly(&session, 10), b"still here");
    drop(session);
    proxy.finish();
}

#[test]
fn o06_sighup_rereads_the_rules_and_reports_the_result() {
    let proxy = Proxy::start(PERMIT, &[]);
    proxy.wait_for_rules_mtime();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("checked, nothing has changed");
    fs::write(proxy.config(), "permit c 127.\ndeny b -\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("2 rules in force");
    fs::write(proxy.config(), "nonsense\n").unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("socks.conf:1: a rule begins with permit or deny");
    // A second SIGHUP reports the same error again.
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr("socks.conf:1: a rule begins with permit or deny", 2);
    assert!(is_permitted(&proxy, &Origin::echo()));
    proxy.finish();
}

#[test]
fn source_rules_match_the_address_of_the_client() {
    let proxy = Proxy::start("permit c 127.0.0.2 - - -\n", &[]);
    let origin = Origin::echo();
    assert!(!is_permitted(&proxy, &origin));
    let second_address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let client = dial_from(second_address, proxy.address());
    client::socks4::connect(client, &origin.destination(), b"").expect("permitted");
    proxy.finish();
}

/// While the file is unchanged, each request costs one stat(2) and no open(2).
#[test]
fn an_unchanged_file_is_not_read_again() {
    let proxy = Proxy::start(PERMIT, &[]);
    let origin = Origin::echo();
    proxy.wait_for_rules_mtime();
    assert!(is_permitted(&proxy, &origin));
    // From here on every open(2) fails, and the server would report the failure.
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "openat:error=EMFILE") else {
        return proxy.finish();
    };
    for _ in 0..10 {
        assert!(is_permitted(&proxy, &origin));
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
fn f11_ten_thousand_rules_add_less_than_a_millisecond_to_a_request() {
    let rule = |number: usize| format!("deny c 10.{}.{}.0/24 - - -\n", number / 256, number % 256);
    let unmatched_rules: String = (0..10_000).map(rule).collect();
    let shortest_request = |rules: &str| {
        let proxy = Proxy::start(rules, &[]);
        proxy.wait_for_rules_mtime();
        let origin = Origin::echo();
        let request = |_| {
            let began = Instant::now();
            drop(connect_through(proxy.address(), &origin.destination()));
            began.elapsed()
        };
        // The minimum of 50 excludes requests that the scheduler delayed.
        let shortest = (0..50).map(request).min().unwrap();
        proxy.finish();
        shortest
    };
    let one_rule = shortest_request(PERMIT);
    let all_rules = shortest_request(&(unmatched_rules + PERMIT));
    let added = all_rules.saturating_sub(one_rule);
    // Without optimization, beside other tests, it has taken up to 2.1 ms. `make big` runs this
    // test with optimization.
    let limit = if cfg!(debug_assertions) { 4 } else { 1 };
    assert!(
        added < Duration::from_millis(limit),
        "{one_rule:?} with one rule, {all_rules:?} with all"
    );
}
