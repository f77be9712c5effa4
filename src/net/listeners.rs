//! The sockets on which the server accepts clients: a listener of its own, or listeners that another process has passed.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

use super::accept::lengthen_backlog;
use super::options::set_options;
use super::socket::listen;

/// The listeners of a server.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    are_inherited: bool,
    has_chosen_port: bool,
}

impl Listeners {
    /// Listens at this address; the system chooses a port for 0.
    ///
    /// # Errors
    ///
    /// As [`listen`].
    pub fn listen(address: SocketAddr) -> io::Result<Listeners> {
        Ok(Listeners {
            has_chosen_port: address.port() == 0,
            ..Listeners::own(listen(address)?)
        })
    }

    /// A listener of this process, which no other process holds.
    pub fn own(listener: TcpListener) -> Listeners {
        Listeners {
            sockets: vec![listener],
            are_inherited: false,
            has_chosen_port: false,
        }
    }

    /// Listeners that another process holds as well, such as systemd. It keeps them after the
    /// end of this process, and with them the clients that wait.
    pub fn inherited(sockets: Vec<TcpListener>) -> Listeners {
        Listeners {
            sockets,
            are_inherited: true,
            has_chosen_port: false,
        }
    }

    /// The listeners that the service manager passes (sd_listen_fds(3)); `None` if it passes none.
    /// This function changes the environment, so it must be called before a thread starts.
    ///
    /// # Errors
    ///
    /// A descriptor that was passed is no TCP listener.
    pub fn from_env() -> Result<Option<Listeners>, InheritedError> {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|index| {
            let error = |reason: String| InheritedError { index, reason };
            let socket = passed.take_tcp_listener(index);
            let socket = socket.map_err(|it| error(it.to_string()))?;
            // Each index is asked for once, so there is a socket.
            let socket = socket.ok_or_else(|| error("it is not there".to_owned()))?;
            match getsockopt(&socket, sockopt::AcceptConn) {
                Ok(true) => Ok(socket),
                Ok(false) => Err(error("it does not listen".to_owned())),
                Err(errno) => Err(error(io::Error::from(errno).to_string())),
            }
        });
        let sockets: Vec<TcpListener> = sockets.collect::<Result<_, _>>()?;
        Ok((!sockets.is_empty()).then(|| Listeners::inherited(sockets)))
    }

    /// The local addresses, one for each listener.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// The addresses of those that another process holds as well.
    pub fn inherited_addresses(&self) -> Vec<SocketAddr> {
        // getsockname(2) of a listener does not fail.
        match self.are_inherited {
            true => self.addresses().unwrap_or_default(),
            false => Vec::new(),
        }
    }

    /// Did the system choose the port? Then the operator learns it only from the log.
    pub(crate) fn has_chosen_port(&self) -> bool {
        self.has_chosen_port
    }

    pub(crate) fn sockets(&self) -> &[TcpListener] {
        &self.sockets
    }

    pub(crate) fn are_inherited(&self) -> bool {
        self.are_inherited
    }

    /// Sets the options that each accepted connection inherits, and makes accept(2) return at
    /// once: after poll(2) has reported a client, another process may accept it first. The
    /// backlog of a socket that was inherited is the other process's choice.
    ///
    /// # Errors
    ///
    /// As setsockopt(2) and listen(2).
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(|listener| {
            self.prepare_one(listener).map_err(|error| {
                let address = listener
                    .local_addr()
                    .map_or_else(|it| it.to_string(), |it| it.to_string());
                io::Error::new(
                    error.kind(),
                    format!("cannot use the listener {address}: {error}"),
                )
            })
        })
    }

    fn prepare_one(&self, listener: &TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        set_options(listener)?;
        match self.are_inherited {
            true => Ok(()),
            false => lengthen_backlog(listener),
        }
    }
}

/// A descriptor that the service manager has passed is no TCP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedError {
    /// Its place among those that were passed, from 0.
    index: usize,
    reason: String,
}

impl fmt::Display for InheritedError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.index + 1;
        write!(
            out,
            "socket {number} that the service manager has passed (LISTEN_FDS) is no TCP listener: {}; \
             in the socket unit, use ListenStream= with an IP address and a port, and Accept=no",
            self.reason
        )
    }
}

impl std::error::Error for InheritedError {}
