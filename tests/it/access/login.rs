//! SOCKS5 logins with user and password (RFC 1929), the users file, and rules with `auth`.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use crossbeam_channel::never;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{self, LocalFlags};
use nix::unistd::Pid;
use tempfile::TempDir;
use threadsocks::auth::{AuthError, Authenticator, users_file_line};
use threadsocks::net::{self, Deadline};
use threadsocks::protocol::socks5::{Credentials, Greeting, Request};
use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    Origin, dial, dial_from, read_all, read_exactly, request, reset, shutdown_write, write,
};
use crate::support::ident_server::Identd;
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, binary};
use crate::support::random::Rng;
use crate::support::wait::{TIMEOUT, until};

/// A server with a users file, and an echoing origin.
struct LoginSetup {
    folder: TempDir,
    proxy: Proxy,
    origin: Origin,
}

impl LoginSetup {
    /// Starts a server with these rules, whose users file has these users.
    fn with(rules: &str, users: &[(&str, &str)], options: &[&str]) -> LoginSetup {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users");
        fs::write(&file, users_text(users)).expect("written");
        let with_users = ["--users", file.to_str().unwrap(), "-v"];
        LoginSetup {
            proxy: Proxy::start(rules, &[&with_users, options].concat()),
            folder,
            origin: Origin::echo(),
        }
    }

    /// The only user is alice; the rules permit everything.
    fn with_alice(options: &[&str]) -> LoginSetup {
        LoginSetup::with(PERMIT_ALL, &[("alice", "secret")], options)
    }

    fn users_file(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// Replaces the users file atomically, by rename(2).
    fn replace_users(&self, text: &str) {
        let new_file = self.folder.path().join("new");
        fs::write(&new_file, text).expect("the users are written");
        fs::rename(new_file, self.users_file()).expect("the file is renamed");
    }

    /// Connects from an address of loopback that no test of this process has used yet, so the
    /// rate limiter has no failure of it. The counter guards no other data: Relaxed suffices.
    fn dial(&self) -> TcpStream {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let from = SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0));
        dial_from(from, self.proxy.address())
    }

    /// Logs in over this connection. Returns `None` if the server refuses the login; it must
    /// then close the connection.
    fn login_over(client: TcpStream, user: &str, password: &str) -> Option<TcpStream> {
        write(&client, &greeting(&[2]));
        assert_eq!(read_exactly(&client, 2), [5, 2]);
        write(&client, &login(user, password));
        match *read_exactly(&client, 2) {
            [1, 0] => Some(client),
            [1, 1] => {
                assert_eq!(read_all(&client), b"");
                None
            }
            ref other => panic!("{other:?}"),
        }
    }

    fn login(&self, user: &str, password: &str) -> Option<TcpStream> {
        LoginSetup::login_over(self.dial(), user, password)
    }

    /// Sends a CONNECT to the origin; returns the code of the reply.
    fn connect(&self, client: &TcpStream) -> u8 {
        write(client, &connect(&self.origin.destination()));
        read_exactly(client, 10)[1]
    }

    /// Ends the test: stderr must contain neither a password nor a hash.
    fn finish(self) {
        for line in self.proxy.stderr_lines() {
            assert!(
                !line.contains("secret") && !line.contains("argon2id$v"),
                "{line}"
            );
        }
        self.proxy.finish();
    }
}

/// The text of a users file with these users and passwords.
fn users_text(users: &[(&str, &str)]) -> String {
    let line = |&(user, password): &(&str, &str)| users_file_line(user, password.as_bytes());
    users.iter().map(|user| line(user).unwrap()).collect()
}

fn greeting(methods: &[u8]) -> Vec<u8> {
    let methods = methods.to_vec();
    Greeting { methods }.encode()
}

fn login(user: &str, password: &str) -> Vec<u8> {
    let (user, password) = (user.into(), password.into());
    Credentials { user, password }.encode()
}

fn connect(destination: &Destination) -> Vec<u8> {
    let request = Request {
        command: Command::Connect,
        destination: destination.clone(),
    };
    request.encode()
}

#[test]
fn v01_a_handshake_has_the_same_outcome_wherever_it_is_cut() {
    let setup = LoginSetup::with_alice(&[]);
    let parts = [
        greeting(&[0, 2]),
        login("alice", "secret"),
        connect(&setup.origin.destination()),
        b"early".to_vec(),
    ];
    let all = parts.concat();
    let assert_accepted = |client: &TcpStream| {
        shutdown_write(client);
        assert_eq!(read_exactly(client, 4), [5, 2, 1, 0]);
        assert_eq!(read_exactly(client, 10)[..4], [5, 0, 0, 1]);
        assert_eq!(read_all(client), b"early");
    };
    for cut in 0..all.len() {
        let client = setup.dial();
        write(&client, &all[..cut]);
        std::thread::yield_now();
        write(&client, &all[cut..]);
        assert_accepted(&client);
    }
    let client = setup.dial();
    for byte in all {
        write(&client, &[byte]);
        std::thread::yield_now();
    }
    assert_accepted(&client);
    setup.finish();
}

#[test]
fn v04_only_the_right_credentials_are_accepted() {
    let (name, long) = ("n".repeat(255), "p".repeat(255));
    let users = [("alice", "secret"), (&name, &long)];
    let setup = LoginSetup::with(PERMIT_ALL, &users, &[]);
    for round in 0..2 {
        for (user, password, is_accepted) in [
            ("alice", "secret", true),
            (&name, &long, true),
            ("alice", "", false),
            ("", "secret", false),
            ("", "", false),
            ("alice", "secret\0", false),
            ("alice", "Secret", false),
            ("Alice", "secret", false),
            ("bob", "secret", false),
            ("alice", &long, false),
            (&name, &long[1..], false),
            ("\u{1b}[2J", "x", false),
        ] {
            let client = setup.login(user, password);
            assert_eq!(client.is_some(), is_accepted, "{user} {password} {round}");
            if let Some(client) = client {
                assert_eq!(setup.connect(&client), 0);
            }
        }
    }
    setup
        .proxy
        .stderr_line("login of 'bob' failed: unknown user or wrong password");
    setup.proxy.stderr_line("login of '\\x1b[2J' failed");
    setup
        .proxy
        .stderr_line("user=\"alice\" login=accepted rule=1");
    setup.finish();
}

#[test]
fn v04_a_malformed_or_incomplete_login_is_refused() {
    let setup = LoginSetup::with_alice(&["--handshake-timeout", "2s"]);
    let whole = login("alice", "secret");
    for version in (0..=255).filter(|version| *version != 1) {
        let client = setup.dial();
        write(&client, &greeting(&[2]));
        write(&client, &[&[version], &whole[1..]].concat());
        assert_eq!(read_all(&client), [5, 2], "version {version}");
    }
    for length in 0..whole.len() {
        let client = setup.dial();
        write(&client, &greeting(&[2]));
        write(&client, &whole[..length]);
        shutdown_write(&client);
        assert_eq!(read_all(&client), [5, 2, 1, 1], "{length} bytes");
        let client = setup.dial();
        write(&client, &greeting(&[2]));
        write(&client, &whole[..length]);
        reset(client);
    }
    // The handshake timeout also ends the wait for a login.
    let client = setup.dial();
    write(&client, &greeting(&[2]));
    assert_eq!(read_all(&client), [5, 2, 1, 1]);
    assert_eq!(setup.proxy.screen_messages(0), []);
    setup.finish();
}

#[test]
fn v05_a_message_out_of_order_ends_the_session() {
    let setup = LoginSetup::with_alice(&[]);
    let request = connect(&setup.origin.destination());
    for (sent, expected) in [
        // A request in place of the login.
        ([greeting(&[2]), request.clone()].concat(), &[5, 2][..]),
        // A login that fails, followed by requests that must be ignored.
        (
            [
                greeting(&[2]),
                login("alice", "x"),
                request.clone(),
                request.clone(),
            ]
            .concat(),
            &[5, 2, 1, 1],
        ),
        // No method with a login is offered, and a request or a login follows.
        ([greeting(&[0]), request.clone()].concat(), &[5, 0xFF]),
        (
            [greeting(&[0, 1, 3]), login("alice", "secret")].concat(),
            &[5, 0xFF],
        ),
        ([greeting(&[]), request.clone()].concat(), &[5, 0xFF]),
    ] {
        let client = setup.dial();
        write(&client, &sent);
        assert_eq!(read_all(&client), expected, "{sent:?}");
    }
    assert_eq!(setup.proxy.screen_messages(0), []);
    setup.finish();
    // The server has selected the method without a login, so it reads the login as a
    // request, which has a wrong version.
    let proxy = Proxy::open();
    let client = dial(proxy.address());
    write(
        &client,
        &[greeting(&[0]), login("alice", "secret")].concat(),
    );
    let replies = read_all(&client);
    assert_eq!(replies[..4], [5, 0, 5, 1]);
    assert_eq!(replies.len(), 12);
    proxy.finish();
}

/// A line of the users file whose hash costs a twentieth of the default: 2 MiB and one pass.
fn cheap_line(user: &str, password: &str) -> String {
    let params = Params::new(2048, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password.as_bytes()).unwrap();
    format!("{user}:{hash}\n")
}

/// The client of an authenticator without a server.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An authenticator with this users file, and the folder that holds the file.
fn open_authenticator(text: &str) -> (TempDir, Authenticator) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    fs::write(&file, text).expect("the users are written");
    (
        folder,
        Authenticator::open(&file, |_| Ok(())).expect("valid users"),
    )
}

/// The time that `action` takes.
fn time(action: impl FnOnce()) -> Duration {
    let began = Instant::now();
    action();
    began.elapsed()
}

/// The percentile of these times.
fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[times.len() * percent / 100]
}

#[test]
fn v06_every_wrong_login_takes_the_same_time() {
    let (_folder, authenticator) = open_authenticator(
        &[
            cheap_line("first", "secret"),
            cheap_line("cached", "secret"),
            cheap_line("uncached", "secret"),
        ]
        .concat(),
    );
    let (users, _) = authenticator.users_file().current();
    let check = |user: &str, password: &str| {
        let (user, password) = (user.into(), password.into());
        let login = Credentials { user, password };
        // The server does the same: it looks into the cache first.
        match authenticator.is_cached(&users, &login, CLIENT) {
            true => Ok(()),
            false => {
                authenticator.check(|| Arc::clone(&users), &login, CLIENT, &never(), || Ok(()))
            }
        }
    };
    assert_eq!(check("cached", "secret"), Ok(()));
    let long = "x".repeat(255);
    let kinds = [
        ("cached", "wrong"),
        ("cached", "secreT"),
        ("cached", &long),
        ("uncached", "wrong"),
        ("absent", "wrong"),
        ("absent", "secret"),
        ("", ""),
        (&long, &long),
    ];
    // The order is random, so that other load on the machine affects all kinds alike. The
    // 10th percentile of each kind excludes the measurements under load.
    let mut rng = Rng::new(6);
    let mut compare = || {
        let mut times = vec![Vec::new(); kinds.len()];
        for _ in 0..kinds.len() * 80 {
            let kind = rng.below(kinds.len() as u64) as usize;
            let (user, password) = kinds[kind];
            times[kind].push(time(|| {
                assert_eq!(check(user, password), Err(AuthError::WrongCredentials));
            }));
        }
        let quiet: Vec<Duration> = times
            .into_iter()
            .map(|times| percentile(times, 10))
            .collect();
        let (least, most) = (*quiet.iter().min().unwrap(), *quiet.iter().max().unwrap());
        (most - least < least / 10, quiet)
    };
    // A real difference appears in every round, noise does not: one round without a
    // difference of a tenth suffices.
    let mut rounds = (0..8).map(|_| compare());
    let (_, quiet) = rounds
        .find(|(is_alike, _)| *is_alike)
        .unwrap_or_else(|| panic!("{:?}", compare()));
    // A cached login takes far less: all the wrong ones have cost a hash.
    let known = (0..80).map(|_| time(|| check("cached", "secret").unwrap()));
    let known = percentile(known.collect(), 10);
    assert!(known * 5 < quiet[0], "{known:?} {quiet:?}");
}

#[test]
fn v06_a_cached_login_takes_less_than_a_millisecond() {
    let (_folder, authenticator) = open_authenticator(&users_text(&[("alice", "secret")]));
    let users = || authenticator.users_file().current().0;
    let (user, password) = (b"alice".to_vec(), b"secret".to_vec());
    let login = Credentials { user, password };
    let is_cached = || authenticator.is_cached(&users(), &login, CLIENT);
    assert!(!is_cached());
    let first = time(|| {
        authenticator
            .check(users, &login, CLIENT, &never(), || Ok(()))
            .unwrap()
    });
    let again = (0..100).map(|_| time(|| assert!(is_cached())));
    let again = percentile(again.collect(), 50);
    assert!(
        again < Duration::from_millis(1),
        "{again:?} after {first:?}"
    );
    assert!(again < first / 10, "{again:?} after {first:?}");
}

#[test]
fn v07_an_address_that_guesses_waits_and_other_addresses_do_not() {
    let setup = LoginSetup::with_alice(&[]);
    assert!(setup.login("alice", "secret").is_some());
    let login_from_guesser = |password| {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
        LoginSetup::login_over(dial_from(from, setup.proxy.address()), "alice", password)
    };
    let began = Instant::now();
    for _ in 0..6 {
        assert!(login_from_guesser("guess").is_none());
    }
    let six = began.elapsed();
    assert!(login_from_guesser("guess").is_none());
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // The right password waits too. Otherwise a guesser could take every late reply for a
    // refusal and close without waiting.
    assert!(login_from_guesser("secret").is_some());
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(six < Duration::from_secs(2), "{six:?}");
    let others = Instant::now();
    assert!(setup.login("alice", "secret").is_some());
    assert!(others.elapsed() < Duration::from_secs(1));
    setup.finish();
}

#[test]
fn v07_of_sixty_simultaneous_guesses_six_are_checked() {
    const GUESSES: usize = 60;
    // A slow machine needs more than a second for six hashes.
    let setup = LoginSetup::with_alice(&["--handshake-timeout", "3s"]);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
    let guesses: Vec<TcpStream> = (0..GUESSES)
        .map(|_| {
            let client = dial_from(from, setup.proxy.address());
            write(&client, &[greeting(&[2]), login("alice", "guess")].concat());
            client
        })
        .collect();
    for client in &guesses {
        assert_eq!(read_all(client), [5, 2, 1, 1]);
    }
    let limited = setup
        .proxy
        .wait_for_stderr("failed: not checked: too many failed logins", 1);
    let checked = setup
        .proxy
        .wait_for_stderr("unknown user or wrong password", 6);
    // On a slow machine the guesses take so long that the limiter admits one or two more.
    assert!(checked <= 8, "{checked} checked, {limited} not");
    setup
        .proxy
        .wait_for_stderr("login of 'alice' failed", GUESSES);
    drop(guesses);
    setup.finish();
}

#[test]
fn v07_clients_that_wait_for_their_login_delay_no_shutdown() {
    let setup = LoginSetup::with_alice(&["--handshake-timeout", "10m", "--grace", "0s"]);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
    let guess = || {
        let client = dial_from(from, setup.proxy.address());
        write(&client, &[greeting(&[2]), login("alice", "guess")].concat());
        client
    };
    // The limiter admits six at once. After that it admits one every two seconds.
    let waiting: Vec<TcpStream> = (0..40).map(|_| guess()).collect();
    for client in &waiting[..6] {
        assert_eq!(read_exactly(client, 2), [5, 2]);
    }
    setup
        .proxy
        .wait_for_stderr("unknown user or wrong password", 6);
    let mut waiting = waiting.into_iter();
    // Twenty clients reset and ten close, most of them while their login waits.
    let resetting: Vec<TcpStream> = waiting.by_ref().take(20).collect();
    resetting.into_iter().for_each(reset);
    waiting.by_ref().take(10).for_each(drop);
    setup
        .proxy
        .wait_for_stderr("the client disconnected before the login was checked", 20);
    // The shutdown terminates the others.
    let LoginSetup { mut proxy, .. } = setup;
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    drop(waiting);
}

#[test]
fn with_allow_anonymous_a_client_that_offers_no_login_is_accepted() {
    let rules = "permit c - user=alice auth\ndeny c - 80\npermit c -\n";
    let setup = LoginSetup::with(rules, &[("alice", "secret")], &["--allow-anonymous"]);
    let client = setup.dial();
    write(&client, &greeting(&[0]));
    assert_eq!(read_exactly(&client, 2), [5, 0]);
    assert_eq!(setup.connect(&client), 0);
    drop(client);
    // A client that offers both methods has to log in.
    let client = setup.dial();
    write(&client, &greeting(&[0, 2]));
    assert_eq!(read_exactly(&client, 2), [5, 2]);
    write(&client, &login("alice", "secret"));
    assert_eq!(read_exactly(&client, 2), [1, 0]);
    assert_eq!(setup.connect(&client), 0);
    drop(client);
    setup.proxy.stderr_line("login=accepted rule=1");
    setup
        .proxy
        .stderr_line("line 3 permits SOCKS4 clients, which cannot log in");
    setup.finish();
}

#[test]
fn changes_of_the_users_file_take_effect_with_the_next_login() {
    let setup = LoginSetup::with_alice(&[]);
    assert!(setup.login("alice", "secret").is_some());
    assert!(setup.login("bob", "b").is_none());
    // One change adds bob and gives alice another password.
    setup.replace_users(&users_text(&[("alice", "new"), ("bob", "b")]));
    assert!(setup.login("alice", "secret").is_none());
    assert!(setup.login("alice", "new").is_some());
    assert!(setup.login("bob", "b").is_some());
    setup.proxy.stderr_line("users: 2 users in force");
    // With a syntax error, or without the file, the last valid users stay in force.
    setup.replace_users("alice:secret\n");
    assert!(setup.login("bob", "b").is_some());
    setup
        .proxy
        .stderr_line("users:1: the hash of \"alice\" does not begin");
    setup
        .proxy
        .stderr_line("the last valid users stay in force");
    fs::remove_file(setup.users_file()).unwrap();
    assert!(setup.login("alice", "new").is_some());
    setup.proxy.stderr_line("users: No such file");
    // The file returns without bob, and SIGHUP makes the server read it.
    setup.replace_users(&users_text(&[("alice", "new")]));
    setup.proxy.signal(Signal::SIGHUP);
    setup
        .proxy
        .stderr_line("socks.conf: checked, nothing has changed");
    // The first of these lines is from the start. Logins before the second use the old users.
    setup.proxy.wait_for_stderr("users: 1 user in force", 2);
    assert!(setup.login("bob", "b").is_none());
    assert!(setup.login("alice", "new").is_some());
    setup.finish();
}

#[test]
fn without_a_valid_users_file_the_server_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let invalid = folder.path().join("invalid");
    fs::write(&invalid, "alice:secret\n").unwrap();
    for (file, status, why) in [
        (&folder.path().join("none"), 1, "No such file"),
        (&invalid, 2, ":1: the hash"),
    ] {
        let result = binary()
            .arg("--config")
            .arg(&rules)
            .arg("--users")
            .arg(file)
            .arg("0")
            .output()
            .expect("threadsocks starts");
        assert_eq!(result.status.code(), Some(status));
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert!(stderr.contains(why), "{stderr}");
        let help = format!("threadsocks --new-user alice --users {}", file.display());
        assert!(stderr.contains(&help), "{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn a_users_file_that_others_can_read_causes_a_warning() {
    let setup = LoginSetup::with_alice(&[]);
    setup
        .proxy
        .stderr_line("warning: other accounts have access to this file");
    setup.finish();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let proxy = Proxy::start(PERMIT_ALL, &["--users", file.to_str().unwrap()]);
    proxy.stderr_line("0 users in force");
    assert!(
        !proxy
            .stderr_lines()
            .iter()
            .any(|line| line.contains("other accounts have access"))
    );
    proxy.finish();
}

/// Runs `--new-user NAME` with this stdin; returns the exit status and stdout.
fn new_user(name: &str, stdin: &[u8]) -> (Option<i32>, String) {
    let mut child = binary()
        .args(["--new-user", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("threadsocks starts");
    // The write fails with EPIPE if the program exits before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let result = child.wait_with_output().expect("an exit status");
    let stdout = String::from_utf8(result.stdout).unwrap();
    (result.status.code(), stdout)
}

#[test]
fn l15_a_password_is_read_from_a_pipe_that_does_not_block() {
    let (stdin, mut writer) = std::io::pipe().unwrap();
    fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let child = binary()
        .args(["--new-user", "alice"])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .expect("threadsocks starts");
    let stat = format!("/proc/{}/stat", child.id());
    for part in ["sec", "ret\n"] {
        until("the program to wait", || {
            let stat = fs::read_to_string(&stat).unwrap();
            (stat.contains(" S ") || stat.contains(" Z ")).then_some(())
        });
        let _ = writer.write_all(part.as_bytes());
    }
    let output = child.wait_with_output().expect("an exit status");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"alice:$argon2id$"));
}

#[test]
fn a_user_from_new_user_can_log_in() {
    let longest = "x".repeat(255);
    let mut text = String::new();
    for (name, stdin) in [
        ("alice", "secret\n"),
        ("bob", "two words\r\nmore\n"),
        ("carol", "no end"),
        ("dave", &longest),
        ("erin", &format!("{longest}\n")),
    ] {
        let (status, line) = new_user(name, stdin.as_bytes());
        assert_eq!(status, Some(0), "{name}");
        assert!(line.starts_with(&format!("{name}:$argon2id$")), "{line}");
        text.push_str(&line);
    }
    let too_long = format!("{longest}x\n");
    for (name, stdin, expected) in [
        ("alice", "", 1),
        ("alice", "\n", 1),
        ("alice", "\r\n", 1),
        ("alice", &too_long, 1),
        ("a:b", "secret\n", 2),
        ("a\nb", "secret\n", 2),
        ("", "secret\n", 2),
    ] {
        let (status, line) = new_user(name, stdin.as_bytes());
        assert_eq!((status, line.as_str()), (Some(expected), ""), "{name}");
    }
    let setup = LoginSetup::with_alice(&[]);
    setup.replace_users(&text);
    for (name, password) in [
        ("alice", "secret"),
        ("bob", "two words"),
        ("carol", "no end"),
        ("dave", &longest),
        ("erin", &longest),
    ] {
        assert!(setup.login(name, password).is_some(), "{name}");
    }
    setup.finish();
}

#[test]
fn m02_a_running_server_knows_a_user_that_new_user_has_added() {
    let setup = LoginSetup::with_alice(&[]);
    assert!(setup.login("bob", "secret").is_none());
    let file = setup.users_file();
    let mut command = binary();
    command.args(["--new-user", "bob", "--users"]).arg(&file);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert!(child.wait().unwrap().success());
    for user in ["alice", "bob"] {
        assert!(setup.login(user, "secret").is_some(), "{user}");
    }
    setup.finish();
}

#[test]
fn a_rule_with_auth_requires_a_login() {
    let rules = "permit c - user=alice auth\npermit c - 1 auth\n";
    let users = [("alice", "secret"), ("bob", "secret")];
    let setup = LoginSetup::with(rules, &users, &["--allow-anonymous"]);
    let alice = setup.login("alice", "secret").unwrap();
    assert_eq!(setup.connect(&alice), 0);
    let bob = setup.login("bob", "secret").unwrap();
    assert_eq!(setup.connect(&bob), 2);
    // A session without a login has no user, so only the second rule can match it.
    let client = setup.dial();
    let port_of_second_rule = Destination {
        port: 1,
        ..setup.origin.destination()
    };
    write(
        &client,
        &[greeting(&[0]), connect(&port_of_second_rule)].concat(),
    );
    assert_eq!(read_all(&client)[..4], [5, 0, 5, 2]);
    setup
        .proxy
        .stderr_line("refused: a rule requires a login, and the client has not logged in");
    drop((alice, bob, client));
    setup.finish();
}

#[test]
fn a_rule_with_auth_requires_identd_for_socks4() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let setup = LoginSetup::with("permit c - auth\n", &[("alice", "secret")], &[]);
        for (user, code) in [("alice", 90), ("bob", 93), ("", 93)] {
            let client = dial(setup.proxy.address());
            let destination = setup.origin.destination();
            write(
                &client,
                &request(Command::Connect, &destination, user.as_bytes()),
            );
            assert_eq!(read_exactly(&client, 8)[1], code, "{user}");
        }
        assert_eq!(identd.queries().len(), 2);
        // A client that has logged in causes no query.
        let client = dial(setup.proxy.address());
        let client = LoginSetup::login_over(client, "alice", "secret").unwrap();
        assert_eq!(setup.connect(&client), 0);
        assert_eq!(identd.queries().len(), 2);
        drop(client);
        setup
            .proxy
            .stderr_line("trusts the identd of every machine");
        setup.finish();
    });
}

#[test]
fn a_rule_with_auth_and_ident_requires_both() {
    in_own_network(|_| {
        let _identd = Identd::replying(" : USERID : UNIX : alice");
        let users = [("alice", "secret"), ("bob", "secret")];
        let setup = LoginSetup::with("permit c - auth ident\n", &users, &[]);
        for (user, code) in [("alice", 0), ("bob", 2)] {
            let client = dial(setup.proxy.address());
            let client = LoginSetup::login_over(client, user, "secret").unwrap();
            assert_eq!(setup.connect(&client), code, "{user}");
        }
        setup.finish();
    });
}

#[test]
fn the_login_of_a_session_counts_when_enforce_checks_it_again() {
    let users = [("alice", "secret"), ("bob", "secret")];
    let setup = LoginSetup::with("permit c - auth\n", &users, &["--enforce"]);
    let assert_relays = |client: &TcpStream| {
        write(client, b"x");
        assert_eq!(read_exactly(client, 1), b"x");
    };
    let [alice, bob] = ["alice", "bob"].map(|user| {
        let client = setup.login(user, "secret").unwrap();
        assert_eq!(setup.connect(&client), 0);
        assert_relays(&client);
        client
    });
    fs::write(setup.proxy.config(), "permit c - user=alice auth\n").unwrap();
    setup
        .proxy
        .stderr_line("no longer permitted: no rule permits it");
    assert_relays(&alice);
    // Bob's session has ended, with FIN or with RST.
    assert!(!matches!((&bob).read(&mut [0]), Ok(1)));
    drop((alice, bob));
    setup.finish();
}

/// An attacker can try stolen passwords without any request. The log names the user then too.
#[test]
fn a_login_without_a_request_is_logged_with_its_user() {
    let setup = LoginSetup::with_alice(&[]);
    let wait_for_line = |words: &str| setup.proxy.stderr_line(words);
    drop(setup.login("alice", "secret").expect("accepted"));
    wait_for_line("ending=\"after the login of 'alice': no request: ");
    let client = setup.login("alice", "secret").expect("accepted");
    write(&client, &[5, 9, 0, 1, 127, 0, 0, 1, 0, 80]);
    assert_eq!(read_all(&client)[..2], [5, 7]);
    wait_for_line(
        "ending=\"after the login of 'alice': not a valid SOCKS request: invalid command 9",
    );
    drop(client);
    setup.finish();
}

/// Sends a login from this address, and leaves the reply unread.
fn begin_login(setup: &LoginSetup, from: Ipv4Addr, user: &str, password: &str) -> TcpStream {
    let client = dial_from((from, 0).into(), setup.proxy.address());
    write(&client, &[greeting(&[2]), login(user, password)].concat());
    client
}

/// One user name takes at most 32 of the places to wait in. Of more logins, hardly any would
/// be checked before the handshake timeout.
#[test]
fn v17_at_most_32_logins_of_one_user_wait() {
    let users = [("alice", "secret"), ("bob", "right")];
    let setup = LoginSetup::with(PERMIT_ALL, &users, &["--grace", "0s"]);
    let from = Ipv4Addr::new(127, 0, 0, 8);
    let guess = |user| begin_login(&setup, from, user, "guess");
    let guesses: Vec<TcpStream> = (0..6 + 32 + 20).map(|_| guess("alice")).collect();
    // The server refuses the logins over the limit at once, before the handshake timeout.
    let limited = "failed: not checked: too many failed logins";
    assert!(setup.proxy.wait_for_stderr(limited, 1) >= 1);
    // Another name can wait: the seventh login waits for two seconds, and is checked.
    let began = Instant::now();
    for client in (0..7).map(|_| guess("carol")) {
        assert_eq!(read_all(&client), [5, 2, 1, 1]);
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(
        setup.login("alice", "secret").is_some(),
        "another address logs in at once"
    );
    drop(guesses);
    setup
        .proxy
        .wait_for_stderr("login of 'alice' failed", 6 + 32 + 20);
    setup.finish();
}

#[test]
fn v13_a_guesser_delays_no_other_user_of_the_same_address() {
    let users = [("alice", "secret"), ("bob", "right"), ("carol", "right")];
    let setup = LoginSetup::with(PERMIT_ALL, &users, &["--grace", "0s"]);
    let from = Ipv4Addr::new(127, 0, 0, 9);
    let log_in = |user, password| {
        let began = Instant::now();
        let client = dial_from((from, 0).into(), setup.proxy.address());
        let accepted = LoginSetup::login_over(client, user, password).is_some();
        (accepted, began.elapsed())
    };
    assert!(log_in("bob", "right").0);
    // A program with an old password, on 75 connections.
    let guesses: Vec<TcpStream> = (0..75)
        .map(|_| begin_login(&setup, from, "alice", "old"))
        .collect();
    setup
        .proxy
        .wait_for_stderr("failed: not checked: too many failed logins", 1);
    for _ in 0..20 {
        let (accepted, time) = log_in("bob", "right");
        assert!(accepted && time < Duration::from_secs(1), "{time:?}");
    }
    // Carol logs in for the first time. A few hashes may be computed before hers.
    let (accepted, time) = log_in("carol", "right");
    assert!(accepted && time < Duration::from_secs(5), "{time:?}");
    drop(guesses);
    setup.proxy.wait_for_stderr("login of 'alice' failed", 75);
    setup.finish();
}

#[test]
fn v14_one_address_cannot_try_many_names_quickly() {
    const NAMES: usize = 60;
    let timeout = ["--handshake-timeout", "3s", "--grace", "0s"];
    let setup = LoginSetup::with(PERMIT_ALL, &[("none", "none")], &timeout);
    setup.replace_users(&cheap_line("known", "right"));
    let from = Ipv4Addr::new(127, 0, 0, 10);
    let log_in = || {
        let client = dial_from((from, 0).into(), setup.proxy.address());
        LoginSetup::login_over(client, "known", "right")
    };
    assert!(log_in().is_some());
    let guesses: Vec<TcpStream> = (0..NAMES)
        .map(|number| begin_login(&setup, from, &number.to_string(), "guess"))
        .collect();
    // Cached credentials do not wait for failures of other user names.
    let began = Instant::now();
    assert!(log_in().is_some());
    assert!(began.elapsed() < Duration::from_secs(1));
    for client in &guesses {
        assert_eq!(read_all(client), [5, 2, 1, 1]);
    }
    setup.proxy.wait_for_stderr("failed: ", NAMES);
    let checked = setup
        .proxy
        .wait_for_stderr("unknown user or wrong password", 21);
    // Twenty-one at once, and four a second for three seconds, and a tenth more.
    assert!(checked <= 21 + 13 + 1, "{checked}");
    setup.finish();
}

/// Begins logins with different names at this address: the twenty-one that it may have at
/// once, and `waiting` more. Returns when the former are checked.
fn spend_limit_of(setup: &LoginSetup, from: Ipv4Addr, waiting: usize) -> Vec<TcpStream> {
    let guess = |number: usize| begin_login(setup, from, &format!("guess{number}"), "guess");
    let clients = (0..21 + waiting).map(guess).collect();
    let checked = "unknown user or wrong password";
    setup.proxy.wait_for_stderr(checked, 21);
    clients
}

/// Logs in from this address. Returns whether the login is accepted, and the time of that.
fn timed_login(setup: &LoginSetup, from: Ipv4Addr, user: &str, password: &str) -> (bool, Duration) {
    let began = Instant::now();
    let client = dial_from((from, 0).into(), setup.proxy.address());
    let accepted = LoginSetup::login_over(client, user, password).is_some();
    (accepted, began.elapsed())
}

/// A guesser does not learn at once, and without the limit of its address, that a password is
/// right, although the user has logged in elsewhere.
#[test]
fn v19_at_a_new_address_a_known_user_waits_with_the_right_and_with_a_wrong_password() {
    let setup = LoginSetup::with(PERMIT_ALL, &[("none", "none")], &["--grace", "0s"]);
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    let text: String = names.iter().map(|name| cheap_line(name, "right")).collect();
    setup.replace_users(&text);
    for name in &names {
        assert!(setup.login(name, "right").is_some());
    }
    let from = Ipv4Addr::new(127, 0, 0, 11);
    let waiting = spend_limit_of(&setup, from, 8);
    let began = Instant::now();
    let times: Vec<(bool, Duration)> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let (is_right, setup) = (number % 2 == 0, &setup);
            let password = if is_right { "right" } else { "wrong" };
            threads.push(scope.spawn(move || {
                let (accepted, _) = timed_login(setup, from, name, password);
                assert_eq!(accepted, is_right, "{name}");
                (is_right, began.elapsed())
            }));
        }
        let times = threads.into_iter().map(|thread| thread.join().unwrap());
        times.collect()
    });
    let sorted_times_of = |kind: bool| {
        let times = times.iter().filter(|(is_right, _)| *is_right == kind);
        let mut times: Vec<Duration> = times.map(|(_, time)| *time).collect();
        times.sort();
        times
    };
    // The address has a turn each quarter of a second. A right login gives its turn back, so
    // the next one may follow at once; but it has waited for one.
    let (right, wrong) = (sorted_times_of(true), sorted_times_of(false));
    let turns = (0..).map(|turn| turn * Duration::from_millis(200));
    let waits = |(time, turn): (&Duration, Duration)| *time >= turn;
    assert!(wrong.iter().zip(turns).all(waits), "{wrong:?}");
    let last = right.last().expect("a right login");
    assert!(*last >= Duration::from_millis(200), "{right:?}");
    // The users are known at this address now.
    let more: Vec<TcpStream> = (0..8)
        .map(|number| begin_login(&setup, from, &format!("more{number}"), "guess"))
        .collect();
    let (accepted, time) = timed_login(&setup, from, &names[0], "right");
    assert!(accepted && time < Duration::from_secs(1), "{time:?}");
    drop((waiting, more));
    setup.finish();
}

/// Twelve names have as many connections as the guesser likes. They delay a new user by the
/// twelve turns of their names. All connections of the new user are accepted with the first.
#[test]
fn v21_a_guesser_with_few_names_delays_a_first_login_and_does_not_prevent_it() {
    let users = [("bob", "right"), ("carol", "right")];
    let setup = LoginSetup::with(PERMIT_ALL, &users, &["--grace", "0s"]);
    let from = Ipv4Addr::new(127, 0, 0, 12);
    let guesses: Vec<TcpStream> = (0..12 * 14)
        .map(|number| begin_login(&setup, from, &format!("name{}", number % 12), "guess"))
        .collect();
    setup
        .proxy
        .wait_for_stderr("unknown user or wrong password", 21);
    thread::scope(|scope| {
        for user in ["carol", "bob", "bob", "bob", "bob", "bob", "bob"] {
            let setup = &setup;
            scope.spawn(move || {
                let (accepted, time) = timed_login(setup, from, user, "right");
                // Some 3.5 seconds; more on a machine that is busy.
                assert!(
                    accepted && time < Duration::from_secs(8),
                    "{user}: {time:?}"
                );
            });
        }
    });
    drop(guesses);
    setup.finish();
}

#[test]
fn v22_clients_that_disconnect_while_they_wait_delay_no_other_login() {
    let setup = LoginSetup::with(PERMIT_ALL, &[("bob", "right")], &["--grace", "0s"]);
    let from = Ipv4Addr::new(127, 0, 0, 13);
    drop(spend_limit_of(&setup, from, 110));
    setup
        .proxy
        .wait_for_stderr("the client disconnected before the login was checked", 80);
    let (accepted, time) = timed_login(&setup, from, "bob", "right");
    assert!(accepted && time < Duration::from_secs(5), "{time:?}");
    setup.finish();
}

/// The reply and its time reveal neither whether a user exists, nor whether the user has
/// logged in before, nor whether a password is right while the user name has to wait.
#[test]
fn v18_replies_and_their_times_reveal_nothing() {
    const ROUNDS: u8 = 15;
    let text = [cheap_line("known", "right"), cheap_line("new", "right")].concat();
    let setup = LoginSetup::with(PERMIT_ALL, &[("none", "none")], &[]);
    setup.replace_users(&text);
    let time_of = |from: [u8; 2], user: &str, password: &str, reply: u8| {
        let from = Ipv4Addr::new(127, 3, from[0], from[1]);
        let client = dial_from((from, 0).into(), setup.proxy.address());
        write(&client, &greeting(&[2]));
        assert_eq!(read_exactly(&client, 2), [5, 2]);
        let began = Instant::now();
        write(&client, &login(user, password));
        assert_eq!(read_exactly(&client, 2), [1, reply]);
        began.elapsed()
    };
    time_of([0, 1], "known", "right", 0);
    let kinds = [("known", "wrong"), ("new", "wrong"), ("absent", "wrong")];
    let mut compare = |round: u8| {
        let mut times = [const { Vec::new() }; 3];
        for turn in 0..ROUNDS {
            for (kind, times) in times.iter_mut().enumerate() {
                let (user, password) = kinds[kind];
                let from = [10 * round + kind as u8 + 1, turn + 1];
                times.push(time_of(from, user, password, 1));
            }
        }
        let medians = times.map(|times| percentile(times, 50));
        let (least, most) = (
            *medians.iter().min().unwrap(),
            *medians.iter().max().unwrap(),
        );
        (most < least * 3 / 2, medians)
    };
    // A real difference appears in every round, noise does not.
    let rounds: Vec<_> = (0..4).map(&mut compare).collect();
    assert!(rounds.iter().any(|(is_alike, _)| *is_alike), "{rounds:?}");
    // After six failures each of these waits for some two seconds, the right password too.
    thread::scope(|scope| {
        for (number, user, password, reply) in [
            (1, "known", "right", 0),
            (2, "known", "wrong", 1),
            (3, "new", "right", 0),
            (4, "absent", "wrong", 1),
        ] {
            scope.spawn(move || {
                for _ in 0..6 {
                    time_of([200, number], user, "guess", 1);
                }
                let time = time_of([200, number], user, password, reply);
                assert!(
                    time >= Duration::from_secs(1),
                    "{user} {password}: {time:?}"
                );
            });
        }
    });
    setup.finish();
}

#[test]
fn check_validates_the_users_file() {
    let setup = LoginSetup::with_alice(&[]);
    let check = |users: &str| {
        let (config, users) = (setup.proxy.config(), setup.folder.path().join(users));
        let mut command = binary();
        command.arg("--check").arg("--config").arg(config);
        let result = command.arg("--users").arg(users).output().unwrap();
        let output = [result.stdout, result.stderr].concat();
        (result.status.code(), String::from_utf8(output).unwrap())
    };
    let (status, output) = check("users");
    assert_eq!(status, Some(0), "{output}");
    assert!(output.contains("users: 1 user\n"), "{output}");
    assert!(output.contains("permits SOCKS4 clients"), "{output}");
    let (status, output) = check("nowhere");
    assert_eq!(status, Some(1), "{output}");
    setup.replace_users("alice:secret\n");
    let (status, output) = check("users");
    assert_eq!(status, Some(2), "{output}");
    assert!(output.contains("users:1: the hash of") && !output.contains("secret"));
    setup.finish();
}

#[test]
fn new_user_fails_if_its_line_cannot_be_written() {
    let mut command = binary();
    command.args(["--new-user", "alice"]).stdin(Stdio::piped());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let result = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(result.stderr).unwrap();
    assert_eq!(result.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the output: "), "{stderr}");
}

/// A pseudo-terminal: the child process has the slave end, the test has the master end.
struct Terminal {
    master: File,
    slave: OwnedFd,
    /// Everything that the test has read from the master end.
    shown: String,
}

impl Terminal {
    fn new() -> Terminal {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        Terminal {
            master: master.into(),
            slave,
            shown: String::new(),
        }
    }

    /// Starts `--new-user alice` with stdin and stderr at the terminal and stdout in a pipe.
    fn new_user(&self) -> Child {
        let own = || Stdio::from(self.slave.try_clone().unwrap());
        let mut command = binary();
        command.args(["--new-user", "alice"]);
        let command = command.stdin(own()).stderr(own()).stdout(Stdio::piped());
        command.spawn().expect("threadsocks starts")
    }

    /// Waits until the terminal has shown these words.
    fn wait_for_output(&mut self, words: &str) {
        while !self.shown.contains(words) {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let is_readable = net::wait(&mut fds, Deadline::after(TIMEOUT)).unwrap();
            assert!(is_readable, "no {words:?} in {:?}", self.shown);
            let mut bytes = [0; 256];
            let count = self.master.read(&mut bytes).unwrap();
            self.shown
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Whether the terminal shows what the user types.
    fn echoes(&self) -> bool {
        let flags = termios::tcgetattr(&self.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO)
    }
}

#[test]
fn new_user_asks_twice_for_the_password_with_echo_off() {
    for (second, status) in [("secret", 0), ("Secret", 1)] {
        let mut terminal = Terminal::new();
        let child = terminal.new_user();
        terminal.wait_for_output("Password for alice: ");
        assert!(!terminal.echoes());
        terminal.master.write_all(b"secret\n").unwrap();
        terminal.wait_for_output("Repeat the password: ");
        terminal
            .master
            .write_all(format!("{second}\n").as_bytes())
            .unwrap();
        let result = child.wait_with_output().unwrap();
        assert_eq!(result.status.code(), Some(status));
        assert!(terminal.echoes());
        let line = String::from_utf8(result.stdout).unwrap();
        assert_eq!(line.starts_with("alice:$argon2id$"), status == 0, "{line}");
        if status != 0 {
            terminal.wait_for_output("the passwords differ");
        }
        assert!(!terminal.shown.contains("ecret"), "{}", terminal.shown);
    }
}

#[test]
fn new_user_turns_the_echo_on_again_when_a_signal_ends_it() {
    let mut terminal = Terminal::new();
    let mut child = terminal.new_user();
    terminal.wait_for_output("Password for alice: ");
    assert!(!terminal.echoes());
    // Ctrl-C sends this signal.
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(terminal.echoes());
    // Other signals that would terminate the process stay blocked until both passwords are
    // typed. The test uses SIGTERM: under a shell in the background, a process may ignore
    // the others.
    let mut terminal = Terminal::new();
    let mut child = terminal.new_user();
    terminal.wait_for_output("Password for alice: ");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(!terminal.echoes() && child.try_wait().unwrap().is_none());
    terminal.master.write_all(b"secret\n").unwrap();
    terminal.wait_for_output("Repeat the password: ");
    terminal.master.write_all(b"secret\n").unwrap();
    let signal = child.wait().unwrap().signal();
    assert_eq!(signal, Some(Signal::SIGTERM as i32));
    assert!(terminal.echoes());
}

#[test]
fn h23_no_warning_of_a_server_for_logins_only_is_about_socks4() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, users) = (folder.path().join("rules"), folder.path().join("users"));
    fs::write(&rules, "permit c 10.\npermit c 11. - - - user=alice\n").unwrap();
    fs::write(&users, users_file_line("alice", b"secret").unwrap()).unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let check = |versions: &str| {
        let mut command = binary();
        command.args(["--check", "--socks", versions, "--config"]);
        let output = command.arg(&rules).arg("--users").arg(&users).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let both = check("4,5");
    assert!(both.contains("turn SOCKS4 off with --socks 5"), "{both}");
    assert!(
        both.contains("line 2 permits every client that claims"),
        "{both}"
    );
    let logins = check("5");
    assert!(
        logins.contains("2 rules") && logins.contains("1 user"),
        "{logins}"
    );
    assert!(!logins.contains("warning"), "{logins}");
}
