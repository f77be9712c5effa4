//! The sockets on which the server accepts clients: its own one, or those of another process.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::accept::lengthen_backlog;
use super::options::set_options;

/// The listeners of a server.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    are_inherited: bool,
}

impl Listeners {
    /// A listener of this process, which no other process holds.
    pub fn own(listener: TcpListener) -> Listeners {
        Listeners {
            sockets: vec![listener],
            are_inherited: false,
        }
    }

    /// Listeners that another process holds as well, such as systemd. It keeps them after the
    /// end of this process, and with them the clients that wait.
    pub fn inherited(sockets: Vec<TcpListener>) -> Listeners {
        Listeners {
            sockets,
            are_inherited: true,
        }
    }

    /// The local addresses, one for each listener.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
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
        for listener in &self.sockets {
            listener.set_nonblocking(true)?;
            set_options(listener)?;
            if !self.are_inherited {
                lengthen_backlog(listener)?;
            }
        }
        Ok(())
    }
}
