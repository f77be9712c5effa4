//! CONNECT, BIND and UDP ASSOCIATE, and the names and routes behind them.

mod bind;
mod client_library;
mod connect;
mod names;
mod routes;
mod udp_associate;
