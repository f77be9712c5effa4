//! Validation of a row of the form: the result is a session plan, or the errors of its fields.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Destination, Host};

use crate::allow::{AllowList, port_number};
use crate::batch::{self, Batch};
use crate::failure::Failure;
use crate::query::{Query, Row};
use crate::socks_logins::SocksLogins;
use crate::terminal::shorten;

/// The name of a typed batch in a heading. No file has this name: it contains a space.
const TYPED_BATCH: &str = "typed batch";

/// Where the user finds the port of a shell server.
const SHELL_PORT: &str = "Enter the port at which the shell server was started, such as 7000.";

/// Where the user finds the port of a SOCKS server.
const SOCKS_PORT: &str = "Enter the port at which the SOCKS server was started; 1080 is common.";

/// The next step after a destination that is not on the allow list.
const NOT_ALLOWED: &str = "Ask the administrator to add this destination to CONSOLE_ALLOW, or enter \
    one that is permitted.";

/// One of the fields of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    Port,
    File,
    SocksHost,
    SocksPort,
}

/// An error of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: Field,
    pub(crate) failure: Failure,
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(out)
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

/// A SOCKS server, and how to log in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocksServer {
    pub(crate) address: ServerAddress,
    /// The login of SOCKS5. Without one the console sends SOCKS4 or SOCKS4A.
    pub(crate) login: Option<Credentials>,
}

/// What the administrator permits, and the logins that the administrator has given.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) allowed: AllowList,
    pub(crate) logins: SocksLogins,
    /// Whether rows without a SOCKS server are valid: the connection is direct.
    pub(crate) direct: bool,
}

impl Policy {
    /// Reports whether this row, with the values of the shared server, is a direct one.
    fn makes_direct(&self, row: &Row) -> bool {
        self.direct && row.socks_host.is_empty() && row.socks_port.is_empty()
    }
}

/// Everything that the thread of a session needs. Each thread owns its plan, so the threads
/// share nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    pub(crate) destination: Destination,
    /// `None` for a direct connection.
    pub(crate) socks: Option<SocksServer>,
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
    let named = rows.filter(|(index, row)| !row.host.is_empty() && query.runs_row(index + 1));
    let mut columns: Vec<Column> = named
        .map(|(index, row)| {
            let row = with_shared_values(row, query);
            let is_direct = policy.makes_direct(&row);
            let socks = host_and_port(&row.socks_host, &row.socks_port);
            Column {
                number: index + 1,
                title: host_and_port(&row.host, &row.port),
                file: match row.file.as_str() {
                    "" if !query.batch.is_empty() => TYPED_BATCH.to_owned(),
                    file => shorten(file.as_bytes()),
                },
                route: match is_direct {
                    true => "directly".to_owned(),
                    false => format!("through {socks}"),
                },
                is_direct,
                plan: check_row(&row, &query.batch, policy),
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

/// The errors of a row for the form. A row that is not used has no errors.
pub(crate) fn field_errors(query: &Query, row: &Row, policy: &Policy) -> Vec<FieldError> {
    if !row.is_used() {
        return Vec::new();
    }
    check_row(&with_shared_values(row, query), &query.batch, policy)
        .err()
        .unwrap_or_default()
}

/// The failure of a row with these errors.
pub(crate) fn combine(errors: &[FieldError]) -> Failure {
    let join = |part: fn(&FieldError) -> &str, separator| {
        let parts: Vec<&str> = errors.iter().map(part).collect();
        parts.join(separator)
    };
    Failure {
        reason: join(|error| &error.failure.reason, "; "),
        next_step: join(|error| &error.failure.next_step, " "),
    }
}

/// Fills in the shared SOCKS server and the shared batch file where the row names none.
fn with_shared_values(row: &Row, query: &Query) -> Row {
    let mut row = row.clone();
    for (value, shared) in [
        (&mut row.socks_host, &query.socks_host),
        (&mut row.socks_port, &query.socks_port),
        (&mut row.file, &query.file),
    ] {
        if value.is_empty() {
            value.clone_from(shared);
        }
    }
    row
}

/// Validates a row, and reads its batch file. `typed` is the text of the typed batch.
///
/// # Errors
///
/// All invalid fields.
fn check_row(row: &Row, typed: &str, policy: &Policy) -> Result<SessionPlan, Vec<FieldError>> {
    let mut field_errors = Vec::new();
    let mut add_error = |field, failure| field_errors.push(FieldError { field, failure });
    let is_direct = policy.makes_direct(row);
    let login = login_for(row, policy);
    // SOCKS5 and a direct connection can carry an IPv6 address.
    let can_be_ipv6 = is_direct || login.is_some();
    let host =
        parse_shell_host(&row.host, can_be_ipv6).map_err(|error| add_error(Field::Host, error));
    let port = parse_port(&row.port, SHELL_PORT).map_err(|error| add_error(Field::Port, error));
    let batch = match row.file.as_str() {
        "" if typed.is_empty() => Err(Failure::new("no batch file is named", batch::file_hint(""))),
        "" => Ok(Batch::parse(typed.as_bytes())),
        name => Batch::read(name),
    };
    let batch = batch.map_err(|error| add_error(Field::File, error));
    let socks = (!is_direct).then(|| {
        let host =
            parse_socks_host(&row.socks_host).map_err(|error| add_error(Field::SocksHost, error));
        let port = parse_port(&row.socks_port, SOCKS_PORT)
            .map_err(|error| add_error(Field::SocksPort, error));
        let address = ServerAddress {
            host: host?,
            port: port?,
        };
        Ok(SocksServer { address, login })
    });
    let socks: Result<Option<SocksServer>, ()> = socks.transpose();
    let mut check = |host: &Host, port, field| {
        if !policy.allowed.permits(&host.to_string(), port) {
            let reason = format!("the administrator of this console does not permit {host}:{port}");
            add_error(field, Failure::new(reason, NOT_ALLOWED));
        }
    };
    if let (Ok(host), Ok(port)) = (&host, port) {
        check(host, port, Field::Host);
    }
    if let Ok(Some(server)) = &socks {
        check(&server.address.host, server.address.port, Field::SocksHost);
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

/// The login of SOCKS5 for the SOCKS server of this row, if the administrator has given one.
fn login_for(row: &Row, policy: &Policy) -> Option<Credentials> {
    let host = parse_socks_host(&row.socks_host).ok()?;
    let port = port_number(&row.socks_port)?;
    policy.logins.find(&host.to_string(), port)
}

/// Parses the host of a shell server. A SOCKS4 request has no space for an IPv6 address.
fn parse_shell_host(text: &str, can_be_ipv6: bool) -> Result<Host, Failure> {
    if text.is_empty() {
        let next_step = "Enter the host name or the IPv4 address of the shell server.";
        return Err(Failure::new("no shell server is named", next_step));
    }
    match ipv6(text) {
        Some(address) if can_be_ipv6 => Ok(Host::Address(IpAddr::V6(address))),
        Some(_) => Err(Failure::new(
            "SOCKS4 cannot carry an IPv6 address",
            "Enter the name of the host; the SOCKS server looks it up.",
        )),
        None => parse_host(text),
    }
}

/// Parses the host of a SOCKS server. This program connects to it directly, so IPv6
/// addresses are valid.
fn parse_socks_host(text: &str) -> Result<Host, Failure> {
    if text.is_empty() {
        let next_step = "Enter the host of a SOCKS server for all rows, or one for the row.";
        return Err(Failure::new("no SOCKS server is named", next_step));
    }
    match ipv6(text) {
        Some(address) => Ok(Host::Address(IpAddr::V6(address))),
        None => parse_host(text),
    }
}

/// Parses a host name or an IPv4 address.
fn parse_host(text: &str) -> Result<Host, Failure> {
    match Host::from_name(text.as_bytes()) {
        Host::Invalid(invalid) => Err(Failure::new(
            format!(
                "\"{}\" is no host name: {}",
                shorten(text.as_bytes()),
                invalid.reason
            ),
            "Enter a name such as shell.example.edu, or an IPv4 address such as 192.0.2.7.",
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

/// Parses a port number. `next_step` says where the user finds the right one.
fn parse_port(text: &str, next_step: &str) -> Result<u16, Failure> {
    if text.is_empty() {
        return Err(Failure::new("no port is given", next_step));
    }
    port_number(text).ok_or_else(|| {
        let shown = shorten(text.as_bytes());
        let reason = format!("\"{shown}\" is no port: a port is a number from 1 to 65535");
        Failure::new(reason, next_step)
    })
}

/// Joins host and port for a heading, as entered. It contains no white space: in the text page
/// ` | ` and ` # ` come after a heading, and the values of an invalid row may contain them.
pub(crate) fn host_and_port(host: &str, port: &str) -> String {
    let visible = |value: &str| shorten(value.as_bytes()).replace(char::is_whitespace, "\u{a0}");
    let (host, port) = (visible(host), visible(port));
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_socks_only(allowed: AllowList) -> Policy {
        Policy {
            allowed,
            logins: SocksLogins::default(),
            direct: false,
        }
    }

    #[test]
    fn w29_a_row_without_a_socks_server_is_direct_if_the_administrator_permits_it() {
        let policy = |direct| Policy {
            allowed: AllowList::parse("a:1, [::1]:1").unwrap(),
            logins: SocksLogins::default(),
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
            assert!(parse_port(text, SHELL_PORT).is_err(), "{text:?}");
        }
        for (text, port) in [("1", 1), ("65535", 65535), ("080", 80)] {
            assert_eq!(parse_port(text, SHELL_PORT), Ok(port));
        }
    }

    #[test]
    fn w04_invalid_hosts_are_refused_with_a_short_reason() {
        let long = "a".repeat(300);
        for text in ["", "a b", "a\0", "::1", "127.1", "<b>", &long] {
            let failure = parse_shell_host(text, false).expect_err(text);
            assert!(failure.reason.chars().count() < 200, "{failure}");
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
