//! UDP associations: two directions of datagrams between a client and all other hosts.

mod association;
pub(crate) mod bindings;
mod client_port;
pub(crate) mod drops;
mod name_cache;
mod peer_filter;
mod receiver;
mod recent_rules;

pub(crate) use association::Association;
