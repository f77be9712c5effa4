//! What a client may do: the rules, identd, and destinations.

pub(crate) mod destination;
pub(crate) mod enforce;
pub(crate) mod identd;
pub(crate) mod permission;
