//! What comes before a request: method negotiation and login.

pub(crate) mod negotiate;
pub(crate) mod password;
