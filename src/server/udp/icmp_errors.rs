//! ICMP errors: which datagrams of a socket have not arrived.
//!
//! An unconnected socket does not learn of them by default. Linux keeps them in a queue of
//! the socket (IP_RECVERR, ip(7)), each with the address that the datagram was sent to.

use std::net::{SocketAddr, UdpSocket};

/// Keeps ICMP errors of this socket in its error queue. From then on a send fails if an error
/// for an earlier datagram has come, to whichever host; so does a send after each error that
/// is taken while others remain. And poll(2) reports POLLERR until the queue is empty. On
/// other systems than Linux it does nothing.
#[cfg(target_os = "linux")]
pub(crate) fn queue_icmp_errors(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    // If they fail, an address is left when it has been silent for a while. The first option
    // is also needed for the IPv4-mapped addresses of an IPv6 socket; the second fails on an
    // IPv4 socket.
    let _ = setsockopt(socket, sockopt::Ipv4RecvErr, &true);
    let _ = setsockopt(socket, sockopt::Ipv6RecvErr, &true);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn queue_icmp_errors(_socket: &UdpSocket) {}

/// Errors that are taken in a row: others may come as fast as they are taken.
#[cfg(target_os = "linux")]
const MAX_ERRORS_IN_A_ROW: usize = 64;

/// Takes errors from the queue. Calls `unreachable` with each address at which a datagram
/// has not arrived. Returns how many errors there were.
#[cfg(target_os = "linux")]
pub(super) fn take_icmp_errors(
    socket: &UdpSocket,
    mut unreachable: impl FnMut(SocketAddr),
) -> usize {
    let errors = std::iter::from_fn(|| take_icmp_error(socket));
    let errors = errors.take(MAX_ERRORS_IN_A_ROW);
    errors
        .map(|address| address.into_iter().for_each(&mut unreachable))
        .count()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn take_icmp_errors(_socket: &UdpSocket, _unreachable: impl FnMut(SocketAddr)) -> usize {
    0
}

/// The next error of the queue; `None` if it is empty. The address is missing if the error
/// is no reason to leave the address.
#[cfg(target_os = "linux")]
fn take_icmp_error(socket: &UdpSocket) -> Option<Option<SocketAddr>> {
    use std::io::IoSliceMut;
    use std::net::{SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;
    use nix::libc::{sock_extended_err, sockaddr_in6};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

    // The datagram itself is not needed, only where it was sent to.
    let (mut data, mut space) = ([0; 1], nix::cmsg_space!(sock_extended_err, sockaddr_in6));
    let mut parts = [IoSliceMut::new(&mut data)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_raw_fd();
    let error = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags).ok()?;
    // A datagram that was too long for a link on the way says nothing about the host.
    let is_too_long = error.cmsgs().is_ok_and(|mut messages| {
        messages.any(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                Errno::from_raw(error.ee_errno.cast_signed()) == Errno::EMSGSIZE
            }
            _ => false,
        })
    });
    let sent_to = error.address.and_then(|address| {
        let v4 = address
            .as_sockaddr_in()
            .map(|&v4| SocketAddrV4::from(v4).into());
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|&v6| SocketAddrV6::from(v6).into())
        })
    });
    Some(sent_to.filter(|_| !is_too_long))
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use nix::poll::{PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;

    use crate::protocol::canonical;

    /// The addresses of the errors, after they have come.
    fn unreachable(socket: &UdpSocket) -> Vec<SocketAddr> {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        let polled = nix::poll::poll(&mut fds, PollTimeout::from(5000_u16));
        assert_eq!(polled, Ok(1), "an error comes");
        let mut addresses = Vec::new();
        take_icmp_errors(socket, |address| addresses.push(canonical(address)));
        addresses
    }

    #[test]
    fn u19_the_error_names_the_address_that_the_datagram_was_sent_to() {
        let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let closed = v4.local_addr().expect("an address");
        drop(v4);
        let dual_stack = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket");
        let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), closed.port());
        let v4_only = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, closed.port()));
        for (socket, to) in [(&dual_stack, mapped), (&dual_stack, v6), (&v4_only, closed)] {
            queue_icmp_errors(socket);
            socket.set_nonblocking(true).expect("nonblocking");
            if let Err(error) = socket.send_to(b"x", to) {
                assert!(to.is_ipv6(), "{to}: {error}");
                continue;
            }
            assert_eq!(unreachable(socket), [canonical(to)]);
            assert_eq!(take_icmp_error(socket), None);
        }
    }
}
