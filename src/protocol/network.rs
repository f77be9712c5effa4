//! A network: the addresses that begin with the same bits (CIDR, RFC 4632).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// How many bits all its addresses share.
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It is not an address, a slash, and a number of bits.
    Invalid,
    /// The address is not the first one of its network.
    NotFirst {
        /// The address.
        address: IpAddr,
        /// The first address of its network.
        first: IpAddr,
        /// How many bits the network's addresses share.
        bits: u8,
    },
}

impl Network {
    /// Parses `10.0.0.0/8` or `2001:db8::/32`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn parse(text: &str) -> Result<Network, NetworkError> {
        let (address, bits) = text.split_once('/').ok_or(NetworkError::Invalid)?;
        // A number for the standard library may begin with a plus sign.
        let all_digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Invalid)?;
        let bits: u8 = bits.parse().map_err(|_| NetworkError::Invalid)?;
        let first = match address {
            IpAddr::V4(address) if bits <= 32 && all_digits => (address & mask_v4(bits)).into(),
            IpAddr::V6(address) if bits <= 128 && all_digits => {
                Ipv6Addr::from_bits(address.to_bits() & mask_v6(bits)).into()
            }
            _ => return Err(NetworkError::Invalid),
        };
        if first != address {
            return Err(NetworkError::NotFirst {
                address,
                first,
                bits,
            });
        }
        Ok(Network { first, bits })
    }

    /// Parses a network or a single address. A network of IPv4-mapped IPv6 addresses becomes the
    /// one of their IPv4 addresses.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn parse_canonical(text: &str) -> Result<Network, NetworkError> {
        let network = match text.parse() {
            Ok(first @ IpAddr::V4(_)) => Network { first, bits: 32 },
            Ok(first @ IpAddr::V6(_)) => Network { first, bits: 128 },
            Err(_) => Network::parse(text)?,
        };
        Ok(match (network.first.to_canonical(), network.first) {
            (first @ IpAddr::V4(_), IpAddr::V6(_)) if network.bits >= 96 => Network {
                first,
                bits: network.bits - 96,
            },
            _ => network,
        })
    }

    /// The first address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// How many bits all its addresses share.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Is the address in the network? An address of another family is not, so both must be
    /// canonical.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => first == address & mask_v4(self.bits),
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                first.to_bits() == address.to_bits() & mask_v6(self.bits)
            }
            _ => false,
        }
    }
}

/// A mask with the first `bits` bits set. For 0 bits the shift by 32 overflows, and the mask
/// is 0.
#[inline]
pub(crate) fn mask_v4(bits: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0))
}

/// A mask with the first `bits` bits set. For 0 bits the shift by 128 overflows, and the
/// mask is 0.
#[inline]
pub(crate) fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl fmt::Display for NetworkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Invalid => {
                out.write_str("is not an address range; write it as 10.0.0.0/8 (at most /32) or 2001:db8::/32 (at most /128)")
            }
            NetworkError::NotFirst {
                address,
                first,
                bits,
            } => write!(
                out,
                "{address}/{bits} is not the first address of its range; write {first}/{bits} or \
                 {address} alone"
            ),
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x30_a_network_contains_the_addresses_with_its_first_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("::1", "::1", "::2"),
        ] {
            let parsed = Network::parse_canonical(network).expect(network);
            let contains = |address: &str| parsed.contains(address.parse().expect("an address"));
            assert!(contains(inside), "{network}");
            assert!(!contains(outside), "{network}");
        }
    }
}
