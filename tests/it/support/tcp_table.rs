//! What /proc/net/tcp says about a connection of this machine.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

/// State FIN-WAIT-1: a FIN is to be sent, and it or bytes before it are not acknowledged.
pub(crate) const FIN_WAIT1: &str = "04";

/// State FIN-WAIT-2: our FIN is acknowledged, and no FIN has come.
pub(crate) const FIN_WAIT2: &str = "05";

/// The row of one end of a connection.
#[derive(Debug)]
pub(crate) struct TcpRow {
    pub(crate) state: String,
    /// Which timer runs: `02` is keepalive.
    pub(crate) timer: String,
    /// When it expires, in hundredths of a second.
    pub(crate) expires: u64,
}

impl TcpRow {
    /// The row of this end.
    pub(crate) fn of(stream: &TcpStream) -> TcpRow {
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        TcpRow::find(own, peer).expect("a row for the connection")
    }

    /// The row of the other end, if it is on this machine.
    pub(crate) fn of_peer(stream: &TcpStream) -> TcpRow {
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        TcpRow::find(peer, own).expect("a row for the connection")
    }

    fn find(own: SocketAddr, peer: SocketAddr) -> Option<TcpRow> {
        let (SocketAddr::V4(own), SocketAddr::V4(peer)) = (own, peer) else {
            panic!("IPv4 only");
        };
        // Addresses there are 32-bit numbers in the machine's byte order.
        let column = |address: SocketAddrV4| {
            let ip = u32::from_ne_bytes(address.ip().octets());
            format!("{ip:08X}:{:04X}", address.port())
        };
        let both = format!("{} {}", column(own), column(peer));
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let (_, after) = table.lines().find_map(|line| line.split_once(&both))?;
        // After the addresses: state, queues, timer:expires.
        let mut fields = after.split_whitespace();
        let state = fields.next()?.to_owned();
        let (timer, expires) = fields.nth(1)?.split_once(':')?;
        Some(TcpRow {
            state,
            timer: timer.to_owned(),
            expires: u64::from_str_radix(expires, 16).unwrap(),
        })
    }
}
