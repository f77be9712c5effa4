//! Access control: what the rules say of a request, with the help of the client's identd.

pub(crate) mod destination;
pub(crate) mod enforce;
mod identd;
pub(crate) mod permit;
