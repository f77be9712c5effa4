//! Programs that serve, hold connections, or leave a process in the background.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::{Origin, dial, read_exactly, write};
use crate::support::proxy::Proxy;
use crate::support::run::{VERSIONS, output_of, run, sessions};
use crate::support::tools::is_installed;
use crate::support::wait::until;
use crate::support::web_site::{Page, WebSite};

const GREETING: &str = "a page of this site\n";
const SITE: &[Page] = &[("/", "text/plain", GREETING)];

/// Loopback addresses that no other test uses, so that a free port stays free until the program
/// binds it.
const NGINX: Ipv4Addr = Ipv4Addr::new(127, 117, 0, 1);
const SSHD: Ipv4Addr = Ipv4Addr::new(127, 117, 0, 2);
const GIT: Ipv4Addr = Ipv4Addr::new(127, 117, 0, 3);

fn free_port(ip: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Waits until the program listens.
fn until_it_listens(address: SocketAddr, program: &mut RunningChild) {
    until("a server", || {
        program.assert_running();
        TcpStream::connect(address).ok()
    });
}

#[test]
fn k11_nginx_reaches_its_upstream_with_epoll() {
    if !is_installed("nginx", "nginx-light") || !is_installed("curl", "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    for version in VERSIONS {
        let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
        let proxy = Proxy::open();
        let address = free_port(NGINX);
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};"))
            .join(" ");
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log stderr;\n\
             events {{ use epoll; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen {address};\n\
             location / {{ proxy_pass http://{}; }}\n\
             location /closed {{ proxy_pass http://127.0.0.1:1; }} }} }}\n",
            site.address(),
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = run((version, proxy.address()));
        command.args(["nginx", "-e", "stderr", "-c"]).arg(&file);
        let mut nginx = RunningChild::start(&mut command, b"");
        until_it_listens(address, &mut nginx);
        assert_eq!(fetch(&format!("http://{address}/")), GREETING);
        assert_eq!(fetch(&format!("http://{address}/")), GREETING);
        let closed = fetch(&format!("http://{address}/closed"));
        assert!(closed.contains("502 Bad Gateway"), "{closed}");
        let served = format!("{} CONNECT Accept", site.address());
        let sessions = sessions(&proxy, 3);
        assert_eq!(sessions[..2], [served.clone(), served]);
        assert_eq!(sessions[2], "127.0.0.1:1 CONNECT Reject");
        nginx.terminate();
        let output = nginx.wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        assert!(
            output.stderr.contains("(111: Connection refused)"),
            "{output:#?}"
        );
        proxy.finish();
    }
}

fn fetch(url: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-q", "--silent", "--noproxy", "*", url]);
    RunningChild::start(&mut curl, b"")
        .wait_for_exit(LONG_TIMEOUT)
        .text()
}

/// A running sshd, and the options of ssh for it.
struct SshServer {
    address: SocketAddr,
    options: Vec<String>,
    user: String,
    _running: RunningChild,
}

impl SshServer {
    /// Starts a server for the user of the test.
    fn start(folder: &Path) -> SshServer {
        for name in ["host", "user"] {
            let mut generate = Command::new("ssh-keygen");
            generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            let output = generate.arg(folder.join(name)).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        // A server of root's needs the folder; Debian's service creates it.
        let _ = fs::create_dir("/run/sshd");
        let address = free_port(SSHD);
        let path = folder.display();
        let config = format!(
            "ListenAddress {address}\nHostKey {path}/host\nStrictModes no\nUsePAM no\n\
             AuthorizedKeysFile {path}/user.pub\nPidFile none\n"
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"));
        let mut running = RunningChild::start(&mut sshd, b"");
        until_it_listens(address, &mut running);
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let options = format!(
            "-F none -i {path}/user -p {} -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes",
            address.port()
        );
        SshServer {
            address,
            options: options.split(' ').map(str::to_owned).collect(),
            user: String::from_utf8(user).unwrap().trim_end().to_owned(),
            _running: running,
        }
    }

    fn destination(&self) -> String {
        format!("{}@{}", self.user, self.address.ip())
    }

    /// Runs ssh with these further options and words through the proxy.
    fn ssh(&self, version: &str, proxy: &Proxy, options: &[&str], words: &[&str]) -> ChildOutput {
        let destination = self.destination();
        let own = self.options.iter().map(String::as_str);
        let all: Vec<&str> = ["ssh"]
            .into_iter()
            .chain(own)
            .chain(options.iter().copied())
            .chain([destination.as_str()])
            .chain(words.iter().copied())
            .collect();
        output_of(version, proxy, &all)
    }
}

#[test]
fn k12_ssh_runs_a_command_and_forwards_a_port_in_the_background() {
    if !is_installed("/usr/sbin/sshd", "openssh-server") || !is_installed("ssh", "openssh-client") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = SshServer::start(folder.path());
    let connected = format!("{} CONNECT Accept", server.address);
    for version in VERSIONS {
        let proxy = Proxy::open();
        let output = server.ssh(version, &proxy, &[], &["echo", "hello;", "exit", "5"]);
        assert_eq!(output.text(), "hello\n", "{output:#?}");
        assert_eq!(output.status.code(), Some(5));
        // The first process ends, and the shell goes on; another one stays and forwards.
        let (forwarded, origin) = (free_port(SSHD), Origin::echo());
        let forward = format!("{forwarded}:127.0.0.1:{}", origin.port());
        let control = folder.path().join("control");
        let control = format!("ControlPath={}", control.display());
        let options = [
            "-f",
            "-N",
            "-M",
            "-o",
            &control,
            "-o",
            "ExitOnForwardFailure=yes",
            "-L",
            &forward,
        ];
        let output = server.ssh(version, &proxy, &options, &[]);
        assert!(output.status.success(), "{output:#?}");
        for _ in 0..2 {
            let client = dial(forwarded);
            write(&client, b"by ssh");
            assert_eq!(read_exactly(&client, 6), b"by ssh");
        }
        let mut end = Command::new("ssh");
        end.args(["-F", "none", "-O", "exit", "-o", &control, "x"]);
        assert!(end.output().unwrap().status.success());
        assert_eq!(sessions(&proxy, 2), [connected.clone(), connected.clone()]);
        proxy.finish();
    }
}

#[test]
fn k12_git_fetches_over_its_own_protocol() {
    if !is_installed("git", "git") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=Tests", "-c", "user.email=tests@localhost"]);
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet", &path("source")]);
    git(&[
        "-C",
        &path("source"),
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "a commit",
    ]);
    let address = free_port(GIT);
    let mut daemon = Command::new("git");
    daemon.args(["daemon", "--export-all", "--reuseaddr"]);
    daemon.args([
        format!("--listen={}", address.ip()),
        format!("--port={}", address.port()),
        format!("--base-path={}", path("")),
    ]);
    let mut daemon = RunningChild::start(&mut daemon, b"");
    until_it_listens(address, &mut daemon);
    for version in VERSIONS {
        let proxy = Proxy::open();
        let (url, copy) = (format!("git://{address}/source"), path(version));
        let words = ["git", "clone", "--quiet", &url, &copy];
        let output = output_of(version, &proxy, &words);
        assert!(output.status.success(), "{output:#?}");
        git(&["-C", &copy, "log", "-1"]);
        let expected = format!("{address} CONNECT Accept");
        assert_eq!(sessions(&proxy, 1), [expected]);
        proxy.finish();
    }
}

#[test]
fn k13_bytes_that_a_program_has_written_arrive_after_its_end() {
    if !is_installed("python3", "python3") {
        return;
    }
    // The socket does not block, so the supervisor copies; the peer reads late.
    const SCRIPT: &str = "
import select, socket, sys
stream = socket.socket()
stream.setblocking(False)
try:
    stream.connect(('127.0.0.1', int(sys.argv[1])))
except BlockingIOError:
    pass
select.select([], [stream], [])
stream.setblocking(True)
stream.sendall(b'x' * 4000000)
";
    let (sender, received) = crossbeam_channel::unbounded();
    let origin = Origin::start(move |client| {
        std::thread::sleep(Duration::from_millis(300));
        let _ = sender.send(crate::support::endpoints::read_all(&client).len());
    });
    for version in VERSIONS {
        let proxy = Proxy::open();
        let port = origin.port().to_string();
        let output = output_of(version, &proxy, &["python3", "-c", SCRIPT, &port]);
        assert!(output.status.success(), "{output:#?}");
        assert_eq!(received.recv_timeout(LONG_TIMEOUT), Ok(4_000_000));
        proxy.finish();
    }
}
