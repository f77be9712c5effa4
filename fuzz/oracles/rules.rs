//! `socks.conf` means what a slow reading of its text says.
//!
//! The model below knows nothing of the parser's types: it takes each line apart
//! anew for each query, and compares addresses as text.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use threadsocks::config::{MAX_ERRORS, SyntaxError};
use threadsocks::protocol::{Command, Host, HostName};
use threadsocks::rules::{AccessQuery, Rules, Verdict, WeekTime, parse};

/// Lines of a file about which questions are asked.
const LINES_ASKED: usize = 12;

/// Questions for each of them.
const QUESTIONS: usize = 12;

/// Places at which a file is cut off.
const CUTS: usize = 12;

/// The oracle.
pub fn holds(bytes: &[u8]) {
    let whole = parse(bytes);
    layout_is_without_meaning(bytes, &whole);
    match &whole {
        Err(mistakes) => told_well(bytes, mistakes),
        Ok(rules) => {
            shown_and_understood(rules);
            judged_as_read(bytes, rules);
        }
    }
    for end in line_ends(bytes) {
        leading_lines(&bytes[..end], &whole);
    }
}

/// Mistakes come in order, each on a line of the file, in words for a screen.
fn told_well(bytes: &[u8], mistakes: &[SyntaxError]) {
    assert!((1..=MAX_ERRORS).contains(&mistakes.len()));
    let lines = bytes.split(|&byte| byte == b'\n').count();
    for (index, mistake) in mistakes.iter().enumerate() {
        let before = index.checked_sub(1).map_or(0, |it| mistakes[it].line);
        assert!(before < mistake.line && mistake.line <= lines, "{mistake}");
        assert!(mistake.reason.len() < 400, "{mistake}");
        assert!(
            mistake
                .reason
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte)),
            "{mistake}"
        );
    }
}

type Parsed = Result<Rules, Vec<SyntaxError>>;

/// The rules, or the lines that are none.
fn gist(parsed: &Parsed) -> Result<&Rules, Vec<usize>> {
    let lines = |mistakes: &Vec<SyntaxError>| mistakes.iter().map(|it| it.line).collect();
    parsed.as_ref().map_err(lines)
}

/// CRLF, a final newline, comments, more blanks, a byte order mark and, but in
/// the names of users, capital letters change nothing.
fn layout_is_without_meaning(bytes: &[u8], whole: &Parsed) {
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
        assert_eq!(gist(&parse(&layout)), gist(whole), "with the layout {text}");
    }
}

/// Each rule written in full on its own line is the same rule.
fn shown_and_understood(rules: &Rules) {
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

/// Some places behind a newline.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n');
    ends.map(|at| at + 1).take(CUTS).collect()
}

/// A file that somebody cut off between two lines permits no more than the
/// whole: its rules decide as before, and the rest is denied.
fn leading_lines(front: &[u8], whole: &Parsed) {
    let part = parse(front);
    let rules = match (&part, whole) {
        (Ok(rules), Ok(whole)) => (rules, whole),
        (Ok(_), Err(mistakes)) => {
            let last = front.split(|&byte| byte == b'\n').count() - 1;
            return assert!(mistakes[0].line > last, "{} is overlooked", mistakes[0]);
        }
        (Err(part), Err(whole)) => return assert!(whole.starts_with(part)),
        (Err(part), Ok(_)) => panic!("only the front is wrong: {part:?}"),
    };
    let (part, whole) = rules;
    assert!(part.iter().eq(whole.iter().take(part.len())));
    let last = front.split(|&byte| byte == b'\n').count() - 1;
    for asked in questions(front) {
        let query = asked.query();
        let expected = match whole.evaluate(&query) {
            verdict @ Verdict {
                line: Some(line), ..
            } if line <= last => verdict,
            _ => DENIED,
        };
        assert_eq!(part.evaluate(&query), expected, "{asked:?}");
    }
}

const DENIED: Verdict = Verdict {
    permitted: false,
    ident: false,
    auth: false,
    line: None,
};

/// The verdicts are the model's, also for IPv4 in IPv6's clothes, and what is
/// permitted was never ruled out beforehand.
fn judged_as_read(bytes: &[u8], rules: &Rules) {
    let text = String::from_utf8_lossy(bytes);
    for asked in questions(bytes) {
        let query = asked.query();
        let verdict = rules.evaluate(&query);
        assert_eq!(verdict, model(&text, &asked), "{asked:?}");
        let disguised = AccessQuery {
            source: SocketAddr::new(disguise(asked.source.ip()), asked.source.port()),
            address: Some(disguise(asked.address)),
            ..query
        };
        assert_eq!(rules.evaluate(&disguised), verdict, "{disguised:?}");
        for port in [Some(asked.port), None] {
            let best = rules.evaluate(&AccessQuery {
                address: None,
                port,
                ..query
            });
            let is_worse = !best.permitted || best.ident && !verdict.ident;
            assert!(!verdict.permitted || !is_worse, "{asked:?} was ruled out");
        }
        if asked.command == Command::Associate {
            let anything = rules.evaluate(&AccessQuery {
                name: None,
                address: None,
                port: None,
                ..query
            });
            let is_worse = !anything.permitted || anything.ident && !verdict.ident;
            assert!(!verdict.permitted || !is_worse, "{asked:?} was ruled out");
        }
        for rule in rules.iter() {
            let decides = Some(rule.line()) == verdict.line;
            let matches = rule.mismatches(&query).is_empty();
            assert!(matches || !decides, "{rule} does not match {asked:?}");
            if decides {
                break;
            }
            assert!(!matches, "{rule} matches {asked:?}");
        }
        if rules.open_relay().is_none() && rules.len() == 1 {
            assert!(!verdict.permitted || !permits_all(&text), "{text} is open");
        }
    }
}

fn permits_all(text: &str) -> bool {
    text.split_whitespace()
        .eq(["permit", "c", "-", "-", "-", "-"])
}

fn disguise(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

/// A query that owns its name.
#[derive(Clone, Debug)]
struct Asked {
    command: Command,
    source: SocketAddr,
    name: Option<HostName>,
    address: IpAddr,
    port: u16,
    user: String,
    logged_in: bool,
    moment: WeekTime,
}

impl Asked {
    fn query(&self) -> AccessQuery<'_> {
        AccessQuery {
            command: self.command,
            source: self.source,
            user: self.user.as_bytes(),
            logged_in: self.logged_in,
            name: self.name.as_ref(),
            address: Some(self.address),
            port: Some(self.port),
            moment: self.moment,
        }
    }
}

/// The four columns of one line in the long form, and its options.
struct Line<'a> {
    number: usize,
    action: &'a str,
    modes: &'a str,
    columns: [&'a str; 4],
    options: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// What stands behind `user=` or `time=`.
    fn option(&self, key: &str) -> Option<&'a str> {
        let values = self.options.iter().filter_map(|it| it.split_once('='));
        let mut found = values.filter(|(name, _)| name.eq_ignore_ascii_case(key));
        found.next().map(|(_, value)| value)
    }

    fn has(&self, option: &str) -> bool {
        let mut options = self.options.iter();
        options.any(|it| it.eq_ignore_ascii_case(option))
    }
}

/// The lines of a good file that are rules.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n').enumerate().filter_map(|(index, line)| {
        let code = line.split_once('#').map_or(line, |(code, _)| code);
        let words: Vec<&str> = code.split_ascii_whitespace().collect();
        let is_option = |it: &&str| {
            let word = it.to_ascii_lowercase();
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

/// The verdict by the text alone.
fn model(text: &str, asked: &Asked) -> Verdict {
    let letter = match asked.command {
        Command::Connect => 'c',
        Command::Bind => 'b',
        Command::Associate => 'u',
    };
    let found = lines(text).find(|line| {
        let [from, from_port, to, port] = line.columns;
        (is_any(line.modes) || line.modes.to_lowercase().contains(letter))
            && has_address(from, asked.source.ip())
            && has_port(from_port, asked.source.port())
            && (has_address(to, asked.address) || has_name(to, asked.name.as_ref()))
            && has_port(port, asked.port)
            && line
                .option("user")
                .is_none_or(|it| has_user(it, &asked.user))
            && line
                .option("time")
                .is_none_or(|it| has_time(it, asked.moment))
    });
    found.map_or(DENIED, |line| Verdict {
        permitted: line.action.to_lowercase() == "permit",
        ident: line.has("ident") || line.has("auth") && !asked.logged_in,
        auth: !line.has("ident") && line.has("auth") && !asked.logged_in,
        line: Some(line.number),
    })
}

fn is_any(word: &str) -> bool {
    ["-", "*"].contains(&word)
}

/// An address as a string of noughts and ones, IPv4 being a part of IPv6.
fn bits(address: IpAddr) -> String {
    let octets = match disguise(address) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => unreachable!("disguised"),
    };
    octets.iter().map(|octet| format!("{octet:08b}")).collect()
}

fn has_address(word: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if is_any(word) {
        return true;
    }
    if let Ok(same) = word.parse::<IpAddr>() {
        return bits(same) == bits(address);
    }
    if let Some((first, length)) = word.split_once('/')
        && let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<usize>())
    {
        // Ranges of IPv6 that begin before it do not contain IPv4.
        let length = if first.is_ipv4() { 96 + length } else { length };
        let reaches = length >= 96 || address.is_ipv6();
        return reaches && bits(first)[..length] == bits(address)[..length];
    }
    let pattern = |char: char| char.is_ascii_digit() || ".*".contains(char);
    if !word.chars().all(pattern) || address.is_ipv6() {
        return false;
    }
    let given = word.split('.').filter(|part| !part.is_empty());
    let have = address.to_string();
    given
        .zip(have.split('.'))
        .all(|(given, have)| given == "*" || given == have)
}

fn has_name(word: &str, name: Option<&HostName>) -> bool {
    let Some(name) = name else {
        return false;
    };
    let word = word.to_ascii_lowercase();
    let word = word.strip_suffix('.').unwrap_or(&word);
    match word.strip_prefix('*') {
        Some(below) => name.as_str().ends_with(below) && name.as_str().len() > below.len(),
        None => name.as_str() == word,
    }
}

fn has_port(word: &str, port: u16) -> bool {
    let number = |text: &str| text.parse::<u16>().unwrap();
    is_any(word)
        || word.split(',').any(|part| match part.split_once('-') {
            Some((first, last)) => number(first) <= port && port <= number(last),
            None => number(part) == port,
        })
}

fn has_user(names: &str, user: &str) -> bool {
    names.split(',').any(|name| name == user)
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Walks through the hours on all their days, a minute at a time.
fn has_time(list: &str, moment: WeekTime) -> bool {
    let list = list.to_lowercase();
    let now = moment.to_string();
    let mut days = DAYS.to_vec();
    let mut is_open = false;
    for item in list.split(',') {
        let (named, hours) = match item.split_once('/') {
            Some((named, hours)) => (named, hours),
            None if item.contains(':') => ("", item),
            None => (item, ""),
        };
        if !named.is_empty() {
            if !is_open {
                days.clear();
            }
            days.extend(walk(named));
            is_open = true;
        }
        if let Some((from, to)) = hours.split_once('-') {
            is_open = false;
            if days.iter().any(|day| walks_through(day, from, to, &now)) {
                return true;
            }
        }
    }
    false
}

/// The days of `sat-mon`, or of `sat`.
fn walk(named: &str) -> Vec<&'static str> {
    let (first, last) = named.split_once('-').unwrap_or((named, named));
    let from_first = DAYS.into_iter().cycle().skip_while(|day| *day != first);
    let mut days: Vec<_> = from_first.take(7).collect();
    let count = days.iter().position(|day| *day == last).unwrap();
    days.truncate(count + 1);
    days
}

/// Does a walk from this time of that day to the other time come past now?
fn walks_through(day: &str, from: &str, to: &str, now: &str) -> bool {
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

/// Questions close to what the lines are about, the same ones each time.
fn questions(bytes: &[u8]) -> Vec<Asked> {
    let text = String::from_utf8_lossy(bytes);
    let mut questions = Vec::new();
    for line in lines(&text).take(LINES_ASKED) {
        let [from, from_port, to, port] = line.columns;
        let sources = addresses(from);
        let destinations = addresses(to);
        let (source_ports, ports) = (ports(from_port), ports(port));
        let names = names(to);
        let users = users(line.option("user").unwrap_or_default());
        let moments = moments(line.option("time").unwrap_or_default());
        for turn in 0..QUESTIONS {
            // Each list at a pace of its own; the first turn hits the line.
            questions.push(Asked {
                command: [Command::Connect, Command::Bind, Command::Associate][turn % 3],
                source: SocketAddr::new(
                    sources[turn / 2 % sources.len()],
                    source_ports[turn / 3 % source_ports.len()],
                ),
                name: names[turn % names.len()].clone(),
                address: destinations[turn % destinations.len()],
                port: ports[turn / 4 % ports.len()],
                user: users[turn / 5 % users.len()].clone(),
                logged_in: turn / 2 % 2 == 1,
                moment: moments[turn % moments.len()],
            });
        }
    }
    questions
}

/// Addresses at the edges of what this word may mean.
fn addresses(word: &str) -> Vec<IpAddr> {
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
        found.push(last_of(first, length));
    }
    for address in found.clone() {
        found.extend([stepped(address, 1), stepped(address, u128::MAX)]);
    }
    found
        .extend(["10.0.0.1", "140.113.1.2", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap()));
    found
}

fn last_of(first: IpAddr, length: u32) -> IpAddr {
    match first {
        IpAddr::V4(it) => {
            let rest = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(it.to_bits() | rest).into()
        }
        IpAddr::V6(it) => {
            let rest = u128::MAX.checked_shr(length).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(it.to_bits() | rest).into()
        }
    }
}

fn stepped(address: IpAddr, by: u128) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits().wrapping_add(by as u32)).into(),
        IpAddr::V6(it) => std::net::Ipv6Addr::from_bits(it.to_bits().wrapping_add(by)).into(),
    }
}

fn ports(word: &str) -> Vec<u16> {
    let numbers = word
        .split([',', '-'])
        .filter_map(|it| it.parse::<u16>().ok());
    let around = numbers.flat_map(|it| [it, it.wrapping_sub(1), it.wrapping_add(1)]);
    around.take(30).chain([80, 0]).collect()
}

fn names(word: &str) -> Vec<Option<HostName>> {
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

fn users(names: &str) -> Vec<String> {
    let like = names.split(',').take(3);
    let like = like.flat_map(|name| [name.to_owned(), format!("{name}x"), name.to_uppercase()]);
    like.chain([String::new()]).collect()
}

/// Moments around those that are written there, on any day.
fn moments(list: &str) -> Vec<WeekTime> {
    let mut moments = Vec::new();
    let times = list.split(['/', ',', '-']).filter(|it| it.contains(':'));
    for (place, time) in times.take(6).enumerate() {
        let (hour, minute) = time.split_once(':').unwrap();
        let (hour, minute) = (hour.parse::<u32>().unwrap(), minute.parse::<u32>().unwrap());
        let minute = hour * 60 + minute;
        for (turn, minute) in [minute, minute + 1, minute + 1439].into_iter().enumerate() {
            let day = (place * 3 + turn * 5) % 7;
            let minute = minute % 1440;
            let (hour, minute) = ((minute / 60) as u8, (minute % 60) as u8);
            moments.push(WeekTime::new(day as u8, hour, minute).unwrap());
        }
    }
    moments.push(WeekTime::MONDAY);
    moments
}
