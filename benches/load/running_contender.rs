//! The contenders, each a child process that listens on loopback, and how to ask it for a connection.

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

/// A contender that is ready.
pub(crate) struct RunningContender {
    pub(crate) kind: Contender,
    address: SocketAddr,
    /// None for the direct connection.
    server: Option<ServerProcess>,
}

/// Nothing that works takes longer to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl RunningContender {
    /// Starts it, and proves by one connection that it relays.
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
                return Err(format!("ended at once, {status}{}", self.stderr_note()));
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

    /// A new connection to this address, through the contender.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.kind {
            Contender::Direct => dial(to),
            // Which knows no SOCKS4.
            Contender::Microsocks => {
                let granted = socks5::connect(dial(self.address)?, None, &destination(to));
                granted.map_err(io::Error::other)
            }
            _ => {
                let granted = socks4::connect(dial(self.address)?, &destination(to), b"");
                granted.map_err(io::Error::other)
            }
        }
    }

    /// Opens one; nobody else may connect to this listener meanwhile.
    pub(crate) fn open_pair(&self, listener: &TcpListener) -> io::Result<StreamPair> {
        let client = self.connect(listener.local_addr()?)?;
        let (origin, _) = listener.accept()?;
        prepare(&origin)?;
        Ok(StreamPair { client, origin })
    }

    /// How datagrams get from one address to the other; nothing if the contender
    /// has no UDP.
    pub(crate) fn datagram_path(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<Option<DatagramPath>> {
        match self.kind {
            Contender::Direct => return Ok(Some(DatagramPath::direct(to))),
            // Which knows no SOCKS5.
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

    /// CPU time so far, of all its processes.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let server = self.server.as_ref()?;
        Some(process_tree::cpu_time(server.pid()))
    }

    /// What all its processes hold.
    pub(crate) fn usage(&self) -> Usage {
        let server = self.server.as_ref().expect("not the direct connection");
        process_tree::usage(server.pid())
    }
}

/// How datagrams get to a target.
pub(crate) struct DatagramPath {
    /// Where they are sent.
    pub(crate) next_hop: SocketAddr,
    /// What stands in front of each, there and back.
    pub(crate) header: Vec<u8>,
    /// It ends with us.
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
            target: destination(to),
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
