//! The program: reads options and files, opens the port, and runs the server until it stops.

mod signals;
mod start_messages;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::SigSet;
use start_messages::StartFacts;

use threadsocks::admin::check;
use threadsocks::admin::explain::ExplainQuery;
use threadsocks::admin::new_user;
use threadsocks::auth::{self, Authenticator, UsersFile};
use threadsocks::cli::{self, Action, Options};
use threadsocks::config::{Content, LoadError, SyntaxError, WatchedFile};
use threadsocks::events::{Event, Level};
use threadsocks::local_time::LocalClock;
use threadsocks::logger::{
    self, Log, MAX_QUEUED_EVENTS, MEMORY_OF_LOGIN_LINES, OutputConfig, Stderr, Stdout,
};
use threadsocks::net::{self, Listeners};
use threadsocks::protocol::Nat64Prefix;
use threadsocks::rules::{Rules, RulesFile};
use threadsocks::server::{self, Limits, OtherMemory, STACK_SIZE, Server, ShutdownKind};
use threadsocks::systemd::{self, ServiceManager};
use threadsocks::trace::{MEMORY_OF_TRACE, Trace, TraceError, TraceTarget};

/// Exit status: a failure, such as a port in use or a file that cannot be read.
const EXIT_FAILURE: u8 = 1;
/// Exit status: the command line, the rules or the users are invalid.
const EXIT_INVALID: u8 = 2;
/// Exit status after a second signal: the one that shells report of a program that SIGINT
/// ended (128 + 2).
const EXIT_FORCED: u8 = 130;

/// How long the logger may write when the server has stopped. A terminal or pipe that is
/// not read would block it for ever, and must not keep the program running.
const LOGGER_FLUSH_TIME: Duration = Duration::from_secs(1);

/// Why the program fails: its exit status, and the lines for stderr.
#[derive(Debug)]
struct ProgramError {
    status: u8,
    lines: Vec<String>,
}

impl ProgramError {
    fn new(status: u8, line: impl Display) -> ProgramError {
        let lines = vec![line.to_string()];
        ProgramError { status, lines }
    }
}

impl Display for ProgramError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

impl Error for ProgramError {}

fn main() -> ExitCode {
    // First, because the default action of these signals ends the process.
    let signals = signals::block().map_err(no_signals);
    #[cfg(target_os = "linux")]
    server::use_one_arena();
    match signals.and_then(run_action) {
        Ok(status) => status,
        Err(error) => {
            let prefix = Level::Error.prefix(systemd::is_journal(&io::stderr()));
            // If stderr is closed, there is no other place to report to.
            for line in &error.lines {
                let line = format!("{prefix}threadsocks: {line}\n");
                let _ = Stderr.write_all(line.as_bytes());
            }
            ExitCode::from(error.status)
        }
    }
}

/// Does what the command line says. TERM and HUP are blocked, for a server.
fn run_action(signals: SigSet) -> Result<ExitCode, ProgramError> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let action = cli::parse(arguments).map_err(|error| ProgramError::new(EXIT_INVALID, error))?;
    if !matches!(action, Action::Serve(_)) {
        signals::unblock(signals).map_err(no_signals)?;
    }
    match action {
        Action::Serve(options) => serve(options, signals),
        Action::Help => print_output(cli::HELP),
        Action::Version => print_output(concat!("threadsocks ", env!("CARGO_PKG_VERSION"), "\n")),
        Action::Check { options, strict } => print_output(&check(&options, strict)?),
        Action::Explain(options, query) => print_output(&explain(&options, &query)?),
        Action::NewUser(name) => new_user(&name),
    }
}

/// What is read before any thread starts: too little memory for a thread aborts the process.
struct Files {
    authenticator: Option<Authenticator>,
    rules_file: RulesFile,
    clock: LocalClock,
}

impl Files {
    fn open(options: &Options) -> Result<Files, ProgramError> {
        let authenticator = options.users.as_deref().map(open_users).transpose()?;
        let (rules_file, clock) = open_rules(&options.config, &options.settings.nat64)?;
        Ok(Files {
            authenticator,
            rules_file,
            clock,
        })
    }

    /// The number of sessions beside these files: their memory, and that for logins and the
    /// trace, is not available to sessions.
    fn limits(&self, options: &Options) -> Result<Limits, ProgramError> {
        let authenticator = self.authenticator.as_ref();
        let other = OtherMemory {
            hash: authenticator.map_or(0, Authenticator::hash_memory),
            logins: authenticator.map_or(0, |it| it.cache_memory() + MEMORY_OF_LOGIN_LINES),
            trace: options.trace.as_ref().map_or(0, |_| MEMORY_OF_TRACE),
        };
        let has_metrics = options.metrics.is_some();
        Limits::of_this_machine(STACK_SIZE, options.max_sessions, other, has_metrics)
            .map_err(|error| ProgramError::new(EXIT_FAILURE, error))
    }
}

/// Runs the server until it stops. From the start of the logger on only the logger thread
/// writes, so a stderr that is not read delays neither the start nor a signal.
///
/// # Errors
///
/// The machine has too little for one session, and perhaps for a thread; or there is no
/// logger. Everything else is reported through the logger.
fn serve(options: Options, signals: SigSet) -> Result<ExitCode, ProgramError> {
    // The environment must not change any more when threads have started.
    let inherited = Listeners::from_env();
    let prepared = match Files::open(&options) {
        Ok(files) => Ok((files.limits(&options)?, files)),
        Err(error) => Err(error),
    };
    // Before the logger starts, so that its thread is in the trace.
    let trace_file = options.trace.clone();
    let read = options.users.iter().chain([&options.config]);
    let read: Vec<&Path> = read.map(PathBuf::as_path).collect();
    let trace = trace_file.as_ref().map(|file| Trace::start(file, &read));
    let logger = logger::start(OutputConfig {
        screen: Box::new(Stdout),
        format: options.log,
        diagnostics: Box::new(Stderr),
        verbosity: options.verbosity,
        has_priorities: systemd::is_journal(&io::stderr()),
        queued_events: prepared
            .as_ref()
            .map_or(MAX_QUEUED_EVENTS, |(limits, _)| limits.log_events),
    });
    let (logger, log) = match logger {
        Ok(started) => started,
        Err(error) => {
            let line = format!("no thread for the logger: {error}");
            return Err(ProgramError::new(EXIT_FAILURE, line));
        }
    };
    let trace = trace_file.zip(trace).and_then(|(file, trace)| {
        let trace = trace.map_err(|error| report_trace_error(&log, &file, &error));
        Some((file, trace.ok()?))
    });
    let result = prepared.and_then(|(limits, files)| {
        let inherited = inherited.map_err(|error| ProgramError::new(EXIT_FAILURE, error))?;
        run(options, files, inherited, limits, signals, &log)
    });
    // A start that fails keeps an earlier trace.
    if let (Some((file, trace)), Ok(_)) = (trace, &result) {
        finish_trace(&log, &file, trace);
    }
    let status = match result {
        Ok(ShutdownKind::Graceful) => ExitCode::SUCCESS,
        Ok(ShutdownKind::Forced) => ExitCode::from(EXIT_FORCED),
        Err(error) => {
            for line in error.lines {
                log.send(Event::StartMessage {
                    line,
                    level: Level::Error,
                    even_if_quiet: false,
                });
            }
            ExitCode::from(error.status)
        }
    };
    // The logger thread ends after the last handle is dropped.
    drop(log);
    logger.finish(LOGGER_FLUSH_TIME);
    Ok(status)
}

/// Says why there is no trace. Nothing else changes: the server serves all the same.
fn report_trace_error(log: &Log, file: &TraceTarget, error: &TraceError) {
    let path = file.path().display();
    log.send(Event::StartMessage {
        line: format!("{path}: cannot write the trace: {error}; the server runs without it"),
        level: Level::Error,
        even_if_quiet: false,
    });
}

/// Writes the trace, and says whether it is complete.
fn finish_trace(log: &Log, file: &TraceTarget, trace: Trace) {
    let path = file.path().display();
    let (line, level) = match trace.finish() {
        Ok(summary) => match summary.overflow() {
            Some(overflow) => (format!("{path}: {overflow}"), Level::Warning),
            None => (format!("{path}: the trace is written"), Level::Info),
        },
        Err(error) => (
            format!("{path}: the trace is not complete: {error}"),
            Level::Error,
        ),
    };
    log.send(Event::StartMessage {
        line,
        level,
        even_if_quiet: false,
    });
}

/// Opens the port, and serves clients until a signal.
fn run(
    options: Options,
    files: Files,
    inherited: Option<Listeners>,
    limits: Limits,
    signals: SigSet,
    log: &Log,
) -> Result<ShutdownKind, ProgramError> {
    let Files {
        authenticator,
        rules_file,
        clock,
    } = files;
    let controls = signals::receive(signals).map_err(no_signals)?;
    let mut settings = options.settings;
    settings.max_sessions = limits.max_sessions;
    settings.max_associations = limits.max_associations;
    settings.max_name_lookups = limits.max_name_lookups;
    let clients = settings.client_kinds(authenticator.is_some());
    let listeners = match inherited {
        Some(inherited) => inherited,
        None => listen(options.address)?,
    };
    let metrics = options.metrics.map(listen_for_metrics).transpose()?;
    let facts = StartFacts {
        rules_file: &rules_file,
        users_file: authenticator.as_ref().map(Authenticator::users_file),
        clients,
        now: clock.now(),
        limits,
        max_unheard: settings.max_unheard,
        inherited: listeners.inherited_addresses(),
        requested: options.address,
        metrics: metrics.as_ref().and_then(|it| it.local_addr().ok()),
        has_chosen_metrics_port: options.metrics.is_some_and(|it| it.port() == 0),
    };
    for message in facts.messages() {
        log.send(message);
    }
    let server = Server::new(settings, rules_file, clock, log.clone());
    let mut server = server
        .limited_by(limits.limited_by)
        .managed_by(ServiceManager::from_env());
    if let Some(authenticator) = authenticator {
        server = server.with_users(authenticator);
    }
    signals::report_status(server.status_reporter()).map_err(no_signals)?;
    // Dropped after the end of the server: the metrics go on during the grace period.
    let serve = |listener| server.serve_metrics(listener).map_err(no_metrics);
    let _metrics = metrics.map(serve).transpose()?;
    let result = server.run(listeners, &controls);
    result.map_err(|error| ProgramError::new(EXIT_FAILURE, error))
}

/// Opens the port of `--metrics`.
fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, ProgramError> {
    net::listen(address).map_err(|error| {
        let line = format!(
            "cannot listen on {address} for --metrics: {error}; choose another address or port"
        );
        ProgramError::new(EXIT_FAILURE, line)
    })
}

fn no_metrics(error: impl Display) -> ProgramError {
    ProgramError::new(EXIT_FAILURE, format!("cannot serve --metrics: {error}"))
}

fn no_signals(error: impl Display) -> ProgramError {
    ProgramError::new(EXIT_FAILURE, format!("cannot handle signals: {error}"))
}

/// Listens for clients at this address.
fn listen(address: SocketAddr) -> Result<Listeners, ProgramError> {
    Listeners::listen(address).map_err(|error| {
        let line =
            format!("cannot listen on {address}: {error}; choose another PORT or --bind address");
        ProgramError::new(EXIT_FAILURE, line)
    })
}

/// The report of `--check`: the rules with warnings, then the number of users. With
/// `--strict` a file whose last line has no newline is an error.
fn check(options: &Options, strict: bool) -> Result<String, ProgramError> {
    let config = &options.config;
    let (rules_file, clock) = open_rules(config, &options.settings.nat64)?;
    // Without an authenticator, which would reserve memory for hashes.
    let open = |path| {
        let users_file = UsersFile::open_with(path, |_| Ok(()), check_memory);
        users_file.map_err(|error| users_error(path, &error))
    };
    let users_file = options.users.as_deref().map(open).transpose()?;
    if strict {
        require_newline(&rules_file)?;
        if let Some(users_file) = &users_file {
            require_newline(users_file)?;
        }
    }
    let clients = options.settings.client_kinds(users_file.is_some());
    let (rules, _) = rules_file.current();
    let (path, now) = (config.display().to_string(), clock.now());
    let mut report = check::check(&path, &rules, rules_file.remarks(now, clients));
    if let Some(users_file) = users_file {
        let (users, _) = users_file.current();
        let path = users_file.path().display();
        report.push_str(&format!("{path}: {users}\n"));
        for remark in users_file.remarks() {
            report.push_str(&format!("{path}: {remark}\n"));
        }
    }
    Ok(report)
}

/// Requires that the last line of the file has a newline at its end.
fn require_newline<T: Content>(file: &WatchedFile<T>) -> Result<(), ProgramError> {
    let Some(line) = file.unterminated_line() else {
        return Ok(());
    };
    let path = file.path().display();
    let error = format!("{path}:{line}: there is no newline at the end; is the file complete?");
    Err(ProgramError::new(EXIT_INVALID, error))
}

/// The explanation of `--explain`.
fn explain(options: &Options, query: &ExplainQuery) -> Result<String, ProgramError> {
    let (rules_file, clock) = open_rules(&options.config, &options.settings.nat64)?;
    let (rules, _) = rules_file.current();
    let path = options.config.display().to_string();
    let report = query.explain(&path, &rules, clock.now(), &options.settings.nat64);
    report.map_err(|reason| ProgramError::new(EXIT_FAILURE, reason))
}

/// Opens the rules file. The error has all its errors. Now and in a changed file, two more
/// things are errors: `time=` if the time zone is not known (other rules do not ask the
/// clock), and addresses with one of these NAT64 prefixes.
fn open_rules(
    config: &Path,
    nat64: &[Nat64Prefix],
) -> Result<(RulesFile, LocalClock), ProgramError> {
    let clock = LocalClock::local();
    let zone_error = clock.as_ref().err().cloned();
    let nat64 = nat64.to_vec();
    let check = move |rules: &Rules| match (&zone_error, rules.first_with_time()) {
        (Some(error), Some(line)) => Err(SyntaxError {
            line,
            reason: format!("time= needs the local time, but {error}"),
        }),
        _ => rules.check_nat64(&nat64),
    };
    let rules_file = RulesFile::open_with(config, check, check_memory).map_err(|error| {
        let mut lines = error.describe(config);
        if matches!(error, LoadError::Unreadable(_)) {
            lines.push(format!(
                "current directory: {}; choose another rules file with --config, or write \
                 one, for example with this line: permit cb 127.0.0.0/8 - - -",
                current_directory()
            ));
        }
        let status = status_of(&error);
        ProgramError { status, lines }
    })?;
    Ok((rules_file, clock.unwrap_or_else(|_| LocalClock::utc())))
}

/// Opens the users file and reserves memory for its hashes.
fn open_users(path: &Path) -> Result<Authenticator, ProgramError> {
    Authenticator::open(path, check_memory).map_err(|error| users_error(path, &error))
}

/// Is so much memory left for a file? A clause says what is left.
fn check_memory(needed: u64) -> Result<(), String> {
    server::check_memory(needed).map_err(|error| error.to_string())
}

/// All errors of the users file.
fn users_error(path: &Path, error: &LoadError) -> ProgramError {
    let mut lines = error.describe(path);
    lines.push(format!(
        "to add a user, run: threadsocks --new-user alice >> {}",
        path.display()
    ));
    let status = status_of(error);
    ProgramError { status, lines }
}

/// The exit status for a file that cannot be used. A file that cannot be read, or for which there
/// is no memory, may be usable at the next start; invalid lines stay invalid.
fn status_of(error: &LoadError) -> u8 {
    match error {
        LoadError::Unreadable(_) | LoadError::NoMemory(_) => EXIT_FAILURE,
        LoadError::Syntax(_) => EXIT_INVALID,
    }
}

/// Prints a line for the users file.
fn new_user(name: &[u8]) -> Result<ExitCode, ProgramError> {
    let password = new_user::new_password(name);
    let line = password
        .and_then(|password| auth::users_file_line(name, &password))
        .map_err(|reason| ProgramError::new(EXIT_FAILURE, reason))?;
    // The line is usually redirected to a file, and the disk may be full.
    let written = Stdout.write_all(line.as_bytes());
    written.map_err(|error| {
        let line = format!("cannot write the line: {error}");
        ProgramError::new(EXIT_FAILURE, line)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The directory that relative paths start from, for a message.
fn current_directory() -> String {
    match std::env::current_dir() {
        Ok(directory) => directory.display().to_string(),
        Err(error) => format!("unknown ({error})"),
    }
}

/// Prints on stdout. A reader that closes a pipe early (`| head`) has read what it needs.
fn print_output(text: &str) -> Result<ExitCode, ProgramError> {
    match Stdout.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let line = format!("cannot write the output: {error}");
            Err(ProgramError::new(EXIT_FAILURE, line))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
