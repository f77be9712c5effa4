//! Rules about people and hours, and the share of each client.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Instant, SystemTime};

use threadsocks::client::{self, ClientError};
use threadsocks::protocol::{Command, ReplyError};

use crate::support::endpoints::{
    Origin, by_address, connect_through, dial, dial_from, read_all, read_exactly, request, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::wait::until;

/// May this user connect to this origin?
fn permitted(proxy: &Proxy, origin: &Origin, user: &str) -> bool {
    match client::socks4::connect(
        dial(proxy.address()),
        &origin.destination(),
        user.as_bytes(),
    ) {
        Ok(_) => true,
        Err(ClientError::Refused(ReplyError::Rejected)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn users_are_told_apart_by_their_user_id() {
    let origin = Origin::echo();
    let rules = format!(
        "deny c - user=mallory\npermit c localhost 1\npermit c - {} user=alice,bob\n",
        origin.port()
    );
    let proxy = Proxy::start(&rules, &["-v"]);
    for (user, may) in [
        ("alice", true),
        ("bob", true),
        ("alic", false),
        ("Alice", false),
        ("alice,bob", false),
        ("", false),
        ("mallory", false),
    ] {
        assert_eq!(permitted(&proxy, &origin, user), may, "{user}");
    }
    proxy.stderr_line("line 3 permits whoever claims to be that user");
    proxy.stderr_line("user=\"mallory\" rule=1 up=0");
    proxy.stderr_line("user=\"alic\" rule=- up=0");
    proxy.finish();
}

/// Seconds since midnight, UTC, and days since a Monday.
fn now() -> (i64, usize) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    // The first of January 1970 was a Thursday.
    (
        (seconds % 86_400) as i64,
        (seconds / 86_400 + 3) as usize % 7,
    )
}

/// A time zone in which it is now, these seconds after midnight in UTC, so many
/// minutes after midnight, on the same day.
fn zone_where_it_is(now: i64, minute: i64) -> String {
    let west = now - minute * 60;
    let sign = if west < 0 { "-" } else { "" };
    let west = west.abs();
    format!(
        "TZ=<ZONE>{sign}{}:{:02}:{:02}",
        west / 3600,
        west / 60 % 60,
        west % 60
    )
}

#[test]
fn hours_are_those_of_the_local_clock() {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let (now, today) = now();
    let (today, tomorrow) = (days[today], days[(today + 1) % 7]);
    let origin = Origin::echo();
    // Half an hour on each side, for whoever comes by at midnight or is slow.
    let rules = format!(
        "permit c - user=noon time={today}/11:30-12:30\n\
         permit c - user=night time={today}/23:30-00:30\n\
         permit c - user=tomorrow time={tomorrow}/00:00-24:00\n"
    );
    for (minute, noon, night) in [
        (12 * 60, true, false),
        (13 * 60, false, false),
        (23 * 60 + 45, false, true),
    ] {
        let zone = zone_where_it_is(now, minute);
        let proxy = Proxy::with(Setup {
            rules: &rules,
            wrapper: &["env", &zone],
            ..Setup::default()
        });
        assert_eq!(permitted(&proxy, &origin, "noon"), noon, "{zone}");
        assert_eq!(permitted(&proxy, &origin, "night"), night, "{zone}");
        assert!(!permitted(&proxy, &origin, "tomorrow"), "{zone}");
        let explained = binary()
            .args(["--explain", "c 1.1.1.1 2.2.2.2 80 user=noon", "--config"])
            .arg(proxy.config())
            .env("TZ", zone.strip_prefix("TZ=").unwrap())
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&explained.stdout).into_owned();
        let expected = if noon { "permit: " } else { "deny: " };
        assert!(told.starts_with(expected), "{told}");
        assert!(
            told.contains(&format!("at {today}/{:02}:", minute / 60)),
            "{told}"
        );
        proxy.finish();
    }
}

fn loopback(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))
}

/// The server ends this connection with nothing but a refusal.
fn turned_away(client: &TcpStream) {
    assert_eq!(read_all(client), b"\x00\x5b\0\0\0\0\0\0");
}

#[test]
fn s06_one_client_cannot_take_all() {
    let began = Instant::now();
    let proxy = Proxy::start(PERMIT_ALL, &["--max-per-client", "3"]);
    let from = |host| dial_from(loopback(host), proxy.address());
    let mut greedy: Vec<TcpStream> = (0..3).map(|_| from(2)).collect();
    // All three have been accepted when the fourth is.
    for _ in 0..200 {
        turned_away(&from(2));
    }
    // Others are served, and so is the greedy one when it has let go.
    let origin = Origin::echo();
    drop(connect_through(proxy.address(), &origin.destination()));
    let others: Vec<TcpStream> = (0..3).map(|_| from(3)).collect();
    turned_away(&from(3));
    drop((others, greedy.pop()));
    until("a seat", || {
        let again = from(2);
        write(
            &again,
            &request(Command::Connect, &origin.destination(), b""),
        );
        (read_exactly(&again, 8)[1] == 90).then_some(())
    });
    drop(greedy);
    let first = proxy.stderr_line("127.0.0.2 has 3 sessions, and may have no more");
    assert!(!first.contains("more since"), "{first}");
    // All were counted, in lines of which there is at most one a second.
    let lines = until("the count", || {
        let said = proxy.stderr_lines();
        let lines: Vec<&String> = said.iter().filter(|it| turned_away_in(it) > 0).collect();
        let counted: usize = lines.iter().map(|it| turned_away_in(it)).sum();
        (counted >= 201).then_some(lines.len())
    });
    assert!(
        lines as u64 <= began.elapsed().as_secs() + 2,
        "{lines} lines"
    );
    proxy.finish();
}

/// How many clients this line on stderr is about.
fn turned_away_in(line: &str) -> usize {
    let number_before = |words: &str| {
        let (front, _) = line.split_once(words)?;
        front.rsplit([' ', '(']).next()?.parse::<usize>().ok()
    };
    usize::from(line.contains("and may have no more"))
        + number_before(" more since the last line").unwrap_or(0)
        + number_before(" more turned away").unwrap_or(0)
}

#[test]
fn b12_the_listeners_of_one_client_are_limited() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-per-client", "20"]);
    let anybody = by_address(([0, 0, 0, 0], 0).into());
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..500 {
        match client::socks4::bind(dial(proxy.address()), &anybody, b"") {
            Ok(binding) => waiting.push(binding),
            Err(ClientError::Refused(ReplyError::Rejected)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((waiting.len(), refused), (20, 480));
    // Others may.
    let other = client::socks4::bind(dial_from(loopback(2), proxy.address()), &anybody, b"");
    drop(other.expect("listening"));
    drop(waiting);
    proxy.finish();
}
