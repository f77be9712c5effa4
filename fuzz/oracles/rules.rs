//! The verdicts of `socks.conf` agree with a simple text model of the file.
//!
//! The model shares no types with the parser: it splits each line again for each query,
//! and compares addresses as text.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use threadsocks::config::{MAX_ERRORS, SyntaxError};
use threadsocks::protocol::{Command, Host, HostName};
use threadsocks::rules::{AccessQuery, Rules, Verdict, WeekTime, parse};

/// Lines of a file that queries are derived from; a bound on the time per input.
const MAX_LINES: usize = 12;

/// Queries derived from each line; each list of values contributes several of its values.
const QUERIES_PER_LINE: usize = 12;

/// Prefixes of a file that are parsed; a bound on the time per input.
const MAX_PREFIXES: usize = 12;

/// Checks the result of the parser: layout, errors, display, verdicts, and prefixes.
pub fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    check_layout(bytes, &whole);
    match &whole {
        Err(errors) => check_errors(bytes, errors),
        Ok(rules) => {
            check_display(rules);
            check_verdicts(bytes, rules);
        }
    }
    for end in line_ends(bytes) {
        check_prefix(&bytes[..end], &whole);
    }
}

/// Errors are in the order of the lines, at most one per line, in printable ASCII.
fn check_errors(bytes: &[u8], errors: &[SyntaxError]) {
    assert!((1..=MAX_ERRORS).contains(&errors.len()));
    let lines = bytes.split(|&byte| byte == b'\n').count();
    for (index, error) in errors.iter().enumerate() {
        let previous = index.checked_sub(1).map_or(0, |index| errors[index].line);
        assert!(previous < error.line && error.line <= lines, "{error}");
        assert!(error.reason.len() < 400, "{error}");
        assert!(
            error
                .reason
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte)),
            "{error}"
        );
    }
}

type Parsed = Result<Rules, Vec<SyntaxError>>;

/// The rules, or the numbers of the lines with an error.
fn rules_or_lines(parsed: &Parsed) -> Result<&Rules, Vec<usize>> {
    let lines = |errors: &Vec<SyntaxError>| errors.iter().map(|error| error.line).collect();
    parsed.as_ref().map_err(lines)
}

/// CRLF, a final newline, comments, additional spaces and a byte order mark change nothing.
/// Neither do capital letters, except in the names of users.
fn check_layout(bytes: &[u8], whole: &Parsed) {
    let with_ends = |end: &[u8]| {
        let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        lines.join(end)
    };
    let mut layouts = vec![
        with_ends(b"\r\n"),
        with_ends(b" \t\n"),
        with_ends(b" # \xff permit - -\n"),
        [bytes, b"\n"].concat(),
        [bytes, b"\n# end"].concat(),
    ];
    if !bytes
        .to_ascii_lowercase()
        .windows(5)
        .any(|it| it == b"user=")
    {
        layouts.extend([bytes.to_ascii_uppercase(), bytes.to_ascii_lowercase()]);
    }
    if !bytes.starts_with(b"\xef\xbb\xbf") {
        layouts.push([b"\xef\xbb\xbf", bytes].concat());
    }
    for layout in layouts {
        let text = layout.escape_ascii();
        assert_eq!(
            rules_or_lines(&parse(&layout)),
            rules_or_lines(whole),
            "with the layout {text}"
        );
    }
}

/// The long form of each rule, written on the rule's own line, parses as the same rule.
fn check_display(rules: &Rules) {
    let mut text = String::new();
    for rule in rules.iter() {
        let line = text.matches('\n').count() + 1;
        let shown = rule.to_string();
        assert!(
            shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{shown}"
        );
        text.push_str(&"\n".repeat(rule.line() - line));
        text.push_str(&shown);
        text.push('\n');
    }
    assert_eq!(parse(text.as_bytes()).as_ref(), Ok(rules), "{text}");
}

/// The offsets after the first newlines.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n');
    ends.map(|at| at + 1).take(MAX_PREFIXES).collect()
}

/// A file that is cut off between two lines permits no more than the whole file: its rules
/// decide as before, and everything else is denied.
fn check_prefix(prefix: &[u8], whole: &Parsed) {
    let part = parse(prefix);
    let rules = match (&part, whole) {
        (Ok(rules), Ok(whole)) => (rules, whole),
        (Ok(_), Err(errors)) => {
            let last = prefix.split(|&byte| byte == b'\n').count() - 1;
            return assert!(
                errors[0].line > last,
                "the prefix accepts the error {}",
                errors[0]
            );
        }
        (Err(part), Err(whole)) => return assert!(whole.starts_with(part)),
        (Err(part), Ok(_)) => panic!("only the prefix has errors: {part:?}"),
    };
    let (part, whole) = rules;
    assert!(part.iter().eq(whole.iter().take(part.len())));
    let last = prefix.split(|&byte| byte == b'\n').count() - 1;
    for owned in queries(prefix) {
        let query = owned.query();
        let expected = match whole.evaluate(&query) {
            verdict @ Verdict {
                line: Some(line), ..
            } if line <= last => verdict,
            _ => DENIED,
        };
        assert_eq!(part.evaluate(&query), expected, "{owned:?}");
    }
}

/// The verdict if no rule matches.
const DENIED: Verdict = Verdict {
    permitted: false,
    ident: false,
    auth: false,
    line: None,
};

/// The verdicts are those of the model, also for IPv4-mapped IPv6 addresses. A query whose
/// address or port is not known yet is never judged more strictly than the complete query.
fn check_verdicts(bytes: &[u8], rules: &Rules) {
    let text = String::from_utf8_lossy(bytes);
    for owned in queries(bytes) {
        let query = owned.query();
        let verdict = rules.evaluate(&query);
        assert_eq!(verdict, model(&text, &owned), "{owned:?}");
        let mapped = AccessQuery {
            source: SocketAddr::new(ipv4_mapped(owned.source.ip()), owned.source.port()),
            address: Some(ipv4_mapped(owned.address)),
            ..query
        };
        assert_eq!(rules.evaluate(&mapped), verdict, "{mapped:?}");
        for port in [Some(owned.port), None] {
            let best = rules.evaluate(&AccessQuery {
                address: None,
                port,
                ..query
            });
            let is_stricter = !best.permitted || best.ident && !verdict.ident;
            assert!(
                !verdict.permitted || !is_stricter,
                "{owned:?} was denied before it was complete"
            );
        }
        if owned.command == Command::Associate {
            let anything = rules.evaluate(&AccessQuery {
                name: None,
                address: None,
                port: None,
                ..query
            });
            let is_stricter = !anything.permitted || anything.ident && !verdict.ident;
            assert!(
                !verdict.permitted || !is_stricter,
                "{owned:?} was denied before it was complete"
            );
        }
        for rule in rules.iter() {
            let decides = Some(rule.line()) == verdict.line;
            let matches = rule.mismatches(&query).is_empty();
            assert!(matches || !decides, "{rule} does not match {owned:?}");
            if decides {
                break;
            }
            assert!(!matches, "{rule} matches {owned:?}");
        }
        if rules.open_relay().is_none() && rules.len() == 1 {
            assert!(
                !verdict.permitted || !permits_every_connect(&text),
                "{text} is open"
            );
        }
    }
}

fn permits_every_connect(text: &str) -> bool {
    text.split_whitespace()
        .eq(["permit", "c", "-", "-", "-", "-"])
}

fn ipv4_mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

/// An access query that owns its host name and user.
#[derive(Clone, Debug)]
struct OwnedQuery {
    command: Command,
    source: SocketAddr,
    name: Option<HostName>,
    address: IpAddr,
    port: u16,
    user: String,
    logged_in: bool,
    time: WeekTime,
}

impl OwnedQuery {
    fn query(&self) -> AccessQuery<'_> {
        AccessQuery {
            command: self.command,
            source: self.source,
            user: self.user.as_bytes(),
            logged_in: self.logged_in,
            name: self.name.as_ref(),
            address: Some(self.address),
            port: Some(self.port),
            time: self.time,
        }
    }
}

/// One line of the file: the four columns of the long form, and the options.
struct Line<'a> {
    number: usize,
    action: &'a str,
    modes: &'a str,
    columns: [&'a str; 4],
    options: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// The value of `user=` or `time=`.
    fn option(&self, key: &str) -> Option<&'a str> {
        let values = self.options.iter().filter_map(|it| it.split_once('='));
        let mut found = values.filter(|(name, _)| name.eq_ignore_ascii_case(key));
        found.next().map(|(_, value)| value)
    }

    fn has_flag(&self, option: &str) -> bool {
        let mut options = self.options.iter();
        options.any(|it| it.eq_ignore_ascii_case(option))
    }
}

/// The rules of a valid file, without empty lines and comments.
fn rule_lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n').enumerate().filter_map(|(index, line)| {
        let code = line.split_once('#').map_or(line, |(code, _)| code);
        let words: Vec<&str> = code.split_ascii_whitespace().collect();
        let is_option = |word: &&str| {
            let word = word.to_ascii_lowercase();
            word.contains('=') || ["ident", "auth"].contains(&word.as_str())
        };
        let (columns, options): (Vec<&str>, Vec<&str>) =
            words.get(2..)?.iter().partition(|it| !is_option(it));
        let columns = match *columns.as_slice() {
            [to] => ["-", "-", to, "-"],
            [to, port] => ["-", "-", to, port],
            [from, from_port, to] => [from, from_port, to, "-"],
            [from, from_port, to, port] => [from, from_port, to, port],
            _ => return None,
        };
        Some(Line {
            number: index + 1,
            action: words[0],
            modes: words[1],
            columns,
            options,
        })
    })
}

/// The verdict by the text of the file: the first line that matches decides.
fn model(text: &str, owned: &OwnedQuery) -> Verdict {
    let letter = match owned.command {
        Command::Connect => 'c',
        Command::Bind => 'b',
        Command::Associate => 'u',
    };
    let found = rule_lines(text).find(|line| {
        let [from, from_port, to, port] = line.columns;
        (is_wildcard(line.modes) || line.modes.to_lowercase().contains(letter))
            && matches_address(from, owned.source.ip())
            && matches_port(from_port, owned.source.port())
            && (matches_address(to, owned.address) || matches_name(to, owned.name.as_ref()))
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
    })
}

fn is_wildcard(word: &str) -> bool {
    ["-", "*"].contains(&word)
}

/// An address as 128 binary digits; an IPv4 address is converted to an IPv4-mapped one.
fn bits(address: IpAddr) -> String {
    let octets = match ipv4_mapped(address) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => unreachable!("an IPv4-mapped address"),
    };
    octets.iter().map(|octet| format!("{octet:08b}")).collect()
}

fn matches_address(word: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if is_wildcard(word) {
        return true;
    }
    if let Ok(same) = word.parse::<IpAddr>() {
        return bits(same) == bits(address);
    }
    if let Some((first, length)) = word.split_once('/')
        && let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<usize>())
    {
        // An IPv6 range larger than the IPv4-mapped range (/96) does not contain IPv4.
        let length = if first.is_ipv4() { 96 + length } else { length };
        let reaches = length >= 96 || address.is_ipv6();
        return reaches && bits(first)[..length] == bits(address)[..length];
    }
    let is_pattern = |char: char| char.is_ascii_digit() || ".*".contains(char);
    if !word.chars().all(is_pattern) || address.is_ipv6() {
        return false;
    }
    let pattern = word.split('.').filter(|part| !part.is_empty());
    let text = address.to_string();
    pattern
        .zip(text.split('.'))
        .all(|(part, octet)| part == "*" || part == octet)
}

fn matches_name(word: &str, name: Option<&HostName>) -> bool {
    let Some(name) = name else {
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

fn matches_user(names: &str, user: &str) -> bool {
    names.split(',').any(|name| name == user)
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

/// Queries with values at and near those of the lines; the same queries for the same file.
fn queries(bytes: &[u8]) -> Vec<OwnedQuery> {
    let text = String::from_utf8_lossy(bytes);
    let mut queries = Vec::new();
    for line in rule_lines(&text).take(MAX_LINES) {
        let [from, from_port, to, port] = line.columns;
        let sources = edge_addresses(from);
        let destinations = edge_addresses(to);
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

/// Addresses at and next to the edges of the range that this word denotes.
fn edge_addresses(word: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let (first, length) = word.split_once('/').unwrap_or((word, ""));
    let parts: Vec<&str> = word
        .split('.')
        .filter(|it| it.parse::<u8>().is_ok())
        .collect();
    let filled = |with: &'static str| {
        let all = parts.iter().copied().chain([with; 4]).take(4);
        all.collect::<Vec<_>>().join(".").parse().ok()
    };
    found.extend(first.parse::<IpAddr>().ok().or_else(|| filled("0")));
    found.extend(filled("255"));
    if let (Some(&first), Ok(length)) = (found.first(), length.parse::<u32>()) {
        found.push(last_in_range(first, length));
    }
    for address in found.clone() {
        found.extend([offset_by(address, 1), offset_by(address, u128::MAX)]);
    }
    found
        .extend(["10.0.0.1", "140.113.1.2", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap()));
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
            std::net::Ipv6Addr::from_bits(v6.to_bits() | rest).into()
        }
    }
}

fn offset_by(address: IpAddr, by: u128) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(by as u32)).into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits().wrapping_add(by)).into(),
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

fn similar_users(names: &str) -> Vec<String> {
    let like = names.split(',').take(3);
    let like = like.flat_map(|name| [name.to_owned(), format!("{name}x"), name.to_uppercase()]);
    like.chain([String::new()]).collect()
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
