//! From the requested host to the addresses that the rules permit.

use std::net::SocketAddr;

use crate::events::RequestError;
use crate::net::Deadline;
use crate::protocol::Host;
use crate::rules::{AccessQuery, Verdict};
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;

/// An address that may be dialled or awaited, and the line of the rule that permits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PermittedAddress {
    /// With the port of the request. A link-local IPv6 address of a name has the zone that the
    /// resolver has found.
    pub(crate) address: SocketAddr,
    pub(crate) rule: Option<usize>,
}

/// Keeps the addresses that are usable: those for which there is no reason against it.
///
/// # Errors
///
/// No address is usable; why the first is not.
pub(crate) fn retain_usable(
    addresses: &mut Vec<PermittedAddress>,
    unusable: impl Fn(&PermittedAddress) -> Option<&'static str>,
) -> Result<(), RequestError> {
    let first = addresses.first().and_then(&unusable);
    addresses.retain(|address| unusable(address).is_none());
    match first {
        Some(reason) if addresses.is_empty() => Err(RequestError::UnusableDestination(reason)),
        _ => Ok(()),
    }
}

impl PendingRequest<'_> {
    /// The addresses of the requested host that the rules permit, in the order of the lookup:
    /// at least one. A name is resolved once, and only if the rules could permit some address
    /// of it to this client.
    ///
    /// The screen message shows the first of them. If there is none, it shows the first
    /// address that is denied.
    ///
    /// # Errors
    ///
    /// No address is permitted, or the name has none.
    pub(crate) fn permitted_addresses(
        &self,
        deadline: Deadline,
        request_log: &mut RequestLog,
    ) -> Result<Vec<PermittedAddress>, RequestError> {
        let rules = self.context.rules();
        let query = self.access_query();
        let port = self.request.destination.port;
        let addresses = match &self.request.destination.host {
            Host::Address(address) => vec![SocketAddr::new(address.to_canonical(), port)],
            Host::Name(name) => {
                self.require_permit(rules.evaluate(&query), deadline, request_log)?;
                self.look_up(name, port, deadline)?
            }
            Host::Invalid(error) => return Err(RequestError::InvalidHostName(error.clone())),
        };
        let verdicts = addresses.into_iter().map(|address| {
            let query = AccessQuery {
                address: Some(address.ip()),
                ..query
            };
            (address, rules.evaluate(&query))
        });
        self.choose_permitted(verdicts.collect(), deadline, request_log)
    }

    /// The addresses that may be used. Some of them may depend on identd, which is asked
    /// once then.
    fn choose_permitted(
        &self,
        verdicts: Vec<(SocketAddr, Verdict)>,
        deadline: Deadline,
        request_log: &mut RequestLog,
    ) -> Result<Vec<PermittedAddress>, RequestError> {
        let with_ident = verdicts.iter().find(|(_, verdict)| verdict.ident).copied();
        let confirmed = match with_ident {
            Some(_) => self.require_ident(deadline, request_log),
            None => Ok(()),
        };
        let (granted, denied): (Vec<_>, Vec<_>) = verdicts
            .into_iter()
            .partition(|(_, verdict)| verdict.grants(request_log.confirmed));
        // The address that is shown fits the reason.
        let decisive = with_ident.filter(|_| confirmed.is_err());
        let shown = granted
            .first()
            .copied()
            .or(decisive)
            .or(denied.first().copied());
        if let Some((address, verdict)) = shown {
            request_log.set_address(address.ip(), verdict.line);
            if granted.is_empty() {
                confirmed?;
                return Err(RequestError::Denied(verdict));
            }
        }
        let permitted = |(address, verdict): (SocketAddr, Verdict)| PermittedAddress {
            address,
            rule: verdict.line,
        };
        Ok(granted.into_iter().map(permitted).collect())
    }
}
