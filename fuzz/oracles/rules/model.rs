//! The verdict of a rules file, found from its text.
//!
//! The model shares no types with the parser: it splits each line again for each query,
//! and compares addresses as text.

use std::net::IpAddr;

use threadsocks::protocol::{Command, HostName};
use threadsocks::rules::{Verdict, WeekTime};

use super::super::quotes::names;
use super::lines::{Line, rule_lines};
use super::networks::networks_of;
use super::queries::OwnedQuery;

/// The verdict if no rule matches.
pub const DENIED: Verdict = Verdict {
    permitted: false,
    ident: false,
    auth: false,
    line: None,
    lacks_local: None,
};

/// The verdict by the text of the file: the first line that matches decides.
pub fn expected_verdict(text: &str, owned: &OwnedQuery) -> Verdict {
    let letter = match owned.command {
        Command::Connect => 'c',
        Command::Bind => 'b',
        Command::Associate => 'u',
    };
    let found = rule_lines(text).find(|line| {
        let [from, from_port, to, port] = line.columns;
        (is_wildcard(line.modes) || line.modes.to_lowercase().contains(letter))
            && matches_address(from, judged_source(owned.source.ip()))
            && matches_port(from_port, owned.source.port())
            && (matches_address(to, judged(owned.address))
                || matches_name(to, owned.name.as_ref())
                    && may_be_named(line, judged(owned.address)))
            && matches_port(port, owned.port)
            && line
                .option("user")
                .is_none_or(|it| matches_user(it, &owned.user))
            && line
                .option("time")
                .is_none_or(|it| matches_time(it, owned.time))
    });
    found.map_or(DENIED, |line| Verdict {
        permitted: line.action.to_lowercase() == "permit",
        ident: line.has_flag("ident") || line.has_flag("auth") && !owned.logged_in,
        auth: !line.has_flag("ident") && line.has_flag("auth") && !owned.logged_in,
        line: Some(line.number),
        lacks_local: None,
    })
}

/// May a rule with a name match a request for it that leads to this address?
fn may_be_named(line: &Line<'_>, address: IpAddr) -> bool {
    let name = format!(".{}", line.columns[2].to_lowercase());
    let is_local_name = name.trim_end_matches('.').ends_with(".localhost");
    let is_denial = line.action.to_lowercase() == "deny";
    let words = ["loopback", "linklocal", "metadata"];
    let is_local = words.iter().any(|word| matches_address(word, address));
    is_denial || is_local_name || line.has_flag("local") || !(is_local || address.is_unspecified())
}

fn is_wildcard(word: &str) -> bool {
    ["-", "*"].contains(&word)
}

pub fn ipv4_mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

/// An address as 128 binary digits; an IPv4 address is converted to an IPv4-mapped one.
fn bits(address: IpAddr) -> String {
    let octets = match ipv4_mapped(address) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => unreachable!("an IPv4-mapped address"),
    };
    octets.iter().map(|octet| format!("{octet:08b}")).collect()
}

/// The IPv4 address in an IPv4-mapped or NAT64 address; any other address as it is.
fn judged(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xFF9B, 0, 0, 0, 0] => {
            IpAddr::V4((v6.to_bits() as u32).into())
        }
        address => address,
    }
}

/// The address of a client: a NAT64 address stays, if the IPv4 address in it is a local one.
fn judged_source(address: IpAddr) -> IpAddr {
    let v4 = judged(address);
    if v4 == address {
        return address;
    }
    let words = ["loopback", "linklocal", "metadata"];
    let is_local = v4.is_unspecified() || words.iter().any(|word| matches_address(word, v4));
    match address {
        IpAddr::V6(v6) if is_local && v6.to_ipv4_mapped().is_none() => address,
        _ => v4,
    }
}

/// `address` is judged already.
fn matches_address(word: &str, address: IpAddr) -> bool {
    if is_wildcard(word) {
        return true;
    }
    if let Ok(same) = word.parse::<IpAddr>() {
        return bits(judged(same)) == bits(address);
    }
    if let Some((first, length)) = word.split_once('/')
        && let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<usize>())
    {
        // An IPv6 range larger than the IPv4-mapped and the NAT64 range (/96) does not contain
        // IPv4.
        let length = if first.is_ipv4() { 96 + length } else { length };
        return match length >= 96 {
            true => bits(judged(first))[..length] == bits(address)[..length],
            false => address.is_ipv6() && bits(first)[..length] == bits(address)[..length],
        };
    }
    if let Some(networks) = networks_of(word) {
        return networks.iter().any(|it| matches_address(it, address));
    }
    let is_pattern = |char: char| char.is_ascii_digit() || ".*-".contains(char);
    if !word.chars().all(is_pattern) || address.is_ipv6() {
        return false;
    }
    let pattern = word.split('.').filter(|part| !part.is_empty());
    let text = address.to_string();
    pattern
        .zip(text.split('.'))
        .all(|(part, octet)| is_wildcard(part) || part == octet)
}

fn matches_name(word: &str, name: Option<&HostName>) -> bool {
    let Some(name) = name.filter(|_| networks_of(word).is_none()) else {
        return false;
    };
    let word = word.to_ascii_lowercase();
    let word = word.strip_suffix('.').unwrap_or(&word);
    match word.strip_prefix('*') {
        Some(suffix) => name.as_str().ends_with(suffix) && name.as_str().len() > suffix.len(),
        None => name.as_str() == word,
    }
}

fn matches_port(word: &str, port: u16) -> bool {
    let number = |text: &str| text.parse::<u16>().unwrap();
    is_wildcard(word)
        || word.split(',').any(|part| match part.split_once('-') {
            Some((first, last)) => number(first) <= port && port <= number(last),
            None => number(part) == port,
        })
}

fn matches_user(list: &str, user: &[u8]) -> bool {
    names(list).iter().any(|name| name == user)
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Whether the time is in the list, found by stepping through each span by minutes.
fn matches_time(list: &str, time: WeekTime) -> bool {
    let list = list.to_lowercase();
    let now = time.to_string();
    let mut days = DAYS.to_vec();
    let mut in_day_list = false;
    for item in list.split(',') {
        let (day_names, hours) = match item.split_once('/') {
            Some((day_names, hours)) => (day_names, hours),
            None if item.contains(':') => ("", item),
            None => (item, ""),
        };
        if !day_names.is_empty() {
            if !in_day_list {
                days.clear();
            }
            days.extend(day_range(day_names));
            in_day_list = true;
        }
        if let Some((from, to)) = hours.split_once('-') {
            in_day_list = false;
            if days.iter().any(|day| span_has(day, from, to, &now)) {
                return true;
            }
        }
    }
    false
}

/// The days of a range like `sat-mon`, or of one day like `sat`.
fn day_range(day_names: &str) -> Vec<&'static str> {
    let (first, last) = day_names.split_once('-').unwrap_or((day_names, day_names));
    let from_first = DAYS.into_iter().cycle().skip_while(|day| *day != first);
    let mut days: Vec<_> = from_first.take(7).collect();
    let count = days.iter().position(|day| *day == last).unwrap();
    days.truncate(count + 1);
    days
}

/// Whether the span that starts on this day at `from` and ends at `to` contains `now`.
fn span_has(day: &str, from: &str, to: &str, now: &str) -> bool {
    let mut day = DAYS.iter().position(|it| *it == day).unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':').unwrap();
        (number(hour), number(minute))
    };
    let ((mut hour, mut minute), to) = (time(from), time(to));
    while (hour, minute) != to {
        if hour == 24 {
            (day, hour) = ((day + 1) % 7, 0);
            continue;
        }
        if format!("{}/{hour:02}:{minute:02}", DAYS[day]) == now {
            return true;
        }
        minute += 1;
        if minute == 60 {
            (hour, minute) = (hour + 1, 0);
        }
    }
    false
}
