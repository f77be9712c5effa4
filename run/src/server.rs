//! The SOCKS server: its addresses, and requests to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use threadsocks::client::{Binding, ClientError, socks4, socks5};
use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Destination, ReplyError};

use crate::options::{Options, SocksVersion};

/// How long a TCP connection to the server may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the server may take for a reply: its own timeout, two minutes, and some more.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(150);

/// The server through which the program connects.
#[derive(Debug)]
pub(crate) struct Server {
    version: SocksVersion,
    addresses: Vec<SocketAddr>,
    user: Vec<u8>,
    credentials: Option<Credentials>,
}

/// A BIND request whose first reply has come.
pub(crate) enum PendingBind {
    V4(socks4::Binding<SharedStream>),
    V5(socks5::Binding<SharedStream>),
}

/// A connection that another thread can shut down.
pub(crate) struct SharedStream(pub(crate) Arc<TcpStream>);

impl Read for SharedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for SharedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Server {
    /// Looks up the server.
    ///
    /// # Errors
    ///
    /// Those of the resolver.
    pub(crate) fn look_up(options: &Options) -> io::Result<Server> {
        let user = options.user.clone().unwrap_or_default();
        let credentials = options.user.is_some().then(|| Credentials {
            user: user.clone(),
            password: options.password.clone().unwrap_or_default(),
        });
        Ok(Server {
            version: options.version,
            addresses: options.server.to_socket_addrs()?.collect(),
            user,
            credentials,
        })
    }

    /// The addresses of the server, in the order in which to try them.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Opens a connection to the server.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub(crate) fn dial(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, DIAL_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Requests a connection. Returns the server's own address on it, if the server tells it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn connect<S: Read + Write>(
        &self,
        stream: S,
        destination: &Destination,
    ) -> Result<Option<SocketAddr>, ClientError> {
        match self.version {
            // The address in the reply to CONNECT has no meaning: some servers repeat the
            // destination. A program that read that would take it for a connection to itself.
            SocksVersion::V4 => socks4::connect(stream, destination, &self.user).map(|_| None),
            SocksVersion::V5 => {
                let credentials = self.credentials.as_ref();
                let (_, bound) = socks5::connect(stream, credentials, destination)?;
                let ip = bound.host.address();
                Ok(ip.map(|ip| SocketAddr::new(ip, bound.port)))
            }
        }
    }

    /// Requests that the server accept one connection from this host. Returns the address at
    /// which it listens.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn bind(
        &self,
        stream: SharedStream,
        destination: &Destination,
    ) -> Result<(PendingBind, SocketAddr), ClientError> {
        let reached = stream.0.peer_addr().map_err(ClientError::NotSent)?.ip();
        match self.version {
            SocksVersion::V4 => {
                let binding = socks4::bind(stream, destination, &self.user)?;
                let address = specified(binding.address.into(), reached);
                Ok((PendingBind::V4(binding), address))
            }
            SocksVersion::V5 => {
                let credentials = self.credentials.as_ref();
                let binding = socks5::bind(stream, credentials, destination)?;
                let ip = binding.address.host.address().unwrap_or(reached);
                let address = specified(SocketAddr::new(ip, binding.address.port), reached);
                Ok((PendingBind::V5(binding), address))
            }
        }
    }
}

impl PendingBind {
    /// Waits until a peer has connected to the server. Returns the stream, and the peer.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if no peer comes.
    pub(crate) fn wait(self) -> Result<(Arc<TcpStream>, SocketAddr), ClientError> {
        fn wait<A>(
            binding: Binding<SharedStream, A>,
            address: impl FnOnce(A) -> SocketAddr,
        ) -> Result<(Arc<TcpStream>, SocketAddr), ClientError> {
            let (stream, peer) = binding.wait()?;
            Ok((stream.0, address(peer)))
        }
        match self {
            PendingBind::V4(binding) => wait(binding, SocketAddr::from),
            PendingBind::V5(binding) => wait(binding, |peer| {
                let unknown = IpAddr::from([0, 0, 0, 0]);
                SocketAddr::new(peer.host.address().unwrap_or(unknown), peer.port)
            }),
        }
    }
}

/// This address, with the address at which the server was reached instead of an unspecified one.
pub(crate) fn specified(address: SocketAddr, reached: IpAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(reached, address.port()),
        false => address,
    }
}

/// The error of connect(2) that says the same.
pub(crate) fn errno_of(error: &ClientError) -> Errno {
    match error {
        ClientError::Refused(reply) => match reply {
            ReplyError::Rejected | ReplyError::ConnectionRefused => Errno::ECONNREFUSED,
            ReplyError::NotAllowed | ReplyError::IdentFailed | ReplyError::UserMismatch => {
                Errno::EACCES
            }
            ReplyError::NetworkUnreachable | ReplyError::AddressTypeNotSupported => {
                Errno::ENETUNREACH
            }
            ReplyError::HostUnreachable => Errno::EHOSTUNREACH,
            ReplyError::TimedOut => Errno::ETIMEDOUT,
            ReplyError::CommandNotSupported => Errno::EOPNOTSUPP,
        },
        ClientError::LoginDenied | ClientError::NoMethod => Errno::EACCES,
        // SOCKS4 cannot express an IPv6 address; or the name is no valid one.
        ClientError::NotSent(error) if error.kind() == ErrorKind::InvalidInput => {
            Errno::ENETUNREACH
        }
        ClientError::NotSent(_) | ClientError::NoReply(_) => Errno::ECONNREFUSED,
    }
}

/// Is the server, or the way to it, the cause, and not the destination?
pub(crate) fn concerns_server(error: &ClientError) -> bool {
    !matches!(error, ClientError::Refused(reply) if *reply != ReplyError::CommandNotSupported)
}
