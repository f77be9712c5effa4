//! The wire protocol: bytes become values and values become bytes, without any input or output of its own.
//!
//! Both directions of every message stand side by side, so that the server, the client
//! library, the console and the tests share one codec. [`socks4`] and [`socks5`] have
//! the messages; the rest is common to all versions.

mod error;
mod host;
pub mod ident;
mod nat64;
mod network;
mod other_protocol;
mod proxy_header;
mod read;
mod reply;
pub mod socks4;
pub mod socks5;
mod types;

pub use error::{ProtocolError, ProxyHeaderError, ReadError, ReplyError};
pub use host::{Host, HostName, InvalidHostName};
pub use nat64::{Nat64Prefix, judged_address};
pub use network::{Network, NetworkError};
pub(crate) use network::{mask_v4, mask_v6};
pub use other_protocol::{OtherProtocol, http_reply};
pub use proxy_header::ProxyHeader;
pub use reply::ReplyEncoder;
pub use types::{Command, Destination, Version};
pub(crate) use types::{canonical, unmapped};

#[cfg(test)]
mod tests {
    use super::{socks4, socks5};

    /// A field of 255 bytes, after its length.
    fn longest_field() -> Vec<u8> {
        vec![255; 256]
    }

    #[test]
    fn h24_the_longest_messages_have_the_documented_lengths() {
        let head = [4, 1, 0, 80, 0, 0, 0, 1];
        let socks4 = [&head[..], &[b'u'; 512], &[0], &[b'n'; 255], &[0]].concat();
        let (_, length) = socks4::Request::decode(&socks4)
            .expect("valid")
            .expect("all");
        assert_eq!(length, 777);
        let greeting = [&[5][..], &longest_field()].concat();
        let decoded = socks5::Greeting::decode(&greeting);
        assert_eq!(decoded.expect("valid").expect("all").1, 257);
        let login = [&[1][..], &longest_field(), &longest_field()].concat();
        let decoded = socks5::Credentials::decode(&login);
        assert_eq!(decoded.expect("valid").expect("all").1, 513);
        let request = [&[5, 1, 0, 3][..], &longest_field(), &[0, 80]].concat();
        let decoded = socks5::Request::decode(&request);
        assert_eq!(decoded.expect("valid").expect("all").1, 262);
    }
}
