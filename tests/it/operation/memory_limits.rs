//! What the server needs beside its sessions fits into little memory, address space or data.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::sys::signal::Signal;
use threadsocks::client;
use threadsocks::trace::MEMORY_OF_TRACE;

use super::machine_limits::{MemoryGroup, all_sessions, exchange_bulk, failed_start};
use crate::support::endpoints::{
    CLOSED, Origin, by_address, connect_through, dial, read_exactly, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup};

/// A server that `script` starts.
fn started_by(script: &str) -> Proxy {
    Proxy::with(Setup {
        wrapper: &["sh", "-c", script],
        ..Setup::default()
    })
}

/// The settings of the allocator in the environment of the server.
fn arenas_in_environment(proxy: &Proxy) -> Vec<String> {
    let environment = fs::read(format!("/proc/{}/environ", proxy.pid())).expect("an environment");
    let variables = environment.split(|&byte| byte == 0);
    let variables = variables.map(|it| String::from_utf8_lossy(it).into_owned());
    let arenas = variables.filter(|it| it.starts_with("MALLOC_ARENA"));
    arenas.collect()
}

#[test]
fn s50_limited_address_space_means_one_arena_in_the_same_process() {
    for (script, expected) in [
        ("exec \"$0\" \"$@\"", &[][..]),
        (
            "ulimit -v 300000; exec \"$0\" \"$@\"",
            &["MALLOC_ARENA_MAX=1"],
        ),
        (
            "ulimit -v 300000; MALLOC_ARENA_MAX=2 exec \"$0\" \"$@\"",
            &["MALLOC_ARENA_MAX=2"],
        ),
    ] {
        let proxy = started_by(script);
        assert_eq!(arenas_in_environment(&proxy), expected);
        let file = |name: &str| {
            let text = fs::read(format!("/proc/{}/{name}", proxy.pid())).expect(name);
            String::from_utf8_lossy(&text).into_owned()
        };
        assert_eq!(file("comm"), "threadsocks\n");
        let arguments = file("cmdline");
        let program = concat!(env!("CARGO_BIN_EXE_threadsocks"), "\0--bind\0");
        assert!(arguments.starts_with(program), "{arguments}");
        let origin = Origin::echo();
        let held: Vec<_> = (0..10)
            .map(|_| connect_through(proxy.address(), &origin.destination()))
            .collect();
        if expected == ["MALLOC_ARENA_MAX=1"] {
            // An arena would have 65,536 kB.
            let size = proxy.status("VmSize");
            assert!(size < 60_000, "{size} kB");
        }
        drop(held);
        proxy.finish();
    }
}

#[test]
fn s50_a_passed_listener_stays_with_limited_address_space() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = listener.try_clone().unwrap();
    let script = "ulimit -v 300000; \
                  LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    let proxy = Proxy::with(Setup {
        wrapper: &["sh", "-c", script],
        stdin: Some(Stdio::from(OwnedFd::from(passed))),
        ..Setup::default()
    });
    assert_eq!(proxy.address(), listener.local_addr().unwrap());
    assert_eq!(arenas_in_environment(&proxy), ["MALLOC_ARENA_MAX=1"]);
    let origin = Origin::echo();
    drop(connect_through(proxy.address(), &origin.destination()));
    proxy.finish();
}

/// Fills the log queue with the largest events of refused requests, and then uses all sessions.
fn fill_log_queue_and_sessions(script: &str) {
    const REQUESTS: usize = 5_000;
    // Nothing reads it.
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut proxy = Proxy::with(Setup {
        options: &["--log", "json"],
        wrapper: &["sh", "-c", script],
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    for _ in 0..REQUESTS {
        client::socks4::connect(dial(proxy.address()), &by_address(CLOSED.into()), &[1; 500])
            .expect_err("refused");
    }
    let origin = Origin::echo();
    let held = all_sessions(&proxy, &origin);
    exchange_bulk(&held);
    drop(held);
    proxy.assert_resources_released();
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

#[test]
fn s50_a_full_log_queue_and_all_sessions_fit_into_little_address_space() {
    fill_log_queue_and_sessions("ulimit -v 65536; exec \"$0\" \"$@\"");
}

#[test]
fn s52_a_full_log_queue_and_all_sessions_fit_into_a_small_group() {
    if let Some(group) = MemoryGroup::with_limit("s52", 20 << 20) {
        fill_log_queue_and_sessions(&group.entering());
    }
}

#[test]
fn s51_a_full_trace_and_all_sessions_fit_into_little_memory() {
    let Some(group) = MemoryGroup::with_limit("s51", MEMORY_OF_TRACE + (9 << 20)) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.json");
    let options = ["--trace", trace.to_str().unwrap(), "--grace", "0s"];
    let mut proxy = group.start(PERMIT_ALL, &options);
    let origin = Origin::echo();
    let held = all_sessions(&proxy, &origin);
    exchange_bulk(&held);
    // Each byte makes each of two threads wait.
    for _ in 0..60_000 {
        write(&held[0], b"x");
        assert_eq!(read_exactly(&held[0], 1), b"x");
    }
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    proxy.stderr_line("the trace is full after 100,000 events");
    assert!(fs::metadata(&trace).expect("a trace").len() > 1 << 20);
}

#[test]
fn s51_a_start_with_a_trace_that_does_not_fit_ends_with_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.json");
    let group = MemoryGroup::with_limit("s51-start", 24 << 20);
    let of_group = group
        .as_ref()
        .map(|group| (group.entering(), "24 MiB of memory (of its control group)"));
    let of_data = (
        "ulimit -d 50000; exec \"$0\" \"$@\"".to_owned(),
        "51200000 bytes of data (ulimit -d)",
    );
    for (script, limit) in [Some(of_data), of_group].into_iter().flatten() {
        let traced = script.replace("\"$@\"", &format!("--trace {} \"$@\"", trace.display()));
        let (status, stderr) = failed_start(&traced, PERMIT_ALL);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(limit), "{stderr}");
        assert!(stderr.contains("start without --trace"), "{stderr}");
        started_by(&script).finish();
    }
}

#[test]
fn s53_too_few_descriptors_or_threads_for_one_session_are_an_error() {
    for (limit, words) in [
        // The loader needs some, beside those that the test has inherited.
        ("--nofile=9", "more than 9 open files (ulimit -n)"),
        ("--nofile=18", "more than 18 open files (ulimit -n)"),
        ("--nproc=6", "more than 6 threads (ulimit -u"),
    ] {
        let script = format!("exec prlimit {limit} \"$0\" \"$@\"");
        let (status, stderr) = failed_start(&script, PERMIT_ALL);
        assert_eq!(status, Some(1), "{limit}: {stderr}");
        assert!(stderr.contains(words), "{limit}: {stderr}");
        assert!(stderr.contains("raise this limit"), "{limit}: {stderr}");
    }
}
