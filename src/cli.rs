//! Parses the command line into an action and its options.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::admin::explain::ExplainQuery;
use crate::auth::{MAX_USER_NAME, is_user_name};
use crate::config::{QuotedName, Settings};
use crate::logger::{LogFormat, Verbosity};
use crate::protocol::{Nat64Prefix, Network, NetworkError};
use crate::trace::TraceTarget;

/// The text of `--help`. No line has more than 80 characters, the width of a terminal.
pub const HELP: &str = "\
threadsocks: a SOCKS4, SOCKS4A and SOCKS5 proxy made of plain OS threads

Usage: threadsocks [OPTIONS] [PORT]

  PORT    port for clients [1080]; 0: the system chooses a free one, and the
          server prints it

Access:
  -c, --config FILE          rules file [./socks.conf]; can be edited while the
                             server runs
      --check                print the rules as the server understands them,
                             check the users file too, and exit
      --strict               with --check: refuse a file whose last line has no
                             newline, since it may be cut off
      --explain \"QUERY\"      print which rule decides, and exit; for example
                             \"c 10.0.0.5 140.113.1.2 80\": mode (c CONNECT,
                             b BIND, u UDP), client, destination, port; add
                             user=NAME or login=NAME, and time=fri/09:30, if
                             rules depend on them
      --socks 4|5|4,5        versions that clients may use [4,5]; 4 includes
                             SOCKS4A; requests of the other are refused
      --enforce              end live sessions when the rules or the time no
                             longer permit them; without it they continue
      --users FILE           SOCKS5 clients must log in as a user of this file
      --allow-anonymous      with --users: also accept SOCKS5 clients that
                             offer no login
      --new-user NAME        read a password, print a line for the users file,
                             and exit

Addresses and ports:
  -b, --bind ADDR            address for clients [0.0.0.0]
      --bind-ports LO-HI     ports for BIND and UDP [any free one]
      --advertise IP         IPv4 address in replies to BIND and UDP [the one
                             that the client has connected to]
      --nat64 PREFIX         NAT64 prefix of this network, for example
                             2001:db8:64::/96; 64:ff9b::/96 is always one;
                             can be given several times
      --proxy-from CIDR[,CIDR...]
                             load balancers that send the PROXY protocol, v1 or
                             v2: the address that they announce is the client
                             for rules, limits and the log

Timeouts (30s, 2m, 1h 30m; some can be off):
      --handshake-timeout T    until the request is complete [30s]
      --connect-timeout T      for a CONNECT, with identd and name lookup [2m]
      --bind-timeout T         for the peer of a BIND to connect [2m]
      --ident-timeout T        for the reply of identd, if a rule requires it
                               [10s]
      --idle-timeout T|off     without a byte in either direction [off]
      --half-closed-timeout T|off
                               the same, after EOF in one direction [5m]
      --udp-timeout T|off      without a datagram in either direction [5m]
      --grace T                for live sessions, when the server stops [8s]

Limits:
      --max-sessions N       sessions at a time [what this machine can carry]
      --max-per-client N|off the same for one address; of IPv6 N for a /64, 4 N
                             for a /56, 16 N for a /48 [off]
      --max-unheard N        clients that have not sent their request; if one
                             more comes, one is dropped [half of the sessions]

Output:
      --log screen|json|none on stdout: a message for every request, a JSON
                             object for every event, or nothing [screen]
      --metrics ADDR:PORT    serve counts for Prometheus over HTTP, for example
                             at 127.0.0.1:9480 [off]
  -v, --verbose              on stderr, a line for every session that has ended
  -q, --quiet                on stderr, only errors, warnings, refused logins,
                             rejected clients, and each port that is given as 0
      --trace FILE           a trace of the threads, written when the server
                             stops: a picture (.svg) or events for Perfetto
                             (.json)
  -h, --help                 print this
  -V, --version              print the version

Signals: Ctrl-C or TERM once: no new clients, live sessions have the grace
period; twice: end them now. HUP: read changed rules and users now and report
the result. USR1: tables of sessions and threads on stderr, also with --quiet.

Exit status: 0 success, 1 failure, 2 usage error or invalid rules or users,
130 stopped by a second signal.

Manual: threadsocks(8). The source has a systemd unit, alerts for Prometheus and
a configuration of HAProxy: docs/ and examples/.

Example:
  threadsocks 1080
  curl --socks5-hostname 127.0.0.1:1080 http://example.org/
";

/// What the program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the server.
    Serve(Options),
    /// Print the rules that a server with these options has; check the users file too, if
    /// there is one.
    Check {
        /// The options of the server.
        options: Options,
        /// Is a last line without a newline an error?
        strict: bool,
    },
    /// Explain the verdict on this query in a server with these options.
    Explain(Options, ExplainQuery),
    /// Read the password of a new user with this name, and print a line for the users file.
    NewUser(Vec<u8>),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The options of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address and port on which the server listens for clients.
    pub address: SocketAddr,
    /// The rules file.
    pub config: PathBuf,
    /// `--users`: the users file. `None`: clients cannot log in.
    pub users: Option<PathBuf>,
    /// Timeouts and limits. Its `max_sessions`, `max_associations` and `max_name_lookups` are
    /// not set yet: they also depend on the machine.
    pub settings: Settings,
    /// `--max-sessions`; `None`: only the machine limits the sessions.
    pub max_sessions: Option<usize>,
    /// What stdout gets.
    pub log: LogFormat,
    /// `--metrics`: where Prometheus reads the metrics. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How much is written to stderr.
    pub verbosity: Verbosity,
    /// `--trace`: where a trace of the threads goes. `None`: there is none.
    pub trace: Option<TraceTarget>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1080),
            config: PathBuf::from("socks.conf"),
            users: None,
            settings: Settings::default(),
            max_sessions: None,
            log: LogFormat::default(),
            metrics: None,
            verbosity: Verbosity::default(),
            trace: None,
        }
    }
}

/// An invalid command line, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (see --help)", self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

/// Parses the arguments after the program's name.
///
/// # Errors
///
/// [`UsageError`] for the first invalid argument.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each option")]
pub fn parse<I>(arguments: I) -> Result<Action, UsageError>
where
    I: IntoIterator<Item = OsString>,
    I::IntoIter: 'static,
{
    let mut parser = Parser::from_args(arguments);
    let mut given = Arguments::default();
    while let Some(argument) = parser.next()? {
        let options = &mut given.options;
        let settings = &mut options.settings;
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Action::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Action::Version),
            Arg::Short('c') | Arg::Long("config") => options.config = parser.value()?.into(),
            Arg::Long("check") => given.check = true,
            Arg::Long("strict") => given.strict = true,
            Arg::Long("explain") => {
                given.query = Some(value(&mut parser, "--explain", ExplainQuery::parse)?);
            }
            Arg::Short('b') | Arg::Long("bind") => {
                let address = value(&mut parser, "--bind", parse_address)?;
                options.address.set_ip(address);
            }
            Arg::Long("bind-ports") => {
                settings.bind_ports = Some(value(&mut parser, "--bind-ports", parse_port_range)?);
            }
            Arg::Long("advertise") => {
                settings.advertise = Some(value(&mut parser, "--advertise", parse_ipv4_address)?);
            }
            Arg::Long("nat64") => {
                let prefix = value(&mut parser, "--nat64", Nat64Prefix::parse)?;
                check_no_overlap(&settings.nat64, prefix)?;
                settings.nat64.push(prefix);
            }
            Arg::Long("proxy-from") => {
                settings.proxy_from = value(&mut parser, "--proxy-from", parse_networks)?;
            }
            Arg::Long("handshake-timeout") => {
                settings.handshake_timeout =
                    value(&mut parser, "--handshake-timeout", parse_timeout)?;
            }
            Arg::Long("connect-timeout") => {
                settings.connect_timeout = value(&mut parser, "--connect-timeout", parse_timeout)?;
            }
            Arg::Long("bind-timeout") => {
                settings.bind_timeout = value(&mut parser, "--bind-timeout", parse_timeout)?;
            }
            Arg::Long("ident-timeout") => {
                settings.ident_timeout = value(&mut parser, "--ident-timeout", parse_timeout)?;
            }
            Arg::Long("idle-timeout") => {
                settings.idle_timeout = value(&mut parser, "--idle-timeout", parse_timeout_or_off)?;
            }
            Arg::Long("half-closed-timeout") => {
                let limit = value(&mut parser, "--half-closed-timeout", parse_timeout_or_off)?;
                settings.half_closed_timeout = limit;
            }
            Arg::Long("udp-timeout") => {
                settings.udp_timeout = value(&mut parser, "--udp-timeout", parse_timeout_or_off)?;
            }
            Arg::Long("grace") => settings.grace = value(&mut parser, "--grace", parse_duration)?,
            Arg::Long("max-sessions") => {
                options.max_sessions = Some(value(&mut parser, "--max-sessions", parse_count)?);
            }
            Arg::Long("max-per-client") => {
                settings.max_per_client = value(&mut parser, "--max-per-client", parse_limit)?;
            }
            Arg::Long("max-unheard") => {
                settings.max_unheard = Some(value(&mut parser, "--max-unheard", parse_count)?);
            }
            Arg::Long("socks") => {
                (settings.socks4, settings.socks5) = value(&mut parser, "--socks", parse_versions)?;
            }
            Arg::Long("enforce") => settings.enforce = true,
            Arg::Long("users") => options.users = Some(parser.value()?.into()),
            Arg::Long("allow-anonymous") => settings.allow_anonymous = true,
            Arg::Long("new-user") => {
                given.new_user = Some(parse_user_name(parser.value()?.into_encoded_bytes())?);
            }
            Arg::Long("log") => options.log = value(&mut parser, "--log", parse_log)?,
            Arg::Long("metrics") => {
                options.metrics = Some(value(&mut parser, "--metrics", parse_socket_address)?);
            }
            Arg::Long("trace") => options.trace = Some(parse_trace(parser.value()?)?),
            Arg::Short('v') | Arg::Long("verbose") => options.verbosity = Verbosity::Sessions,
            Arg::Short('q') | Arg::Long("quiet") => options.verbosity = Verbosity::Errors,
            Arg::Value(text) if given.port.is_none() => {
                given.port = Some(parse_port(&text.string()?)?);
            }
            Arg::Value(text) => {
                return Err(UsageError(format!(
                    "write only one PORT; {text:?} is a second one"
                )));
            }
            unknown => return Err(unknown.unexpected().into()),
        }
    }
    given.into_action()
}

/// The arguments read so far, not yet combined to one action.
#[derive(Default)]
struct Arguments {
    options: Options,
    port: Option<u16>,
    check: bool,
    strict: bool,
    query: Option<ExplainQuery>,
    new_user: Option<Vec<u8>>,
}

impl Arguments {
    /// The action that the arguments request together.
    fn into_action(self) -> Result<Action, UsageError> {
        let mut options = self.options;
        if let Some(port) = self.port {
            options.address.set_port(port);
        }
        if options.settings.allow_anonymous && options.users.is_none() {
            let reason = "--allow-anonymous has an effect only with --users";
            return Err(UsageError(reason.to_owned()));
        }
        if !options.settings.socks5 && options.users.is_some() {
            let reason = "--users has no effect with --socks 4: SOCKS4 has no login";
            return Err(UsageError(reason.to_owned()));
        }
        if self.strict && !self.check {
            let reason = "--strict has an effect only with --check";
            return Err(UsageError(reason.to_owned()));
        }
        let actions = [
            ("--check", self.check),
            ("--explain", self.query.is_some()),
            ("--new-user", self.new_user.is_some()),
        ];
        let mut given = actions.iter().filter(|(_, is_given)| *is_given);
        if let (Some((one, _)), Some((other, _))) = (given.next(), given.next()) {
            let reason = format!("{one} and {other} cannot be combined; choose one");
            return Err(UsageError(reason));
        }
        let strict = self.strict;
        Ok(match (self.new_user, self.query) {
            (Some(name), _) => Action::NewUser(name),
            (None, Some(query)) => Action::Explain(options, query),
            (None, None) if self.check => Action::Check { options, strict },
            (None, None) => Action::Serve(options),
        })
    }
}

/// Reads the value of an option and parses it. An error begins with the option's name.
fn value<T>(
    parser: &mut Parser,
    option: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    let text = parser.value()?.string()?;
    parse(&text).map_err(|reason| UsageError(format!("{option}: {reason}")))
}

/// Requires that no address begins with this prefix and with one of the others, which may be the
/// same.
fn check_no_overlap(others: &[Nat64Prefix], prefix: Nat64Prefix) -> Result<(), UsageError> {
    match others.iter().find(|other| other.overlaps(prefix)) {
        Some(other) if *other == prefix => Err(UsageError(format!(
            "--nat64: {prefix} is given twice; give each prefix once"
        ))),
        Some(other) => Err(UsageError(format!(
            "--nat64: {other} and {prefix} overlap, so some addresses would contain two IPv4 \
             addresses; give only one of these prefixes"
        ))),
        None => Ok(()),
    }
}

fn parse_port(text: &str) -> Result<u16, UsageError> {
    text.parse()
        .map_err(|_| UsageError(format!("{text:?} is not a PORT from 0 to 65535")))
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is not an IP address; write one as 127.0.0.1"))
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse();
    address.map_err(|_| {
        format!("{text:?} is not an IP address and a port; write 127.0.0.1:9480 or [::1]:9480")
    })
}

fn parse_ipv4_address(text: &str) -> Result<Ipv4Addr, String> {
    let address = text.parse();
    address.map_err(|_| {
        format!("{text:?} is not an IPv4 address; only IPv4 addresses can be advertised")
    })
}

/// Networks, with commas between them. A single address is one as well.
fn parse_networks(text: &str) -> Result<Vec<Network>, String> {
    let parse = |part: &str| {
        Network::parse_canonical(part).map_err(|error| match error {
            NetworkError::Invalid => format!("{part:?} {error}"),
            NetworkError::NotFirst { .. } => error.to_string(),
        })
    };
    text.split(',').map(parse).collect()
}

fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
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
fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a time ({error}); write it as 30s or 2m"))
}

/// A timeout: zero would end every wait at once.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be more than zero".to_owned()),
        time => Ok(time),
    }
}

fn parse_timeout_or_off(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        text => parse_timeout(text).map(Some),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err(format!(
            "{text:?} is not a number of sessions; write 1 or more"
        )),
    }
}

fn parse_limit(text: &str) -> Result<Option<usize>, String> {
    match text {
        "off" => Ok(None),
        text => parse_count(text).map(Some),
    }
}

/// Are SOCKS4 and SOCKS5 served?
fn parse_versions(text: &str) -> Result<(bool, bool), String> {
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

fn parse_user_name(name: Vec<u8>) -> Result<Vec<u8>, UsageError> {
    match is_user_name(&name) {
        true => Ok(name),
        false => Err(UsageError(format!(
            "--new-user: {} is not a user name; write 1 to {MAX_USER_NAME} bytes without colon \
             and line ends",
            QuotedName(&name)
        ))),
    }
}

fn parse_trace(path: OsString) -> Result<TraceTarget, UsageError> {
    let shown = path.to_string_lossy().into_owned();
    TraceTarget::new(path.into()).ok_or_else(|| {
        UsageError(format!(
            "--trace: {shown:?} ends neither with .svg nor with .json; write trace.svg for a \
             picture, or trace.json for Perfetto"
        ))
    })
}

/// What stdout gets.
fn parse_log(text: &str) -> Result<LogFormat, String> {
    match text {
        "screen" => Ok(LogFormat::Screen),
        "json" => Ok(LogFormat::Json),
        "none" => Ok(LogFormat::None),
        _ => Err(format!("{text:?} is none of screen, json and none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a command line whose arguments contain no spaces.
    fn parsed(line: &str) -> Result<Action, UsageError> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(words)
    }

    fn serve(line: &str) -> Options {
        match parsed(line) {
            Ok(Action::Serve(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_option_has_its_effect() {
        let set = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options
        };
        for (line, options) in [
            ("", set(|_| {})),
            ("1081", set(|o| o.address.set_port(1081))),
            ("0", set(|o| o.address.set_port(0))),
            (
                "-b 127.0.0.1 7",
                set(|o| o.address = ([127, 0, 0, 1], 7).into()),
            ),
            (
                "--bind=::1",
                set(|o| o.address.set_ip("::1".parse().unwrap())),
            ),
            ("-c /etc/x", set(|o| o.config = "/etc/x".into())),
            ("--config x", set(|o| o.config = "x".into())),
            ("--enforce", set(|o| o.settings.enforce = true)),
            ("--socks 4", set(|o| o.settings.socks5 = false)),
            ("--socks 5", set(|o| o.settings.socks4 = false)),
            ("--socks 4,5", set(|_| {})),
            ("--socks=5,4", set(|_| {})),
            (
                "--max-per-client 5",
                set(|o| o.settings.max_per_client = Some(5)),
            ),
            (
                "--max-per-client off",
                set(|o| o.settings.max_per_client = None),
            ),
            ("--max-unheard 7", set(|o| o.settings.max_unheard = Some(7))),
            ("--grace 0s", set(|o| o.settings.grace = Duration::ZERO)),
            ("--max-sessions 10", set(|o| o.max_sessions = Some(10))),
            (
                "--advertise 192.0.2.1",
                set(|o| o.settings.advertise = Some([192, 0, 2, 1].into())),
            ),
            (
                "--bind-ports 5000-5009",
                set(|o| o.settings.bind_ports = Some(5000..=5009)),
            ),
            (
                "--proxy-from ::ffff:10.0.0.0/104,192.0.2.1,::ffff:192.0.2.2,2001:db8::/32",
                set(|o| {
                    let networks = [
                        "10.0.0.0/8",
                        "192.0.2.1/32",
                        "192.0.2.2/32",
                        "2001:db8::/32",
                    ];
                    let parse = |text| Network::parse(text).unwrap();
                    o.settings.proxy_from = networks.map(parse).to_vec();
                }),
            ),
            (
                "--nat64 2001:db8:64::/96 --nat64 64:ff9b:1::/48",
                set(|o| {
                    let prefixes = ["2001:db8:64::/96", "64:ff9b:1::/48"];
                    let parse = |text| Nat64Prefix::parse(text).unwrap();
                    o.settings.nat64 = prefixes.map(parse).to_vec();
                }),
            ),
            ("--log none", set(|o| o.log = LogFormat::None)),
            ("--log screen", set(|_| {})),
            ("--log json", set(|o| o.log = LogFormat::Json)),
            (
                "--metrics [::1]:9480",
                set(|o| o.metrics = Some("[::1]:9480".parse().unwrap())),
            ),
            (
                "--trace a/t.SVG",
                set(|o| o.trace = TraceTarget::new("a/t.SVG".into())),
            ),
            ("-v", set(|o| o.verbosity = Verbosity::Sessions)),
            ("-q", set(|o| o.verbosity = Verbosity::Errors)),
        ] {
            assert_eq!(serve(line), options, "{line}");
        }
    }

    #[test]
    fn every_timeout_has_its_option() {
        for (option, limit) in [
            (
                "handshake",
                (|s| s.handshake_timeout) as fn(Settings) -> Duration,
            ),
            ("connect", |s| s.connect_timeout),
            ("bind", |s| s.bind_timeout),
            ("ident", |s| s.ident_timeout),
        ] {
            let line = format!("--{option}-timeout 77s");
            assert_eq!(limit(serve(&line).settings), Duration::from_secs(77));
        }
        for (option, limit) in [
            (
                "idle",
                (|s| s.idle_timeout) as fn(Settings) -> Option<Duration>,
            ),
            ("half-closed", |s| s.half_closed_timeout),
            ("udp", |s| s.udp_timeout),
        ] {
            for (time, expected) in [("77s", Some(Duration::from_secs(77))), ("off", None)] {
                let line = format!("--{option}-timeout {time}");
                assert_eq!(limit(serve(&line).settings), expected, "{line}");
            }
        }
    }

    #[test]
    fn users_and_allow_anonymous_are_parsed() {
        let users = serve("--users x");
        assert_eq!(users.users, Some("x".into()));
        assert!(!users.settings.allow_anonymous);
        assert!(
            serve("--allow-anonymous --users x")
                .settings
                .allow_anonymous
        );
    }

    #[test]
    fn every_other_action_is_parsed() {
        assert_eq!(parsed("-h"), Ok(Action::Help));
        assert_eq!(parsed("--version 1 2 3"), Ok(Action::Version));
        let with_users = Options {
            config: "x".into(),
            users: Some("y".into()),
            ..Options::default()
        };
        for strict in [false, true] {
            let options = with_users.clone();
            let option = if strict { " --strict" } else { "" };
            let check = parsed(&format!("--check -c x --users y{option}"));
            assert_eq!(check, Ok(Action::Check { options, strict }));
        }
        let alice = Action::NewUser(b"alice".to_vec());
        assert_eq!(parsed("--new-user alice"), Ok(alice));
        let words = ["--explain", "c 1.1.1.1 2.2.2.2 80", "-c", "x"].map(OsString::from);
        let query = ExplainQuery::parse("c 1.1.1.1 2.2.2.2 80").unwrap();
        let options = Options {
            config: "x".into(),
            ..Options::default()
        };
        assert_eq!(parse(words), Ok(Action::Explain(options, query)));
    }

    #[test]
    fn every_usage_error_states_its_reason() {
        for (line, reason) in [
            ("65536", "not a PORT"),
            ("http", "not a PORT"),
            ("-1", "-1"),
            ("1 2", "only one PORT"),
            ("--nonsense", "--nonsense"),
            ("-b", "missing argument"),
            ("-b localhost", "not an IP address"),
            ("--advertise ::1", "IPv4"),
            ("--bind-ports 5", "not a port range"),
            ("--bind-ports 6-5", "not a port range"),
            ("--bind-ports 0-5", "not a port range"),
            ("--proxy-from", "missing argument"),
            ("--proxy-from 10.0.0.1,", "\"\" is not an address range"),
            ("--proxy-from haproxy", "write it as 10.0.0.0/8"),
            ("--proxy-from 10.0.0.0/33", "is not an address range"),
            ("--proxy-from 10.0.0.0/+8", "is not an address range"),
            (
                "--proxy-from 10.0.0.1/8",
                "write 10.0.0.0/8 or 10.0.0.1 alone",
            ),
            ("--nat64 64:ff9b::", "not a NAT64 prefix"),
            ("--nat64 ::/96", "is reserved"),
            ("--grace 10", "not a time"),
            ("--grace off", "not a time"),
            ("--handshake-timeout 0s", "more than zero"),
            ("--idle-timeout never", "not a time"),
            ("--max-sessions 0", "number of sessions"),
            ("--max-per-client 0", "number of sessions"),
            ("--max-unheard 0", "number of sessions"),
            ("--ident-timeout off", "not a time"),
            ("--enforce=yes", "enforce"),
            ("--allow-anonymous", "only with --users"),
            ("--strict", "only with --check"),
            ("--users", "missing argument"),
            ("--socks 6", "write 4, 5 or 4,5"),
            ("--socks 4a", "write 4, 5 or 4,5"),
            ("--socks=", "write 4, 5 or 4,5"),
            ("--socks 4 --users x", "SOCKS4 has no login"),
            ("--new-user a:b", "not a user name"),
            ("--new-user=", "not a user name"),
            ("--metrics 9480", "write 127.0.0.1:9480 or [::1]:9480"),
            ("--metrics localhost:9480", "not an IP address and a port"),
            ("--log xml", "none of screen, json and none"),
            (
                "--trace t.txt",
                "write trace.svg for a picture, or trace.json",
            ),
            ("--trace svg", "neither with .svg nor with .json"),
            ("--check=yes", "check"),
            ("--explain x", "write it as"),
        ] {
            let usage = parsed(line).expect_err(line).to_string();
            assert!(usage.contains(reason), "{line}: {usage}");
            assert!(usage.ends_with("(see --help)"));
        }
    }

    #[test]
    fn x27_options_that_contradict_each_other_are_usage_errors() {
        let query = "--explain=c 10.0.0.5 140.113.1.2 80";
        let overlap = "2001:db8::/32 and 2001:db8:64::/96 overlap";
        let twice = "--nat64: 2001:db8::/32 is given twice; give each prefix once";
        for (words, reason) in [
            (
                &["--nat64", "2001:db8::/32", "--nat64", "2001:db8:64::/96"][..],
                overlap,
            ),
            (
                &["--nat64", "2001:db8::/32", "--nat64", "2001:db8::/32"],
                twice,
            ),
            // Another spelling of the same prefix, after a third one.
            (
                &[
                    "--nat64=2001:db8::/32",
                    "--nat64=64:ff9b:1::/48",
                    "--nat64=2001:DB8:0::/32",
                ],
                twice,
            ),
            (&["--nat64", "64:ff9b::/96"], "is reserved"),
            (&["--check", query], "--check and --explain"),
            (&["--new-user", "a", "--check"], "--check and --new-user"),
            (&[query, "--new-user", "a"], "--explain and --new-user"),
        ] {
            let usage = parse(words.iter().map(OsString::from).collect::<Vec<_>>());
            let usage = usage.expect_err(reason).to_string();
            assert!(usage.contains(reason), "{words:?}: {usage}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn o01_an_argument_that_is_not_utf8_is_a_usage_error_and_no_panic() {
        use std::os::unix::ffi::OsStringExt;
        let not_utf8 = OsString::from_vec(vec![0xFF, b'8']);
        assert!(parse([not_utf8.clone()]).is_err());
        assert!(parse(["--grace".into(), not_utf8.clone()]).is_err());
        let config = parse(["-c".into(), not_utf8.clone()]);
        assert!(matches!(config, Ok(Action::Serve(options)) if options.config == not_utf8));
    }

    #[test]
    fn help_fits_a_terminal_and_names_every_default() {
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
        let Settings {
            handshake_timeout,
            connect_timeout,
            bind_timeout,
            idle_timeout,
            half_closed_timeout,
            udp_timeout,
            grace,
            ..
        } = Settings::default();
        let shown = |time: Option<Duration>| match time {
            Some(time) => humantime::format_duration(time).to_string(),
            None => "off".to_owned(),
        };
        for (words, time) in [
            ("until the request is complete", Some(handshake_timeout)),
            ("with identd and name lookup", Some(connect_timeout)),
            ("for the peer of a BIND to connect", Some(bind_timeout)),
            ("without a byte in either direction", idle_timeout),
            ("after EOF in one direction", half_closed_timeout),
            ("without a datagram in either direction", udp_timeout),
            ("when the server stops", Some(grace)),
        ] {
            let line = format!("{words} [{}]", shown(time));
            assert!(HELP.contains(&line), "{line}");
        }
    }
}
