//! Access control: what the rules say of a request, with the help of the client's identd.

pub(crate) mod destination;
pub(crate) mod enforce;
mod identd;
mod name_lookup;
pub(crate) mod permit;
