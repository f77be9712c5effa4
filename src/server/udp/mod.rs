//! The parts of a UDP association.

pub(crate) mod association;
pub(crate) mod bindings;
pub(crate) mod drops;
pub(crate) mod name_cache;
pub(crate) mod peer_filter;
pub(crate) mod receiver;
