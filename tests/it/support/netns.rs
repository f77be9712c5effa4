//! A network of the test's own, with routes, limits and names that nobody else has.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tempfile::TempDir;

use crate::support::tools::{is_installed, skip};

/// What the system resolver reads there at first: one server that answers soon
/// or is taken for dead, and only this machine's own names.
const RESOLVER: [(&str, &str); 3] = [
    (
        "/etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    ),
    ("/etc/nsswitch.conf", "hosts: files dns\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
];

/// A network and mount namespace, entered by the thread of a test. Whatever it
/// starts from there on, threads and programs, is in it as well.
pub(crate) struct Network {
    /// The files that stand for the resolver's.
    folder: TempDir,
}

/// Runs a test in a network of its own, with loopback up and nothing else. Says
/// so and skips it where the system does not allow that.
pub(crate) fn in_own_network(test: impl FnOnce(&Network) + Send) {
    if !is_installed("ip", "iproute2") {
        return;
    }
    // A thread cannot leave its namespaces again, so it is one for this test.
    let name = thread::current().name().map(str::to_owned);
    let builder = thread::Builder::new().name(name.unwrap_or_default());
    thread::scope(|scope| {
        let tested = builder.spawn_scoped(scope, || {
            match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => skip("namespaces are not allowed (not root?)"),
                entered => {
                    entered.expect("namespaces");
                    test(&Network::new());
                }
            }
        });
        let outcome = tested.expect("a thread").join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

impl Network {
    fn new() -> Network {
        // What is mounted from now on is seen here only.
        let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, all, None::<&str>).expect("mounts of our own");
        let network = Network {
            folder: tempfile::tempdir().expect("a folder"),
        };
        for (file, text) in RESOLVER {
            network.write_file(file, text);
            let ours = network.stand_in(file);
            let bind = MsFlags::MS_BIND;
            mount(Some(&ours), file, None::<&str>, bind, None::<&str>).expect("mounted");
        }
        network.ip("link set lo up");
        network
    }

    /// Where a file of the resolver really is.
    fn stand_in(&self, file: &str) -> PathBuf {
        self.folder.path().join(file.trim_start_matches("/etc/"))
    }

    /// From now on this file of the resolver says that.
    pub(crate) fn write_file(&self, file: &str, text: &str) {
        fs::write(self.stand_in(file), text).expect("written");
    }

    /// The resolver waits so many seconds for its name server, which is on loopback.
    pub(crate) fn set_resolver_timeout(&self, seconds: u32) {
        let text = format!("nameserver 127.0.0.1\noptions timeout:{seconds} attempts:1\n");
        self.write_file("/etc/resolv.conf", &text);
    }

    /// The host file.
    pub(crate) fn write_hosts(&self, lines: &str) {
        self.write_file("/etc/hosts", lines);
    }

    /// Changes addresses, links or routes; see ip(8).
    pub(crate) fn ip(&self, words: &str) {
        ip(words);
    }

    /// Sets a limit below /proc/sys/net/ipv4.
    pub(crate) fn set(&self, name: &str, value: &str) {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
    }

    /// From now on the system gives out four ports: 40000 to 40003.
    pub(crate) fn limit_to_four_ports(&self) {
        self.set("ip_local_port_range", "40000 40003");
    }

    /// Another machine, at 10.9.0.2, behind a wire of its own.
    pub(crate) fn second_host(&self) -> SecondHost {
        SecondHost::new()
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.expect("ip starts");
    assert!(output.status.success(), "ip {words}: {output:?}");
}

/// A second network, joined to the test's by a wire that can be cut.
pub(crate) struct SecondHost {
    orders: Sender<Box<dyn FnOnce() + Send>>,
}

impl SecondHost {
    fn new() -> SecondHost {
        let (orders, work): (_, Receiver<Box<dyn FnOnce() + Send>>) = bounded(0);
        let (tell, thread_id) = bounded(1);
        // Its network lives as long as this thread.
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("another network");
            tell.send(gettid()).expect("awaited");
            work.iter().for_each(|order| order());
        });
        let there = thread_id.recv().expect("another network");
        ip(&format!(
            "link add here type veth peer name there netns {there}"
        ));
        ip("addr add 10.9.0.1/24 dev here");
        ip("link set here up");
        let second_host = SecondHost { orders };
        second_host.run(|| {
            ip("link set lo up");
            ip("addr add 10.9.0.2/24 dev there");
            ip("link set there up");
        });
        second_host
    }

    /// Has something done over there.
    pub(crate) fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = bounded(1);
        let order = move || drop(tell.send(what()));
        self.orders.send(Box::new(order)).expect("it is there");
        told.recv().expect("done")
    }

    /// From now on nothing passes the wire, and nobody is told.
    pub(crate) fn disconnect(&self) {
        self.run(|| ip("link set there down"));
    }
}
