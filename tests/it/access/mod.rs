//! Access control: rules, users, IDENT, login.

mod enforce;
mod ident;
mod local_addresses;
mod login;
mod nat64;
mod proxied_clients;
mod remarks;
mod rule_words;
mod rules_reload;
mod time_zones;
mod user_names;
mod users_and_hours;
