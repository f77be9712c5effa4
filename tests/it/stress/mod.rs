//! Many clients, faulty networks, long runs.

pub(crate) mod faulty_networks;
pub(crate) mod random_clients;
pub(crate) mod soak;
