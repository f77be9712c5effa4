//! BIND: the target connects to the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use super::House;
use super::destination::{Candidate, candidates};
use super::duplex::{Down, Ready, Relay};
use super::enforce;
use super::notes::Notes;
use super::permission::{obey, question};
use super::registry::Visit;
use crate::event::{Asked, Cause};
use crate::firewall::Question;
use crate::net::{self, Came, Deadline};

/// Who may come.
enum Expected {
    /// The request said 0.0.0.0 or ::, which is kept here: whoever the rules
    /// permit when it comes.
    Anyone(IpAddr),
    /// The requested host, by any of its addresses.
    These(Vec<Candidate>),
}

impl Expected {
    /// `None` stands for any.
    fn addresses(&self) -> Vec<Option<IpAddr>> {
        match self {
            Expected::Anyone(_) => vec![None],
            Expected::These(candidates) => candidates.iter().map(|it| Some(it.address)).collect(),
        }
    }

    /// Our address as the expected one sees it, if one is expected: that from which
    /// the system would send to him. (The client may have reached us from another
    /// side.)
    fn sees_us_at(&self) -> Option<IpAddr> {
        let Expected::These(candidates) = self else {
            return None;
        };
        let peer = candidates.first()?.address;
        let any = match peer {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // No datagram is sent; any port but 0 will do.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((peer, 9)).ok()?;
        socket.local_addr().ok().map(|here| here.ip())
    }

    /// The unspecified address on which all of these can reach us.
    fn any_address(&self) -> IpAddr {
        let is_v6 = match self {
            Expected::Anyone(address) => address.is_ipv6(),
            Expected::These(candidates) => candidates.iter().any(|it| it.address.is_ipv6()),
        };
        match is_v6 {
            // Also for IPv4, unless the system says otherwise.
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// Listens for the target under one total limit. The first of the two replies
/// goes out here, with the port that the target must connect to.
pub(super) fn bind(visit: &Arc<Visit>, asked: &Asked, notes: &mut Notes) -> Result<Ready, Cause> {
    let house = &visit.house;
    let expected = expected(visit, asked, notes)?;
    enforce::subject(visit, asked, expected.addresses(), notes)?;
    let (listener, port) = listen(house, expected.any_address())
        .map_err(|error| Cause::Exhausted("port to listen on", error))?;
    let down = Down::reserve(visit)?;

    let reached = visit.client.local_addr();
    let reached = reached.map_err(|_| Cause::ClientLeft)?.ip();
    let here = expected.sees_us_at().unwrap_or(reached);
    let advertised = house.settings.advertise;
    let first = asked.language.listening(port, here, advertised);
    if !visit.tell(&first) {
        return Err(Cause::ClientLeft);
    }

    let deadline = Deadline::after(house.settings.bind_timeout);
    let (remote, peer) = match net::await_peer(&listener, &visit.client, deadline) {
        Ok(Came::Peer(remote, peer)) => (remote, peer),
        Ok(Came::ClientLeft) => return Err(Cause::ClientLeft),
        Ok(Came::Nobody) => return Err(Cause::TooLate),
        Err(error) => return Err(Cause::Exhausted("room for a connection", error)),
    };
    // The first that comes decides; nobody else is let in.
    drop(listener);
    check(visit, &expected, peer, asked, deadline, notes)?;
    if !visit.attach(remote) {
        return Err(Cause::ClientLeft);
    }
    enforce::subject(visit, asked, vec![notes.address], notes)?;
    Ok(Ready {
        reply: asked.language.has_come(peer),
        relay: Relay::Streams(down),
    })
}

/// Whom the client expects, as far as the rules permit it. Only the rules use
/// the request's port, which may be 0.
fn expected(visit: &Arc<Visit>, asked: &Asked, notes: &mut Notes) -> Result<Expected, Cause> {
    let deadline = Deadline::after(visit.house.settings.connect_timeout);
    let anyone = asked.target.host.address();
    let Some(anyone) = anyone.filter(IpAddr::is_unspecified) else {
        let candidates = candidates(visit, asked, deadline, notes)?;
        return Ok(Expected::These(candidates));
    };
    let anybody = Question {
        port: None,
        ..question(visit, asked)
    };
    let verdict = visit.house.rules().judge(&anybody);
    obey(verdict, visit, asked, deadline, notes)?;
    Ok(Expected::Anyone(anyone))
}

/// Opens the listener on every address, whatever address clients reach us at:
/// the peer comes from the other side.
fn listen(house: &House, address: IpAddr) -> io::Result<(TcpListener, u16)> {
    house.ports.open(|port| {
        let listener = TcpListener::bind((address, port))?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    })
}

/// Is this the peer that was expected?
fn check(
    visit: &Visit,
    expected: &Expected,
    peer: SocketAddr,
    asked: &Asked,
    deadline: Deadline,
    notes: &mut Notes,
) -> Result<(), Cause> {
    match expected {
        Expected::These(candidates) => {
            let ip = peer.ip().to_canonical();
            let known = candidates.iter().find(|known| known.address == ip);
            let known = known.ok_or(Cause::Stranger(peer))?;
            notes.destination(known.address, known.rule);
            Ok(())
        }
        Expected::Anyone(_) => {
            let verdict = visit.house.rules().judge(&Question {
                address: Some(peer.ip()),
                ..question(visit, asked)
            });
            notes.peer(peer, verdict.line);
            obey(verdict, visit, asked, deadline, notes)
        }
    }
}
