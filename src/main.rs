//! The program: reads options and files, opens the port, and runs the server until it stops.

mod files;
mod program_error;
mod run_program;
mod signals;
mod start_messages;
mod tasks;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::SigSet;

use files::Files;
use program_error::{EXIT_FAILURE, EXIT_FORCED, EXIT_INVALID, ProgramError};
use start_messages::StartFacts;
use threadsocks::auth::Authenticator;
use threadsocks::cli::{self, Action, Options};
use threadsocks::events::{Event, Level};
use threadsocks::logger::{self, Log, MAX_QUEUED_EVENTS, OutputConfig, Stderr, Stdout};
use threadsocks::net::{self, Listeners};
use threadsocks::server::{Limits, Server, ShutdownKind};
use threadsocks::systemd::{self, ServiceManager};
use threadsocks::trace::{Trace, TraceError, TraceTarget};

/// How long the logger may write when the server has stopped. A terminal or pipe that is
/// not read would block it for ever, and must not keep the program running.
const LOGGER_FLUSH_TIME: Duration = Duration::from_secs(1);

/// The first port that a process without privileges may listen on, if the administrator has not
/// changed it (ip(7), ip_unprivileged_port_start).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

fn main() -> ExitCode {
    // First, because the default action of these signals ends the process.
    let signals = signals::block().map_err(no_signals);
    #[cfg(target_os = "linux")]
    threadsocks::server::use_one_arena();
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
        Action::Help => tasks::print(&cli::help()),
        Action::Version => tasks::print(concat!("threadsocks ", env!("CARGO_PKG_VERSION"), "\n")),
        Action::Completion(shell) => tasks::print(&cli::completion(shell)),
        Action::Check { options, strict } => tasks::check_files(&options, strict),
        Action::Explain(options, query) => tasks::explain(&options, &query),
        Action::NewUser {
            name, file: None, ..
        } => tasks::print_user(&name),
        Action::NewUser {
            name,
            file: Some(file),
            replace,
        } => tasks::add_user(&name, &file, replace),
        Action::Probe(server) => tasks::probe(server),
        Action::Run(arguments) => Err(run_program::run_program(arguments)),
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
    let rules = prepared
        .as_ref()
        .map(|(_, files)| files.rules_file.path().to_owned());
    let read = [options.users.as_deref(), rules.as_deref().ok()];
    let read: Vec<&Path> = read.into_iter().flatten().collect();
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
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses it (ss -ltnp shows which one); choose another PORT or --bind \
                 address"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has this address (ip address lists them); choose \
                 another --bind address"
            }
            io::ErrorKind::PermissionDenied if address.port() < FIRST_UNPRIVILEGED_PORT => {
                "a port below 1024 needs the capability CAP_NET_BIND_SERVICE, or a listener that \
                 systemd passes (threadsocks.socket); or choose a PORT from 1024"
            }
            _ => "choose another PORT or --bind address",
        };
        let line = format!("cannot listen on {address}: {error}; {advice}");
        ProgramError::new(EXIT_FAILURE, line)
    })
}
