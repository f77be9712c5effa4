//! What was typed in a row becomes a visit to a shell, or what is wrong with it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use threadsocks::protocol::{Destination, Host};

use crate::allow::{Allowed, port_number};
use crate::batch::Batch;
use crate::query::{Query, Row};

/// Characters of a host, port or file name in a heading; more would leave no
/// room for anything else.
const MAX_SHOWN: usize = 60;

/// One of the fields of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    Port,
    File,
    SocksHost,
    SocksPort,
}

/// Something wrong with a field, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) field: Field,
    pub(crate) why: String,
}

/// A SOCKS server, to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Address(IpAddr::V6(address)) => write!(out, "[{address}]:{}", self.port),
            _ => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// Everything a shell's thread needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) target: Destination,
    pub(crate) socks: Server,
    pub(crate) batch: Batch,
}

/// A row of which the page has a column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// As the form counts its rows, from 1.
    pub(crate) number: usize,
    /// `host:port`, as typed.
    pub(crate) title: String,
    pub(crate) file: String,
    /// `host:port` of the SOCKS server, as typed.
    pub(crate) socks: String,
    pub(crate) plan: Result<Visit, Vec<Fault>>,
}

/// Judges all rows. Those without a shell server have no column.
pub(crate) fn columns(query: &Query, allowed: &Allowed) -> Vec<Column> {
    let rows = query.rows.iter().enumerate();
    let named = rows.filter(|(_, row)| !row.host.is_empty());
    let mut columns: Vec<Column> = named
        .map(|(index, row)| {
            let row = with_shared_server(row, query);
            Column {
                number: index + 1,
                title: host_and_port(&row.host, &row.port),
                file: shorten(&row.file),
                socks: host_and_port(&row.socks_host, &row.socks_port),
                plan: judge(&row, allowed),
            }
        })
        .collect();
    tell_apart(&mut columns);
    columns
}

/// Two visits to one server get their row's number behind the title.
fn tell_apart(columns: &mut [Column]) {
    let titles: Vec<String> = columns.iter().map(|it| it.title.clone()).collect();
    for column in columns {
        if titles
            .iter()
            .filter(|title| **title == column.title)
            .count()
            > 1
        {
            column.title = format!("{} ({})", column.title, column.number);
        }
    }
}

/// What is wrong with one row, for the form. A row in which only the SOCKS
/// server is named was just not used.
pub(crate) fn faults(query: &Query, row: &Row, allowed: &Allowed) -> Vec<Fault> {
    if row.host.is_empty() && row.port.is_empty() && row.file.is_empty() {
        return Vec::new();
    }
    judge(&with_shared_server(row, query), allowed)
        .err()
        .unwrap_or_default()
}

/// Fills in the shared SOCKS server where the row does not say.
fn with_shared_server(row: &Row, query: &Query) -> Row {
    let mut row = row.clone();
    if row.socks_host.is_empty() {
        row.socks_host.clone_from(&query.socks_host);
    }
    if row.socks_port.is_empty() {
        row.socks_port.clone_from(&query.socks_port);
    }
    row
}

fn judge(row: &Row, allowed: &Allowed) -> Result<Visit, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut note = |field, why| faults.push(Fault { field, why });
    let host = shell_host(&row.host).map_err(|why| note(Field::Host, why));
    let port = port(&row.port).map_err(|why| note(Field::Port, why));
    let batch = match row.file.as_str() {
        "" => Err("no batch file is named".to_owned()),
        name => Batch::read(name),
    };
    let batch = batch.map_err(|why| note(Field::File, why));
    let socks_host = socks_host(&row.socks_host).map_err(|why| note(Field::SocksHost, why));
    let socks_port = self::port(&row.socks_port).map_err(|why| note(Field::SocksPort, why));
    for (host, port, field) in [
        (&host, &port, Field::Host),
        (&socks_host, &socks_port, Field::SocksHost),
    ] {
        if let (Ok(host), Ok(port)) = (host, port)
            && !allowed.permits(&host.to_string(), *port)
        {
            let why =
                format!("the administrator of this console does not let it go to {host}:{port}");
            note(field, why);
        }
    }
    match (host, port, batch, socks_host, socks_port) {
        (Ok(host), Ok(port), Ok(batch), Ok(socks_host), Ok(socks_port)) if faults.is_empty() => {
            Ok(Visit {
                target: Destination { host, port },
                socks: Server {
                    host: socks_host,
                    port: socks_port,
                },
                batch,
            })
        }
        _ => Err(faults),
    }
}

fn shell_host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Err("no shell server is named".to_owned());
    }
    if ipv6(text).is_some() {
        return Err("SOCKS4 cannot carry an IPv6 address; give a name".to_owned());
    }
    usable(text)
}

/// This one is dialled from here, so it may have any address.
fn socks_host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Err("no SOCKS server is named".to_owned());
    }
    match ipv6(text) {
        Some(address) => Ok(Host::Address(IpAddr::V6(address))),
        None => usable(text),
    }
}

fn usable(text: &str) -> Result<Host, String> {
    match Host::from_name(text.as_bytes()) {
        Host::Invalid(bad) => Err(format!(
            "\"{}\" is no host name: {}",
            shorten(text),
            bad.reason
        )),
        host => Ok(host),
    }
}

fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("no port is given".to_owned());
    }
    port_number(text).ok_or_else(|| {
        let shown = shorten(text);
        format!("\"{shown}\" is no port: a port is a number from 1 to 65535")
    })
}

/// Both as typed, for a heading.
fn host_and_port(host: &str, port: &str) -> String {
    let (host, port) = (shorten(host), shorten(port));
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A value in a sentence or a heading.
fn shorten(text: &str) -> String {
    let mut shown = crate::terminal::plain(text.as_bytes());
    if let Some((end, _)) = shown.char_indices().nth(MAX_SHOWN) {
        shown.truncate(end);
        shown.push('\u{2026}');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w04_ports() {
        for text in ["", "0", "65536", "80abc", "-1", "+80", " 80", "8 0", "٣"] {
            assert!(port(text).is_err(), "{text:?}");
        }
        assert_eq!(
            (port("1"), port("65535"), port("080")),
            (Ok(1), Ok(65535), Ok(80))
        );
    }

    #[test]
    fn w04_hosts() {
        let long = "a".repeat(300);
        for text in ["", "a b", "a\0", "::1", "127.1", "<b>", &long] {
            let why = shell_host(text).expect_err(text);
            assert!(why.chars().count() < 200, "{why}");
        }
        assert!(matches!(shell_host("127.0.0.1"), Ok(Host::Address(_))));
        assert!(matches!(shell_host("Example.ORG"), Ok(Host::Name(_))));
        assert!(matches!(
            socks_host("::1"),
            Ok(Host::Address(IpAddr::V6(_)))
        ));
        assert!(matches!(socks_host("[::1]"), Ok(Host::Address(_))));
    }

    #[test]
    fn w20_each_fault_is_named_at_its_field() {
        let query = Query::parse(b"h1=a&p1=x&sp1=y&sh=s&p2=1&sh3=only");
        let fields = |index: usize| -> Vec<Field> {
            let faults = faults(&query, &query.rows[index], &Allowed::everywhere());
            faults.into_iter().map(|fault| fault.field).collect()
        };
        assert_eq!(fields(0), [Field::Port, Field::File, Field::SocksPort]);
        assert_eq!(fields(1), [Field::Host, Field::File, Field::SocksPort]);
        assert_eq!(fields(2), []);
        let columns = columns(&query, &Allowed::everywhere());
        assert_eq!(columns.len(), 1);
        assert_eq!(columns[0].title, "a:x");
        assert_eq!(columns[0].socks, "s:y");
    }

    #[test]
    fn two_visits_to_one_server_are_told_apart() {
        let query = Query::parse(b"h1=a&p1=1&h2=b&p2=1&h5=a&p5=1");
        let titles: Vec<String> = columns(&query, &Allowed::everywhere())
            .into_iter()
            .map(|column| column.title)
            .collect();
        assert_eq!(titles, ["a:1 (1)", "b:1", "a:1 (5)"]);
    }

    #[test]
    fn w19_both_servers_must_be_allowed() {
        let allowed = Allowed::parse("s:1080, a:1").unwrap();
        for (query, forbidden) in [
            (&b"h1=a&p1=1&sh1=s&sp1=1080"[..], vec![]),
            (b"h1=a&p1=2&sh1=s&sp1=1080", vec![Field::Host]),
            (b"h1=A.&p1=1&sh1=s&sp1=1081", vec![Field::SocksHost]),
        ] {
            let query = Query::parse(query);
            let faults = faults(&query, &query.rows[0], &allowed);
            let fields: Vec<Field> = faults
                .into_iter()
                .map(|fault| fault.field)
                .filter(|field| *field != Field::File)
                .collect();
            assert_eq!(fields, forbidden);
        }
    }
}
