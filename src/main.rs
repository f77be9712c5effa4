//! Reads options, rules and users, takes the port, starts the logger, serves, leaves.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::{SigSet, Signal};

use threadsocks::admin::check;
use threadsocks::admin::explain::ExplainQuery;
use threadsocks::admin::new_user;
use threadsocks::auth::{self, Authenticator};
use threadsocks::cli::{self, Action, Options};
use threadsocks::config::LoadError;
use threadsocks::local_time::LocalClock;
use threadsocks::logger::{self, OutputConfig, Verbosity};
use threadsocks::rules::{RulesFile, WeekTime};
use threadsocks::server::{Control, Limits, STACK_SIZE, Server, ShutdownKind};

/// Could not serve.
const FAILED: u8 = 1;
/// The command line or the rules make no sense.
const WRONG: u8 = 2;
/// What a shell reports of a program that Ctrl-C killed.
const FORCED: u8 = 130;

/// How long the logger may take at the end. A terminal that nobody reads must
/// not keep the program alive.
const LOGGER_FLUSH_TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match cli::parse(arguments) {
        Ok(Action::Help) => print(cli::HELP),
        Ok(Action::Version) => print(concat!("threadsocks ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Action::Check(config, users)) => match check(&config, users.as_deref()) {
            Ok(told) => print(&told),
            Err(status) => status,
        },
        Ok(Action::Explain(config, inquiry)) => explain(&config, &inquiry),
        Ok(Action::NewUser(name)) => new_user(&name),
        Ok(Action::Serve(options)) => match serve(options) {
            Ok(ShutdownKind::Drained) => ExitCode::SUCCESS,
            Ok(ShutdownKind::Forced) => ExitCode::from(FORCED),
            Err(status) => status,
        },
        Err(usage) => complain(WRONG, &usage),
    }
}

/// Serves until told to stop.
fn serve(options: Options) -> Result<ShutdownKind, ExitCode> {
    // In front of the limits: what it sets aside is not there for sessions. And in
    // front of all threads, for each of which the allocator sets aside some as well.
    let authenticator = options.users.as_deref().map(open_users).transpose()?;
    let controls = take_controls()?;
    let mut settings = options.settings;
    let limits = Limits::of_this_machine(STACK_SIZE, options.max_sessions);
    settings.max_sessions = limits.max_sessions;
    let rules_file = open(&options.config)?;
    let clock = LocalClock::local();
    let listener = TcpListener::bind(options.address).map_err(|error| {
        complain(
            FAILED,
            &format_args!(
                "cannot listen on {}: {error}; name another PORT or --bind address",
                options.address
            ),
        )
    })?;
    if options.verbosity >= Verbosity::Normal {
        welcome(&rules_file, authenticator.as_ref(), clock.now(), limits);
    } else if let (0, Ok(address)) = (options.address.port(), listener.local_addr()) {
        // However quiet: nobody else knows the port.
        tell(&format_args!("listening on {address}"));
    }
    let screen: Option<Box<dyn Write + Send>> = match options.screen {
        true => Some(Box::new(logger::Stdout)),
        false => None,
    };
    let (logger, log) = logger::start(OutputConfig {
        screen,
        diagnostics: Box::new(io::stderr()),
        verbosity: options.verbosity,
    })
    .map_err(|error| complain(FAILED, &format_args!("no thread for the logger: {error}")))?;
    let mut server = Server::new(settings, rules_file, clock, log);
    if let Some(authenticator) = authenticator {
        server = server.with_users(authenticator);
    }
    let stopped = server.run(listener, &controls);
    logger.finish(LOGGER_FLUSH_TIME);
    stopped.map_err(|error| complain(FAILED, &error))
}

/// Turns signals into controls: INT and TERM stop, HUP rereads the rules.
///
/// TERM and HUP are blocked here, before any other thread exists, so that all
/// threads inherit that and only the one that waits for them gets them. Neither
/// thread holds anything that the end of the program waits for.
fn take_controls() -> Result<Receiver<Control>, ExitCode> {
    let (operator, controls) = bounded(16);
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    let failed =
        |error: &dyn Display| complain(FAILED, &format_args!("cannot take signals: {error}"));
    signals.thread_block().map_err(|error| failed(&error))?;
    // A file behind stdout that has reached its limit of size makes writing fail,
    // which the logger counts, instead of killing us.
    let mut too_large = SigSet::empty();
    too_large.add(Signal::SIGXFSZ);
    too_large.thread_block().map_err(|error| failed(&error))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn({
            let operator = operator.clone();
            move || pass_on(&signals, &operator)
        })
        .map_err(|error| failed(&error))?;
    ctrlc::set_handler(move || stop(&operator)).map_err(|error| failed(&error))?;
    Ok(controls)
}

/// The body of the thread `signals`.
fn pass_on(signals: &SigSet, operator: &Sender<Control>) {
    loop {
        match signals.wait() {
            // If controls are waiting already, the rules are about to be read.
            Ok(Signal::SIGHUP) => drop(operator.try_send(Control::Reload)),
            Ok(_) => stop(operator),
            // Only a set that cannot be waited for fails, and ours can.
            Err(_) => return,
        }
    }
}

/// An order to stop waits for its turn, and must not get lost. (Nobody takes it
/// any more when the program is about to end.)
fn stop(operator: &Sender<Control>) {
    let _ = operator.send(Control::Stop);
}

/// Tells the operator on stderr what is in force.
fn welcome(rules_file: &RulesFile, keeper: Option<&Authenticator>, now: WeekTime, limits: Limits) {
    let path = rules_file.path().display();
    let (rules, _) = rules_file.current();
    tell(&format_args!("{path}: {rules} in force"));
    let of_logins = rules.login_warnings(keeper.is_some());
    for remark in rules.remarks(now).into_iter().chain(of_logins) {
        tell(&format_args!("{path}: {remark}"));
    }
    if let Some(book) = keeper.map(Authenticator::users_file) {
        let path = book.path().display();
        let (users, _) = book.current();
        tell(&format_args!("{path}: {users} in force"));
        if is_open_to_others(book.path()) {
            tell(&format_args!(
                "{path}: warning: others can read it, and try passwords at home; chmod 600 {path}"
            ));
        }
    }
    let Limits {
        max_sessions,
        limited_by,
    } = limits;
    let sessions = if max_sessions == 1 {
        "session"
    } else {
        "sessions"
    };
    tell(&format_args!(
        "up to {max_sessions} {sessions} at a time, limited by {limited_by}"
    ));
}

fn check(config: &Path, users: Option<&Path>) -> Result<String, ExitCode> {
    let rules_file = open(config)?;
    let keeper = users.map(open_users).transpose()?;
    let (rules, _) = rules_file.current();
    let (path, now) = (config.display().to_string(), LocalClock::local().now());
    let mut told = check::check(&path, &rules, now);
    for remark in rules.login_warnings(keeper.is_some()) {
        told.push_str(&format!("{path}: {remark}\n"));
    }
    if let Some(book) = keeper.as_ref().map(Authenticator::users_file) {
        let (users, _) = book.current();
        told.push_str(&format!("{}: {users}\n", book.path().display()));
    }
    Ok(told)
}

fn explain(config: &Path, inquiry: &ExplainQuery) -> ExitCode {
    let rules_file = match open(config) {
        Ok(rules_file) => rules_file,
        Err(status) => return status,
    };
    let (rules, _) = rules_file.current();
    let now = LocalClock::local().now();
    match inquiry.explain(&config.display().to_string(), &rules, now) {
        Ok(told) => print(&told),
        Err(why) => complain(FAILED, &why),
    }
}

/// Opens the rules, or says everything that is wrong with them.
fn open(config: &Path) -> Result<RulesFile, ExitCode> {
    RulesFile::open(config).map_err(|error| {
        for line in error.describe(config) {
            tell(&line);
        }
        if matches!(error, LoadError::Unreadable(_)) {
            tell(&format_args!(
                "looked for the rules from {}; name another file with --config, or write \
                 one, for example: permit cb 127.0.0.0/8 - - -",
                current_folder()
            ));
        }
        ExitCode::from(WRONG)
    })
}

/// Opens the users file, or says everything that is wrong with it.
fn open_users(path: &Path) -> Result<Authenticator, ExitCode> {
    Authenticator::open(path).map_err(|error| {
        for line in error.describe(path) {
            tell(&line);
        }
        tell(&format_args!(
            "a line of the users file is made by: threadsocks --new-user alice >> {}",
            path.display()
        ));
        ExitCode::from(WRONG)
    })
}

/// May others than its owner read this file, or write it?
fn is_open_to_others(path: &Path) -> bool {
    let mode = std::fs::metadata(path).map(|it| it.mode());
    mode.is_ok_and(|mode| mode & 0o077 != 0)
}

/// Prints a line for the users file.
fn new_user(name: &str) -> ExitCode {
    let password = new_user::new_password(name);
    match password.and_then(|password| auth::users_file_line(name, &password)) {
        // It is meant for a file, which may have no room.
        Ok(line) => match put(&line) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(FAILED, &format_args!("the line is not written: {error}")),
        },
        Err(why) => complain(FAILED, &why),
    }
}

/// Where relative paths begin, for the operator.
fn current_folder() -> String {
    match std::env::current_dir() {
        Ok(folder) => folder.display().to_string(),
        Err(error) => format!("the current folder, which cannot be told ({error})"),
    }
}

/// Prints on stdout. Whoever closed it early has seen enough.
fn print(text: &str) -> ExitCode {
    let _ = put(text);
    ExitCode::SUCCESS
}

fn put(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn complain(status: u8, what: &dyn Display) -> ExitCode {
    tell(what);
    ExitCode::from(status)
}

/// A line on stderr; if that is closed, there is nobody to tell.
fn tell(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "threadsocks: {what}");
}
