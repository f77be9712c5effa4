//! Access queries that are derived from the lines of a rules file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use threadsocks::protocol::{Command, Host, HostName};
use threadsocks::rules::{AccessQuery, WeekTime};

use super::super::quotes::names;
use super::lines::rule_lines;
use super::networks::networks_of;

/// Lines of a file that queries are derived from; a bound on the time per input.
const MAX_LINES: usize = 12;

/// Queries derived from each line; each list of values contributes several of its values.
const QUERIES_PER_LINE: usize = 12;

/// An access query that owns its host name and user.
#[derive(Clone, Debug)]
pub struct OwnedQuery {
    pub command: Command,
    pub source: SocketAddr,
    pub name: Option<HostName>,
    pub address: IpAddr,
    pub port: u16,
    pub user: Vec<u8>,
    pub logged_in: bool,
    pub time: WeekTime,
}

impl OwnedQuery {
    pub fn query(&self) -> AccessQuery<'_> {
        AccessQuery {
            command: self.command,
            source: self.source,
            user: &self.user,
            logged_in: self.logged_in,
            name: self.name.as_ref(),
            address: Some(self.address),
            port: Some(self.port),
            time: self.time,
            nat64: &[],
        }
    }
}

/// Queries with values at and near those of the lines; the same queries for the same file.
pub fn queries(bytes: &[u8]) -> Vec<OwnedQuery> {
    let text = String::from_utf8_lossy(bytes);
    let mut queries = Vec::new();
    for line in rule_lines(&text).take(MAX_LINES) {
        let [from, from_port, to, port] = line.columns;
        let sources = edge_addresses(from);
        let destinations = match similar_names(to).first() {
            Some(Some(_)) if networks_of(to).is_none() => addresses_of_a_name(),
            _ => edge_addresses(to),
        };
        let (source_ports, ports) = (edge_ports(from_port), edge_ports(port));
        let names = similar_names(to);
        let users = similar_users(line.option("user").unwrap_or_default());
        let moments = edge_moments(line.option("time").unwrap_or_default());
        for round in 0..QUERIES_PER_LINE {
            // Different divisors combine the lists differently. In round 0 each list has its
            // first value, which usually matches the line.
            queries.push(OwnedQuery {
                command: [Command::Connect, Command::Bind, Command::Associate][round % 3],
                source: SocketAddr::new(
                    sources[round / 2 % sources.len()],
                    source_ports[round / 3 % source_ports.len()],
                ),
                name: names[round % names.len()].clone(),
                address: destinations[round % destinations.len()],
                port: ports[round / 4 % ports.len()],
                user: users[round / 5 % users.len()].clone(),
                logged_in: round / 2 % 2 == 1,
                time: moments[round % moments.len()],
            });
        }
    }
    queries
}

/// Addresses at and next to the edges of the ranges that this word denotes.
fn edge_addresses(word: &str) -> Vec<IpAddr> {
    let mut found = match networks_of(word) {
        // The last network first, so that every network is tried among a few queries.
        Some(networks) => networks.iter().rev().flat_map(|it| edges(it)).collect(),
        None => edges(word),
    };
    for address in found.clone() {
        found.extend([offset_by(address, 1), offset_by(address, u128::MAX)]);
    }
    found
        .extend(["10.0.0.1", "140.113.1.2", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap()));
    found
}

/// Addresses to which the owner of a zone can lead a name.
fn addresses_of_a_name() -> Vec<IpAddr> {
    let addresses = [
        "192.0.2.1",
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "169.254.1.1",
        "168.63.129.16",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::9.9.9.9",
        "0.0.0.0",
        "2001:db8::1",
    ];
    addresses.map(|it| it.parse().unwrap()).to_vec()
}

/// The first and the last address of a range, and of a pattern one between them.
fn edges(word: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let (first, length) = word.split_once('/').unwrap_or((word, ""));
    let octets: Vec<&str> = word.split('.').collect();
    let filled = |with: &'static str| {
        let octet = |at: usize| match octets.get(at) {
            Some(octet) if octet.parse::<u8>().is_ok() => *octet,
            _ => with,
        };
        let all: Vec<&str> = (0..4).map(octet).collect();
        all.join(".").parse().ok()
    };
    found.extend(first.parse::<IpAddr>().ok().or_else(|| filled("0")));
    found.extend(["255", "99"].into_iter().filter_map(filled));
    if let (Some(&first), Ok(length)) = (found.first(), length.parse::<u32>()) {
        found.push(last_in_range(first, length));
    }
    found
}

fn last_in_range(first: IpAddr, length: u32) -> IpAddr {
    match first {
        IpAddr::V4(v4) => {
            let rest = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() | rest).into()
        }
        IpAddr::V6(v6) => {
            let rest = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() | rest).into()
        }
    }
}

fn offset_by(address: IpAddr, by: u128) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(by as u32)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(by)).into(),
    }
}

fn edge_ports(word: &str) -> Vec<u16> {
    let numbers = word
        .split([',', '-'])
        .filter_map(|it| it.parse::<u16>().ok());
    let around = numbers.flat_map(|port| [port, port.wrapping_sub(1), port.wrapping_add(1)]);
    around.take(30).chain([80, 0]).collect()
}

fn similar_names(word: &str) -> Vec<Option<HostName>> {
    let word = word.strip_prefix("*.").unwrap_or(word);
    let name = |text: String| match Host::from_name(text.as_bytes()) {
        Host::Name(name) => Some(name),
        _ => None,
    };
    let like = [word.to_owned(), format!("www.{word}"), format!("x{word}")];
    let mut names: Vec<_> = like.into_iter().map(name).collect();
    names.push(None);
    names
}

fn similar_users(list: &str) -> Vec<Vec<u8>> {
    let like = names(list).into_iter().take(3);
    let like = like.flat_map(|name| {
        let longer = [&name[..], b"x"].concat();
        let upper = name.to_ascii_uppercase();
        [name, longer, upper]
    });
    like.chain([Vec::new()]).collect()
}

/// The times of this list and their neighbouring minutes, on different days.
fn edge_moments(list: &str) -> Vec<WeekTime> {
    let mut moments = Vec::new();
    let times = list.split(['/', ',', '-']).filter(|it| it.contains(':'));
    for (place, time) in times.take(6).enumerate() {
        let (hour, minute) = time.split_once(':').unwrap();
        let (hour, minute) = (hour.parse::<u32>().unwrap(), minute.parse::<u32>().unwrap());
        let minute = hour * 60 + minute;
        for (round, minute) in [minute, minute + 1, minute + 1439].into_iter().enumerate() {
            let day = (place * 3 + round * 5) % 7;
            let minute = minute % 1440;
            let (hour, minute) = ((minute / 60) as u8, (minute % 60) as u8);
            moments.push(WeekTime::new(day as u8, hour, minute).unwrap());
        }
    }
    moments.push(WeekTime::MONDAY);
    moments
}
