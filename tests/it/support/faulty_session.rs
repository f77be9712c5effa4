//! Sessions with a faulty link between client and proxy, or between proxy and remote.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use threadsocks::client;
use threadsocks::protocol::Command::{self, Associate, Bind, Connect};

use crate::support::endpoints::{accept, by_address, dial, request};
use crate::support::faulty_link::{Fault, Toward, network};
use crate::support::scripted_peer::Outcome;

/// The direction that has the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From client to remote.
    Up,
    /// From remote to client.
    Down,
}

/// The position of the faulty link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Between client and proxy.
    Client,
    /// Between proxy and remote.
    Remote,
}

/// A session to open: its command, and where the fault is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultySession {
    pub(crate) command: Command,
    pub(crate) direction: Direction,
    pub(crate) side: Side,
    /// The seed of the link's delays and sizes.
    pub(crate) seed: u64,
}

/// The peer that a BIND request expects. The port has no effect: a peer may connect
/// from any port.
const EXPECTED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 21);

impl FaultySession {
    /// The address to which the client connects: the proxy, or the link before it.
    pub(crate) fn client_address(self, proxy: SocketAddr, fault: Fault) -> SocketAddr {
        let directions = (Toward::Destination, Toward::Dialler);
        self.address_to_dial(Side::Client, proxy, directions, fault)
    }

    /// Opens the session on this connection to the proxy, and returns the sockets of
    /// both sides: client, remote.
    pub(crate) fn open(self, client: TcpStream, fault: Fault) -> (TcpStream, TcpStream) {
        match self.command {
            Connect => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let remote = listener.local_addr().unwrap();
                let directions = (Toward::Destination, Toward::Dialler);
                let remote = self.address_to_dial(Side::Remote, remote, directions, fault);
                let client =
                    client::socks4::connect(client, &by_address(remote), b"test").expect("granted");
                (client, accept(&listener))
            }
            Bind => {
                let binding = client::socks4::bind(client, &by_address(EXPECTED), b"test")
                    .expect("listening");
                let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, binding.address.port()));
                // For BIND the remote dials, so up leads to the dialler.
                let directions = (Toward::Dialler, Toward::Destination);
                let remote = dial(self.address_to_dial(Side::Remote, listener, directions, fault));
                (binding.wait().expect("granted").0, remote)
            }
            Associate => unreachable!("no stream"),
        }
    }

    /// The address to dial in order to reach `destination` on this side: that of a new
    /// link if the fault is on this side, `destination` itself if not. `up` and `down`
    /// are the link's names for the session's directions.
    fn address_to_dial(
        self,
        side: Side,
        destination: SocketAddr,
        (up, down): (Toward, Toward),
        fault: Fault,
    ) -> SocketAddr {
        match self.direction {
            _ if side != self.side => destination,
            Direction::Up => network(destination, up, fault, self.seed),
            Direction::Down => network(destination, down, fault, self.seed),
        }
    }

    /// The length of the handshake in bytes, in the direction and on the side of the
    /// fault. The positions of a fault count them too.
    pub(crate) fn handshake_bytes(self) -> u64 {
        match (self.side, self.direction, self.command) {
            (Side::Remote, ..) => 0,
            (_, Direction::Up, command) => {
                request(command, &by_address(EXPECTED), b"test").len() as u64
            }
            // One reply of eight bytes for CONNECT, two for BIND.
            (_, Direction::Down, Connect) => 8,
            (_, Direction::Down, Bind) => 16,
            (_, Direction::Down, Associate) => unreachable!("no stream"),
        }
    }

    /// Orders the outcomes of both sides: first that of the side which receives
    /// through the fault.
    pub(crate) fn receiver_first(self, client: Outcome, remote: Outcome) -> (Outcome, Outcome) {
        match self.direction {
            Direction::Up => (remote, client),
            Direction::Down => (client, remote),
        }
    }
}
