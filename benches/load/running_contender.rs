//! A contender that is ready to relay, and how to open connections and UDP paths through it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use threadsocks::client::socks5::{self, Association};
use threadsocks::client::{ClientError, socks4};
use threadsocks::protocol::socks5::UdpHeader;
use threadsocks::protocol::{Destination, Host, ReplyError};

use crate::contender::Contender;
use crate::endpoints::{StreamPair, dial, listen, prepare};
use crate::process_tree::{self, Usage};
use crate::server_process::{ServerProcess, free_port};

/// A contender that is ready to relay.
pub(crate) struct RunningContender {
    pub(crate) kind: Contender,
    address: SocketAddr,
    /// `None` for the direct connection.
    server: Option<ServerProcess>,
}

/// Limit for the start of a server. A server that takes longer has failed.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl RunningContender {
    /// Starts the server and exchanges one byte each way, to check that it relays.
    pub(crate) fn start(
        kind: Contender,
        other_build: Option<&Path>,
    ) -> Result<RunningContender, String> {
        let port = free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = match kind {
            Contender::Direct => None,
            _ => Some(ServerProcess::start(kind, port, other_build)?),
        };
        let mut contender = RunningContender {
            kind,
            address,
            server,
        };
        contender.wait_until_listening()?;
        let proof = contender
            .open_pair(&listen())
            .and_then(|pair| pair.exchange());
        proof.map_err(|error| format!("does not relay: {error}{}", contender.stderr_note()))?;
        Ok(contender)
    }

    fn wait_until_listening(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while let Some(server) = &mut self.server {
            if let Some(status) = server.exit_status() {
                return Err(format!("exited at once, {status}{}", self.stderr_note()));
            }
            if TcpStream::connect(self.address).is_ok() {
                break;
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(format!("does not listen{}", self.stderr_note()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn stderr_note(&self) -> String {
        match &self.server {
            Some(server) => format!("; stderr: {:?}", server.stderr()),
            None => String::new(),
        }
    }

    /// Opens a connection to this address through the contender.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.kind {
            Contender::Direct => dial(to),
            // Microsocks does not implement SOCKS4.
            Contender::Microsocks => {
                let granted = socks5::connect(dial(self.address)?, None, &destination(to));
                granted.map(|(stream, _)| stream).map_err(io::Error::other)
            }
            _ => {
                let granted = socks4::connect(dial(self.address)?, &destination(to), b"");
                granted.map_err(io::Error::other)
            }
        }
    }

    /// Opens a connection to `listener` through the contender and returns both ends. No
    /// other thread may connect to this listener meanwhile.
    pub(crate) fn open_pair(&self, listener: &TcpListener) -> io::Result<StreamPair> {
        let client = self.connect(listener.local_addr()?)?;
        let (origin, _) = listener.accept()?;
        prepare(&origin)?;
        Ok(StreamPair { client, origin })
    }

    /// Opens a path for datagrams from one address to the other. Returns `None` if the
    /// contender does not relay UDP.
    pub(crate) fn datagram_path(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<Option<DatagramPath>> {
        match self.kind {
            Contender::Direct => return Ok(Some(DatagramPath::direct(to))),
            // The baseline does not implement SOCKS5.
            Contender::Plain => return Ok(None),
            _ => {}
        }
        let control = dial(self.address)?;
        match socks5::associate(control, None, self.address.ip(), from) {
            Ok(association) => Ok(Some(DatagramPath::through_relay(association, to))),
            Err(ClientError::Refused(ReplyError::CommandNotSupported)) => Ok(None),
            Err(reason) => Err(io::Error::other(reason)),
        }
    }

    /// CPU time used so far by all processes of the server; `None` for the direct
    /// connection.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let server = self.server.as_ref()?;
        Some(process_tree::cpu_time(server.pid()))
    }

    /// Resources that all processes of the server use now.
    pub(crate) fn usage(&self) -> Usage {
        let server = self.server.as_ref().expect("a contender with a server");
        process_tree::usage(server.pid())
    }
}

/// The path of datagrams to a destination.
pub(crate) struct DatagramPath {
    /// The address to which the client sends them: the relay, or the destination.
    pub(crate) next_hop: SocketAddr,
    /// The UDP request header (RFC 1928, section 7) of each datagram, the same in both
    /// directions; empty for the direct connection.
    pub(crate) header: Vec<u8>,
    /// Held open: the association ends with its control connection.
    _association: Option<Association<TcpStream>>,
}

impl DatagramPath {
    fn direct(to: SocketAddr) -> DatagramPath {
        DatagramPath {
            next_hop: to,
            header: Vec::new(),
            _association: None,
        }
    }

    fn through_relay(association: Association<TcpStream>, to: SocketAddr) -> DatagramPath {
        let header = UdpHeader {
            fragment: 0,
            destination: destination(to),
        };
        DatagramPath {
            next_hop: association.relay(),
            header: header.encode(),
            _association: Some(association),
        }
    }
}

fn destination(address: SocketAddr) -> Destination {
    Destination {
        host: Host::Address(address.ip()),
        port: address.port(),
    }
}
