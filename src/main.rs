//! The program: reads options and files, opens the port, and runs the server until it stops.

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

/// Exit status: a failure, such as a port in use.
const EXIT_FAILURE: u8 = 1;
/// Exit status: the command line, the rules or the users are invalid.
const EXIT_INVALID: u8 = 2;
/// Exit status after a second signal: the one that shells report of a program that SIGINT
/// ended (128 + 2).
const EXIT_FORCED: u8 = 130;

/// How long the logger may write when the server has stopped. A terminal or pipe that is
/// not read would block it for ever, and must not keep the program running.
const LOGGER_FLUSH_TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match cli::parse(arguments) {
        Ok(Action::Help) => print_output(cli::HELP),
        Ok(Action::Version) => {
            print_output(concat!("threadsocks ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Ok(Action::Check(config, users)) => match check(&config, users.as_deref()) {
            Ok(report) => print_output(&report),
            Err(status) => status,
        },
        Ok(Action::Explain(config, query)) => explain(&config, &query),
        Ok(Action::NewUser(name)) => new_user(&name),
        Ok(Action::Serve(options)) => match serve(options) {
            Ok(ShutdownKind::Graceful) => ExitCode::SUCCESS,
            Ok(ShutdownKind::Forced) => ExitCode::from(EXIT_FORCED),
            Err(status) => status,
        },
        Err(error) => print_error(EXIT_INVALID, &error),
    }
}

/// Runs the server until it stops.
fn serve(options: Options) -> Result<ShutdownKind, ExitCode> {
    // Before the limits are computed: the memory for hashes is not available to sessions.
    // Before any thread starts: the allocator reserves address space for each thread, which
    // could leave too little for the hashes.
    let authenticator = options.users.as_deref().map(open_users).transpose()?;
    let controls = receive_signals()?;
    let mut settings = options.settings;
    let limits = Limits::of_this_machine(STACK_SIZE, options.max_sessions);
    settings.max_sessions = limits.max_sessions;
    settings.max_associations = limits.max_associations;
    let rules_file = open_rules(&options.config)?;
    let clock = LocalClock::local();
    let listener = TcpListener::bind(options.address).map_err(|error| {
        print_error(
            EXIT_FAILURE,
            &format_args!(
                "cannot listen on {}: {error}; choose another PORT or --bind address",
                options.address
            ),
        )
    })?;
    if options.verbosity >= Verbosity::Normal {
        describe_start(&rules_file, authenticator.as_ref(), clock.now(), limits);
    } else if let (0, Ok(address)) = (options.address.port(), listener.local_addr()) {
        // Even with --quiet: the operator has no other way to learn the port.
        print_diagnostic(&format_args!("listening on {address}"));
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
    .map_err(|error| {
        print_error(
            EXIT_FAILURE,
            &format_args!("no thread for the logger: {error}"),
        )
    })?;
    let mut server = Server::new(settings, rules_file, clock, log);
    if let Some(authenticator) = authenticator {
        server = server.with_users(authenticator);
    }
    let result = server.run(listener, &controls);
    logger.finish(LOGGER_FLUSH_TIME);
    result.map_err(|error| print_error(EXIT_FAILURE, &error))
}

/// Starts the two threads that turn signals into controls: INT and TERM stop the server,
/// HUP reloads the files.
///
/// TERM and HUP are blocked here, before any other thread exists: all threads inherit the
/// mask, so that only the thread `signals`, which waits for them, receives them. The
/// program does not join the two threads; they end with the process.
fn receive_signals() -> Result<Receiver<Control>, ExitCode> {
    // Any number of signals can arrive, so the channel is bounded. The server executes a
    // control within milliseconds: 16 are rarely waiting.
    let (control_sender, controls) = bounded(16);
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    let failed = |error: &dyn Display| {
        print_error(
            EXIT_FAILURE,
            &format_args!("cannot handle signals: {error}"),
        )
    };
    signals.thread_block().map_err(|error| failed(&error))?;
    // If stdout is a file that has reached its size limit (ulimit -f), SIGXFSZ would end the
    // process. Blocked, it makes write(2) fail with EFBIG, and the logger counts the loss.
    let mut too_large = SigSet::empty();
    too_large.add(Signal::SIGXFSZ);
    too_large.thread_block().map_err(|error| failed(&error))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn({
            let control_sender = control_sender.clone();
            move || forward_signals(&signals, &control_sender)
        })
        .map_err(|error| failed(&error))?;
    ctrlc::set_handler(move || request_stop(&control_sender)).map_err(|error| failed(&error))?;
    Ok(controls)
}

/// The body of the thread `signals`: sends a control for each TERM or HUP.
fn forward_signals(signals: &SigSet, control_sender: &Sender<Control>) {
    loop {
        match signals.wait() {
            // A full channel contains reloads or stops that the server has not executed yet;
            // one more reload would change nothing.
            Ok(Signal::SIGHUP) => drop(control_sender.try_send(Control::Reload)),
            Ok(_) => request_stop(control_sender),
            // sigwait(3) fails only for an invalid set, and this one is valid.
            Err(_) => return,
        }
    }
}

/// Sends the control to stop. Waits for room in the channel, because the control must not
/// get lost. Fails only if the server has ended and the channel is closed.
fn request_stop(control_sender: &Sender<Control>) {
    let _ = control_sender.send(Control::Stop);
}

/// Prints on stderr which rules, users and limits are in force, with warnings.
fn describe_start(
    rules_file: &RulesFile,
    authenticator: Option<&Authenticator>,
    now: WeekTime,
    limits: Limits,
) {
    let path = rules_file.path().display();
    let (rules, _) = rules_file.current();
    print_diagnostic(&format_args!("{path}: {rules} in force"));
    let login_warnings = rules.login_warnings(authenticator.is_some());
    for remark in rules.remarks(now).into_iter().chain(login_warnings) {
        print_diagnostic(&format_args!("{path}: {remark}"));
    }
    if let Some(users_file) = authenticator.map(Authenticator::users_file) {
        let path = users_file.path().display();
        let (users, _) = users_file.current();
        print_diagnostic(&format_args!("{path}: {users} in force"));
        if is_accessible_to_others(users_file.path()) {
            print_diagnostic(&format_args!(
                "{path}: warning: other accounts have access to this file, and can guess \
                 passwords without limit; run: chmod 600 {path}"
            ));
        }
    }
    let Limits {
        max_sessions,
        limited_by,
        ..
    } = limits;
    let sessions = if max_sessions == 1 {
        "session"
    } else {
        "sessions"
    };
    print_diagnostic(&format_args!(
        "up to {max_sessions} {sessions} at a time, limited by {limited_by}"
    ));
}

/// The report of `--check`: the rules with warnings, then the number of users.
fn check(config: &Path, users: Option<&Path>) -> Result<String, ExitCode> {
    let rules_file = open_rules(config)?;
    let authenticator = users.map(open_users).transpose()?;
    let (rules, _) = rules_file.current();
    let (path, now) = (config.display().to_string(), LocalClock::local().now());
    let mut report = check::check(&path, &rules, now);
    for remark in rules.login_warnings(authenticator.is_some()) {
        report.push_str(&format!("{path}: {remark}\n"));
    }
    if let Some(users_file) = authenticator.as_ref().map(Authenticator::users_file) {
        let (users, _) = users_file.current();
        report.push_str(&format!("{}: {users}\n", users_file.path().display()));
    }
    Ok(report)
}

/// Prints the explanation of `--explain`.
fn explain(config: &Path, query: &ExplainQuery) -> ExitCode {
    let rules_file = match open_rules(config) {
        Ok(rules_file) => rules_file,
        Err(status) => return status,
    };
    let (rules, _) = rules_file.current();
    let now = LocalClock::local().now();
    match query.explain(&config.display().to_string(), &rules, now) {
        Ok(report) => print_output(&report),
        Err(reason) => print_error(EXIT_FAILURE, &reason),
    }
}

/// Opens the rules file, or prints all its errors.
fn open_rules(config: &Path) -> Result<RulesFile, ExitCode> {
    RulesFile::open(config).map_err(|error| {
        for line in error.describe(config) {
            print_diagnostic(&line);
        }
        if matches!(error, LoadError::Unreadable(_)) {
            print_diagnostic(&format_args!(
                "current directory: {}; choose another rules file with --config, or write \
                 one, for example with this line: permit cb 127.0.0.0/8 - - -",
                current_directory()
            ));
        }
        ExitCode::from(EXIT_INVALID)
    })
}

/// Opens the users file, or prints all its errors.
fn open_users(path: &Path) -> Result<Authenticator, ExitCode> {
    Authenticator::open(path).map_err(|error| {
        for line in error.describe(path) {
            print_diagnostic(&line);
        }
        print_diagnostic(&format_args!(
            "to add a user, run: threadsocks --new-user alice >> {}",
            path.display()
        ));
        ExitCode::from(EXIT_INVALID)
    })
}

/// Can accounts other than the owner read or write this file?
fn is_accessible_to_others(path: &Path) -> bool {
    let mode = std::fs::metadata(path).map(|metadata| metadata.mode());
    mode.is_ok_and(|mode| mode & 0o077 != 0)
}

/// Prints a line for the users file.
fn new_user(name: &str) -> ExitCode {
    let password = new_user::new_password(name);
    match password.and_then(|password| auth::users_file_line(name, &password)) {
        // The line is usually redirected to a file, and the disk may be full.
        Ok(line) => match write_stdout(&line) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => print_error(
                EXIT_FAILURE,
                &format_args!("cannot write the line: {error}"),
            ),
        },
        Err(reason) => print_error(EXIT_FAILURE, &reason),
    }
}

/// The directory that relative paths start from, for a message.
fn current_directory() -> String {
    match std::env::current_dir() {
        Ok(directory) => directory.display().to_string(),
        Err(error) => format!("unknown ({error})"),
    }
}

/// Prints on stdout. An error is ignored: a reader that closes a pipe early (`| head`) has
/// read what it needs.
fn print_output(text: &str) -> ExitCode {
    let _ = write_stdout(text);
    ExitCode::SUCCESS
}

fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints an error; returns the exit status for it.
fn print_error(status: u8, message: &dyn Display) -> ExitCode {
    print_diagnostic(message);
    ExitCode::from(status)
}

/// Prints a line on stderr. If stderr is closed, there is no other place to report to.
fn print_diagnostic(line: &dyn Display) {
    let _ = writeln!(io::stderr(), "threadsocks: {line}");
}
