//! The three commands of a request: CONNECT, BIND and UDP ASSOCIATE.

pub(crate) mod bind;
pub(crate) mod connect;
pub(crate) mod tcp_relay;
pub(crate) mod udp_associate;
