//! UDP associations: two directions of datagrams between a client and all other hosts.

mod association;
pub(crate) mod bindings;
mod client_port;
pub(crate) mod drops;
mod flow;
mod icmp_errors;
mod name_cache;
mod name_flows;
mod named_hosts;
mod peer_filter;
mod receiver;
mod recent_rules;

pub(crate) use association::Association;
pub(crate) use icmp_errors::queue_icmp_errors;
