//! The three commands of a request: CONNECT, BIND and UDP ASSOCIATE.

mod bind;
mod connect;
mod granted;
mod tcp_relay;
mod udp_associate;

pub(super) use bind::bind;
pub(super) use connect::connect;
pub(super) use granted::RelayKind;
pub(super) use udp_associate::udp_associate;
