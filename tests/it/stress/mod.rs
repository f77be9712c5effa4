//! Stress tests: faulty networks, random clients, long runs.

mod faulty_networks;
mod random_clients;
mod soak;
