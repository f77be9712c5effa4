//! Parts that several messages have in common: versions, fields with a length, and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::error::ProtocolError;
use crate::protocol::host::Host;
use crate::protocol::types::Destination;

/// Longest field in bytes that a length of one byte can announce.
pub const MAX_FIELD: usize = 255;

// ATYP, the type of an address (RFC 1928, section 5).
pub(super) const IPV4: u8 = 0x01;
pub(super) const NAME: u8 = 0x03;
pub(super) const IPV6: u8 = 0x04;

/// The bytes after the version byte, which must have this value; `None` if no byte has
/// come.
pub(super) fn after_version(bytes: &[u8], version: u8) -> Result<Option<&[u8]>, ProtocolError> {
    match bytes.split_first() {
        None => Ok(None),
        Some((&first, rest)) if first == version => Ok(Some(rest)),
        Some((&other, _)) => Err(ProtocolError::Version(other)),
    }
}

/// A field after its length. Bytes after the first [`MAX_FIELD`] are left out.
pub(super) fn encode_field(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.get(..MAX_FIELD).unwrap_or(bytes);
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[length], bytes].concat()
}

/// A field after its length, and what follows; `None` while more must come.
pub(super) fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// ATYP, address and port. A name is sent as it is, valid or not.
pub(super) fn encode_destination(destination: &Destination) -> Vec<u8> {
    let (kind, address) = match &destination.host {
        Host::Address(IpAddr::V4(ip)) => (IPV4, ip.octets().to_vec()),
        Host::Address(IpAddr::V6(ip)) => (IPV6, ip.octets().to_vec()),
        Host::Name(name) => (NAME, encode_field(name.as_requested().as_bytes())),
        Host::Invalid(name) => (NAME, encode_field(&name.bytes)),
    };
    let port = destination.port.to_be_bytes();
    [&[kind], &address[..], &port].concat()
}

/// ATYP, address and port, and what follows; `None` while more must come.
pub(super) fn split_destination(
    bytes: &[u8],
) -> Result<Option<(Destination, &[u8])>, ProtocolError> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let split = match kind {
        IPV4 => rest
            .split_first_chunk()
            .map(|(&octets, rest): (&[u8; 4], _)| {
                (Host::Address(Ipv4Addr::from(octets).into()), rest)
            }),
        IPV6 => rest
            .split_first_chunk()
            .map(|(&octets, rest): (&[u8; 16], _)| {
                (Host::Address(Ipv6Addr::from(octets).into()), rest)
            }),
        NAME => split_field(rest).map(|(name, rest)| (Host::from_name_field(name), rest)),
        other => return Err(ProtocolError::AddressType(other)),
    };
    let Some((host, rest)) = split else {
        return Ok(None);
    };
    let Some((&port, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(port);
    Ok(Some((Destination { host, port }, rest)))
}

/// Bytes of the header of a datagram that has this address.
pub fn udp_header_length(address: IpAddr) -> usize {
    let address = match address.to_canonical() {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    };
    3 + 1 + address + 2
}
