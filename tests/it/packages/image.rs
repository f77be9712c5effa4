//! The files of the container image, without Docker: by chroot(1) in a process namespace.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{BUILD_TIMEOUT, assert_listed, files_below, run, succeed, target};
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{Origin, by_name, connect_through, read_exactly, write};
use crate::support::netns::in_own_network;
use crate::support::project::{project, project_file};
use crate::support::proxy::PERMIT_ALL;
use crate::support::wait::until;

/// Docker kills a server that has not ended so long after SIGTERM.
const DOCKER_STOP: Duration = Duration::from_secs(10);

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1080);

/// The files of the image, in a folder.
struct Image {
    folder: TempDir,
}

impl Image {
    fn new() -> Image {
        succeed(Command::new("make").current_dir(project()), BUILD_TIMEOUT);
        let folder = tempfile::tempdir().unwrap();
        let program = target().join("release/threadsocks");
        run(
            "packaging/image-files",
            &[program.to_str().unwrap(), folder.path().to_str().unwrap()],
        );
        Image { folder }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Starts a command in the image, by its user and as the first process of a namespace.
    fn start(&self, command: &[String]) -> RunningChild {
        let user = instruction("USER ");
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child"]);
        unshare.args(["chroot", "--userspec", &user]);
        unshare.arg(self.folder.path()).args(command);
        RunningChild::start(&mut unshare, b"")
    }
}

/// The rest of the line of the Dockerfile that begins with this word.
fn instruction(word: &str) -> String {
    let dockerfile = project_file("Dockerfile");
    let mut lines = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix(word));
    lines.next().expect(word).to_owned()
}

/// A command in the Dockerfile: a list in JSON.
fn command_after(word: &str) -> Vec<String> {
    let line = instruction(word);
    let command = line
        .find('[')
        .and_then(|start| line.get(start..))
        .expect(word);
    serde_json::from_str(command).expect(word)
}

/// The child of this process, in the namespace of the test.
fn child_of(process: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.ok()?.trim().parse().ok().map(Pid::from_raw)
}

#[test]
#[ignore = "builds packages"]
fn p10_the_files_of_the_image_are_a_server_that_looks_names_up_and_stops_in_time() {
    let image = Image::new();
    if cfg!(target_arch = "x86_64") {
        assert_listed(
            files_below(image.folder.path().to_str().unwrap()),
            "image.list",
        );
    }
    let server = [command_after("ENTRYPOINT "), command_after("CMD ")].concat();
    let health = command_after("HEALTHCHECK ");
    in_own_network(|_| {
        let output = image.start(&server).wait_for_exit(LONG_TIMEOUT);
        assert_eq!(output.status.code(), Some(1), "{output:#?}");
        assert!(
            output.stderr.contains("/etc/threadsocks/socks.conf"),
            "{output:#?}"
        );
        assert!(output.stderr.contains("No such file"), "{output:#?}");
        let output = image.start(&health).wait_for_exit(LONG_TIMEOUT);
        assert_eq!(output.status.code(), Some(1), "{output:#?}");

        // Docker writes the files of the resolver, and mounts the rules.
        image.write("etc/hosts", "127.0.0.1 in-hosts.test\n");
        image.write("etc/resolv.conf", "nameserver 127.0.0.1\n");
        image.write("etc/threadsocks/socks.conf", PERMIT_ALL);
        let _names = NameServer::start(|_| addresses(&["127.0.0.1"]));
        let mut running = image.start(&server);
        until("the server", || {
            running.assert_running();
            TcpStream::connect(SERVER).ok()
        });
        let output = image.start(&health).wait_for_exit(LONG_TIMEOUT);
        assert_eq!(output.status.code(), Some(0), "{output:#?}");

        let origin = Origin::echo();
        let sessions = ["in-hosts.test", "in-dns.test"].map(|name| {
            let client = connect_through(SERVER, &by_name(name, origin.port()));
            write(&client, b"echo");
            assert_eq!(read_exactly(&client, 4), b"echo");
            client
        });
        let began = Instant::now();
        signal::kill(child_of(running.id()).unwrap(), Signal::SIGTERM).unwrap();
        let output = running.wait_for_exit(DOCKER_STOP);
        assert_eq!(output.status.code(), Some(0), "{output:#?}");
        assert!(began.elapsed() < DOCKER_STOP);
        drop(sessions);
    });
}
