//! The number of sessions follows from what the system grants the process.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use threadsocks::client;
use threadsocks::protocol::Command::Connect;

use crate::support::child::RunningChild;
use crate::support::endpoints::{
    Origin, by_name, dial, dial_from, read_all, read_exactly, request, shutdown_write, write,
};
use crate::support::netns::in_own_network;
use crate::support::process::status;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup};
use crate::support::tools::{is_installed, skip};
use crate::support::wait::until;

/// Covers a folder or a file of the kernel, so that its content cannot be read.
fn hide(path: &str) {
    let (source, kind, flags) = match Path::new(path).is_dir() {
        true => ("tmpfs", Some("tmpfs"), MsFlags::empty()),
        false => ("/dev/null", None, MsFlags::MS_BIND),
    };
    mount(Some(source), path, kind, flags, None::<&str>).expect(path);
}

/// Starts a server and returns the line about its limit.
fn limit_line(options: &[&str]) -> String {
    let proxy = Proxy::start(PERMIT_ALL, options);
    let line = proxy.stderr_line("at a time, limited by");
    let origin = Origin::echo();
    let client = client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
    drop(client.expect("granted"));
    proxy.finish();
    line
}

/// The number in the line about the limit.
fn sessions(line: &str) -> usize {
    let words = line.split("up to ").nth(1).expect(line);
    words.split(' ').next().unwrap().parse().expect(line)
}

#[test]
fn s16_files_that_cannot_be_read_mean_default_limits() {
    in_own_network(|_| {
        hide("/sys/fs/cgroup");
        for path in ["/proc/sys/vm", "/proc/sys", "/proc/meminfo"] {
            hide(path);
            // More than the default of the kernel would abort the process.
            let line = limit_line(&["--max-sessions", "20000"]);
            let is_named = line.contains("the default: vm.max_map_count cannot be read");
            let promised = sessions(&line);
            assert!(promised <= 8050, "{line}");
            // On this machine another limit may be tighter.
            assert!(is_named || !line.contains("memory mappings"), "{line}");
        }
    });
}

#[test]
fn s37_a_session_with_its_own_arenas_has_the_mappings_that_the_limit_counts() {
    const SESSIONS: usize = 50;
    let proxy = Proxy::with(Setup {
        rules: PERMIT_ALL,
        wrapper: &["env", "MALLOC_ARENA_MAX=1023"],
        ..Setup::default()
    });
    let mappings = || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", proxy.pid())).expect("mappings");
        maps.lines().count()
    };
    let before = mappings();
    let origin = Origin::echo();
    let connect = || client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
    let held: Vec<_> = (0..SESSIONS).map(|_| connect().expect("granted")).collect();
    for client in &held {
        write(client, b"x");
        assert_eq!(read_exactly(client, 1), b"x");
    }
    let each = (mappings() - before) as f64 / SESSIONS as f64;
    // Two threads, with four mappings for stacks and two for an arena.
    assert!(each > 11.0 && each < 12.5, "{each}");
    drop(held);
    proxy.finish();
}

#[test]
fn s18_few_threads_or_descriptors_leave_most_for_sessions() {
    for (limit, words) in [
        ("--nproc=100", "100 threads"),
        ("--nproc=200", "200 threads"),
        ("--nofile=192", "192 open files"),
    ] {
        if limit.starts_with("--nproc") && !geteuid().is_root() {
            skip("the limit would also count the other threads of this account (not root)");
            continue;
        }
        let proxy = Proxy::with(Setup {
            wrapper: &["prlimit", limit],
            ..Setup::default()
        });
        let line = proxy.stderr_line("at a time, limited by");
        assert!(line.contains(words), "{line}");
        let promised = sessions(&line);
        assert!(promised >= 20, "{line}");
        let origin = Origin::echo();
        let connect = || client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
        let held: Vec<_> = (0..promised).map(|_| connect().expect("granted")).collect();
        for client in &held {
            write(client, b"x");
            assert_eq!(read_exactly(client, 1), b"x");
        }
        connect().expect_err("one too many");
        drop(held);
        proxy.finish();
    }
}

/// A control group of this test with a limit on memory.
pub(super) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` if this system has no writable tree of control groups for memory. The name is
    /// that of the test.
    pub(super) fn with_limit(test: &str, bytes: u64) -> Option<MemoryGroup> {
        let name = format!("threadsocks-{test}-{}", std::process::id());
        let trees = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (tree, limit) in trees {
            let group = MemoryGroup(Path::new(tree).join(&name));
            if Path::new(tree).join("cgroup.procs").exists()
                && fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join(limit), bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        skip("no control group for memory can be made (not root?)");
        None
    }

    fn set_limit(&self, bytes: u64) {
        let limits = ["memory.limit_in_bytes", "memory.max"];
        let limit = limits.map(|name| self.0.join(name));
        let limit = limit.iter().find(|path| path.exists()).expect("a limit");
        fs::write(limit, bytes.to_string()).expect("written");
    }

    /// A shell script that starts the command in its arguments in this group.
    pub(super) fn entering(&self) -> String {
        let group = self.0.display();
        format!("echo $$ > {group}/cgroup.procs; exec \"$0\" \"$@\"")
    }

    /// A shell script that does so after it has run a command in its own mount namespace.
    fn entering_after(&self, command: &str) -> String {
        let group = self.0.display();
        let script = format!("{command} && exec \"$0\" \"$@\"");
        format!(
            "echo $$ > {group}/cgroup.procs; exec unshare --mount sh -c '{script}' \"$0\" \"$@\""
        )
    }

    /// Starts a server in this group.
    pub(super) fn start(&self, rules: &str, options: &[&str]) -> Proxy {
        Proxy::with(Setup {
            rules,
            options,
            wrapper: &["sh", "-c", &self.entering()],
            ..Setup::default()
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel removes a process from its group some time after its end.
        if !std::thread::panicking() {
            until("an empty group", || fs::remove_dir(&self.0).ok());
        }
    }
}

/// Every session holds a large buffer in both directions once.
pub(super) fn exchange_bulk(clients: &[TcpStream]) {
    let bulk = vec![7; 200_000];
    for client in clients {
        std::thread::scope(|scope| {
            scope.spawn(|| write(client, &bulk));
            assert!(read_exactly(client, bulk.len()) == bulk);
        });
    }
}

/// A name with 6,000 addresses, and a hosts file of 4 MB.
#[test]
fn s48_expensive_lookups_fit_into_a_small_control_group() {
    let Some(group) = MemoryGroup::with_limit("s48", 32 << 20) else {
        return;
    };
    in_own_network(|network| {
        let v4 = (0..4000).map(|it| format!("127.9.{}.{} big.test\n", it / 250, 1 + it % 250));
        let v6 = (0..2000).map(|it| format!("fd00::{it:x} big.test\n"));
        let big: String = v4.chain(v6).collect();
        let proxy = group.start(PERMIT_ALL, &[]);
        let all_at_once = |name: &str| {
            // From several addresses: one client has only one lookup at a time here.
            let clients = (1..=20).map(|number| {
                let client = dial_from(([127, 0, 1, number], 0).into(), proxy.address());
                write(&client, &request(Connect, &by_name(name, 9), b""));
                client
            });
            let clients: Vec<TcpStream> = clients.collect();
            for client in &clients {
                assert_eq!(read_all(client)[..2], [0, 91], "{name}");
            }
        };
        network.write_hosts(&big);
        all_at_once("big.test");
        let other: String = (0..150_000)
            .map(|it| format!("0.0.0.0 {it}.blocked.test\n"))
            .collect();
        network.write_hosts(&other);
        all_at_once("none.test.");
        proxy.finish();
    });
}

#[test]
fn s17_a_small_control_group_means_few_sessions_and_no_kill() {
    let Some(group) = MemoryGroup::with_limit("s17", 64 << 20) else {
        return;
    };
    let proxy = group.start(PERMIT_ALL, &[]);
    let line = proxy.stderr_line("64 MiB of memory (of its control group)");
    let promised = sessions(&line);
    assert!((100..700).contains(&promised), "{line}");
    let origin = Origin::echo();
    // Associations first: each may use more memory than a session without datagrams.
    let from = |number: u8| dial_from(([127, 0, 1, number], 0).into(), proxy.address());
    let associate = |number| {
        let reached = proxy.address().ip();
        let unknown = ([0, 0, 0, 0], 0).into();
        client::socks5::associate(from(number), None, reached, unknown).ok()
    };
    let associations: Vec<_> = (1..200).map_while(associate).collect();
    assert!((2..50).contains(&associations.len()));
    let destinations = [origin.destination(), by_name("localhost", origin.port())];
    let mut held = Vec::new();
    let mut refused = 0;
    for destination in destinations.iter().cycle() {
        match client::socks4::connect(dial(proxy.address()), destination, b"") {
            Ok(client) => held.push(client),
            Err(_) => refused += 1,
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(held.len() + associations.len(), promised);
    exchange_bulk(&held);
    proxy.stderr_line("at capacity");
    drop((held, associations));
    proxy.assert_resources_released();
    let client = client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
    let client = client.expect("granted again");
    write(&client, b"x");
    shutdown_write(&client);
    assert_eq!(read_all(&client), b"x");
    proxy.finish();
}

#[test]
fn s40_the_control_group_is_found_wherever_its_tree_is_mounted() {
    let Some(group) = MemoryGroup::with_limit("s40", 64 << 20) else {
        return;
    };
    if !is_installed("unshare", "util-linux") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display();
    let tree = group.0.parent().expect("a tree").display();
    let cover = format!("mount -t tmpfs none {tree}");
    let is_known = "64 MiB of memory (of its control group)";
    let is_hidden = "the memory limit of the control group cannot be read";
    for (command, expected) in [
        (
            &format!("mount --bind {tree} {folder} && {cover}"),
            is_known,
        ),
        // As in a container that sees the paths of its host.
        (
            &format!("mount --bind {} {tree}", group.0.display()),
            is_known,
        ),
        (&cover, is_hidden),
    ] {
        let proxy = Proxy::with(Setup {
            wrapper: &["sh", "-c", &group.entering_after(command)],
            ..Setup::default()
        });
        proxy.stderr_line(expected);
        let lines = proxy.stderr_lines();
        let is_reported = lines.iter().any(|line| line.contains(is_hidden));
        assert_eq!(is_reported, expected == is_hidden, "{lines:?}");
        proxy.finish();
    }
}

#[test]
fn s41_threads_of_the_same_user_in_other_processes_count() {
    if !geteuid().is_root() {
        return skip("only root can change to another user");
    }
    if !is_installed("setpriv", "util-linux") || !is_installed("prlimit", "util-linux") {
        return;
    }
    // An account that no other test has.
    const USER: [&str; 3] = ["--reuid=54321", "--regid=54321", "--clear-groups"];
    let sleep = || {
        RunningChild::start(
            Command::new("setpriv").args(USER).args(["sleep", "60"]),
            b"",
        )
    };
    let others: Vec<_> = (0..30).map(|_| sleep()).collect();
    let is_of_user = |pid| status(pid, "Uid") == 54321;
    until("programs of the account", || {
        others.iter().all(|it| is_of_user(it.id())).then_some(())
    });
    // Every user may run the copy in the folder of the rules.
    let script = format!(
        "folder=${{4%/*}} && chmod 755 $folder && cp $0 $folder/server && \
         exec setpriv {} prlimit --nproc=100 $folder/server \"$@\"",
        USER.join(" ")
    );
    let proxy = Proxy::with(Setup {
        wrapper: &["sh", "-c", &script],
        ..Setup::default()
    });
    let line = proxy.stderr_line("100 threads");
    assert!(sessions(&line) > 20, "{line}");
    let origin = Origin::echo();
    let held = all_sessions(&proxy, &origin);
    exchange_bulk(&held);
    drop(held);
    proxy.finish();
}

/// As many sessions as the server promises.
pub(super) fn all_sessions(proxy: &Proxy, origin: &Origin) -> Vec<TcpStream> {
    let promised = sessions(&proxy.stderr_line("at a time, limited by"));
    let connect = || client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
    (0..promised).map(|_| connect().expect("granted")).collect()
}

/// A line of the users file whose hash needs this many KiB. No password is known for it.
fn user_with_hash_of(kibibytes: u32) -> String {
    format!("alice:$argon2id$v=19$m={kibibytes},t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
}

#[test]
fn s38_a_login_amid_all_sessions_has_the_memory_for_its_hash() {
    let Some(group) = MemoryGroup::with_limit("s38", 80 << 20) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    fs::write(&users, user_with_hash_of(60 << 10)).expect("written");
    let options = ["--users", users.to_str().unwrap(), "--allow-anonymous"];
    let proxy = group.start(PERMIT_ALL, &options);
    let origin = Origin::echo();
    let mut held = all_sessions(&proxy, &origin);
    exchange_bulk(&held);
    // Leaves a session for the login.
    drop(held.pop());
    // Both threads of the session hold its slot.
    let number = held.len() + 1;
    let of_session = [format!("s{number}"), format!("s{number}-down")];
    until("a free session", || {
        let has_ended = |name: &String| !of_session.contains(name);
        proxy.threads().iter().all(has_ended).then_some(())
    });
    let client = dial(proxy.address());
    write(&client, b"\x05\x01\x02\x01\x05alice\x05wrong");
    // The method is accepted, the login is not, and the server runs.
    assert_eq!(read_exactly(&client, 4), [5, 2, 1, 1]);
    // A changed file cannot need more.
    fs::write(&users, user_with_hash_of(70 << 10)).expect("written");
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("write a hash with a smaller m, or restart the server");
    drop(held);
    proxy.finish();
}

#[test]
fn s38_a_group_without_the_memory_for_a_login_is_an_error_at_the_start() {
    let Some(group) = MemoryGroup::with_limit("s38-small", 40 << 20) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let mut server = Command::new("sh");
    server.args(["-c", &group.entering(), env!("CARGO_BIN_EXE_threadsocks")]);
    server.arg("--config").arg(file("rules", PERMIT_ALL));
    server
        .arg("--users")
        .arg(file("users", &user_with_hash_of(60 << 10)));
    let output = server.arg("0").output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("a login needs 60 MiB of memory"),
        "{stderr}"
    );
}

/// Writes to each client until no more bytes fit in the way to an origin that does not
/// read.
fn fill(clients: &[TcpStream]) {
    let bulk = vec![7; 1 << 20];
    let write_some = |mut client: &TcpStream| {
        let _ = client.set_nonblocking(true);
        let has_room = client.write(&bulk).is_ok();
        let _ = client.set_nonblocking(false);
        has_room
    };
    // The server may still be copying when all buffers are full for the first time.
    for _ in 0..20 {
        while clients.iter().filter(|client| write_some(client)).count() > 0 {}
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Rules that take some 15 MB of memory.
fn many_rules() -> String {
    let names: Vec<_> = (0..100).map(|number| format!("u{number}")).collect();
    let many = format!("deny c - - - - user={}\n", names.join(",")).repeat(2500);
    format!("{PERMIT_ALL}{many}")
}

#[test]
fn s39_many_rules_and_their_reload_leave_the_rest_to_sessions() {
    let Some(group) = MemoryGroup::with_limit("s39", 64 << 20) else {
        return;
    };
    let rules = many_rules();
    let proxy = group.start(&rules, &[]);
    // Does not read, and writes until its client is gone.
    let origin = Origin::start(|mut stream| while stream.write_all(&[7; 65_536]).is_ok() {});
    let held = all_sessions(&proxy, &origin);
    fill(&held);
    for round in 1..=3 {
        fs::write(proxy.config(), format!("{rules}# {round}\n")).expect("written");
        proxy.signal(Signal::SIGHUP);
        proxy.wait_for_stderr("rules in force", round + 1);
    }
    drop(held);
    proxy.finish();
}

#[test]
fn s42_reloads_by_many_sessions_do_not_let_memory_grow() {
    /// More than the five versions that the memory may hold.
    const ROUNDS: usize = 8;
    let rules = many_rules();
    let proxy = Proxy::start(&rules, &[]);
    let origin = Origin::echo();
    let loaded = proxy.status("RssAnon");
    for round in 1..=ROUNDS {
        fs::write(proxy.config(), format!("{rules}# {round}\n")).expect("written");
        // Each on its own thread; one of them notices the change.
        let all: Vec<_> = (0..10).map(|_| dial(proxy.address())).collect();
        for client in all {
            let session = client::socks4::connect(client, &origin.destination(), b"");
            drop(session.expect("granted"));
        }
        until("a reload", || {
            drop(client::socks4::connect(
                dial(proxy.address()),
                &origin.destination(),
                b"",
            ));
            let lines = proxy.stderr_lines();
            let reloads = lines.iter().filter(|line| line.contains("rules in force"));
            (reloads.count() > round).then_some(())
        });
    }
    // Two versions and the memory of the parser; one more while sessions still use it.
    let now = proxy.status("RssAnon");
    assert!(now < 5 * loaded, "{now} kB after {loaded}");
    proxy.finish();
}

/// The exit status and stderr of a server with these rules, whose command `script` starts.
pub(super) fn failed_start(script: &str, rules: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules");
    fs::write(&path, rules).expect("written");
    let mut server = Command::new("sh");
    server.args(["-c", script, env!("CARGO_BIN_EXE_threadsocks"), "--config"]);
    let output = server.arg(&path).arg("0").output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[test]
fn s46_a_server_without_room_for_a_session_does_not_start() {
    for (option, resource) in [
        ("-v 16384", "16777216 bytes of address space (ulimit -v"),
        ("-v 18432", "18874368 bytes of address space (ulimit -v"),
        ("-d 512", "524288 bytes of data (ulimit -d)"),
        ("-d 1024", "1048576 bytes of data (ulimit -d)"),
        ("-d 14336", "14680064 bytes of data (ulimit -d)"),
    ] {
        let script = format!("ulimit {option}; exec \"$0\" \"$@\"");
        let (status, stderr) = failed_start(&script, PERMIT_ALL);
        assert_eq!(status, Some(1), "{option}: {stderr}");
        assert!(stderr.contains(resource), "{option}: {stderr}");
        assert!(stderr.contains("raise this limit"), "{option}: {stderr}");
    }
}

/// Around whole arenas, which the allocator would reserve.
#[test]
fn s46_all_sessions_of_any_address_space_are_served() {
    let mut before = 1;
    for kibibytes in [65_536, 131_072, 145_408, 147_456, 150_528, 214_016, 280_000] {
        let script = format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\"");
        let proxy = Proxy::with(Setup {
            rules: PERMIT_ALL,
            wrapper: &["sh", "-c", &script],
            ..Setup::default()
        });
        let line = proxy.stderr_line("bytes of address space");
        let promised = sessions(&line);
        assert!(promised >= before, "{kibibytes}: {line}");
        before = promised;
        let origin = Origin::echo();
        let held = all_sessions(&proxy, &origin);
        exchange_bulk(&held);
        // Thousands of small blocks.
        let rules = "permit c - - - - user=alice,bob,carol,dave\n".repeat(3000) + PERMIT_ALL;
        fs::write(proxy.config(), rules).expect("written");
        proxy.signal(Signal::SIGHUP);
        proxy.stderr_line("3001 rules in force");
        exchange_bulk(&held);
        drop(held);
        proxy.finish();
    }
}

/// A valid file of 3.9 MB, which takes some 90 MB of memory.
fn rules_beyond_a_group() -> String {
    let names: Vec<_> = (b'a'..=b'v')
        .map(|name| char::from(name).to_string())
        .collect();
    format!("permit c - - - - user={}\n", names.join(",")).repeat(59_000)
}

#[test]
fn s47_changed_rules_that_need_more_memory_than_is_left_change_nothing() {
    let Some(group) = MemoryGroup::with_limit("s47", 64 << 20) else {
        return;
    };
    let proxy = group.start(PERMIT_ALL, &[]);
    let origin = Origin::echo();
    let connect = || client::socks4::connect(dial(proxy.address()), &origin.destination(), b"");
    let is_told = "make the file smaller, or allow more memory";
    let replace = |rules: &str| {
        let new_file = proxy.folder().join("new");
        fs::write(&new_file, rules).expect("written");
        fs::rename(new_file, proxy.config()).expect("renamed");
    };
    replace(&rules_beyond_a_group());
    for _ in 0..20 {
        drop(connect().expect("granted"));
    }
    let line = proxy.stderr_line(is_told);
    assert!(
        line.contains("MiB are left of 64 MiB of memory (of its control group)"),
        "{line}"
    );
    // Once for the change, whatever the number of requests, and once for each SIGHUP.
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr(is_told, 2);
    let lines = proxy.stderr_lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains(is_told)).count(),
        2
    );
    drop(connect().expect("granted"));
    replace("deny - - - -\n");
    connect().expect_err("the new rules");
    // More memory is enough, without a change of the file.
    replace(&rules_beyond_a_group());
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr(is_told, 3);
    group.set_limit(256 << 20);
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("59000 rules in force");
    proxy.finish();
}

#[test]
fn s47_a_start_with_more_rules_than_fit_ends_with_an_error() {
    let Some(group) = MemoryGroup::with_limit("s47-start", 48 << 20) else {
        return;
    };
    let (status, stderr) = failed_start(&group.entering(), &rules_beyond_a_group());
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("MiB of memory more, and"), "{stderr}");
}
