//! SOCKS5 with user and password, and rules that want a proof.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use nix::poll::{PollFd, PollFlags};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{self, LocalFlags};
use nix::unistd::Pid;
use tempfile::TempDir;
use threadsocks::auth::{AuthError, Authenticator, line_for};
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
use crate::support::wait::TIMEOUT;

/// A server with a users file, and an origin to connect to.
struct Scene {
    folder: TempDir,
    proxy: Proxy,
    origin: Origin,
}

impl Scene {
    /// Where these may log in.
    fn with(rules: &str, users: &[(&str, &str)], options: &[&str]) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users");
        fs::write(&file, lines(users)).expect("written");
        let with_users = ["--users", file.to_str().unwrap(), "-v"];
        Scene {
            proxy: Proxy::start(rules, &[&with_users, options].concat()),
            folder,
            origin: Origin::echo(),
        }
    }

    /// Alice may, and everything is permitted.
    fn of_alice(options: &[&str]) -> Scene {
        Scene::with(PERMIT_ALL, &[("alice", "secret")], options)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// Puts other users into force.
    fn change(&self, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.file()).expect("renamed");
    }

    /// A client from an address at which nobody has failed yet.
    fn dial(&self) -> TcpStream {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let from = SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0));
        dial_from(from, self.proxy.address())
    }

    /// Logs in with this client; `None` if it is told no and sent away.
    fn login_of(client: TcpStream, user: &str, password: &str) -> Option<TcpStream> {
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
        Scene::login_of(self.dial(), user, password)
    }

    /// Connects to the origin; the code of the reply.
    fn connect(&self, client: &TcpStream) -> u8 {
        write(client, &connect(&self.origin.destination()));
        read_exactly(client, 10)[1]
    }

    /// Ends the test; no password was printed anywhere.
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

fn lines(users: &[(&str, &str)]) -> String {
    let line = |&(user, password): &(&str, &str)| line_for(user, password.as_bytes());
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

fn connect(target: &Destination) -> Vec<u8> {
    let command = Command::Connect;
    let target = target.clone();
    Request { command, target }.encode()
}

#[test]
fn v01_in_one_piece_or_in_many() {
    let scene = Scene::of_alice(&[]);
    let parts = [
        greeting(&[0, 2]),
        login("alice", "secret"),
        connect(&scene.origin.destination()),
        b"early".to_vec(),
    ];
    let all = parts.concat();
    let answered = |client: &TcpStream| {
        shutdown_write(client);
        assert_eq!(read_exactly(client, 4), [5, 2, 1, 0]);
        assert_eq!(read_exactly(client, 10)[..4], [5, 0, 0, 1]);
        assert_eq!(read_all(client), b"early");
    };
    for cut in 0..all.len() {
        let client = scene.dial();
        write(&client, &all[..cut]);
        std::thread::yield_now();
        write(&client, &all[cut..]);
        answered(&client);
    }
    let client = scene.dial();
    for byte in all {
        write(&client, &[byte]);
        std::thread::yield_now();
    }
    answered(&client);
    scene.finish();
}

#[test]
fn v04_who_is_right_is_let_in_and_nobody_else() {
    let (name, long) = ("n".repeat(255), "p".repeat(255));
    let users = [("alice", "secret"), (&name, &long)];
    let scene = Scene::with(PERMIT_ALL, &users, &[]);
    for round in 0..2 {
        for (user, password, is_right) in [
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
            let client = scene.login(user, password);
            assert_eq!(client.is_some(), is_right, "{user} {password} {round}");
            if let Some(client) = client {
                assert_eq!(scene.connect(&client), 0);
            }
        }
    }
    scene
        .proxy
        .stderr_line("login of 'bob' failed: user or password are wrong");
    scene.proxy.stderr_line("login of '\\x1b[2J' failed");
    scene
        .proxy
        .stderr_line("user=\"alice\" login=accepted rule=1");
    scene.finish();
}

#[test]
fn v04_what_is_no_login() {
    let scene = Scene::of_alice(&["--handshake-timeout", "2s"]);
    let whole = login("alice", "secret");
    for version in (0..=255).filter(|it| *it != 1) {
        let client = scene.dial();
        write(&client, &greeting(&[2]));
        write(&client, &[&[version], &whole[1..]].concat());
        assert_eq!(read_all(&client), [5, 2], "version {version}");
    }
    for length in 0..whole.len() {
        let client = scene.dial();
        write(&client, &greeting(&[2]));
        write(&client, &whole[..length]);
        shutdown_write(&client);
        assert_eq!(read_all(&client), [5, 2, 1, 1], "{length} bytes");
        let client = scene.dial();
        write(&client, &greeting(&[2]));
        write(&client, &whole[..length]);
        reset(client);
    }
    // Nor is one waited for any longer than for a request.
    let client = scene.dial();
    write(&client, &greeting(&[2]));
    assert_eq!(read_all(&client), [5, 2, 1, 1]);
    assert_eq!(scene.proxy.screen_messages(0), []);
    scene.finish();
}

#[test]
fn v05_what_comes_at_the_wrong_time() {
    let scene = Scene::of_alice(&[]);
    let request = connect(&scene.origin.destination());
    for (said, answers) in [
        // The request in place of the login.
        ([greeting(&[2]), request.clone()].concat(), &[5, 2][..]),
        // A login that fails, and all that follows it.
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
        // Nothing is offered that shows who it is, and it goes on as if.
        ([greeting(&[0]), request.clone()].concat(), &[5, 0xFF]),
        (
            [greeting(&[0, 1, 3]), login("alice", "secret")].concat(),
            &[5, 0xFF],
        ),
        ([greeting(&[]), request.clone()].concat(), &[5, 0xFF]),
    ] {
        let client = scene.dial();
        write(&client, &said);
        assert_eq!(read_all(&client), answers, "{said:?}");
    }
    assert_eq!(scene.proxy.screen_messages(0), []);
    scene.finish();
    // A login where none was agreed upon is no request.
    let proxy = Proxy::open();
    let client = dial(proxy.address());
    write(
        &client,
        &[greeting(&[0]), login("alice", "secret")].concat(),
    );
    let answer = read_all(&client);
    assert_eq!(answer[..4], [5, 0, 5, 1]);
    assert_eq!(answer.len(), 12);
    proxy.finish();
}

/// A line as in the users file, with a hash that costs a twentieth of the usual.
fn cheap_line(user: &str, password: &str) -> String {
    let params = Params::new(2048, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password.as_bytes()).unwrap();
    format!("{user}:{hash}\n")
}

/// A doorkeeper of these lines, and its file.
fn doorkeeper(lines: &str) -> (TempDir, Authenticator) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    fs::write(&file, lines).expect("written");
    (folder, Authenticator::open(&file).expect("good users"))
}

/// How long this takes.
fn time(what: impl FnOnce()) -> Duration {
    let began = Instant::now();
    what();
    began.elapsed()
}

/// What so many of a hundred take at most.
fn among(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[times.len() * percent / 100]
}

#[test]
fn v06_to_be_wrong_takes_everybody_the_same_time() {
    let (_folder, keeper) = doorkeeper(
        &[
            cheap_line("first", "secret"),
            cheap_line("known", "secret"),
            cheap_line("unknown", "secret"),
        ]
        .concat(),
    );
    let (users, _) = keeper.book().current();
    let check = |user: &str, password: &str| {
        let (user, password) = (user.into(), password.into());
        let login = Credentials { user, password };
        // As the server does it.
        match keeper.is_cached(&users, &login) {
            true => Ok(()),
            false => keeper.check(|| Arc::clone(&users), &login, || Ok(())),
        }
    };
    assert_eq!(check("known", "secret"), Ok(()));
    let long = "x".repeat(255);
    let kinds = [
        ("known", "wrong"),
        ("known", "secreT"),
        ("known", &long),
        ("unknown", "wrong"),
        ("nobody", "wrong"),
        ("nobody", "secret"),
        ("", ""),
        (&long, &long),
    ];
    // In turns that nobody can foresee, so that whatever else the machine does
    // strikes all alike. Of each kind the times of quiet moments count.
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
        let quiet: Vec<Duration> = times.into_iter().map(|it| among(it, 10)).collect();
        let (least, most) = (*quiet.iter().min().unwrap(), *quiet.iter().max().unwrap());
        (most - least < least / 10, quiet)
    };
    // A difference that is there shows each time, and noise does not.
    let mut rounds = (0..8).map(|_| compare());
    let (_, quiet) = rounds
        .find(|(is_alike, _)| *is_alike)
        .unwrap_or_else(|| panic!("{:?}", compare()));
    // None of them was quick.
    let known = (0..80).map(|_| time(|| check("known", "secret").unwrap()));
    let known = among(known.collect(), 10);
    assert!(known * 5 < quiet[0], "{known:?} {quiet:?}");
}

#[test]
fn v06_who_was_right_before_is_known_at_once() {
    let (_folder, keeper) = doorkeeper(&lines(&[("alice", "secret")]));
    let users = || keeper.book().current().0;
    let (user, password) = (b"alice".to_vec(), b"secret".to_vec());
    let login = Credentials { user, password };
    assert!(!keeper.is_cached(&users(), &login));
    let first = time(|| keeper.check(users, &login, || Ok(())).unwrap());
    let again = (0..100).map(|_| time(|| assert!(keeper.is_cached(&users(), &login))));
    let again = among(again.collect(), 50);
    assert!(
        again < Duration::from_millis(1),
        "{again:?} behind {first:?}"
    );
    assert!(again < first / 10, "{again:?} behind {first:?}");
}

#[test]
fn v07_a_guesser_waits_and_nobody_else() {
    let scene = Scene::of_alice(&[]);
    assert!(scene.login("alice", "secret").is_some());
    let guesser = |password| {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
        Scene::login_of(dial_from(from, scene.proxy.address()), "alice", password)
    };
    let began = Instant::now();
    for _ in 0..6 {
        assert!(guesser("guess").is_none());
    }
    let six = began.elapsed();
    assert!(guesser("guess").is_none());
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Even the right one waits, so that no late answer is a no.
    assert!(guesser("secret").is_some());
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(six < Duration::from_secs(2), "{six:?}");
    let others = Instant::now();
    assert!(scene.login("alice", "secret").is_some());
    assert!(others.elapsed() < Duration::from_secs(1));
    scene.finish();
}

#[test]
fn v07_of_many_guesses_at_once_six_are_heard() {
    const MANY: usize = 60;
    let scene = Scene::of_alice(&["--handshake-timeout", "1s"]);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
    let guesses: Vec<TcpStream> = (0..MANY)
        .map(|_| {
            let client = dial_from(from, scene.proxy.address());
            write(&client, &[greeting(&[2]), login("alice", "guess")].concat());
            client
        })
        .collect();
    for client in &guesses {
        assert_eq!(read_all(client), [5, 2, 1, 1]);
    }
    // (A debt may have become less meanwhile, on a machine that is busy.)
    let unheard = scene
        .proxy
        .wait_for_stderr("failed: unheard, as too many", 1);
    let heard = scene.proxy.wait_for_stderr("user or password are wrong", 6);
    assert!(heard <= 8, "{heard} heard, {unheard} not");
    scene.proxy.wait_for_stderr("login of 'alice' failed", MANY);
    drop(guesses);
    scene.finish();
}

#[test]
fn v07_who_waits_for_his_turn_holds_nothing_up() {
    let scene = Scene::of_alice(&["--handshake-timeout", "10m", "--grace", "0s"]);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), 0));
    let guess = || {
        let client = dial_from(from, scene.proxy.address());
        write(&client, &[greeting(&[2]), login("alice", "guess")].concat());
        client
    };
    // Each of them is heard two seconds after the one before, at best.
    let waiting: Vec<TcpStream> = (0..40).map(|_| guess()).collect();
    for client in &waiting[..6] {
        assert_eq!(read_exactly(client, 2), [5, 2]);
    }
    scene.proxy.wait_for_stderr("user or password are wrong", 6);
    let mut waiting = waiting.into_iter();
    // Some leave, each in another way, and are gone.
    let left: Vec<TcpStream> = waiting.by_ref().take(20).collect();
    left.into_iter().for_each(reset);
    waiting.by_ref().take(10).for_each(drop);
    scene
        .proxy
        .wait_for_stderr("the client left before its turn came", 20);
    // The others are cut with the server.
    let Scene { mut proxy, .. } = scene;
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
fn who_offers_no_login_may_be_let_in_too() {
    let rules = "permit c - user=alice auth\ndeny c - 80\npermit c -\n";
    let scene = Scene::with(rules, &[("alice", "secret")], &["--allow-anonymous"]);
    let client = scene.dial();
    write(&client, &greeting(&[0]));
    assert_eq!(read_exactly(&client, 2), [5, 0]);
    assert_eq!(scene.connect(&client), 0);
    drop(client);
    // Who can log in shall.
    let client = scene.dial();
    write(&client, &greeting(&[0, 2]));
    assert_eq!(read_exactly(&client, 2), [5, 2]);
    write(&client, &login("alice", "secret"));
    assert_eq!(read_exactly(&client, 2), [1, 0]);
    assert_eq!(scene.connect(&client), 0);
    drop(client);
    scene.proxy.stderr_line("login=accepted rule=1");
    scene
        .proxy
        .stderr_line("line 3 permits clients of SOCKS4, which cannot log in");
    scene.finish();
}

#[test]
fn the_users_file_is_followed() {
    let scene = Scene::of_alice(&[]);
    assert!(scene.login("alice", "secret").is_some());
    assert!(scene.login("bob", "b").is_none());
    // One more, and another password, at once.
    scene.change(&lines(&[("alice", "new"), ("bob", "b")]));
    assert!(scene.login("alice", "secret").is_none());
    assert!(scene.login("alice", "new").is_some());
    assert!(scene.login("bob", "b").is_some());
    scene.proxy.stderr_line("users: 2 users in force");
    // A mistake, or no file: the last good users stay.
    scene.change("alice:secret\n");
    assert!(scene.login("bob", "b").is_some());
    scene
        .proxy
        .stderr_line("users:1: the hash of \"alice\" does not begin");
    scene.proxy.stderr_line("the last good users stay in force");
    fs::remove_file(scene.file()).unwrap();
    assert!(scene.login("alice", "new").is_some());
    scene.proxy.stderr_line("users: No such file");
    // Back, without bob; asked for.
    scene.change(&lines(&[("alice", "new")]));
    scene.proxy.signal(Signal::SIGHUP);
    scene.proxy.stderr_line("users: 1 user in force");
    scene
        .proxy
        .stderr_line("socks.conf: read again, nothing has changed");
    assert!(scene.login("bob", "b").is_none());
    assert!(scene.login("alice", "new").is_some());
    scene.finish();
}

#[test]
fn without_good_users_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let bad = folder.path().join("bad");
    fs::write(&bad, "alice:secret\n").unwrap();
    for (file, why) in [
        (&folder.path().join("none"), "No such file"),
        (&bad, ":1: the hash"),
    ] {
        let ended = binary()
            .arg("--config")
            .arg(&rules)
            .arg("--users")
            .arg(file)
            .arg("0")
            .output()
            .expect("it starts");
        assert_eq!(ended.status.code(), Some(2));
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains(why), "{told}");
        let help = format!("threadsocks --new-user alice >> {}", file.display());
        assert!(told.contains(&help), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::of_alice(&[]);
    scene.proxy.stderr_line("warning: others can read it");
    scene.finish();
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
            .any(|it| it.contains("others can read"))
    );
    proxy.finish();
}

/// What `--new-user` makes of this on its stdin: exit status and output.
fn new_user(name: &str, stdin: &[u8]) -> (Option<i32>, String) {
    let mut child = binary()
        .args(["--new-user", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // It may leave before all is written.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let ended = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(ended.stdout).unwrap();
    (ended.status.code(), said)
}

#[test]
fn a_new_user_logs_in() {
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
        ("a,b", "secret\n", 2),
        ("", "secret\n", 2),
    ] {
        let (status, line) = new_user(name, stdin.as_bytes());
        assert_eq!((status, line.as_str()), (Some(expected), ""), "{name}");
    }
    let scene = Scene::of_alice(&[]);
    scene.change(&text);
    for (name, password) in [
        ("alice", "secret"),
        ("bob", "two words"),
        ("carol", "no end"),
        ("dave", &longest),
        ("erin", &longest),
    ] {
        assert!(scene.login(name, password).is_some(), "{name}");
    }
    scene.finish();
}

#[test]
fn a_rule_with_auth_wants_a_login() {
    let rules = "permit c - user=alice auth\npermit c - 1 auth\n";
    let users = [("alice", "secret"), ("bob", "secret")];
    let scene = Scene::with(rules, &users, &["--allow-anonymous"]);
    let alice = scene.login("alice", "secret").unwrap();
    assert_eq!(scene.connect(&alice), 0);
    let bob = scene.login("bob", "secret").unwrap();
    assert_eq!(scene.connect(&bob), 2);
    // Who has not logged in is nobody, so another rule is about him.
    let client = scene.dial();
    let nobody = Destination {
        port: 1,
        ..scene.origin.destination()
    };
    write(&client, &[greeting(&[0]), connect(&nobody)].concat());
    assert_eq!(read_all(&client)[..4], [5, 0, 5, 2]);
    scene
        .proxy
        .stderr_line("refused: the client has not logged in");
    drop((alice, bob, client));
    scene.finish();
}

#[test]
fn a_client_of_socks4_proves_itself_by_identd() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let scene = Scene::with("permit c - auth\n", &[("alice", "secret")], &[]);
        for (user, code) in [("alice", 90), ("bob", 93), ("", 93)] {
            let client = dial(scene.proxy.address());
            let target = scene.origin.destination();
            write(
                &client,
                &request(Command::Connect, &target, user.as_bytes()),
            );
            assert_eq!(read_exactly(&client, 8)[1], code, "{user}");
        }
        assert_eq!(identd.queries().len(), 2);
        // Who has logged in need not.
        let client = dial(scene.proxy.address());
        let client = Scene::login_of(client, "alice", "secret").unwrap();
        assert_eq!(scene.connect(&client), 0);
        assert_eq!(identd.queries().len(), 2);
        drop(client);
        scene
            .proxy
            .stderr_line("believes the identd of any machine");
        scene.finish();
    });
}

#[test]
fn where_identd_is_query_count_by_name_a_login_is_not_enough() {
    in_own_network(|_| {
        let _identd = Identd::replying(" : USERID : UNIX : alice");
        let users = [("alice", "secret"), ("bob", "secret")];
        let scene = Scene::with("permit c - auth ident\n", &users, &[]);
        for (user, code) in [("alice", 0), ("bob", 2)] {
            let client = dial(scene.proxy.address());
            let client = Scene::login_of(client, user, "secret").unwrap();
            assert_eq!(scene.connect(&client), code, "{user}");
        }
        scene.finish();
    });
}

#[test]
fn a_login_lasts_as_long_as_the_session() {
    let users = [("alice", "secret"), ("bob", "secret")];
    let scene = Scene::with("permit c - auth\n", &users, &["--enforce"]);
    let goes_on = |client: &TcpStream| {
        write(client, b"x");
        assert_eq!(read_exactly(client, 1), b"x");
    };
    let [alice, bob] = ["alice", "bob"].map(|user| {
        let client = scene.login(user, "secret").unwrap();
        assert_eq!(scene.connect(&client), 0);
        goes_on(&client);
        client
    });
    fs::write(scene.proxy.config(), "permit c - user=alice auth\n").unwrap();
    scene
        .proxy
        .stderr_line("no longer permitted: no rule permits it");
    goes_on(&alice);
    // It has ended, properly or not.
    assert!(!matches!((&bob).read(&mut [0]), Ok(1)));
    drop((alice, bob));
    scene.finish();
}

/// Whoever tries stolen passwords without asking for anything leaves a name too.
#[test]
fn who_logs_in_and_asks_for_nothing_is_named() {
    let scene = Scene::of_alice(&[]);
    let says = |words: &str| scene.proxy.stderr_line(words);
    drop(scene.login("alice", "secret").expect("welcome"));
    says("ending=\"'alice' has logged in; then nothing came");
    let client = scene.login("alice", "secret").expect("welcome");
    write(&client, &[5, 9, 0, 1, 127, 0, 0, 1, 0, 80]);
    assert_eq!(read_all(&client)[..2], [5, 7]);
    says("ending=\"'alice' has logged in; then bad command 9");
    drop(client);
    scene.finish();
}

/// Of one address only so many wait for their turn; more could not be heard in time.
#[test]
fn v07_only_so_many_wait_for_their_turn() {
    let scene = Scene::of_alice(&["--grace", "0s"]);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 8), 0));
    let guesses: Vec<TcpStream> = (0..6 + 64 + 20)
        .map(|_| {
            let client = dial_from(from, scene.proxy.address());
            write(&client, &[greeting(&[2]), login("alice", "guess")].concat());
            client
        })
        .collect();
    // At once, and not when their time is over.
    let unheard = "failed: unheard, as too many";
    assert!(scene.proxy.wait_for_stderr(unheard, 1) >= 1);
    assert!(scene.login("alice", "secret").is_some(), "from elsewhere");
    drop(guesses);
    scene
        .proxy
        .wait_for_stderr("login of 'alice' failed", 6 + 64 + 20);
    scene.finish();
}

#[test]
fn a_users_file_can_be_checked() {
    let scene = Scene::of_alice(&[]);
    let check = |users: &str| {
        let (config, users) = (scene.proxy.config(), scene.folder.path().join(users));
        let mut command = binary();
        command.arg("--check").arg("--config").arg(config);
        let ended = command.arg("--users").arg(users).output().unwrap();
        let told = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8(told).unwrap())
    };
    let (status, told) = check("users");
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("users: 1 user\n"), "{told}");
    assert!(told.contains("permits clients of SOCKS4"), "{told}");
    let (status, told) = check("nowhere");
    assert_eq!(status, Some(2), "{told}");
    scene.change("alice:secret\n");
    let (status, told) = check("users");
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("users:1: the hash of") && !told.contains("secret"));
    scene.finish();
}

#[test]
fn a_line_that_cannot_be_written_is_no_success() {
    let mut command = binary();
    command.args(["--new-user", "alice"]).stdin(Stdio::piped());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("the line is not written"), "{told}");
}

/// A terminal, whose other end is in the test's hands.
struct Terminal {
    master: File,
    slave: OwnedFd,
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

    /// `--new-user alice`, started at it; what it makes goes elsewhere.
    fn new_user(&self) -> Child {
        let own = || Stdio::from(self.slave.try_clone().unwrap());
        let mut command = binary();
        command.args(["--new-user", "alice"]);
        let command = command.stdin(own()).stderr(own()).stdout(Stdio::piped());
        command.spawn().expect("it starts")
    }

    /// Waits until it shows this.
    fn wait_for_output(&mut self, words: &str) {
        while !self.shown.contains(words) {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let has_come = net::wait(&mut fds, Deadline::after(TIMEOUT)).unwrap();
            assert!(has_come, "{words:?} in {:?}", self.shown);
            let mut bytes = [0; 256];
            let count = self.master.read(&mut bytes).unwrap();
            self.shown
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Does it show what is typed?
    fn echoes(&self) -> bool {
        let flags = termios::tcgetattr(&self.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO)
    }
}

#[test]
fn a_password_is_typed_twice_and_unseen() {
    for (second, status) in [("secret", 0), ("Secret", 1)] {
        let mut terminal = Terminal::new();
        let child = terminal.new_user();
        terminal.wait_for_output("Password for alice: ");
        assert!(!terminal.echoes());
        terminal.master.write_all(b"secret\n").unwrap();
        terminal.wait_for_output("Once more: ");
        terminal
            .master
            .write_all(format!("{second}\n").as_bytes())
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(status));
        assert!(terminal.echoes());
        let line = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(line.starts_with("alice:$argon2id$"), status == 0, "{line}");
        if status != 0 {
            terminal.wait_for_output("two passwords");
        }
        assert!(!terminal.shown.contains("ecret"), "{}", terminal.shown);
    }
}

#[test]
fn whoever_gives_up_typing_a_password_sees_again_what_he_types() {
    let mut terminal = Terminal::new();
    let mut child = terminal.new_user();
    terminal.wait_for_output("Password for alice: ");
    assert!(!terminal.echoes());
    // As Ctrl-C does.
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(terminal.echoes());
    // Whatever else would stop it waits for the end of that. (Others may be ignored
    // where the tests run in the background.)
    let mut terminal = Terminal::new();
    let mut child = terminal.new_user();
    terminal.wait_for_output("Password for alice: ");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(!terminal.echoes() && child.try_wait().unwrap().is_none());
    terminal.master.write_all(b"secret\n").unwrap();
    terminal.wait_for_output("Once more: ");
    terminal.master.write_all(b"secret\n").unwrap();
    let signal = child.wait().unwrap().signal();
    assert_eq!(signal, Some(Signal::SIGTERM as i32));
    assert!(terminal.echoes());
}
