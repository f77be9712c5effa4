//! Validation of a row of the form: the result is a session plan, or the errors of its fields.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use threadsocks::protocol::{Destination, Host};

use crate::allow::{AllowList, port_number};
use crate::batch::Batch;
use crate::query::{Query, Row};

/// Maximum length in characters of a value in a heading or a message, so that it leaves
/// space for other text.
const MAX_SHOWN_CHARS: usize = 60;

/// One of the fields of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    Port,
    File,
    SocksHost,
    SocksPort,
}

/// An error of a field; the reason is a sentence for the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: Field,
    pub(crate) reason: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

impl std::error::Error for FieldError {}

/// A server to which this program itself connects: a SOCKS server, or a shell server without
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerAddress {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Address(IpAddr::V6(address)) => write!(out, "[{address}]:{}", self.port),
            _ => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// What the administrator permits.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) allowed: AllowList,
    /// Whether rows without a SOCKS server are valid: the connection is direct.
    pub(crate) direct: bool,
}

impl Policy {
    /// Reports whether this row, with the values of the shared server, is a direct one.
    fn makes_direct(&self, row: &Row) -> bool {
        self.direct && row.socks_host.is_empty() && row.socks_port.is_empty()
    }
}

/// Everything that the thread of a session needs. It owns the plan, so the threads share
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    pub(crate) destination: Destination,
    /// `None` for a direct connection.
    pub(crate) socks: Option<ServerAddress>,
    pub(crate) batch: Batch,
}

/// A row with a shell server, which becomes a column of the page.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The number of the row in the form, from 1.
    pub(crate) number: usize,
    /// `host:port` of the shell server, as entered.
    pub(crate) title: String,
    pub(crate) file: String,
    /// The way to the shell server, for example `through localhost:1080`, as entered.
    pub(crate) route: String,
    /// Whether the connection needs no SOCKS server.
    pub(crate) is_direct: bool,
    pub(crate) plan: Result<SessionPlan, Vec<FieldError>>,
}

/// Validates all rows. A row without a shell server gets no column.
pub(crate) fn columns(query: &Query, policy: &Policy) -> Vec<Column> {
    let rows = query.rows.iter().enumerate();
    let named = rows.filter(|(_, row)| !row.host.is_empty());
    let mut columns: Vec<Column> = named
        .map(|(index, row)| {
            let row = with_shared_server(row, query);
            let is_direct = policy.makes_direct(&row);
            let socks = host_and_port(&row.socks_host, &row.socks_port);
            Column {
                number: index + 1,
                title: host_and_port(&row.host, &row.port),
                file: shorten(&row.file),
                route: match is_direct {
                    true => "directly".to_owned(),
                    false => format!("through {socks}"),
                },
                is_direct,
                plan: check_row(&row, policy),
            }
        })
        .collect();
    number_duplicate_titles(&mut columns);
    columns
}

/// Appends the number of the row to each title that occurs more than once.
fn number_duplicate_titles(columns: &mut [Column]) {
    let titles: Vec<String> = columns.iter().map(|column| column.title.clone()).collect();
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

/// The errors of a row for the form. A row without shell server, port and file is not
/// used, so it has none, even if it names a SOCKS server.
pub(crate) fn field_errors(query: &Query, row: &Row, policy: &Policy) -> Vec<FieldError> {
    if row.host.is_empty() && row.port.is_empty() && row.file.is_empty() {
        return Vec::new();
    }
    check_row(&with_shared_server(row, query), policy)
        .err()
        .unwrap_or_default()
}

/// Fills in the shared SOCKS server where the row names none.
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

/// Validates a row, and reads its batch file.
///
/// # Errors
///
/// All invalid fields.
fn check_row(row: &Row, policy: &Policy) -> Result<SessionPlan, Vec<FieldError>> {
    let mut field_errors = Vec::new();
    let mut add_error = |field, reason| field_errors.push(FieldError { field, reason });
    let is_direct = policy.makes_direct(row);
    let host =
        parse_shell_host(&row.host, is_direct).map_err(|reason| add_error(Field::Host, reason));
    let port = parse_port(&row.port).map_err(|reason| add_error(Field::Port, reason));
    let batch = match row.file.as_str() {
        "" => Err("no batch file is named".to_owned()),
        name => Batch::read(name),
    };
    let batch = batch.map_err(|reason| add_error(Field::File, reason));
    let socks = (!is_direct).then(|| {
        let host =
            parse_socks_host(&row.socks_host).map_err(|reason| add_error(Field::SocksHost, reason));
        let port =
            parse_port(&row.socks_port).map_err(|reason| add_error(Field::SocksPort, reason));
        Ok(ServerAddress {
            host: host?,
            port: port?,
        })
    });
    let socks: Result<Option<ServerAddress>, ()> = socks.transpose();
    let mut check = |host: &Host, port, field| {
        if !policy.allowed.permits(&host.to_string(), port) {
            let reason =
                format!("the administrator of this console does not let it go to {host}:{port}");
            add_error(field, reason);
        }
    };
    if let (Ok(host), Ok(port)) = (&host, port) {
        check(host, port, Field::Host);
    }
    if let Ok(Some(server)) = &socks {
        check(&server.host, server.port, Field::SocksHost);
    }
    match (host, port, batch, socks) {
        (Ok(host), Ok(port), Ok(batch), Ok(socks)) if field_errors.is_empty() => Ok(SessionPlan {
            destination: Destination { host, port },
            socks,
            batch,
        }),
        _ => Err(field_errors),
    }
}

/// Parses the host of a shell server. A SOCKS4 request has no space for an IPv6 address.
fn parse_shell_host(text: &str, is_direct: bool) -> Result<Host, String> {
    if text.is_empty() {
        return Err("no shell server is named".to_owned());
    }
    match ipv6(text) {
        Some(address) if is_direct => Ok(Host::Address(IpAddr::V6(address))),
        Some(_) => Err("SOCKS4 cannot carry an IPv6 address; give a name".to_owned()),
        None => parse_host(text),
    }
}

/// Parses the host of a SOCKS server. This program connects to it directly, so IPv6
/// addresses are valid.
fn parse_socks_host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Err("no SOCKS server is named".to_owned());
    }
    match ipv6(text) {
        Some(address) => Ok(Host::Address(IpAddr::V6(address))),
        None => parse_host(text),
    }
}

/// Parses a host name or an IPv4 address.
fn parse_host(text: &str) -> Result<Host, String> {
    match Host::from_name(text.as_bytes()) {
        Host::Invalid(invalid) => Err(format!(
            "\"{}\" is no host name: {}",
            shorten(text),
            invalid.reason
        )),
        host => Ok(host),
    }
}

/// Parses an IPv6 address, with or without brackets.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

/// Parses a port number.
fn parse_port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("no port is given".to_owned());
    }
    port_number(text).ok_or_else(|| {
        let shown = shorten(text);
        format!("\"{shown}\" is no port: a port is a number from 1 to 65535")
    })
}

/// Joins host and port for a heading, as entered.
fn host_and_port(host: &str, port: &str) -> String {
    let (host, port) = (shorten(host), shorten(port));
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Shortens a value for a sentence or a heading, and replaces control characters.
fn shorten(text: &str) -> String {
    let mut shown = crate::terminal::plain(text.as_bytes());
    if let Some((end, _)) = shown.char_indices().nth(MAX_SHOWN_CHARS) {
        shown.truncate(end);
        shown.push('\u{2026}');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_socks_only(allowed: AllowList) -> Policy {
        Policy {
            allowed,
            direct: false,
        }
    }

    #[test]
    fn w29_a_row_without_a_socks_server_is_direct_if_the_administrator_permits_it() {
        let policy = |direct| Policy {
            allowed: AllowList::parse("a:1, [::1]:1").unwrap(),
            direct,
        };
        for (query, direct, errors) in [
            ("h1=a&p1=1", false, vec![Field::SocksHost, Field::SocksPort]),
            ("h1=a&p1=1", true, vec![]),
            ("h1=::1&p1=1", true, vec![]),
            ("h1=a&p1=1&sp=1", true, vec![Field::SocksHost]),
            ("h1=a&p1=1&sh1=a", true, vec![Field::SocksPort]),
            ("h1=::1&p1=1&sh1=a&sp1=1", true, vec![Field::Host]),
            // The allow list counts for direct connections too.
            ("h1=b&p1=1", true, vec![Field::Host]),
        ] {
            let query = Query::parse(query.as_bytes());
            let field_errors = field_errors(&query, &query.rows[0], &policy(direct));
            let fields = field_errors.into_iter().map(|error| error.field);
            let fields: Vec<Field> = fields.filter(|field| *field != Field::File).collect();
            assert_eq!(fields, errors, "{query:?}");
        }
    }

    #[test]
    fn w04_ports_are_numbers_from_1_to_65535() {
        for text in ["", "0", "65536", "80abc", "-1", "+80", " 80", "8 0", "٣"] {
            assert!(parse_port(text).is_err(), "{text:?}");
        }
        assert_eq!(
            (parse_port("1"), parse_port("65535"), parse_port("080")),
            (Ok(1), Ok(65535), Ok(80))
        );
    }

    #[test]
    fn w04_invalid_hosts_are_refused_with_a_short_reason() {
        let long = "a".repeat(300);
        for text in ["", "a b", "a\0", "::1", "127.1", "<b>", &long] {
            let reason = parse_shell_host(text, false).expect_err(text);
            assert!(reason.chars().count() < 200, "{reason}");
        }
        assert!(matches!(
            parse_shell_host("127.0.0.1", false),
            Ok(Host::Address(_))
        ));
        assert!(matches!(
            parse_shell_host("Example.ORG", false),
            Ok(Host::Name(_))
        ));
        assert!(matches!(
            parse_socks_host("::1"),
            Ok(Host::Address(IpAddr::V6(_)))
        ));
        assert!(matches!(parse_socks_host("[::1]"), Ok(Host::Address(_))));
    }

    #[test]
    fn w20_each_error_names_its_field() {
        let query = Query::parse(b"h1=a&p1=x&sp1=y&sh=s&p2=1&sh3=only");
        let fields = |index: usize| -> Vec<Field> {
            let field_errors = field_errors(
                &query,
                &query.rows[index],
                &with_socks_only(AllowList::allow_all()),
            );
            field_errors.into_iter().map(|error| error.field).collect()
        };
        assert_eq!(fields(0), [Field::Port, Field::File, Field::SocksPort]);
        assert_eq!(fields(1), [Field::Host, Field::File, Field::SocksPort]);
        assert_eq!(fields(2), []);
        let columns = columns(&query, &with_socks_only(AllowList::allow_all()));
        assert_eq!(columns.len(), 1);
        assert_eq!(columns[0].title, "a:x");
        assert_eq!(columns[0].route, "through s:y");
    }

    #[test]
    fn equal_titles_get_their_row_number() {
        let query = Query::parse(b"h1=a&p1=1&h2=b&p2=1&h5=a&p5=1");
        let titles: Vec<String> = columns(&query, &with_socks_only(AllowList::allow_all()))
            .into_iter()
            .map(|column| column.title)
            .collect();
        assert_eq!(titles, ["a:1 (1)", "b:1", "a:1 (5)"]);
    }

    #[test]
    fn w19_shell_and_socks_server_must_both_be_allowed() {
        let policy = with_socks_only(AllowList::parse("s:1080, a:1").unwrap());
        for (query, forbidden) in [
            (&b"h1=a&p1=1&sh1=s&sp1=1080"[..], vec![]),
            (b"h1=a&p1=2&sh1=s&sp1=1080", vec![Field::Host]),
            (b"h1=A.&p1=1&sh1=s&sp1=1081", vec![Field::SocksHost]),
        ] {
            let query = Query::parse(query);
            let field_errors = field_errors(&query, &query.rows[0], &policy);
            let fields: Vec<Field> = field_errors
                .into_iter()
                .map(|error| error.field)
                .filter(|field| *field != Field::File)
                .collect();
            assert_eq!(fields, forbidden);
        }
    }
}
