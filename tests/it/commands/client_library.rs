//! The SOCKS5 client library against threadsocks, Dante and microsocks.

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

/// An absolute path, because /usr/sbin is often missing from the PATH of a user.
const DANTE: &str = "/usr/sbin/danted";

fn credentials(user: &str, password: &str) -> Credentials {
    let [user, password] = [user, password].map(|text| text.as_bytes().to_vec());
    Credentials { user, password }
}

/// The remote end of this connection must be an echo server.
fn assert_echoes(client: &TcpStream, data: &[u8]) {
    write(client, data);
    shutdown_write(client);
    assert_eq!(read_all(client), data);
}

/// BIND for a peer at this address must relay in both directions.
fn assert_bind_relays(server: SocketAddr, peer: IpAddr) {
    let expected = by_address((peer, 0).into());
    let binding = socks5::bind(dial(server), None, &expected).expect("listening");
    let ip = binding
        .address
        .host
        .address()
        .expect("an address, not a name");
    let remote = dial((ip, binding.address.port).into());
    let (client, reported) = binding.wait().expect("granted");
    assert_eq!(reported, by_address(remote.local_addr().unwrap()));
    write(&remote, b"from the peer");
    assert_eq!(read_exactly(&client, 13), b"from the peer");
    write(&client, b"back");
    assert_eq!(read_exactly(&remote, 4), b"back");
}

#[test]
fn the_client_library_works_with_threadsocks() {
    let proxy = Proxy::open();
    let origin = Origin::echo();
    for target in [origin.destination(), by_name("localhost", origin.port())] {
        // The server requires no login: the client offers one and accepts method 00.
        for credentials in [None, Some(&credentials("me", "secret"))] {
            let result = socks5::connect(dial(proxy.address()), credentials, &target);
            assert_echoes(&result.expect("granted").0, b"hello");
        }
    }
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let target = by_address(listener.local_addr().unwrap());
    let result = socks5::connect(dial(proxy.address()), None, &target);
    let (client, bound) = result.expect("granted");
    let remote = accept(&listener);
    assert_eq!(bound, by_address(remote.peer_addr().unwrap()));
    write(&remote, b"by IPv6");
    drop(remote);
    assert_eq!(read_all(&client), b"by IPv6");
    drop(client);
    assert_bind_relays(proxy.address(), LOCALHOST.into());
    let closed = by_address(crate::support::endpoints::CLOSED.into());
    let refused = socks5::connect(dial(proxy.address()), None, &closed);
    let reason = ReplyError::ConnectionRefused;
    assert!(matches!(refused, Err(ClientError::Refused(error)) if error == reason));
    proxy.finish();
}

/// A running SOCKS server other than threadsocks.
struct ThirdPartyServer {
    address: SocketAddr,
    _running: RunningChild,
    _folder: TempDir,
}

impl ThirdPartyServer {
    /// Starts the command that `command` builds from a free port and a folder for
    /// files, and waits until the server listens.
    fn start(command: impl FnOnce(u16, &Path) -> Command) -> ThirdPartyServer {
        let port = free_ports(1);
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(port, folder.path());
        let mut running = RunningChild::start(command.env("TMPDIR", folder.path()), b"");
        let address = SocketAddr::from((LOCALHOST, port));
        until("the server to listen", || {
            running.assert_running();
            TcpStream::connect(address).ok()
        });
        ThirdPartyServer {
            address,
            _running: running,
            _folder: folder,
        }
    }

    /// Dante, which permits everything on loopback. Started by root, it needs the
    /// accounts to run as; `None` if it is not installed.
    fn dante() -> Option<ThirdPartyServer> {
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
        is_installed(DANTE, "dante-server").then(|| ThirdPartyServer::start(start))
    }

    /// Microsocks, which requires these credentials; `None` if it is not installed.
    fn microsocks(user: &str, password: &str) -> Option<ThirdPartyServer> {
        let start = |port: u16, _: &Path| {
            let mut command = Command::new("microsocks");
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            command.args(["-u", user, "-P", password]);
            command
        };
        is_installed("microsocks", "microsocks").then(|| ThirdPartyServer::start(start))
    }
}

#[test]
fn the_client_library_works_with_dante() {
    let Some(dante) = ThirdPartyServer::dante() else {
        return;
    };
    for target in [
        Origin::echo().destination(),
        by_name("localhost", Origin::echo().port()),
    ] {
        let result = socks5::connect(dial(dante.address), None, &target);
        assert_echoes(&result.expect("granted").0, b"hello");
    }
    assert_bind_relays(dante.address, LOCALHOST.into());
}

#[test]
fn microsocks_accepts_only_correct_credentials_of_the_client_library() {
    let Some(microsocks) = ThirdPartyServer::microsocks("me", "secret") else {
        return;
    };
    let target = Origin::echo().destination();
    let connect = |credentials: Option<Credentials>| {
        socks5::connect(dial(microsocks.address), credentials.as_ref(), &target)
    };
    let granted = connect(Some(credentials("me", "secret")));
    // No half-close here: microsocks ends both directions at the first EOF.
    let (client, _) = granted.expect("granted");
    write(&client, b"hello");
    assert_eq!(read_exactly(&client, 5), b"hello");
    let denied = connect(Some(credentials("me", "guess")));
    assert!(
        matches!(denied, Err(ClientError::LoginDenied)),
        "{denied:?}"
    );
    let anonymous = connect(None);
    assert!(
        matches!(anonymous, Err(ClientError::NoMethod)),
        "{anonymous:?}"
    );
}

#[test]
fn dante_relays_datagrams_of_the_client_library() {
    if let Some(dante) = ThirdPartyServer::dante() {
        assert_relays_datagrams(dante.address);
    }
}

#[test]
fn threadsocks_relays_datagrams_of_the_client_library() {
    let proxy = Proxy::open();
    assert_relays_datagrams(proxy.address());
    proxy.finish();
}

/// The server must relay datagrams of all sizes in both directions.
fn assert_relays_datagrams(server: SocketAddr) {
    let socket = udp_socket();
    let from = socket.local_addr().unwrap();
    let control = dial(server);
    let reached = control.peer_addr().unwrap().ip();
    let association = socks5::associate(control, None, reached, from).expect("granted");
    let mut buffer = vec![0; 65_536];
    // One association serves several destinations.
    for size in [0, 1, 1400, 60_000] {
        let remote = udp_socket();
        let data = random_bytes(5, size);
        let target = by_address(remote.local_addr().unwrap());
        association.send(&socket, &data, &target).expect("sent");
        let (count, relay) = remote.recv_from(&mut buffer).expect("relayed");
        assert_eq!(buffer[..count], data);
        remote.send_to(&data, relay).unwrap();
        let (source, back) = association
            .receive(&socket, &mut buffer)
            .expect("an answer");
        assert_eq!((source, back), (target, &data[..]));
    }
}

/// A UDP socket on loopback whose reads time out.
fn udp_socket() -> UdpSocket {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}
