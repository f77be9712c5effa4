//! CONNECT, BIND and UDP ASSOCIATE, with name lookups and routes, and the client library.

mod bind;
mod client_library;
mod connect;
mod happy_eyeballs;
mod names;
mod routes;
mod udp_associate;
mod udp_client_port;
mod udp_names;
mod udp_rules;
