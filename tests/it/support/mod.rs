//! Helpers of the tests: the server under test, its peers, and its environment.

pub(crate) mod apache;
pub(crate) mod browser;
pub(crate) mod child;
pub(crate) mod console_cgi;
pub(crate) mod demo_shells;
pub(crate) mod dns_server;
pub(crate) mod endpoints;
pub(crate) mod faulty_link;
pub(crate) mod faulty_session;
pub(crate) mod ftp_server;
pub(crate) mod ident_server;
pub(crate) mod import_graph;
pub(crate) mod netns;
pub(crate) mod plot;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod scripted_peer;
pub(crate) mod scripted_shell;
pub(crate) mod server_output;
pub(crate) mod socksify;
pub(crate) mod syscall_faults;
pub(crate) mod tcp_table;
pub(crate) mod tools;
pub(crate) mod wait;
pub(crate) mod web_site;
