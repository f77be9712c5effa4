//! Rules with `user=` and `time=`, and `--max-per-client`.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

use threadsocks::client::{self, ClientError};
use threadsocks::protocol::{Command, ReplyError};

use crate::support::endpoints::{
    Origin, by_address, connect_through, dial, dial_from, read_all, read_exactly, request, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::wait::until;

/// Whether the rules permit this SOCKS4 user to connect to this origin.
fn is_permitted(proxy: &Proxy, origin: &Origin, user: &str) -> bool {
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
fn user_rules_match_the_exact_user_id() {
    let origin = Origin::echo();
    let rules = format!(
        "deny c - user=mallory\npermit c localhost 1\npermit c - {} user=alice,bob\n",
        origin.port()
    );
    let proxy = Proxy::start(&rules, &["-v"]);
    for (user, expected) in [
        ("alice", true),
        ("bob", true),
        ("alic", false),
        ("Alice", false),
        ("alice,bob", false),
        ("", false),
        ("mallory", false),
    ] {
        assert_eq!(is_permitted(&proxy, &origin, user), expected, "{user}");
    }
    proxy.stderr_line("line 3 permits every client that claims this user");
    proxy.stderr_line("user=\"mallory\" rule=1 up=0");
    proxy.stderr_line("user=\"alic\" rule=- up=0");
    proxy.finish();
}

/// The current time in UTC: seconds since midnight, and the day of the week (0 is Monday).
fn utc_now() -> (i64, usize) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    // Day 0, 1 January 1970, was a Thursday.
    (
        (seconds % 86_400) as i64,
        (seconds / 86_400 + 3) as usize % 7,
    )
}

/// A `TZ=` setting whose local time is `local_minutes` after midnight, on the same day, when
/// UTC is `utc_seconds` after midnight.
fn time_zone_with_local_time(utc_seconds: i64, local_minutes: i64) -> String {
    // POSIX counts the offset of a zone in the direction west of Greenwich.
    let west = utc_seconds - local_minutes * 60;
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
fn time_rules_use_the_local_time_zone() {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let (now, today) = utc_now();
    let (today, tomorrow) = (days[today], days[(today + 1) % 7]);
    let origin = Origin::echo();
    // Each range reaches half an hour to both sides, so that neither a slow machine nor
    // midnight during the test changes a verdict.
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
        let zone = time_zone_with_local_time(now, minute);
        let proxy = Proxy::with(Setup {
            rules: &rules,
            wrapper: &["env", &zone],
            ..Setup::default()
        });
        assert_eq!(is_permitted(&proxy, &origin, "noon"), noon, "{zone}");
        assert_eq!(is_permitted(&proxy, &origin, "night"), night, "{zone}");
        assert!(!is_permitted(&proxy, &origin, "tomorrow"), "{zone}");
        let explained = binary()
            .args(["--explain", "c 1.1.1.1 2.2.2.2 80 user=noon", "--config"])
            .arg(proxy.config())
            .env("TZ", zone.strip_prefix("TZ=").unwrap())
            .output()
            .expect("threadsocks starts");
        let output = String::from_utf8_lossy(&explained.stdout).into_owned();
        let expected = if noon { "permit: " } else { "deny: " };
        assert!(output.starts_with(expected), "{output}");
        assert!(
            output.contains(&format!("at {today}/{:02}:", minute / 60)),
            "{output}"
        );
        proxy.finish();
    }
}

fn loopback(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))
}

/// Asserts that the server sends a SOCKS4 refusal at once and closes the connection.
fn assert_rejected(client: &TcpStream) {
    assert_eq!(read_all(client), b"\x00\x5b\0\0\0\0\0\0");
}

#[test]
fn s06_one_client_cannot_take_all_sessions() {
    let began = Instant::now();
    let proxy = Proxy::start(PERMIT_ALL, &["--max-per-client", "3"]);
    let connect_from = |host| dial_from(loopback(host), proxy.address());
    let mut at_limit: Vec<TcpStream> = (0..3).map(|_| connect_from(2)).collect();
    // The server accepts in order: it has accepted these three before the next one.
    for _ in 0..200 {
        assert_rejected(&connect_from(2));
    }
    // Other addresses are served.
    let origin = Origin::echo();
    drop(connect_through(proxy.address(), &origin.destination()));
    let others: Vec<TcpStream> = (0..3).map(|_| connect_from(3)).collect();
    assert_rejected(&connect_from(3));
    // The first address is served again when one of its sessions has ended.
    drop((others, at_limit.pop()));
    until("a new session of the client is accepted", || {
        let client = connect_from(2);
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b""),
        );
        (read_exactly(&client, 8)[1] == 90).then_some(())
    });
    drop(at_limit);
    let first = proxy.stderr_line("127.0.0.2 has 3 sessions, the limit for one client");
    assert!(!first.contains("more since"), "{first}");
    // stderr counts every rejected client, in at most one line per second.
    let lines = until("stderr has counted 201 rejected clients", || {
        let lines = proxy.stderr_lines();
        let counts: Vec<usize> = lines.iter().map(|line| rejected_in(line)).collect();
        let total: usize = counts.iter().sum();
        let nonzero = counts.iter().filter(|count| **count > 0).count();
        (total >= 201).then_some(nonzero)
    });
    assert!(
        lines as u64 <= began.elapsed().as_secs() + 2,
        "{lines} lines"
    );
    proxy.finish();
}

/// Whether the server takes a session of this client: it closes a rejected one at once.
fn is_accepted(client: &TcpStream) -> bool {
    // The first byte of a request that is not complete.
    write(client, &[4]);
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    match { client }.read(&mut [0; 8]) {
        Ok(count) => {
            assert_eq!(count, 8, "a refusal of SOCKS4");
            false
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        Err(error) => panic!("{error}"),
    }
}

/// A customer may have 65,536 networks of 64 bits, and use another for each connection.
#[test]
fn s23_a_client_with_many_ipv6_networks_cannot_take_all_sessions() {
    in_own_network(|network| {
        network.own_documentation_prefix();
        let options = [
            "--bind",
            "::",
            "--max-per-client",
            "2",
            "--max-sessions",
            "80",
        ];
        let proxy = Proxy::start(PERMIT_ALL, &options);
        let server = SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port()));
        let accepted_from = |site, networks: Range<u16>| -> Vec<TcpStream> {
            let client = |network| {
                let address = Ipv6Addr::new(0x2001, 0xdb8, site, network, 0, 0, 0, 1);
                dial_from((address, 0).into(), server)
            };
            networks.map(client).filter(is_accepted).collect()
        };
        // One /64 has 2 sessions, a /56 has 8, a /48 has 32.
        let of_one: Vec<_> = (0..4).flat_map(|_| accepted_from(7, 0..1)).collect();
        assert_eq!(of_one.len(), 2);
        let of_customer = accepted_from(7, 0..16);
        assert_eq!(of_one.len() + of_customer.len(), 8);
        let of_site = accepted_from(7, 0..0x200);
        assert_eq!(of_one.len() + of_customer.len() + of_site.len(), 16);
        let of_other_customers = (2..8).flat_map(|it| accepted_from(7, it << 8..(it << 8) + 9));
        let of_other_customers: Vec<_> = of_other_customers.collect();
        assert_eq!(of_other_customers.len(), 16);
        assert_eq!(accepted_from(8, 0..2).len(), 2);
        proxy.stderr_line("--max-per-client 2 permits to a /64, a /56 or a /48");
        drop((of_one, of_customer, of_site, of_other_customers));
        until("the client is accepted again", || {
            (accepted_from(7, 0..1).len() == 1).then_some(())
        });
        proxy.finish();
    });
}

/// The number of rejected clients that this line on stderr reports.
fn rejected_in(line: &str) -> usize {
    let number_before = |words: &str| {
        let (before, _) = line.split_once(words)?;
        before.rsplit([' ', '(']).next()?.parse::<usize>().ok()
    };
    usize::from(line.contains("the limit for one client"))
        + number_before(" more since the last line").unwrap_or(0)
        + number_before(" more clients rejected").unwrap_or(0)
}

#[test]
fn b12_the_listeners_of_one_client_are_limited() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-per-client", "20"]);
    let any_peer = by_address(([0, 0, 0, 0], 0).into());
    let mut waiting = Vec::new();
    let mut refused_count = 0;
    for _ in 0..500 {
        match client::socks4::bind(dial(proxy.address()), &any_peer, b"") {
            Ok(binding) => waiting.push(binding),
            Err(ClientError::Refused(ReplyError::Rejected)) => refused_count += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((waiting.len(), refused_count), (20, 480));
    // Another address still gets a listener.
    let other = client::socks4::bind(dial_from(loopback(2), proxy.address()), &any_peer, b"");
    drop(other.expect("listening"));
    drop(waiting);
    proxy.finish();
}
