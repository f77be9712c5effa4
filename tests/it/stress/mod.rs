//! Many clients, faulty networks, long runs.

mod faulty_networks;
mod random_clients;
mod soak;
