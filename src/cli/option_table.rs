//! The options of the program, a row for each: the parser, the help and the completions read this table.

use std::ffi::OsString;

use super::action::Action;
use super::given::{Given, Task};
use super::values::{
    non_empty, parse_address, parse_count, parse_duration, parse_ipv4_address, parse_limit,
    parse_log, parse_networks, parse_port, parse_port_range, parse_probe, parse_shell,
    parse_socket_address, parse_timeout, parse_timeout_or_off, parse_trace, parse_user_name,
    parse_versions,
};
use crate::admin::explain::ExplainQuery;
use crate::logger::Verbosity;
use crate::protocol::Nat64Prefix;

/// Options of one subject, under one title in the help.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) options: &'static [OptionRow],
}

/// One option.
pub(super) struct OptionRow {
    /// The name after `--`.
    pub(super) long: &'static str,
    /// The letter after `-`.
    pub(super) short: Option<char>,
    pub(super) argument: Argument,
    /// For the help, in one paragraph; the default in brackets. The completions show its first clause.
    pub(super) about: &'static str,
}

/// What follows the name of an option, and its effect. Words in lower case between `|` in the
/// placeholder are the values that a shell offers; FILE is completed to the name of a file.
pub(super) enum Argument {
    /// Nothing follows.
    None(fn(&mut Given)),
    /// Text with this placeholder.
    Text(&'static str, fn(&mut Given, &str) -> Result<(), String>),
    /// Any bytes, such as a path, with this placeholder.
    Bytes(&'static str, fn(&mut Given, OsString) -> Result<(), String>),
}

impl Argument {
    /// The placeholder, if something follows the option.
    pub(super) fn placeholder(&self) -> Option<&'static str> {
        match *self {
            Argument::None(_) => None,
            Argument::Text(placeholder, _) | Argument::Bytes(placeholder, _) => Some(placeholder),
        }
    }
}

/// The row of the option with this long name.
pub(super) fn find(long: &str) -> Option<&'static OptionRow> {
    all().find(|option| option.long == long)
}

/// The row of the option with this letter.
pub(super) fn find_short(short: char) -> Option<&'static OptionRow> {
    all().find(|option| option.short == Some(short))
}

/// All options, in the order of the help.
pub(super) fn all() -> impl Iterator<Item = &'static OptionRow> {
    SECTIONS.iter().flat_map(|section| section.options)
}

const fn row(long: &'static str, argument: Argument, about: &'static str) -> OptionRow {
    OptionRow {
        long,
        short: None,
        argument,
        about,
    }
}

impl OptionRow {
    const fn or(self, short: char) -> OptionRow {
        OptionRow {
            short: Some(short),
            ..self
        }
    }
}

/// Stores a value that was parsed.
fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Access",
        options: ACCESS,
    },
    Section {
        title: "Addresses and ports",
        options: ADDRESSES,
    },
    Section {
        title: "Timeouts (30s, 2m, 1h 30m; some can be off)",
        options: TIMEOUTS,
    },
    Section {
        title: "Limits",
        options: LIMITS,
    },
    Section {
        title: "Output",
        options: OUTPUT,
    },
    Section {
        title: "Instead of a server",
        options: TASKS,
    },
];

const ACCESS: &[OptionRow] = &[
    row(
        "config",
        Argument::Bytes("FILE", |given, path| {
            given.options.config = Some(non_empty(path)?.into());
            Ok(())
        }),
        "rules file; can be edited while the server runs [./socks.conf, or else \
         /etc/threadsocks/socks.conf]",
    )
    .or('c'),
    row(
        "socks",
        Argument::Text("4|5|4,5", |given, text| {
            let settings = &mut given.options.settings;
            (settings.socks4, settings.socks5) = parse_versions(text)?;
            Ok(())
        }),
        "versions that clients may use [4,5]; 4 includes SOCKS4A; requests of the other are \
         refused",
    ),
    row(
        "enforce",
        Argument::None(|given| given.options.settings.enforce = true),
        "end live sessions when the rules or the time no longer permit them; without it they \
         continue",
    ),
    row(
        "users",
        Argument::Bytes("FILE", |given, path| {
            given.options.users = Some(non_empty(path)?.into());
            Ok(())
        }),
        "SOCKS5 clients must log in as a user of this file",
    ),
    row(
        "allow-anonymous",
        Argument::None(|given| given.options.settings.allow_anonymous = true),
        "with --users: also accept SOCKS5 clients that offer no login",
    ),
];

const ADDRESSES: &[OptionRow] = &[
    row(
        "port",
        Argument::Text("PORT", |given, text| given.set_port(parse_port(text)?)),
        "the same as the argument PORT",
    )
    .or('p'),
    row(
        "bind",
        Argument::Text("ADDR", |given, text| {
            given.bind = Some(parse_address(text)?);
            Ok(())
        }),
        "address for clients [0.0.0.0]",
    )
    .or('b'),
    row(
        "bind-ports",
        Argument::Text("LO-HI", |given, text| {
            given.options.settings.bind_ports = Some(parse_port_range(text)?);
            Ok(())
        }),
        "ports for BIND and UDP [any free one]",
    ),
    row(
        "advertise",
        Argument::Text("IP", |given, text| {
            given.options.settings.advertise = Some(parse_ipv4_address(text)?);
            Ok(())
        }),
        "IPv4 address in replies to BIND and UDP [the one that the client has connected to]",
    ),
    row(
        "nat64",
        Argument::Text("PREFIX", |given, text| {
            given.add_nat64(Nat64Prefix::parse(text)?)
        }),
        "NAT64 prefix of this network, for example 2001:db8:64::/96; 64:ff9b::/96 is always one; \
         can be given several times",
    ),
    row(
        "proxy-from",
        Argument::Text("CIDR[,CIDR...]", |given, text| {
            set(&mut given.options.settings.proxy_from, parse_networks(text))
        }),
        "load balancers that send the PROXY protocol, v1 or v2: the address that they announce is \
         the client for rules, limits and the log",
    ),
];

const TIMEOUTS: &[OptionRow] = &[
    row(
        "handshake-timeout",
        Argument::Text("T", |given, text| {
            set(
                &mut given.options.settings.handshake_timeout,
                parse_timeout(text),
            )
        }),
        "until the request is complete [30s]",
    ),
    row(
        "connect-timeout",
        Argument::Text("T", |given, text| {
            set(
                &mut given.options.settings.connect_timeout,
                parse_timeout(text),
            )
        }),
        "for a CONNECT, with identd and name lookup [2m]",
    ),
    row(
        "bind-timeout",
        Argument::Text("T", |given, text| {
            set(
                &mut given.options.settings.bind_timeout,
                parse_timeout(text),
            )
        }),
        "for the peer of a BIND to connect [2m]",
    ),
    row(
        "ident-timeout",
        Argument::Text("T", |given, text| {
            set(
                &mut given.options.settings.ident_timeout,
                parse_timeout(text),
            )
        }),
        "for the reply of identd, if a rule requires it [10s]",
    ),
    row(
        "idle-timeout",
        Argument::Text("T|off", |given, text| {
            set(
                &mut given.options.settings.idle_timeout,
                parse_timeout_or_off(text),
            )
        }),
        "without a byte in either direction [off]",
    ),
    row(
        "half-closed-timeout",
        Argument::Text("T|off", |given, text| {
            set(
                &mut given.options.settings.half_closed_timeout,
                parse_timeout_or_off(text),
            )
        }),
        "the same, after EOF in one direction [5m]",
    ),
    row(
        "udp-timeout",
        Argument::Text("T|off", |given, text| {
            set(
                &mut given.options.settings.udp_timeout,
                parse_timeout_or_off(text),
            )
        }),
        "without a datagram in either direction [5m]",
    ),
    row(
        "grace",
        Argument::Text("T", |given, text| {
            set(&mut given.options.settings.grace, parse_duration(text))
        }),
        "for live sessions, when the server stops [8s]",
    ),
];

const LIMITS: &[OptionRow] = &[
    row(
        "max-sessions",
        Argument::Text("N", |given, text| {
            given.options.max_sessions = Some(parse_count(text)?);
            Ok(())
        }),
        "sessions at a time [what this machine can carry]",
    ),
    row(
        "max-per-client",
        Argument::Text("N|off", |given, text| {
            set(
                &mut given.options.settings.max_per_client,
                parse_limit(text),
            )
        }),
        "the same for one address; of IPv6 N for a /64, 4 N for a /56, 16 N for a /48 [off]",
    ),
    row(
        "max-unheard",
        Argument::Text("N", |given, text| {
            given.options.settings.max_unheard = Some(parse_count(text)?);
            Ok(())
        }),
        "clients that have not sent their request; if one more comes, one is dropped [half of the \
         sessions]",
    ),
];

const OUTPUT: &[OptionRow] = &[
    row(
        "log",
        Argument::Text("screen|json|none", |given, text| {
            set(&mut given.options.log, parse_log(text))
        }),
        "on stdout: a message for every request, a JSON object for every event, or nothing \
         [screen]",
    ),
    row(
        "metrics",
        Argument::Text("ADDR:PORT", |given, text| {
            given.options.metrics = Some(parse_socket_address(text)?);
            Ok(())
        }),
        "serve counts for Prometheus over HTTP, for example at 127.0.0.1:9480 [off]",
    ),
    row(
        "verbose",
        Argument::None(|given| given.options.verbosity = Verbosity::Sessions),
        "on stderr, a line for every session that has ended",
    )
    .or('v'),
    row(
        "quiet",
        Argument::None(|given| given.options.verbosity = Verbosity::Errors),
        "on stderr, only errors, warnings, refused logins, rejected clients, and each port that \
         is given as 0",
    )
    .or('q'),
    row(
        "trace",
        Argument::Bytes("FILE", |given, path| {
            given.options.trace = Some(parse_trace(path)?);
            Ok(())
        }),
        "a trace of the threads, written when the server stops: a picture (.svg) or events for \
         Perfetto (.json)",
    ),
];

const TASKS: &[OptionRow] = &[
    row(
        "check",
        Argument::None(|given| given.add_task(Task::Check)),
        "print the rules as the server understands them, with warnings, and check the users file \
         too",
    ),
    row(
        "strict",
        Argument::None(|given| given.strict = true),
        "with --check: a warning is an error",
    ),
    row(
        "explain",
        Argument::Text("\"QUERY\"", |given, text| {
            given.add_task(Task::Explain(ExplainQuery::parse(text)?));
            Ok(())
        }),
        "print which rule decides, for example \"c 10.0.0.5 140.113.1.2 80\": mode (c CONNECT, \
         b BIND, u UDP), client, destination, port; add user=NAME or login=NAME, and \
         time=fri/09:30, if rules depend on them",
    ),
    row(
        "new-user",
        Argument::Bytes("NAME", |given, name| {
            given.add_task(Task::NewUser(parse_user_name(name.into_encoded_bytes())?));
            Ok(())
        }),
        "read a password, and add the user to the file of --users; without --users, print the \
         line for such a file",
    ),
    row(
        "replace",
        Argument::None(|given| given.replace = true),
        "with --new-user: replace the password of a user that the file has",
    ),
    row(
        "probe",
        Argument::Text("[ADDR:]PORT", |given, text| {
            given.add_task(Task::Probe(parse_probe(text)?));
            Ok(())
        }),
        "ask the server at this address [127.0.0.1] whether it answers SOCKS5 clients",
    ),
    row(
        "completion",
        Argument::Text("bash|zsh|fish", |given, text| {
            given.add_task(Task::Completion(parse_shell(text)?));
            Ok(())
        }),
        "print a script for this shell that completes the options",
    ),
    row(
        "help",
        Argument::None(|given| given.at_once = Some(Action::Help)),
        "print this",
    )
    .or('h'),
    row(
        "version",
        Argument::None(|given| given.at_once = Some(Action::Version)),
        "print the version",
    )
    .or('V'),
];
