//! A network namespace for one test, with its own routes, limits and names.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tempfile::TempDir;

use crate::support::tools::{is_installed, skip};
use crate::support::wait::until;

/// The resolver's files at first: one name server with a timeout of one second, and
/// a hosts file with localhost only.
const RESOLVER: [(&str, &str); 3] = [
    (
        "/etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    ),
    ("/etc/nsswitch.conf", "hosts: files dns\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
];

/// A network and mount namespace that the thread of a test has entered. Threads and
/// child processes that it starts from then on are in it too.
pub(crate) struct Network {
    /// The files that are bind-mounted over those of the resolver.
    folder: TempDir,
}

/// Runs a test in a network of its own, in which only loopback is up. Skips the test
/// with a message where the system does not permit namespaces.
pub(crate) fn in_own_network(test: impl FnOnce(&Network) + Send) {
    if !is_installed("ip", "iproute2") {
        return;
    }
    // A thread cannot leave its namespaces again, so the test gets a new thread.
    let name = thread::current().name().map(str::to_owned);
    let builder = thread::Builder::new().name(name.unwrap_or_default());
    thread::scope(|scope| {
        let thread = builder.spawn_scoped(scope, || {
            match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => skip("the system permits no namespaces (not root?)"),
                result => {
                    result.expect("namespaces");
                    test(&Network::new());
                }
            }
        });
        let outcome = thread.expect("a thread").join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

impl Network {
    fn new() -> Network {
        // Mounts from now on are visible in this namespace only.
        let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, all, None::<&str>).expect("private mounts");
        let network = Network {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        for (file, text) in RESOLVER {
            network.write_file(file, text);
            let replacement = network.replacement(file);
            let bind = MsFlags::MS_BIND;
            mount(Some(&replacement), file, None::<&str>, bind, None::<&str>).expect("mounted");
        }
        network.ip("link set lo up");
        network
    }

    /// The path of the file that replaces this file of the resolver.
    fn replacement(&self, file: &str) -> PathBuf {
        self.folder.path().join(file.trim_start_matches("/etc/"))
    }

    /// Replaces the text of one of the resolver's files.
    pub(crate) fn write_file(&self, file: &str, text: &str) {
        fs::write(self.replacement(file), text).expect("written");
    }

    /// Sets how many seconds the resolver waits for the name server on loopback.
    pub(crate) fn set_resolver_timeout(&self, seconds: u32) {
        let text = format!("nameserver 127.0.0.1\noptions timeout:{seconds} attempts:1\n");
        self.write_file("/etc/resolv.conf", &text);
    }

    /// Replaces the hosts file.
    pub(crate) fn write_hosts(&self, lines: &str) {
        self.write_file("/etc/hosts", lines);
    }

    /// Changes addresses, links or routes with ip(8).
    pub(crate) fn ip(&self, arguments: &str) {
        ip(arguments);
    }

    /// Adds an IPv6 address to loopback. The kernel installs its routes a moment later: waits
    /// until the address refuses a connection.
    pub(crate) fn add_ipv6(&self, address: IpAddr) {
        self.ip(&format!("addr add {address}/128 dev lo nodad"));
        let no_listener = SocketAddr::new(address, 1);
        until("a route", || {
            let connected = TcpStream::connect_timeout(&no_listener, Duration::from_millis(100));
            let error = connected.expect_err("no listener");
            (error.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
    }

    /// Sets a parameter below /proc/sys/net/ipv4.
    pub(crate) fn set(&self, name: &str, value: &str) {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
    }

    /// Makes all addresses of 2001:db8::/32 (RFC 3849) the machine's own, so that a client
    /// may have any of them.
    pub(crate) fn own_documentation_prefix(&self) {
        self.ip("-6 route add local 2001:db8::/32 dev lo");
        fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").expect("set");
    }

    /// Limits the local ports that the system gives out to 40000 to 40003.
    pub(crate) fn limit_to_four_ports(&self) {
        self.set("ip_local_port_range", "40000 40003");
    }

    /// Adds a second host with address 10.9.0.2, on a link of its own.
    pub(crate) fn second_host(&self) -> SecondHost {
        SecondHost::new()
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("ip starts");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Work for the thread of a [`SecondHost`].
type Job = Box<dyn FnOnce() + Send>;

/// A second network namespace, joined to the test's by a veth pair that can be taken
/// down.
pub(crate) struct SecondHost {
    /// Jobs for the thread inside that namespace.
    jobs: Sender<Job>,
}

impl SecondHost {
    fn new() -> SecondHost {
        let (jobs, queue): (_, Receiver<Job>) = bounded(0);
        let (send_id, thread_id) = bounded(1);
        // The namespace exists as long as this thread, which ends when `jobs` is dropped.
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a second network namespace");
            send_id.send(gettid()).expect("a receiver");
            queue.iter().for_each(|job| job());
        });
        let second = thread_id.recv().expect("a second network namespace");
        ip(&format!(
            "link add here type veth peer name there netns {second}"
        ));
        ip("addr add 10.9.0.1/24 dev here");
        ip("link set here up");
        let second_host = SecondHost { jobs };
        second_host.run(|| {
            ip("link set lo up");
            ip("addr add 10.9.0.2/24 dev there");
            ip("link set there up");
        });
        second_host
    }

    /// Runs a job on a thread in the second host's network, and returns its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (send_result, result) = bounded(1);
        let job = move || drop(send_result.send(job()));
        self.jobs.send(Box::new(job)).expect("a running thread");
        result.recv().expect("a job without a panic")
    }

    /// Takes the link down at the second host: from then on packets are lost, and no
    /// host receives an error.
    pub(crate) fn disconnect(&self) {
        self.run(|| ip("link set there down"));
    }
}
