//! The contenders, each a child process that listens on loopback, and how to ask it for a connection.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use threadsocks::client::socks5::{self, Association};
use threadsocks::client::{ClientError, socks4};
use threadsocks::protocol::socks5::UdpHeader;
use threadsocks::protocol::{Destination, Host, ReplyError};

use crate::ends::{Pair, dial, listen};
use crate::tree::{self, Usage};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// No proxy at all: what the machine can do.
    Direct,
    /// The server this is all about.
    Ours,
    /// Another build of it.
    Before,
    /// Two threads a connection and `std::io::copy`.
    Plain,
    Microsocks,
    Dante,
}

impl Contender {
    pub(crate) const ALL: [Contender; 6] = [
        Contender::Direct,
        Contender::Ours,
        Contender::Before,
        Contender::Plain,
        Contender::Microsocks,
        Contender::Dante,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Direct => "direct",
            Contender::Ours => "threadsocks",
            Contender::Before => "before",
            Contender::Plain => "plain",
            Contender::Microsocks => "microsocks",
            Contender::Dante => "dante",
        }
    }

    /// Which version runs here, as Debian knows it.
    pub(crate) fn version(self) -> String {
        let package = match self {
            Contender::Ours => return env!("CARGO_PKG_VERSION").to_owned(),
            Contender::Direct | Contender::Before | Contender::Plain => return String::new(),
            Contender::Microsocks => "microsocks",
            Contender::Dante => "dante-server",
        };
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${Version}", package]);
        match query.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(_) => String::new(),
        }
    }
}

/// A contender that is ready.
pub(crate) struct Peer {
    pub(crate) contender: Contender,
    address: SocketAddr,
    /// None for the direct connection.
    server: Option<Server>,
}

struct Server {
    child: Child,
    /// Its configuration, and what it says on stderr.
    folder: TempDir,
}

/// Nothing that works takes longer to start.
const PATIENCE: Duration = Duration::from_secs(10);

impl Peer {
    /// Starts it, and proves by one connection that it relays.
    pub(crate) fn start(contender: Contender, before: Option<&Path>) -> Result<Peer, String> {
        let port = free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = match contender {
            Contender::Direct => None,
            _ => Some(Server::start(contender, port, before)?),
        };
        let mut peer = Peer {
            contender,
            address,
            server,
        };
        peer.wait_until_it_listens()?;
        let proof = Pair::open(&peer, &listen()).and_then(|pair| pair.exchange());
        proof.map_err(|error| format!("does not relay: {error}{}", peer.last_words()))?;
        Ok(peer)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while let Some(server) = &mut self.server {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("ended at once, {status}{}", self.last_words()));
            }
            if TcpStream::connect(self.address).is_ok() {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("does not listen{}", self.last_words()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let Some(server) = &self.server else {
            return String::new();
        };
        let words = fs::read_to_string(server.folder.path().join("stderr")).unwrap_or_default();
        format!("; it says {words:?}")
    }

    /// A new connection to this address, through the contender.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.contender {
            Contender::Direct => dial(to),
            // Which knows no SOCKS4.
            Contender::Microsocks => {
                let granted = socks5::connect(dial(self.address)?, None, &target(to));
                granted.map_err(io::Error::other)
            }
            _ => {
                let granted = socks4::connect(dial(self.address)?, &target(to), b"");
                granted.map_err(io::Error::other)
            }
        }
    }

    /// How datagrams get from one address to the other; nothing if the contender
    /// has no UDP.
    pub(crate) fn way(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Option<Way>> {
        match self.contender {
            Contender::Direct => return Ok(Some(Way::direct(to))),
            // Which knows no SOCKS5.
            Contender::Plain => return Ok(None),
            _ => {}
        }
        let control = dial(self.address)?;
        match socks5::associate(control, None, self.address.ip(), from) {
            Ok(association) => Ok(Some(Way::through(association, to))),
            Err(ClientError::Refused(ReplyError::CommandNotSupported)) => Ok(None),
            Err(why) => Err(io::Error::other(why)),
        }
    }

    /// CPU time so far, of all its processes.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let server = self.server.as_ref()?;
        Some(tree::cpu(server.child.id()))
    }

    /// What all its processes hold.
    pub(crate) fn usage(&self) -> Usage {
        let server = self.server.as_ref().expect("not the direct connection");
        tree::usage(server.child.id())
    }
}

/// How datagrams get to a target.
pub(crate) struct Way {
    /// Where they are sent.
    pub(crate) stop: SocketAddr,
    /// What stands in front of each, there and back.
    pub(crate) header: Vec<u8>,
    /// It ends with us.
    _association: Option<Association<TcpStream>>,
}

impl Way {
    fn direct(to: SocketAddr) -> Way {
        Way {
            stop: to,
            header: Vec::new(),
            _association: None,
        }
    }

    fn through(association: Association<TcpStream>, to: SocketAddr) -> Way {
        let header = UdpHeader {
            fragment: 0,
            target: target(to),
        };
        Way {
            stop: association.relay(),
            header: header.encode(),
            _association: Some(association),
        }
    }
}

fn target(address: SocketAddr) -> Destination {
    Destination {
        host: Host::Address(address.ip()),
        port: address.port(),
    }
}

impl Server {
    fn start(contender: Contender, port: u16, before: Option<&Path>) -> Result<Server, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let stderr = File::create(folder.path().join("stderr"));
        let stderr = stderr.map_err(|error| format!("no file: {error}"))?;
        let ours = Path::new(env!("CARGO_BIN_EXE_threadsocks"));
        let command = match contender {
            Contender::Direct => return Err("it has no server".to_owned()),
            Contender::Ours => threadsocks(ours, port, folder.path()),
            Contender::Before => threadsocks(before.unwrap_or(ours), port, folder.path()),
            Contender::Plain => plain_relay(port),
            Contender::Microsocks => Ok(microsocks(port)),
            Contender::Dante => dante(port, folder.path()),
        };
        let child = command.and_then(|mut command| {
            // A server with temporary files puts them where they are removed.
            command.env("TMPDIR", folder.path());
            // The plain relay leaves when this pipe ends, so when we do.
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            // Microsocks tells of every connection on stderr, as we do on stdout:
            // neither shall pay for a disk.
            command.stderr(match contender {
                Contender::Microsocks => Stdio::null(),
                _ => Stdio::from(stderr),
            });
            command.spawn()
        });
        match child {
            Ok(child) => Ok(Server { child, folder }),
            Err(error) => Err(format!("does not start: {error}")),
        }
    }
}

impl Drop for Server {
    /// Dante's children outlive it, so all of them are listed first.
    fn drop(&mut self) {
        for pid in tree::members(self.child.id()) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn threadsocks(binary: &Path, port: u16, folder: &Path) -> io::Result<Command> {
    let rules = folder.join("socks.conf");
    fs::write(&rules, "permit - - - - -\n")?;
    let mut command = Command::new(binary);
    command.args(["--bind", "127.0.0.1", "--config"]).arg(rules);
    command.arg(port.to_string());
    Ok(command)
}

/// This very program, in another process lest its CPU time be ours.
fn plain_relay(port: u16) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--plain-relay", &port.to_string()]);
    Ok(command)
}

fn microsocks(port: u16) -> Command {
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    command
}

fn dante(port: u16, folder: &Path) -> io::Result<Command> {
    // Root must say as whom it serves; others serve as themselves.
    let users = match fs::metadata("/proc/self")?.uid() {
        0 => "user.privileged: root\nuser.unprivileged: nobody\n",
        _ => "",
    };
    let config = format!(
        "logoutput: stderr\n\
         internal: 127.0.0.1 port = {port}\n\
         external: 127.0.0.1\n\
         clientmethod: none\n\
         socksmethod: none\n\
         {users}\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n"
    );
    let file = folder.join("danted.conf");
    fs::write(&file, config)?;
    // Debian calls it so and keeps it out of the path of most users.
    let places = [
        "/usr/sbin/danted",
        "/usr/sbin/sockd",
        "/usr/local/sbin/sockd",
    ];
    let installed = places.into_iter().find(|place| Path::new(place).exists());
    let mut command = Command::new(installed.unwrap_or("danted"));
    command.arg("-f").arg(file);
    command.arg("-p").arg(folder.join("pid"));
    Ok(command)
}

/// A port on which nobody listens now. Below those that the system gives out,
/// lest it give this one to somebody meanwhile.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000);
    let mut free = ports.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
    free.next().expect("a free port")
}
