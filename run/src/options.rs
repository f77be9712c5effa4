//! The command line and the environment: which server, which program.

use std::ffi::{OsStr, OsString};
use std::fmt;

use lexopt::{Arg, Parser, ValueExt};
use threadsocks::protocol::Network;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
threadsocks-run: runs an unmodified program through a SOCKS server (Linux)

Usage: threadsocks run [OPTIONS] [--] PROGRAM [ARGUMENT]...

Options:
      --socks5 HOST:PORT     the SOCKS5 server [SOCKS5_SERVER]
      --socks4 HOST:PORT     the SOCKS4 and SOCKS4A server [SOCKS4_SERVER]
      --user NAME            user name [SOCKS_USERNAME]; the password comes from
                             SOCKS_PASSWORD
      --direct NETWORK       connect to these addresses without the server, such
                             as 10.0.0.0/8; may be given several times
      --loopback             loopback addresses go through the server too
      --strict               refuse what cannot go through the server: UDP, raw
                             sockets
  -h, --help                 print this help
  -V, --version              print the version

SOCKS5 is used if both servers are named. Names are resolved by the server.

Exit status: the program's; 2 usage error, 126 the program or its supervision
cannot be started, 127 there is no such program.

Manual: threadsocks-run(1). Example:
  SOCKS5_SERVER=127.0.0.1:1080 threadsocks run -- curl http://example.org/
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    Run(Options),
    Help,
    Version,
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocksVersion {
    /// With names, as SOCKS4A.
    V4,
    V5,
}

/// How a program is run.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) version: SocksVersion,
    /// `HOST:PORT` of the server.
    pub(crate) server: String,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
    /// Networks that are reached without the server.
    pub(crate) direct: Vec<Network>,
    /// Do connections to loopback go through the server?
    pub(crate) loopback: bool,
    /// Is what cannot go through the server refused?
    pub(crate) strict: bool,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// Why a command line is invalid.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

/// Parses the arguments after the program's name; `variable` reads the environment.
///
/// # Errors
///
/// [`UsageError`] for an invalid argument, or if no server or no program is named.
pub(crate) fn parse(
    arguments: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Action, UsageError> {
    let mut parser = Parser::from_args(arguments);
    let (mut socks4, mut socks5, mut user) = (None, None, None);
    let (mut direct, mut loopback, mut strict) = (Vec::new(), false, false);
    let program = loop {
        match parser.next()? {
            Some(Arg::Long("socks4")) => socks4 = Some(parser.value()?.string()?),
            Some(Arg::Long("socks5")) => socks5 = Some(parser.value()?.string()?),
            Some(Arg::Long("user")) => user = Some(parser.value()?),
            Some(Arg::Long("direct")) => {
                let text = parser.value()?.string()?;
                let network = Network::parse(&text);
                let error = |error| UsageError(format!("--direct: {text:?}: {error}"));
                direct.push(network.map_err(error)?);
            }
            Some(Arg::Long("loopback")) => loopback = true,
            Some(Arg::Long("strict")) => strict = true,
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Action::Help),
            Some(Arg::Long("version") | Arg::Short('V')) => return Ok(Action::Version),
            Some(Arg::Value(program)) => break program,
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(UsageError("no program is named; see --help".to_owned())),
        }
    };
    let arguments = parser.raw_args()?.collect();
    let (version, server) = choose_server([socks5, socks4], &variable)?;
    let bytes = |text: OsString| text.into_encoded_bytes();
    Ok(Action::Run(Options {
        version,
        server,
        user: user.or_else(|| variable("SOCKS_USERNAME")).map(bytes),
        password: variable("SOCKS_PASSWORD").map(bytes),
        direct,
        loopback,
        strict,
        program,
        arguments,
    }))
}

/// The server: an option before a variable, SOCKS5 before SOCKS4.
fn choose_server(
    [socks5, socks4]: [Option<String>; 2],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(SocksVersion, String), UsageError> {
    let from_variable = |name: &str| match variable(name) {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => match text.into_string() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(UsageError(format!("{name} is not UTF-8"))),
        },
        None => Ok(None),
    };
    let given = match (socks5, socks4) {
        (None, None) => [
            from_variable("SOCKS5_SERVER")?,
            from_variable("SOCKS4_SERVER")?,
        ],
        (socks5, socks4) => [socks5, socks4],
    };
    let (version, server) = match given {
        [Some(server), _] => (SocksVersion::V5, server),
        [None, Some(server)] => (SocksVersion::V4, server),
        [None, None] => {
            let text = "no SOCKS server is named: set SOCKS5_SERVER or SOCKS4_SERVER to \
                        HOST:PORT, or use --socks5 or --socks4";
            return Err(UsageError(text.to_owned()));
        }
    };
    Ok((version, with_port(server)))
}

/// Adds the port of SOCKS, 1080, if none is named.
fn with_port(server: String) -> String {
    let has_port = match server.rsplit_once(':') {
        // An IPv6 address without brackets has several colons, and no port.
        Some((host, _)) => !host.contains(':') || host.ends_with(']'),
        None => false,
    };
    match has_port {
        true => server,
        false if server.contains(':') && !server.starts_with('[') => format!("[{server}]:1080"),
        false => format!("{server}:1080"),
    }
}

/// This text for a message: bytes that are not UTF-8 are replaced.
pub(crate) fn shown(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, variables: &[(&str, &str)]) -> Result<Options, String> {
        let words = line.split_whitespace().map(OsString::from).collect();
        let find = |name: &str| {
            let found = variables.iter().find(|it| it.0 == name);
            found.map(|it| OsString::from(it.1))
        };
        match parse(words, find) {
            Ok(Action::Run(options)) => Ok(options),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn k01_socks5_wins_and_options_win_over_variables() {
        let both = [("SOCKS5_SERVER", "a:1"), ("SOCKS4_SERVER", "b:2")];
        for (line, variables, version, server) in [
            ("p", &both[..], SocksVersion::V5, "a:1"),
            ("p", &both[1..], SocksVersion::V4, "b:2"),
            ("--socks4 c:3 p", &both, SocksVersion::V4, "c:3"),
            (
                "--socks4 c:3 --socks5 d:4 -- p",
                &both,
                SocksVersion::V5,
                "d:4",
            ),
            (
                "p",
                &[("SOCKS5_SERVER", ""), ("SOCKS4_SERVER", "b")],
                SocksVersion::V4,
                "b:1080",
            ),
            ("--socks5 ::1 p", &[], SocksVersion::V5, "[::1]:1080"),
            ("--socks5 [::1] p", &[], SocksVersion::V5, "[::1]:1080"),
            ("--socks5 [::1]:7 p", &[], SocksVersion::V5, "[::1]:7"),
        ] {
            let options = parsed(line, variables).expect(line);
            assert_eq!(
                (options.version, &*options.server),
                (version, server),
                "{line}"
            );
        }
    }

    #[test]
    fn k01_the_arguments_of_the_program_are_not_read() {
        let options = parsed("--socks5 a --direct 10.0.0.0/8 p --help -- x", &[]).expect("valid");
        assert_eq!(options.program, "p");
        assert_eq!(options.arguments, ["--help", "--", "x"]);
        assert_eq!(options.direct.len(), 1);
    }

    #[test]
    fn k01_an_invalid_command_line_says_what_is_missing() {
        for (line, expected) in [
            ("p", "SOCKS5_SERVER or SOCKS4_SERVER"),
            ("--socks5 a", "no program"),
            ("--socks5 a --nonsense p", "nonsense"),
            ("--socks5 a --direct x p", "--direct: \"x\""),
        ] {
            let error = parsed(line, &[]).expect_err(line);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_help_fits_into_eighty_columns() {
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
    }
}
