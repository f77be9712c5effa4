//! Fields that several objects have.

use std::net::SocketAddr;

use super::object::JsonObject;
use crate::events::ClientRequest;
use crate::protocol::Host;

/// The client, and the proxy that has announced it.
pub(super) fn add_client(object: &mut JsonObject, client: SocketAddr, via: Option<SocketAddr>) {
    object.address("client", client.ip());
    object.number("client_port", client.port());
    if let Some(proxy) = via {
        object.address("via", proxy.ip());
        object.number("via_port", proxy.port());
    }
}

/// The request. Texts of the client come last: they can be long.
pub(super) fn add_request(object: &mut JsonObject, request: &ClientRequest, confirmed: bool) {
    object.text("version", request.encoder.word());
    object.text("command", request.command.word());
    object.number("target_port", request.destination.port);
    // A statement about `user`: it is left out if the name is not confirmed.
    if request.logged_in {
        object.text("login", "accepted");
    }
    if confirmed {
        object.text("ident", "confirmed");
    }
    match &request.destination.host {
        Host::Address(address) => object.address("target", *address),
        Host::Name(name) => object.text("target", name.as_str()),
        Host::Invalid(invalid) => object.text("target", &invalid.bytes),
    }
    if !request.user.is_empty() {
        object.text("user", &request.user);
    }
}
