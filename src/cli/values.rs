//! Values of options: from text to a value, or to a sentence that says what to write instead.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::action::Shell;
use crate::auth::{MAX_USER_NAME, is_user_name};
use crate::config::QuotedName;
use crate::logger::LogFormat;
use crate::protocol::{Network, NetworkError};
use crate::trace::TraceTarget;

pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a PORT from 0 to 65535"))
}

/// The argument of the server: a port, or an address (which may have a zone) and a port.
pub(super) fn parse_listener(text: &str) -> Result<(Option<SocketAddr>, u16), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(address), address.port()));
    }
    if let Some(port) = text.strip_prefix("*:") {
        return Err(format!(
            "{text:?} has no IP address; write 0.0.0.0:{port}, or [::]:{port} with IPv6"
        ));
    }
    if text.contains("://") {
        return Err(format!(
            "{text:?} is a URL for clients; write the port on which the server listens, as 1080 \
             or 127.0.0.1:1080"
        ));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Err(format!(
            "{address} is an address without a port; write {address}:1080"
        )),
        Ok(IpAddr::V6(_)) => Err(format!(
            "{text:?} has no port after brackets; write an IPv6 address and a port as [::1]:1080"
        )),
        Err(_) if text.contains(':') => Err(format!(
            "{text:?} is not an IP address and a port; write 127.0.0.1:1080 or [::1]:1080"
        )),
        Err(_) => parse_port(text).map(|port| (None, port)),
    }
}

/// The server that `--probe` asks: a port of this host, or an address and a port.
pub(super) fn parse_probe(text: &str) -> Result<SocketAddr, String> {
    match parse_listener(text)? {
        (_, 0) => Err("no server listens on port 0; write the port of the server".to_owned()),
        (Some(address), _) => Ok(address),
        (None, port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
    }
}

pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let (ip, port) = (address.ip(), address.port());
        return Err(format!("write the port as PORT: --bind {ip} {port}"));
    }
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is not an IP address; write one as 127.0.0.1"))
}

pub(super) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse();
    address.map_err(|_| {
        format!("{text:?} is not an IP address and a port; write 127.0.0.1:9480 or [::1]:9480")
    })
}

pub(super) fn parse_ipv4_address(text: &str) -> Result<Ipv4Addr, String> {
    let address = text.parse();
    address.map_err(|_| {
        format!("{text:?} is not an IPv4 address; only IPv4 addresses can be advertised")
    })
}

/// Networks, with commas between them. A single address is one as well.
pub(super) fn parse_networks(text: &str) -> Result<Vec<Network>, String> {
    let parse = |part: &str| {
        Network::parse_canonical(part).map_err(|error| match error {
            NetworkError::Invalid => format!("{part:?} {error}"),
            NetworkError::NotFirst { .. } => error.to_string(),
        })
    };
    text.split(',').map(parse).collect()
}

pub(super) fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let not_a_range = || format!("{text:?} is not a port range; write it as 50000-50999");
    let (first, last) = text.split_once('-').ok_or_else(not_a_range)?;
    let first: u16 = first.parse().map_err(|_| not_a_range())?;
    let last: u16 = last.parse().map_err(|_| not_a_range())?;
    if first == 0 || first > last {
        return Err(not_a_range());
    }
    Ok(first..=last)
}

/// A duration, possibly zero.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text} has no unit; write {text}s for seconds"));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a time ({error}); write it as 30s or 2m"))
}

/// A timeout: zero would end every wait at once.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match is_zero(text) {
        true => Err("it must be more than zero".to_owned()),
        false => parse_duration(text),
    }
}

pub(super) fn parse_timeout_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    if is_zero(text) {
        return Err("it must be more than zero; write off for no limit".to_owned());
    }
    let time = parse_duration(text);
    time.map(Some)
        .map_err(|reason| format!("{reason}, or off for no limit"))
}

/// Is it zero, with a unit or without one?
fn is_zero(text: &str) -> bool {
    text == "0" || humantime::parse_duration(text) == Ok(Duration::ZERO)
}

pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err(format!(
            "{text:?} is not a number of sessions; write 1 or more"
        )),
    }
}

pub(super) fn parse_limit(text: &str) -> Result<Option<usize>, String> {
    match text {
        "off" => Ok(None),
        text => parse_count(text).map(Some),
    }
}

/// Are SOCKS4 and SOCKS5 served?
pub(super) fn parse_versions(text: &str) -> Result<(bool, bool), String> {
    let (mut socks4, mut socks5) = (false, false);
    for version in text.split(',') {
        match version {
            "4" => socks4 = true,
            "5" => socks5 = true,
            _ => return Err(format!("{text:?} names no versions; write 4, 5 or 4,5")),
        }
    }
    Ok((socks4, socks5))
}

pub(super) fn parse_user_name(name: Vec<u8>) -> Result<Vec<u8>, String> {
    match is_user_name(&name) {
        true => Ok(name),
        false if name.contains(&b':') => Err(format!(
            "{} has a colon; write only the name: the program asks for the password",
            QuotedName(&name)
        )),
        false => Err(format!(
            "{} is not a user name; write 1 to {MAX_USER_NAME} bytes without colon and line ends",
            QuotedName(&name)
        )),
    }
}

/// A path: the empty one would be that of no file.
pub(super) fn non_empty(path: OsString) -> Result<OsString, String> {
    match path.is_empty() {
        true => Err("the path is empty; write the path of a file".to_owned()),
        false => Ok(path),
    }
}

pub(super) fn parse_shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err(format!("{text:?} is none of bash, zsh and fish")),
    }
}

pub(super) fn parse_trace(path: OsString) -> Result<TraceTarget, String> {
    let shown = path.to_string_lossy().into_owned();
    TraceTarget::new(path.into()).ok_or_else(|| {
        format!(
            "{shown:?} ends neither with .svg nor with .json; write trace.svg for a picture, or \
             trace.json for Perfetto"
        )
    })
}

/// What stdout gets.
pub(super) fn parse_log(text: &str) -> Result<LogFormat, String> {
    match text {
        "screen" => Ok(LogFormat::Screen),
        "json" => Ok(LogFormat::Json),
        "none" => Ok(LogFormat::None),
        _ => Err(format!("{text:?} is none of screen, json and none")),
    }
}
