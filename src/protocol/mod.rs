//! The wire protocol: bytes become values and values become bytes, without any input or output of its own.
//!
//! Both directions of every message stand side by side, so that the server, the client
//! library, the console and the tests share one codec. [`socks4`] and [`socks5`] have
//! the messages; the rest is common to all versions.

mod error;
mod host;
pub mod ident;
mod other_protocol;
mod read;
mod reply;
pub mod socks4;
pub mod socks5;
mod types;

pub use error::{ProtocolError, ReadError, ReplyError};
pub use host::{Host, HostName, InvalidHostName};
pub use other_protocol::{OtherProtocol, http_reply};
pub use reply::ReplyEncoder;
pub(crate) use types::canonical;
pub use types::{Command, Destination, Version};
