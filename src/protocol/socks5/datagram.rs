//! The header of each datagram of a UDP association (RFC 1928, section 7).

use super::fields::{encode_destination, split_destination};
use crate::protocol::error::ProtocolError;
use crate::protocol::types::Destination;

/// The header between client and server; the data follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// FRAG: 0 for a datagram that is not a fragment.
    pub fragment: u8,
    /// Where the datagram is to be sent, or where it came from.
    pub destination: Destination,
}

impl UdpHeader {
    /// The header as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let destination = encode_destination(&self.destination);
        [&[0, 0, self.fragment], &destination[..]].concat()
    }

    /// Splits a datagram into header and data.
    ///
    /// # Errors
    ///
    /// It has no complete header, or the header is not valid.
    pub fn split(datagram: &[u8]) -> Result<(UdpHeader, &[u8]), ProtocolError> {
        let (head, rest) = datagram
            .split_first_chunk()
            .ok_or(ProtocolError::Truncated)?;
        let &[reserved_1, reserved_2, fragment] = head;
        let reserved = [reserved_1, reserved_2].into_iter();
        if let Some(other) = reserved.into_iter().find(|&byte| byte != 0) {
            return Err(ProtocolError::Reserved(other));
        }
        let (destination, data) = split_destination(rest)?.ok_or(ProtocolError::Truncated)?;
        let header = UdpHeader {
            fragment,
            destination,
        };
        Ok((header, data))
    }
}
