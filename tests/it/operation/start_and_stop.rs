//! Start, signals, shutdown, limits and exit statuses.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use threadsocks::client;
use threadsocks::protocol::Command;

use crate::support::endpoints::{
    CLOSED, Origin, UnresponsiveListener, by_address, by_name, connect_through, dial, read_all,
    read_exactly, read_until_reset, request, shutdown_write, write,
};
use crate::support::metrics::METRICS;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::syscall_faults::SyscallFaults;
use crate::support::tools::{is_installed, skip};
use crate::support::udp_client::{self, UdpClient};
use crate::support::wait::until;

/// Runs the binary in an empty folder until it exits, and returns its exit status, stdout
/// and stderr.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(arguments).current_dir(folder.path());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn o01_f01_a_failed_start_reports_its_reason_by_exit_status_and_one_line() {
    for (arguments, status, reason) in [
        (&["65536"][..], 2, "not a PORT"),
        (&["http"], 2, "not a PORT"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["--grace", "soon"], 2, "not a time"),
        (&["0"], 1, "socks.conf: No such file"),
        (&["-c", "/", "0"], 1, "not a regular file"),
        (&["--check", "-c", "nowhere"], 1, "nowhere: No such file"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(code, Some(status), "{arguments:?}");
        assert_eq!(stdout, "");
        assert!(stderr.starts_with("threadsocks: "), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    let (_, _, stderr) = run(&["0"]);
    assert!(
        stderr.contains("--config"),
        "stderr names the option to use: {stderr}"
    );
}

#[test]
fn o11_a_deleted_current_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let mut command = std::process::Command::new("sh");
    let script = "rmdir ../gone && exec \"$0\" 0";
    let output = command
        .args(["-c", script, env!("CARGO_BIN_EXE_threadsocks")])
        .current_dir(&gone)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("current directory: unknown ("), "{stderr}");
    assert!(stderr.contains("--config"), "{stderr}");
}

/// A shell script that copies the server into the folder of its rules, where every user
/// may run it, and starts the copy as the user nobody (65534).
const AS_NOBODY: &str = "folder=${4%/*} && chmod 755 \"$folder\" && cp \"$0\" \"$folder/server\" \
    && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$folder/server\" \"$@\"";

#[test]
fn o11_s03_an_unprivileged_server_without_threads_refuses_clients_and_recovers() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can change to another user");
    }
    if !is_installed("setpriv", "util-linux") || !is_installed("prlimit", "util-linux") {
        return;
    }
    let proxy = Proxy::with(Setup {
        wrapper: &["sh", "-c", AS_NOBODY],
        ..Setup::default()
    });
    let origin = Origin::echo();
    let session = connect_through(proxy.address(), &origin.destination());
    proxy.wait_for_thread("s1-down");
    let pid = proxy.pid().to_string();
    // RLIMIT_NPROC does not limit root, but limits the user nobody.
    let old = set_limit(&pid, "nproc", "1");
    let client = dial(proxy.address());
    assert_eq!(read_all(&client), [0, 91, 0, 0, 0, 0, 0, 0]);
    proxy.stderr_line("no thread for a client");
    write(&session, b"still here");
    assert_eq!(read_exactly(&session, 10), b"still here");
    set_limit(&pid, "nproc", &old);
    drop(connect_through(proxy.address(), &origin.destination()));
    drop(session);
    proxy.finish();
}

#[test]
fn o11_o15_files_without_permission_are_reported_with_exit_status_1() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can change to another user");
    }
    if !is_installed("setpriv", "util-linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (rules, secret) = (folder.path().join("rules"), folder.path().join("secret"));
    fs::write(&rules, PERMIT_ALL).unwrap();
    fs::write(&secret, PERMIT_ALL).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for (rules, option) in [
        (&secret, "--check"),
        (&secret, "--explain=c 10.0.0.5 140.113.1.2 80"),
        (&secret, "0"),
        (&rules, "0"),
    ] {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", AS_NOBODY, env!("CARGO_BIN_EXE_threadsocks")])
            .args(["--bind", "127.0.0.1", "--config"])
            .args([rules.as_os_str(), option.as_ref()])
            .args(["--users".as_ref(), secret.as_os_str()]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{option}: {stderr}");
        let reason = "secret: Permission denied";
        assert!(stderr.contains(reason), "{option}: {stderr}");
    }
}

#[test]
fn o15_a_file_that_cannot_be_read_has_exit_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string();
    fs::write(path("rules"), PERMIT_ALL).unwrap();
    fs::create_dir(path("folder")).unwrap();
    nix::unistd::mkfifo(&*path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let query = "--explain=c 10.0.0.5 140.113.1.2 80";
    for (name, reason) in [
        ("missing", "No such file"),
        ("rules/below", "Not a directory"),
        ("folder", "it is not a regular file"),
        ("fifo", "it is not a regular file"),
    ] {
        for (rules, users, action) in [
            (name, None, "0"),
            (name, None, "--check"),
            (name, None, query),
            ("rules", Some(name), "0"),
            ("rules", Some(name), "--check"),
        ] {
            let mut command = binary();
            command.args(["--config".into(), path(rules), action.into()]);
            if let Some(users) = users {
                command.args(["--users".into(), path(users)]);
            }
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{action}: {stderr}");
            assert!(
                stderr.contains(&format!("{name}: {reason}")),
                "{action}: {stderr}"
            );
            assert!(output.stdout.is_empty());
        }
    }
    // The password of a new user comes from stdin.
    let output = binary()
        .args(["--new-user", "alice"])
        .stdin(fs::File::open(path("folder")).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("Is a directory"), "{stderr}");
}

/// While the process is stopped, only the clock goes on: timeouts that have passed take
/// effect after SIGCONT, and no byte is lost.
#[test]
fn o08_a_process_continues_its_sessions_after_sigstop_and_sigcont() {
    let proxy = Proxy::start(PERMIT_ALL, &["--handshake-timeout", "500ms"]);
    let origin = Origin::echo();
    let session = connect_through(proxy.address(), &origin.destination());
    let silent = dial(proxy.address());
    proxy.wait_for_thread("s2");
    proxy.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", proxy.pid());
    until("the process to be stopped", || {
        fs::read_to_string(&stat)
            .unwrap()
            .contains(") T ")
            .then_some(())
    });
    let late = dial(proxy.address());
    write(
        &late,
        &request(Command::Connect, &origin.destination(), b""),
    );
    write(&session, b"sent meanwhile");
    thread::park_timeout(Duration::from_millis(700));
    proxy.signal(Signal::SIGCONT);
    assert_eq!(read_exactly(&session, 14), b"sent meanwhile");
    // Its handshake timeout began at accept, after SIGCONT.
    assert_eq!(read_exactly(&late, 2), [0, 90]);
    assert_eq!(read_all(&silent), b"");
    drop((session, late));
    proxy.finish();
}

#[test]
fn help_and_version_go_to_stdout() {
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, threadsocks::cli::help());
    let (code, stdout, _) = run(&["-V"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout,
        concat!("threadsocks ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn check_and_explain_print_what_the_rules_mean() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("rules");
    let path = config.to_str().unwrap();
    fs::write(&config, "permit c 127. - localhost 80\n").unwrap();
    let (code, stdout, _) = run(&["-c", path, "--check"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains(":1: permit c 127.0.0.0/8 - localhost 80\n"),
        "{stdout}"
    );
    for (query, answer) in [
        ("c 127.0.0.1 localhost 80", "permit: CONNECT"),
        ("c 127.0.0.1 127.0.0.1 80", "deny: CONNECT"),
        // Denied without a lookup, as in the server.
        ("c 127.0.0.1 unknown.invalid 80", "deny: CONNECT"),
    ] {
        let (code, stdout, _) = run(&["-c", path, "--explain", query]);
        let denied = answer.starts_with("deny");
        assert_eq!(code, Some(if denied { 3 } else { 0 }));
        assert!(stdout.starts_with(answer), "{stdout}");
    }
    fs::write(&config, "permit c 127.\nfoo\npermit\n").unwrap();
    let (code, _, stderr) = run(&["-c", path, "--check"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("rules:2: a rule begins with"), "{stderr}");
    assert!(stderr.contains("rules:3: the mode is missing"), "{stderr}");
}

#[test]
fn x05_rules_that_make_an_open_relay_lead_to_a_warning() {
    let proxy = Proxy::open();
    proxy.stderr_line("warning: ");
    // A warning changes no decision: this machine is permitted too.
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
}

#[test]
fn x26_x28_rules_that_name_ports_lead_to_the_warning_of_an_open_relay() {
    let proxy = Proxy::start("permit c - 32768-65535 - 443-65535,1-442\n", &[]);
    proxy.stderr_line("warning: line 1 permits any client to reach any destination: an open relay");
    proxy.finish();
}

#[test]
fn x07_the_shipped_rules_permit_this_machine_and_are_no_open_relay() {
    let rules = include_str!("../../../socks.conf");
    let proxy = Proxy::start(rules, &[]);
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    assert!(
        !proxy
            .stderr_lines()
            .iter()
            .any(|line| line.contains("warning"))
    );
    proxy.finish();
}

#[test]
fn o02_a_port_in_use_is_reported_and_not_taken_over() {
    let proxy = Proxy::open();
    let config = proxy.config();
    let port = proxy.port().to_string();
    let (code, _, stderr) = run(&["-b", "127.0.0.1", "-c", config.to_str().unwrap(), &port]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{stderr}"
    );
    assert!(stderr.contains("in use"), "{stderr}");
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
}

#[test]
fn o03_a_restart_can_listen_on_its_port_despite_connections_in_time_wait() {
    let port = crate::support::endpoints::free_ports(1);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("socks.conf"), PERMIT_ALL).unwrap();
    let origin = Origin::start(drop);
    for _ in 0..20 {
        let mut server = binary()
            .args(["-b", "127.0.0.1", "--grace", "0s", "--log", "none"])
            .args(["-q", &port.to_string()])
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let proxy = until("the server", || TcpStream::connect(address).ok());
        let client = client::socks4::connect(
            crate::support::endpoints::with_timeout(proxy),
            &origin.destination(),
            b"",
        );
        let client = client.expect("granted");
        // The server ends its direction first, so its socket goes to TIME_WAIT.
        assert_eq!(read_all(&client), b"");
        drop(client);
        let pid = nix::unistd::Pid::from_raw(server.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        assert!(server.wait().unwrap().success());
    }
}

#[test]
fn o31_signals_during_the_start_wait_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    // They take long to parse, compared with the delay of a signal.
    fs::write(&rules, "permit - - - 10.0.0.1 80\n".repeat(10_000)).unwrap();
    for _ in 0..10 {
        let server = binary()
            .args(["--bind", "127.0.0.1", "--config"])
            .arg(&rules)
            .arg("0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let blocks_signals = || {
            let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
            (mask & (1 << (Signal::SIGHUP as u32 - 1)) != 0).then_some(())
        };
        until("the first statement of the program", blocks_signals);
        let pid = nix::unistd::Pid::from_raw(server.id() as i32);
        for signal in [Signal::SIGHUP, Signal::SIGTERM] {
            nix::sys::signal::kill(pid, signal).unwrap();
        }
        let output = server.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("listening on "), "{stderr}");
    }
}

#[test]
fn o04_o05_one_signal_drains_the_server() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "15s", "-v"]);
        let client = connect_through(proxy.address(), &Origin::echo().destination());
        let began = Instant::now();
        proxy.signal(signal);
        // The listener is closed at once; open sessions go on.
        let port = proxy.port();
        until("the listener to be closed", || {
            (!proxy.listens_on(port)).then_some(())
        });
        // Much less than the grace period.
        assert!(began.elapsed() < Duration::from_secs(10));
        write(&client, b"still here");
        assert_eq!(read_exactly(&client, 10), b"still here");
        shutdown_write(&client);
        assert_eq!(read_all(&client), b"");
        // The end of the last session ends the server, long before the grace period does.
        assert_eq!(proxy.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(12));
        proxy.stderr_line("ending=\"finished\"");
    }
}

/// strace delays the accept loop before each accept(2), so the clients are in the backlog at the stop.
#[test]
fn o25_clients_that_wait_in_the_backlog_at_the_stop_are_served() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "15s"]);
    let origin = Origin::echo();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "accept4:delay_enter=100000") else {
        return proxy.finish();
    };
    let clients: Vec<_> = (0..4).map(|_| dial(proxy.address())).collect();
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_thread("s4");
    for client in &clients {
        write(
            client,
            &request(Command::Connect, &origin.destination(), b""),
        );
        assert_eq!(read_exactly(client, 8)[..2], [0, 90]);
        write(client, b"served");
        assert_eq!(read_exactly(client, 6), b"served");
    }
    drop((syscall_faults, clients));
    assert_eq!(proxy.wait().code(), Some(0));
}

/// New clients keep the accept loop for a second after the signal. The grace period goes on
/// meanwhile: a container is killed 10 s after the signal.
#[test]
fn o32_the_grace_period_begins_with_the_signal() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "2s"]);
    let session = connect_through(proxy.address(), &Origin::echo().destination());
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "accept4:delay_enter=100000") else {
        return proxy.finish();
    };
    let clients: Vec<_> = (0..30).map(|_| dial(proxy.address())).collect();
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(read_until_reset(&session), b"");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_millis(2900), "{took:?}");
    drop((syscall_faults, clients));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn o04_l07_the_grace_period_ends_and_every_message_is_printed() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "500ms", "-v"]);
    let origin = Origin::echo();
    let clients: Vec<_> = (0..50)
        .map(|_| connect_through(proxy.address(), &origin.destination()))
        .collect();
    let began = Instant::now();
    proxy.signal(Signal::SIGINT);
    assert_eq!(proxy.wait().code(), Some(0));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for client in &clients {
        assert_eq!(read_until_reset(client), b"");
    }
    assert_eq!(proxy.screen_messages(50).len(), 50);
    let lines = proxy.wait_for_stderr("ending=\"the server stopped\"", 50);
    assert_eq!(lines, 50);
}

/// Docker and many service managers kill a server ten seconds after SIGTERM. This test waits
/// for the default of eight.
#[test]
fn o12_the_default_grace_period_is_over_before_ten_seconds() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    proxy.stderr_line("ending=\"the server stopped\"");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(7), "{took:?}");
    assert_eq!(proxy.wait().code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(read_until_reset(&client), b"");
}

#[test]
fn o04_a_second_signal_terminates_all_sessions_at_once() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "1m"]);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let began = Instant::now();
    proxy.signal(Signal::SIGINT);
    proxy.stderr_line("stopping");
    proxy.signal(Signal::SIGINT);
    assert_eq!(proxy.wait().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(read_until_reset(&client), b"");
    assert_eq!(proxy.screen_messages(1).len(), 1);
}

#[test]
fn o07_a_lookup_does_not_delay_the_shutdown() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "300ms", "-v"]);
    proxy.wait_for_rules_mtime();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "openat:delay_enter=5000000") else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    let destination = by_name("slow.invalid", 80);
    let bytes = request(Command::Connect, &destination, b"");
    write(&client, &bytes);
    proxy.wait_for_thread("lookup");
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    proxy.stderr_line("ending=\"the server stopped\"");
    assert_eq!(proxy.screen_messages(1)[0].summary(), "-:80 CONNECT Reject");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    // strace holds the thread that resolves the name; detaching lets it exit.
    drop(syscall_faults);
    assert_eq!(proxy.wait().code(), Some(0));
    drop(client);
}

#[test]
fn a_port_that_the_system_chose_is_reported_even_with_quiet() {
    let mut proxy = Proxy::start("permit - 127.0.0.0/8 - - -\n", &["-q"]);
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.stderr_lines().len(), 1, "{:?}", proxy.stderr_lines());
}

/// The server keeps the connection of a refused client open until the client closes. A
/// stop in the meantime does not change the reason in the log.
#[test]
fn o07_a_refusal_is_logged_with_its_reason_after_a_stop() {
    let mut proxy = Proxy::start("deny c -\n", &["--grace", "0s", "-v"]);
    let client = dial(proxy.address());
    write(
        &client,
        &request(Command::Connect, &by_address(CLOSED.into()), b""),
    );
    // Reply and FIN of the server, which now waits for the client's FIN.
    assert_eq!(read_all(&client)[..2], [0, 91]);
    proxy.signal(Signal::SIGTERM);
    proxy.stderr_line("ending=\"refused: rule on line 1 denies it\"");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn o07_a_stop_at_every_stage_of_a_session_leaves_out_no_message() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "300ms"]);
    let unresponsive = UnresponsiveListener::new();
    let silent = dial(proxy.address());
    let incomplete = dial(proxy.address());
    write(&incomplete, &[4, 1]);
    let dialling = dial(proxy.address());
    write(
        &dialling,
        &request(Command::Connect, &by_address(unresponsive.address()), b""),
    );
    let waiting =
        client::socks4::bind(dial(proxy.address()), &by_address(CLOSED.into()), b"").unwrap();
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3));
    let messages = proxy.screen_messages(2);
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.reply == "Reject"));
    drop((silent, incomplete, dialling, waiting));
}

/// SIGHUP makes the server read its rules again; SIGTERM stops it.
#[test]
fn o05_o06_sigterm_is_not_lost_among_many_sighups() {
    for _ in 0..3 {
        let mut proxy = Proxy::open();
        let config = proxy.config();
        for round in 0..200 {
            // Reading a changed file takes the server ten milliseconds.
            fs::write(&config, format!("permit - -\n# {round}\n")).unwrap();
            proxy.signal(Signal::SIGHUP);
        }
        proxy.signal(Signal::SIGTERM);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

#[test]
fn the_idle_timeout_holds_among_sighups_and_during_shutdown() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "500ms", "--grace", "30s"]);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let other = connect_through(proxy.address(), &Origin::echo().destination());
    let began = Instant::now();
    client
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let is_open = || match (&client).read(&mut [0]) {
        Err(error) => error.kind() != ErrorKind::ConnectionReset,
        Ok(_) => panic!("EOF in place of a reset"),
    };
    while is_open() {
        proxy.signal(Signal::SIGHUP);
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    drop(other);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    proxy.signal(Signal::SIGTERM);
    assert_eq!(read_until_reset(&client), b"");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[test]
fn threads_are_named_after_their_work() {
    let proxy = Proxy::open();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    let names_with = |first: &'static str, second: &'static str| {
        let names = ["accept", "ctrl-c", "logger", first, second, "signals"];
        [&names[..], &["status", "threadsocks"]].concat()
    };
    // A thread takes its name only after it has started.
    until("the names", || {
        (proxy.threads() == names_with("s1", "s1-down")).then_some(())
    });
    drop(client);
    // Both threads stay idle. The next session reuses them and renames them.
    let idle_threads = |threads: &[String]| threads.iter().filter(|name| *name == "idle").count();
    until("idle threads", || {
        (idle_threads(&proxy.threads()) == 2).then_some(())
    });
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    until("the names", || {
        (proxy.threads() == names_with("s2", "s2-down")).then_some(())
    });
    drop(client);
    proxy.finish();
}

#[test]
fn threads_are_reused_and_exit_when_idle() {
    let proxy = Proxy::open();
    // Counts all threads: a thread that has just started may not have its name yet.
    let at_start = proxy.threads().len();
    let origin = Origin::echo();
    for _ in 0..100 {
        drop(connect_through(proxy.address(), &origin.destination()));
        proxy.assert_resources_released();
    }
    let idle = proxy.threads().len() - at_start;
    assert_eq!(idle, 2, "{:?}", proxy.threads());
    until("idle threads to exit", || {
        (proxy.threads().len() == at_start).then_some(())
    });
    proxy.finish();
}

#[test]
fn threads_of_a_burst_exit_while_a_few_clients_still_connect() {
    let proxy = Proxy::open();
    let at_start = proxy.threads().len();
    let origin = Origin::echo();
    let burst: Vec<_> = (0..40)
        .map(|_| connect_through(proxy.address(), &origin.destination()))
        .collect();
    assert_eq!(proxy.threads().len(), at_start + 80);
    drop(burst);
    proxy.assert_resources_released();
    // Clients keep connecting, one after the other.
    until("the threads of the burst to exit", || {
        drop(connect_through(proxy.address(), &origin.destination()));
        (proxy.threads().len() <= at_start + 4).then_some(())
    });
    proxy.finish();
}

#[test]
fn s01_without_descriptors_clients_are_closed_at_once_and_sessions_continue() {
    if !is_installed("prlimit", "util-linux") {
        return;
    }
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let session = connect_through(proxy.address(), &origin.destination());
    proxy.wait_for_thread("s1-down");
    let pid = proxy.pid().to_string();
    let is_free = |fd: &usize| !Path::new(&format!("/proc/{pid}/fd/{fd}")).exists();
    // RLIMIT_NOFILE is one more than the highest permitted descriptor, so the limit rules
    // out the next free one.
    let next = (0..).find(is_free).unwrap();
    let old = set_limit(&pid, "nofile", &next.to_string());
    let cpu = cpu_ticks(&pid);
    for _ in 0..50 {
        // Closed at once: the client does not wait in the accept queue.
        let mut rest = Vec::new();
        let _ = (&dial(proxy.address())).read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    write(&session, b"still here");
    assert_eq!(read_exactly(&session, 10), b"still here");
    // For a second no client connects. An accept loop that fails again and again without
    // a pause would use all of that time.
    thread::park_timeout(Duration::from_secs(1));
    let used = cpu_ticks(&pid) - cpu;
    assert!(used < 50, "{used} hundredths of a second of CPU time");
    let line = proxy.stderr_line("cannot accept a client");
    assert!(line.contains("Too many open files"), "{line}");
    set_limit(&pid, "nofile", &old);
    // The next client is served.
    drop(connect_through(proxy.address(), &origin.destination()));
    drop(session);
    proxy.finish();
}

/// Sets a soft limit of a running process, such as `nofile`, and returns the old one.
fn set_limit(pid: &str, name: &str, limit: &str) -> String {
    // Runs prlimit as the user of the process: in some containers root lacks the
    // capability to set another user's limits.
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
    let prlimit = |arguments: &[&str]| {
        let mut command = std::process::Command::new("prlimit");
        let output = command
            .uid(owner.uid())
            .gid(owner.gid())
            .args(["--pid", pid])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let option = format!("--{name}");
    let old = prlimit(&[&option, "--noheadings", "--raw", "--output=SOFT"]);
    prlimit(&[&format!("{option}={limit}:")]);
    old.trim().to_owned()
}

/// CPU time of this process, user and system, in clock ticks of 10 ms.
fn cpu_ticks(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields[index].parse::<u64>().unwrap();
    // proc(5): utime and stime are the fields 14 and 15; `fields` begins with field 3.
    number(11) + number(12)
}

#[test]
fn s02_errors_of_accept_do_not_stop_the_server() {
    for error in [
        "ENFILE",
        "ENOBUFS",
        "ENOMEM",
        "ECONNABORTED",
        "EPROTO",
        "EPERM",
        "EINTR",
    ] {
        let proxy = Proxy::open();
        let origin = Origin::echo();
        let injection = format!("accept4:error={error}:when=1..3");
        let Some(syscall_faults) = SyscallFaults::with(&proxy, &injection) else {
            return proxy.finish();
        };
        for _ in 0..5 {
            drop(connect_through(proxy.address(), &origin.destination()));
        }
        drop(syscall_faults);
        proxy.finish();
    }
}

#[test]
fn s19_an_accept_that_always_fails_is_reported_and_pauses() {
    thread::scope(|scope| {
        for error in ["EPERM", "EPROTO", "ECONNABORTED"] {
            scope.spawn(move || check_accept_that_always_fails(error));
        }
    });
}

/// The metrics, and the clients that are accepted at the stop.
#[test]
fn s19_other_accepts_that_always_fail_are_reported_and_end_or_pause() {
    let mut proxy = Proxy::start(PERMIT_ALL, &METRICS);
    let metrics = proxy.metrics_address();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "accept4:error=EPERM") else {
        return proxy.finish();
    };
    let client = dial(metrics);
    let line = "cannot accept a client: --metrics: Operation not permitted";
    proxy.wait_for_stderr(line, 1);
    assert_pauses_until(&proxy, line, 3);
    // The stop tries sixteen times, and not for a whole second.
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_millis(900), "{took:?}");
    drop((syscall_faults, client));
}

/// Both the threads of the metrics and the one that accepts clients wait with poll(2).
#[test]
fn s55_a_poll_that_always_fails_is_reported_and_delays_no_stop() {
    let mut proxy = Proxy::start(PERMIT_ALL, &METRICS);
    let metrics = proxy.metrics_address();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "/^p?poll$:error=EPERM") else {
        return proxy.finish();
    };
    // The threads wait since before the faults. A connection of the metrics wakes all of theirs.
    let clients = [dial(metrics), dial(proxy.address())];
    let line = "cannot accept a client";
    proxy.wait_for_stderr(line, 1);
    assert_pauses_until(&proxy, line, 3);
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    // The longest pause is a second.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop((syscall_faults, clients));
}

/// The spare descriptor does not help: strace makes each accept(2) fail, as if another thread had
/// taken the descriptor.
#[test]
fn s44_an_accept_that_never_has_a_descriptor_pauses() {
    check_accept_that_always_fails("EMFILE");
}

fn check_accept_that_always_fails(error: &str) {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let injection = format!("accept4:error={error}");
    let Some(syscall_faults) = SyscallFaults::with(&proxy, &injection) else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    proxy.wait_for_stderr("cannot accept a client", 1);
    assert_pauses_until(&proxy, "cannot accept a client", 3);
    drop((syscall_faults, client));
    drop(connect_through(proxy.address(), &origin.destination()));
    proxy.finish();
}

/// Waits until stderr has this line as often, and fails if the server is busy meanwhile.
fn assert_pauses_until(proxy: &Proxy, line: &str, count: usize) {
    let (began, before) = (Instant::now(), context_switches(proxy));
    proxy.wait_for_stderr(line, count);
    // strace stops the thread twice at each system call, of which an error needs three.
    let switches = (context_switches(proxy) - before) as f64;
    let elapsed = began.elapsed().as_secs_f64();
    assert!(switches < 3000.0 * elapsed, "{switches} in {elapsed} s");
}

/// How often a thread of the server has given up its processor until now.
fn context_switches(proxy: &Proxy) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let of_thread = |task: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    };
    tasks.map(of_thread).sum()
}

#[test]
fn s21_a_receive_that_always_fails_pauses_and_loses_no_datagram() {
    let proxy = Proxy::open();
    let client = UdpClient::new(&proxy);
    let origin = udp_client::origin();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "recvfrom:error=EPERM") else {
        return proxy.finish();
    };
    let (began, before) = (Instant::now(), context_switches(&proxy));
    client.send(&by_address(udp_client::address_of(&origin)), b"late");
    until("a second of failures", || {
        (began.elapsed() > Duration::from_secs(1)).then_some(())
    });
    // strace stops the thread twice at each system call, of which an error needs three.
    let switches = context_switches(&proxy) - before;
    assert!(switches < 3000, "{switches} in {:?}", began.elapsed());
    drop(syscall_faults);
    assert_eq!(udp_client::receive(&origin).0, b"late");
    drop(client);
    proxy.finish();
}

/// recvmsg(2), which takes ICMP errors, fails while poll(2) reports that there are some.
#[test]
fn u30_icmp_errors_that_cannot_be_taken_cost_no_processor_time() {
    let proxy = Proxy::open();
    let client = UdpClient::new(&proxy);
    let origin = udp_client::origin();
    let outer_address = client.send_and_receive_at(&origin, b"first");
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "recvmsg:error=EPERM") else {
        return proxy.finish();
    };
    client.send(&by_address(CLOSED.into()), b"lost");
    let (began, before) = (Instant::now(), context_switches(&proxy));
    until("a second with an error", || {
        (began.elapsed() > Duration::from_secs(1)).then_some(())
    });
    // strace stops the thread twice at each system call, of which an error needs four.
    let switches = context_switches(&proxy) - before;
    assert!(switches < 3000, "{switches} in {:?}", began.elapsed());
    // Datagrams are still received.
    origin.send_to(b"answer", outer_address).unwrap();
    assert_eq!(client.receive().1, b"answer");
    drop(syscall_faults);
    client.send_and_receive_at(&origin, b"last");
    drop(client);
    proxy.finish();
}

#[test]
fn r11_interrupted_system_calls_are_repeated() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    for injection in [
        "recvfrom:error=EINTR:when=1+3",
        "poll:error=EINTR:when=1+3",
        "sendto:error=EINTR:when=2+5",
    ] {
        let Some(syscall_faults) = SyscallFaults::with(&proxy, injection) else {
            return proxy.finish();
        };
        let client = connect_through(proxy.address(), &origin.destination());
        let bytes = crate::support::endpoints::random_bytes(1, 500_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                write(&client, &bytes);
                shutdown_write(&client);
            });
            assert!(read_all(&client) == bytes);
        });
        drop(syscall_faults);
    }
    proxy.finish();
}

#[test]
fn s04_little_address_space_means_few_sessions_and_no_abort() {
    for (setting, min_sessions, resource) in [
        ("ulimit -v 500000; exec env", 300, "address space"),
        (
            "ulimit -v 500000; exec env MALLOC_ARENA_MAX=2",
            200,
            "address space",
        ),
        ("ulimit -d 60000; exec env", 15, "data"),
    ] {
        let script = format!("{setting} \"$0\" \"$@\"");
        let proxy = Proxy::with(Setup {
            wrapper: &["sh", "-c", &script],
            ..Setup::default()
        });
        proxy.stderr_line(&format!("bytes of {resource}"));
        let origin = Origin::echo();
        let mut held = Vec::new();
        // Opens sessions until a client is refused. Every other session needs a thread for
        // a name lookup.
        let destinations = [origin.destination(), by_name("localhost", origin.port())];
        for destination in destinations.iter().cycle() {
            match client::socks4::connect(dial(proxy.address()), destination, b"") {
                Ok(client) => held.push(client),
                Err(_) => break,
            }
            assert!(held.len() < 5000);
        }
        assert!(held.len() >= min_sessions, "{}", held.len());
        proxy.stderr_line("at capacity");
        write(&held[0], b"still here");
        assert_eq!(read_exactly(&held[0], 10), b"still here");
        drop(held);
        proxy.assert_resources_released();
        drop(connect_through(proxy.address(), &origin.destination()));
        proxy.finish();
    }
}

#[test]
fn s05_a_client_over_the_limit_is_refused_and_closed_at_once() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "10"]);
    proxy.stderr_line("up to 10 sessions at a time, limited by --max-sessions");
    let origin = Origin::echo();
    let mut held: Vec<_> = (0..10)
        .map(|_| connect_through(proxy.address(), &origin.destination()))
        .collect();
    for _ in 0..20 {
        let mut rest = Vec::new();
        let _ = (&dial(proxy.address())).read_to_end(&mut rest);
        assert_eq!(rest, b"\x00\x5b\0\0\0\0\0\0");
    }
    proxy.stderr_line("at capacity: all 10 sessions are in use");
    held.pop();
    until("a free slot", || {
        client::socks4::connect(dial(proxy.address()), &origin.destination(), b"").ok()
    });
    drop(held);
    proxy.finish();
}

/// All clients connect from 127.0.0.1. The server must not take their connections for a
/// loop through itself, even if the system gives one local port to several of them.
#[test]
fn c09_s07_s29_four_thousand_sessions_from_one_address_are_served() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let proxy = Proxy::open();
    let line = proxy.stderr_line("sessions at a time");
    let capacity: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    if hard < 10_000 || capacity < 4000 {
        skip(&format!(
            "4,000 sessions need 10,000 descriptors; here: {hard}; {line}"
        ));
        return proxy.finish();
    }
    // Remotes without a thread each: the test only holds their sockets.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let destination = by_address(listener.local_addr().unwrap());
    let mut held = Vec::with_capacity(4000);
    for _ in 0..4000 {
        let client = connect_through(proxy.address(), &destination);
        held.push((client, listener.accept().unwrap().0));
    }
    // A new session is served promptly.
    let began = Instant::now();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    write(&client, b"x");
    assert_eq!(read_exactly(&client, 1), b"x");
    assert!(began.elapsed() < Duration::from_millis(500));
    drop(client);
    let (client, remote) = &held[3999];
    write(client, b"the last");
    assert_eq!(read_exactly(remote, 8), b"the last");
    drop(held);
    proxy.finish();
}

#[test]
fn d08_a_lookup_ends_at_the_connect_timeout() {
    let proxy = Proxy::start(PERMIT_ALL, &["--connect-timeout", "500ms"]);
    // From now on the server does not open its rules file, so the delay of openat applies
    // to the resolver alone.
    proxy.wait_for_rules_mtime();
    let Some(syscall_faults) = SyscallFaults::with(&proxy, "openat:delay_enter=3000000") else {
        return proxy.finish();
    };
    let client = dial(proxy.address());
    let own = client.local_addr().unwrap();
    let began = Instant::now();
    let destination = by_name("slow.invalid", 80);
    let bytes = request(Command::Connect, &destination, b"");
    write(&client, &bytes);
    assert_eq!(read_all(&client)[..2], [0, 91]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        proxy.screen_message_for(own).summary(),
        "-:80 CONNECT Reject"
    );
    proxy.stderr_line("no connection was established within the time limit");
    drop(client);
    drop(syscall_faults);
    proxy.finish();
}
