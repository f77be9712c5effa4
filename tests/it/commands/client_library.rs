//! Our SOCKS5 client asks our server, and those of other people.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use threadsocks::client::{ClientError, socks5};
use threadsocks::protocol::ReplyError;
use threadsocks::protocol::socks5::Credentials;

use crate::support::child::RunningChild;
use crate::support::endpoints::{
    Origin, accept, by_address, by_name, dial, free_ports, random_bytes, read_all, read_exactly,
    shutdown_write, write,
};
use crate::support::proxy::Proxy;
use crate::support::tools::is_installed;
use crate::support::wait::TIMEOUT;
use crate::support::wait::until;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// By its whole name, because only administrators have its folder on their path.
const DANTE: &str = "/usr/sbin/danted";

fn login(user: &str, password: &str) -> Credentials {
    let [user, password] = [user, password].map(|it| it.as_bytes().to_vec());
    Credentials { user, password }
}

/// There is an echo behind this connection.
fn talks(client: &TcpStream, data: &[u8]) {
    write(client, data);
    shutdown_write(client);
    assert_eq!(read_all(client), data);
}

/// Binds for a peer of this address and talks to it.
fn binds(server: SocketAddr, peer: IpAddr) {
    let expected = by_address((peer, 0).into());
    let binding = socks5::bind(dial(server), None, &expected).expect("listening");
    let ip = binding.address.host.address().expect("no name");
    let remote = dial((ip, binding.address.port).into());
    let (client, told) = binding.wait().expect("granted");
    assert_eq!(told, by_address(remote.local_addr().unwrap()));
    write(&remote, b"from the peer");
    assert_eq!(read_exactly(&client, 13), b"from the peer");
    write(&client, b"back");
    assert_eq!(read_exactly(&remote, 4), b"back");
}

#[test]
fn our_client_is_understood_by_our_server() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    for target in [origin.destination(), by_name("localhost", origin.port())] {
        // Our server needs no login; the client does without.
        for login in [None, Some(&login("me", "secret"))] {
            let asked = socks5::connect(dial(proxy.address()), login, &target);
            talks(&asked.expect("granted"), b"hello");
        }
    }
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let target = by_address(listener.local_addr().unwrap());
    let asked = socks5::connect(dial(proxy.address()), None, &target);
    let client = asked.expect("granted");
    write(&accept(&listener), b"by IPv6");
    assert_eq!(read_all(&client), b"by IPv6");
    drop(client);
    binds(proxy.address(), LOCALHOST.into());
    let closed = by_address(crate::support::endpoints::CLOSED.into());
    let refused = socks5::connect(dial(proxy.address()), None, &closed);
    let reason = ReplyError::ConnectionRefused;
    assert!(matches!(refused, Err(ClientError::Refused(why)) if why == reason));
    proxy.finish();
}

/// A server of somebody else.
struct Other {
    address: SocketAddr,
    _running: RunningChild,
    _folder: TempDir,
}

impl Other {
    /// Starts what this makes of a free port and a folder for its files.
    fn start(command: impl FnOnce(u16, &Path) -> Command) -> Other {
        let port = free_ports(1);
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(port, folder.path());
        let mut running = RunningChild::start(command.env("TMPDIR", folder.path()), b"");
        let address = SocketAddr::from((LOCALHOST, port));
        until("a server that listens", || {
            running.assert_running();
            TcpStream::connect(address).ok()
        });
        Other {
            address,
            _running: running,
            _folder: folder,
        }
    }

    /// Dante, which relays everything on loopback. Root must say as whom it
    /// serves; others serve as themselves.
    fn dante() -> Option<Other> {
        let start = |port, folder: &Path| {
            let users = match nix::unistd::geteuid().is_root() {
                true => "user.privileged: root\nuser.unprivileged: nobody\n",
                false => "",
            };
            let config = format!(
                "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n\
                 clientmethod: none\nsocksmethod: none\n{users}\
                 client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n"
            );
            let file = folder.join("danted.conf");
            fs::write(&file, config).unwrap();
            let mut command = Command::new(DANTE);
            command.arg("-f").arg(file);
            command.arg("-p").arg(folder.join("pid"));
            command
        };
        is_installed(DANTE, "dante-server").then(|| Other::start(start))
    }

    /// Microsocks, which wants this login.
    fn microsocks(user: &str, password: &str) -> Option<Other> {
        let start = |port: u16, _: &Path| {
            let mut command = Command::new("microsocks");
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            command.args(["-u", user, "-P", password]);
            command
        };
        is_installed("microsocks", "microsocks").then(|| Other::start(start))
    }
}

#[test]
fn our_client_is_understood_by_dante() {
    let Some(dante) = Other::dante() else {
        return;
    };
    for target in [
        Origin::echo().destination(),
        by_name("localhost", Origin::echo().port()),
    ] {
        let asked = socks5::connect(dial(dante.address), None, &target);
        talks(&asked.expect("granted"), b"hello");
    }
    binds(dante.address, LOCALHOST.into());
}

#[test]
fn microsocks_takes_the_login_of_our_client_and_no_other() {
    let Some(microsocks) = Other::microsocks("me", "secret") else {
        return;
    };
    let target = Origin::echo().destination();
    let ask = |login: Option<Credentials>| {
        socks5::connect(dial(microsocks.address), login.as_ref(), &target)
    };
    let welcome = ask(Some(login("me", "secret")));
    // It takes the end of one direction for the end of both.
    let client = welcome.expect("granted");
    write(&client, b"hello");
    assert_eq!(read_exactly(&client, 5), b"hello");
    let denied = ask(Some(login("me", "guess")));
    assert!(
        matches!(denied, Err(ClientError::LoginDenied)),
        "{denied:?}"
    );
    let anonymous = ask(None);
    assert!(
        matches!(anonymous, Err(ClientError::NoMethod)),
        "{anonymous:?}"
    );
}

#[test]
fn dante_relays_the_datagrams_of_our_client() {
    if let Some(dante) = Other::dante() {
        relays_datagrams(dante.address);
    }
}

#[test]
fn our_server_relays_the_datagrams_of_our_client() {
    let proxy = Proxy::open();
    relays_datagrams(proxy.address());
    proxy.finish();
}

fn relays_datagrams(server: SocketAddr) {
    let socket = socket();
    let from = socket.local_addr().unwrap();
    let control = dial(server);
    let reached = control.peer_addr().unwrap().ip();
    let association = socks5::associate(control, None, reached, from).expect("granted");
    let mut buffer = vec![0; 65_536];
    // To more than one, from one association.
    for size in [0, 1, 1400, 60_000] {
        let far = self::socket();
        let data = random_bytes(5, size);
        let target = by_address(far.local_addr().unwrap());
        association.send(&socket, &data, &target).expect("sent");
        let (count, relay) = far.recv_from(&mut buffer).expect("relayed");
        assert_eq!(buffer[..count], data);
        far.send_to(&data, relay).unwrap();
        let (who, back) = association.receive(&socket, &mut buffer).expect("back");
        assert_eq!((who, back), (target, &data[..]));
    }
}

/// For datagrams on loopback.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}
