//! Parses the command line into an action and its options.

mod action;
mod completion;
mod given;
mod help;
mod option_table;
mod suggestion;
mod usage_error;
mod values;

use std::ffi::{OsStr, OsString};

use lexopt::{Arg, Parser, ValueExt};

pub use action::{Action, Options, Shell};
pub use completion::completion;
use given::Given;
pub use help::help;
use option_table::{Argument, OptionRow};
pub use usage_error::UsageError;

/// Parses the arguments after the program's name.
///
/// # Errors
///
/// [`UsageError`] for the first invalid argument.
pub fn parse<I>(arguments: I) -> Result<Action, UsageError>
where
    I: IntoIterator<Item = OsString>,
    I::IntoIter: 'static,
{
    let mut arguments = arguments.into_iter().peekable();
    // Its options are those of another program.
    if arguments.next_if(|first| first == "run").is_some() {
        return Ok(Action::Run(arguments.collect()));
    }
    let mut parser = Parser::from_args(arguments);
    let mut given = Given::default();
    loop {
        check_hyphens(&mut parser)?;
        let option = match parser.next()? {
            None => return given.into_action(),
            Some(Arg::Value(text)) => {
                add_listener(&mut given, &text.string()?)?;
                continue;
            }
            Some(Arg::Short(letter)) => option_table::find_short(letter)
                .ok_or_else(|| unknown_option("-", &letter.to_string()))?,
            Some(Arg::Long(name)) => {
                option_table::find(name).ok_or_else(|| unknown_option("--", name))?
            }
        };
        apply(option, &mut given, &mut parser)?;
        if let Some(action) = given.at_once {
            return Ok(action);
        }
    }
}

/// Gives an option its effect. An error in its value begins with the name of the option.
fn apply(option: &OptionRow, given: &mut Given, parser: &mut Parser) -> Result<(), UsageError> {
    let mut value = || value_of(option, parser);
    let result = match option.argument {
        Argument::None(effect) => {
            effect(given);
            Ok(())
        }
        Argument::Text(_, effect) => effect(given, &value()?.string()?),
        Argument::Bytes(_, effect) => effect(given, value()?),
    };
    result.map_err(|reason| UsageError(format!("--{}: {reason}", option.long)))
}

/// The value of an option. The name of another option is none.
fn value_of(option: &OptionRow, parser: &mut Parser) -> Result<OsString, UsageError> {
    let long = option.long;
    let placeholder = option.argument.placeholder().unwrap_or_default();
    let missing = || UsageError(format!("--{long} needs a value: --{long} {placeholder}"));
    let value = parser.value().map_err(|_| missing())?;
    let name = value.to_str().and_then(|text| text.strip_prefix("--"));
    match name.filter(|name| option_table::find(name).is_some()) {
        Some(_) => Err(missing()),
        None => Ok(value),
    }
}

/// Reads the argument that is no option: the port, perhaps with an address.
fn add_listener(given: &mut Given, text: &str) -> Result<(), UsageError> {
    let parsed = values::parse_listener(text);
    let (address, port) = parsed.map_err(|reason| {
        let advice = given.advice_on_word().map(str::to_owned);
        match advice.or_else(|| suggestion::instead_of_word(text)) {
            Some(advice) => UsageError(format!("{text:?} is not a PORT; {advice}")),
            None => UsageError(reason),
        }
    })?;
    given.address = address.or(given.address);
    Ok(given.set_port(port)?)
}

fn unknown_option(hyphens: &str, name: &str) -> UsageError {
    let advice = suggestion::instead_of_option(name);
    let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
    UsageError(format!("there is no option {hyphens}{name}{advice}"))
}

/// Refuses the long name of an option after one hyphen: -check would be the option -c with the
/// value "heck".
fn check_hyphens(parser: &mut Parser) -> Result<(), UsageError> {
    let Some(arguments) = parser.try_raw_args() else {
        return Ok(());
    };
    let name = arguments.peek().and_then(OsStr::to_str);
    let name = name.and_then(|it| it.strip_prefix('-'));
    let name = name.and_then(|it| it.split('=').next());
    match name.filter(|name| option_table::find(name).is_some()) {
        Some(name) => Err(UsageError(format!("write two hyphens: --{name}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::admin::explain::ExplainQuery;
    use crate::config::Settings;
    use crate::logger::{LogFormat, Verbosity};
    use crate::protocol::{Nat64Prefix, Network};
    use crate::trace::TraceTarget;

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
    fn the_port_and_the_address_have_several_forms() {
        for (line, address) in [
            ("1081", "0.0.0.0:1081"),
            ("0", "0.0.0.0:0"),
            ("-p 1082", "0.0.0.0:1082"),
            ("--port=1082", "0.0.0.0:1082"),
            ("-b 127.0.0.1 7", "127.0.0.1:7"),
            ("--bind=::1", "[::1]:1080"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("[::1]:0", "[::1]:0"),
            ("[fe80::1%3]:7", "[fe80::1%3]:7"),
        ] {
            assert_eq!(serve(line).address.to_string(), address, "{line}");
        }
    }

    #[test]
    fn k01_the_arguments_after_run_belong_to_another_program() {
        let run = |words: &[&str]| Action::Run(words.iter().map(OsString::from).collect());
        assert_eq!(parsed("run"), Ok(run(&[])));
        let expected = run(&["--strict", "--", "curl", "--help"]);
        assert_eq!(parsed("run --strict -- curl --help"), Ok(expected));
        assert!(parsed("--quiet run").is_err());
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
            ("-c /etc/x", set(|o| o.config = Some("/etc/x".into()))),
            ("--config x", set(|o| o.config = Some("x".into()))),
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
            config: Some("x".into()),
            users: Some("y".into()),
            ..Options::default()
        };
        for strict in [false, true] {
            let options = with_users.clone();
            let option = if strict { " --strict" } else { "" };
            let check = parsed(&format!("--check -c x --users y{option}"));
            assert_eq!(check, Ok(Action::Check { options, strict }));
        }
        let alice = |file: Option<&str>, replace| Action::NewUser {
            name: b"alice".to_vec(),
            file: file.map(PathBuf::from),
            replace,
        };
        for (line, action) in [
            ("--new-user alice", alice(None, false)),
            ("--new-user alice --users y", alice(Some("y"), false)),
            (
                "--users y --replace --new-user alice",
                alice(Some("y"), true),
            ),
            ("--probe 7", Action::Probe(([127, 0, 0, 1], 7).into())),
            ("--probe [::1]:7", Action::Probe("[::1]:7".parse().unwrap())),
            ("--completion bash", Action::Completion(Shell::Bash)),
            ("--completion zsh", Action::Completion(Shell::Zsh)),
            ("--completion fish", Action::Completion(Shell::Fish)),
        ] {
            assert_eq!(parsed(line), Ok(action), "{line}");
        }
        let words = ["--explain", "c 1.1.1.1 2.2.2.2 80", "-c", "x"].map(OsString::from);
        let query = ExplainQuery::parse("c 1.1.1.1 2.2.2.2 80").unwrap();
        let options = Options {
            config: Some("x".into()),
            ..Options::default()
        };
        assert_eq!(parse(words), Ok(Action::Explain(options, query)));
    }

    /// Asserts that each of these command lines is refused for this reason.
    fn assert_refused(lines: &[(&str, &str)]) {
        for (line, reason) in lines {
            let usage = parsed(line).expect_err(line).to_string();
            assert!(usage.contains(reason), "{line}: {usage}");
            assert!(usage.ends_with("(see --help)"));
        }
    }

    #[test]
    fn m06_words_that_are_no_port_and_no_option_lead_to_what_was_meant() {
        assert_refused(&[
            ("65536", "not a PORT"),
            ("http", "not a PORT"),
            ("-1", "-1"),
            ("1 2", "only one PORT"),
            ("-p 1 2", "only one PORT"),
            ("--port x", "not a PORT"),
            ("127.0.0.1", "write 127.0.0.1:1080"),
            ("::1", "write an IPv6 address and a port as [::1]:1080"),
            ("localhost:1080", "write 127.0.0.1:1080 or [::1]:1080"),
            ("socks5://127.0.0.1:1080", "is a URL for clients"),
            ("-b ::1 127.0.0.1:7", "write the address only once"),
            ("-b 127.0.0.1:1080", "--bind 127.0.0.1 1080"),
            ("[fe80::1%3]", "write 127.0.0.1:1080 or [::1]:1080"),
            ("*:1080", "write 0.0.0.0:1080"),
            ("start", "starts without a word"),
            ("--check socks.conf", "write --config FILE"),
            ("--new-user a secret", "asks for the password"),
            (
                "--new-user --users u",
                "--new-user needs a value: --new-user NAME",
            ),
            ("--probe", "--probe needs a value: --probe [ADDR:]PORT"),
            ("help", "did you mean --help?"),
            ("check", "did you mean --check?"),
            ("--prot 1080", "did you mean --port?"),
            ("--user x", "did you mean --users?"),
            ("--nonsense", "there is no option --nonsense (see"),
            ("-check", "two hyphens: --check"),
            ("-users=x", "two hyphens: --users"),
            ("-i 127.0.0.1", "write --bind ADDR"),
            ("-D", "runs in the foreground"),
            ("--daemon", "runs in the foreground"),
            ("-x", "there is no option -x (see"),
            ("--config=", "the path is empty"),
            ("--replace", "only with --new-user NAME and --users FILE"),
            (
                "--replace --new-user a",
                "only with --new-user NAME and --users FILE",
            ),
            ("--probe 0", "no server listens on port 0"),
            ("--probe localhost:1080", "write 127.0.0.1:1080"),
            ("--completion ksh", "none of bash, zsh and fish"),
        ]);
    }

    #[test]
    fn m06_every_usage_error_says_what_to_write() {
        assert_refused(&[
            ("-b", "needs a value"),
            ("-b localhost", "not an IP address"),
            ("--advertise ::1", "IPv4"),
            ("--bind-ports 5", "not a port range"),
            ("--bind-ports 6-5", "not a port range"),
            ("--bind-ports 0-5", "not a port range"),
            ("--proxy-from", "needs a value"),
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
            ("--grace 10", "write 10s for seconds"),
            ("--grace 1x", "not a time"),
            ("--grace off", "not a time"),
            ("--handshake-timeout 0s", "more than zero"),
            ("--idle-timeout never", "or off for no limit"),
            ("--idle-timeout 0", "write off for no limit"),
            ("--udp-timeout 0s", "write off for no limit"),
            ("--connect-timeout 0", "more than zero"),
            ("--max-sessions 0", "number of sessions"),
            ("--max-per-client 0", "number of sessions"),
            ("--max-unheard 0", "number of sessions"),
            ("--ident-timeout off", "not a time"),
            ("--enforce=yes", "enforce"),
            ("--allow-anonymous", "only with --users"),
            ("--strict", "only with --check"),
            ("--users", "needs a value"),
            ("--socks 6", "write 4, 5 or 4,5"),
            ("--socks 4a", "write 4, 5 or 4,5"),
            ("--socks=", "write 4, 5 or 4,5"),
            ("--socks 4 --users x", "SOCKS4 has no login"),
            ("--new-user a:b", "write only the name"),
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
        ]);
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
            (&["--new-user", "a", "--check"], "--new-user and --check"),
            (&[query, "--new-user", "a"], "--explain and --new-user"),
            (&["--probe", "1", "--check"], "--probe and --check"),
            (
                &["--completion", "zsh", "--probe", "1"],
                "--completion and --probe",
            ),
            (&["--check", "--check"], "--check is given twice"),
        ] {
            let usage = parse(words.iter().map(OsString::from).collect::<Vec<_>>());
            let usage = usage.expect_err(reason).to_string();
            assert!(usage.contains(reason), "{words:?}: {usage}");
        }
    }

    /// A text with one blank between its words.
    fn words_of(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn o01_an_argument_that_is_not_utf8_is_a_usage_error_and_no_panic() {
        use std::os::unix::ffi::OsStringExt;
        let not_utf8 = OsString::from_vec(vec![0xFF, b'8']);
        assert!(parse([not_utf8.clone()]).is_err());
        assert!(parse(["--grace".into(), not_utf8.clone()]).is_err());
        let config = parse(["-c".into(), not_utf8.clone()]);
        assert!(
            matches!(config, Ok(Action::Serve(options)) if options.config == Some(not_utf8.into()))
        );
    }

    #[test]
    fn help_fits_a_terminal_and_names_every_default() {
        let help = help();
        assert!(help.lines().all(|line| line.chars().count() <= 80));
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
            assert!(words_of(&help).contains(&line), "{line}");
        }
    }
}
