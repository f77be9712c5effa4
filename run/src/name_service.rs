//! The supervisor as the cache that glibc asks, and as the name server that other resolvers ask.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, UnixAddr};
use threadsocks::protocol::Host;

use crate::call::{Call, Result};
use crate::context::Context;
use crate::dns::{self, MAX_QUERY};
use crate::kernel::Answer;
use crate::nscd::{self, Request};

/// How long a program may take for its question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Is this the path of the cache of names (nscd)?
pub(crate) fn is_cache(path: &[u8]) -> bool {
    [&b"/var/run/nscd/socket"[..], b"/run/nscd/socket"].contains(&path)
}

/// Connects the program's Unix socket to the supervisor, and answers its question.
pub(crate) fn connect_cache(call: &Call<'_>) -> Result<Answer> {
    let Some(socket) = call.socket()? else {
        return Ok(Answer::Continue);
    };
    // A name of its own for each question, so no other program finds it in time.
    let name = format!(
        "threadsocks-run/{}/{:x}",
        std::process::id(),
        call.notification.id
    );
    let address = SocketAddr::from_abstract_name(&name).map_err(|_| Errno::EINVAL)?;
    let listener = UnixListener::bind_addr(&address).map_err(|_| Errno::ECONNREFUSED)?;
    let address = UnixAddr::new_abstract(name.as_bytes())?;
    socket::connect(socket.descriptor.as_raw_fd(), &address)?;
    drop(socket);
    call.answer(Answer::Value(0));
    if let Ok((stream, _)) = listener.accept() {
        // A program that asks for something else closes the connection.
        let _ = serve_cache(call.context, &stream);
    }
    Ok(Answer::Value(0))
}

fn serve_cache(context: &Context, mut stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    let mut head = [0; nscd::HEAD];
    stream.read_exact(&mut head)?;
    let Some((request, length)) = nscd::decode_head(&head) else {
        return Ok(());
    };
    let mut key = vec![0; length];
    stream.read_exact(&mut key)?;
    stream.write_all(&cache_answer(context, request, &key))
}

fn cache_answer(context: &Context, request: Request, key: &[u8]) -> Vec<u8> {
    if request == Request::Name {
        let name = address_in(key).and_then(|ip| Some((ip, context.names.name_of(ip)?)));
        return match name {
            Some((ip, name)) => nscd::encode_host(name.as_str(), &[ip]),
            None => nscd::encode_unknown_host(),
        };
    }
    let name = key.strip_suffix(&[0]).unwrap_or(key);
    let Some(addresses) = addresses_of(context, name) else {
        return match request {
            Request::Addresses => nscd::encode_addresses("", &[]),
            _ => nscd::encode_unknown_host(),
        };
    };
    let name = String::from_utf8_lossy(name);
    let of_family = |is_v4: bool| {
        let all = addresses.iter().copied();
        all.filter(|it| it.is_ipv4() == is_v4)
            .collect::<Vec<IpAddr>>()
    };
    match request {
        Request::Addresses => nscd::encode_addresses(&name, &addresses),
        Request::Ipv6 => nscd::encode_host(&name, &of_family(false)),
        Request::Ipv4 | Request::Name => nscd::encode_host(&name, &of_family(true)),
    }
}

/// An address of 4 or 16 bytes.
fn address_in(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => key.first_chunk::<4>().map(|it| IpAddr::from(*it)),
        16 => key.first_chunk::<16>().map(|it| IpAddr::from(*it)),
        _ => None,
    }
}

/// The addresses of a name: those of the hosts file, or else the one that stands for the name.
/// `None`: there is no such name.
fn addresses_of(context: &Context, name: &[u8]) -> Option<Vec<IpAddr>> {
    let text = std::str::from_utf8(name).ok()?;
    if let Host::Address(address) = Host::from_name(name) {
        return Some(vec![address]);
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let known = crate::names::in_hosts_file(&hosts, text);
    if !known.is_empty() {
        return Some(known);
    }
    // RFC 6761, section 6.3.
    let bare = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if bare == "localhost" || bare.ends_with(".localhost") {
        return Some(vec![IpAddr::from([127, 0, 0, 1])]);
    }
    Some(vec![context.names.address_of(name)?])
}

/// Answers DNS queries, until the process ends.
pub(crate) fn serve_dns(context: &Context, server: &UdpSocket) {
    let mut buffer = [0; MAX_QUERY];
    while let Ok((count, from)) = server.recv_from(&mut buffer) {
        let query = buffer.get(..count).unwrap_or_default();
        let addresses = |name: &str| addresses_of(context, name.as_bytes());
        let name = |ip| context.names.name_of(IpAddr::V4(ip));
        if let Some(reply) = dns::answer(query, addresses, name) {
            // A resolver that hears nothing asks again.
            let _ = server.send_to(&reply, from);
        }
    }
}
