//! Sockets: what `std::net` lacks, and names that become addresses.
//!
//! A session that waits for another host does so with a deadline, and its wait ends early
//! when its client has left.

mod accept;
mod accept_until_stop;
mod connect;
mod deadline;
mod happy_eyeballs;
mod hosts_file;
mod listeners;
mod options;
mod peek_reader;
mod poll;
mod port_range;
pub mod resolve;
mod send;
mod socket;

pub(crate) use accept::{
    AcceptErrors, BindWait, ClientWait, concerns_one_connection, wait_for_clients, wait_for_peer,
};
pub(crate) use accept_until_stop::accept_until_stop;
pub(crate) use connect::{ConnectError, dial_from, is_shortage, wait_for_reply};
pub use deadline::Deadline;
pub(crate) use happy_eyeballs::{Connection, DialError, dial, interleave};
pub use listeners::{InheritedError, Listeners};
pub use options::{reset_on_close, set_options};
pub(crate) use options::{send_fin, shorten_send_timeout};
pub use peek_reader::PeekReader;
pub use poll::wait;
pub(crate) use poll::{client_stays_until, has_unread_bytes, is_gone, wait_readable};
pub(crate) use port_range::PortRange;
pub(crate) use send::{LINGER_TIME, lingering_close, send_all, send_nonblocking};
pub(crate) use socket::dual_stack_udp;
pub use socket::listen;
