//! The files of the operator: opens them, or says what is wrong and what to do.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use threadsocks::auth::Authenticator;
use threadsocks::cli::Options;
use threadsocks::config::{LOCAL_RULES, LoadError, SYSTEM_RULES, SyntaxError, find_rules_file};
use threadsocks::local_time::LocalClock;
use threadsocks::logger::MEMORY_OF_LOGIN_LINES;
use threadsocks::rules::{Rules, RulesFile};
use threadsocks::server::{self, Limits, OtherMemory, STACK_SIZE};
use threadsocks::trace::MEMORY_OF_TRACE;

use crate::program_error::{EXIT_FAILURE, EXIT_INVALID, ProgramError};

/// What is read before any thread starts: too little memory for a thread aborts the process.
pub(crate) struct Files {
    pub(crate) authenticator: Option<Authenticator>,
    pub(crate) rules_file: RulesFile,
    pub(crate) clock: LocalClock,
}

impl Files {
    pub(crate) fn open(options: &Options) -> Result<Files, ProgramError> {
        let authenticator = options.users.as_deref().map(open_users).transpose()?;
        let (rules_file, clock) = open_rules(options)?;
        Ok(Files {
            authenticator,
            rules_file,
            clock,
        })
    }

    /// The number of sessions beside these files: their memory, and that for logins and the
    /// trace, is not available to sessions.
    pub(crate) fn limits(&self, options: &Options) -> Result<Limits, ProgramError> {
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

/// Opens the rules file. The error has all its errors. Now and in a changed file, two more
/// things are errors: `time=` if the time zone is not known (other rules do not ask the
/// clock), and addresses with one of these NAT64 prefixes.
pub(crate) fn open_rules(options: &Options) -> Result<(RulesFile, LocalClock), ProgramError> {
    let clock = LocalClock::local();
    let zone_error = clock.as_ref().err().cloned();
    let nat64 = options.settings.nat64.clone();
    let check = move |rules: &Rules| match (&zone_error, rules.first_with_time()) {
        (Some(error), Some(line)) => Err(SyntaxError {
            line,
            reason: format!("time= needs the local time, but {error}"),
        }),
        _ => rules.check_nat64(&nat64),
    };
    let path = options.config.clone().unwrap_or_else(find_rules_file);
    let rules_file = RulesFile::open_with(&path, check, check_memory).map_err(|error| {
        let mut lines = error.describe(&path);
        if matches!(error, LoadError::Unreadable(_)) {
            lines.push(where_rules_are_looked_for(options.config.is_some()));
        }
        let status = status_of(&error);
        ProgramError { status, lines }
    })?;
    Ok((rules_file, clock.unwrap_or_else(|_| LocalClock::utc())))
}

/// Where the server looks for rules that it cannot read, and what to do.
fn where_rules_are_looked_for(has_config: bool) -> String {
    let directory = match std::env::current_dir() {
        Ok(directory) => directory.display().to_string(),
        Err(error) => format!("unknown ({error})"),
    };
    let example = "write one, for example with this line: permit cb 127.0.0.0/8 - - -";
    match has_config {
        true => format!("current directory: {directory}; choose another rules file, or {example}"),
        false => format!(
            "current directory: {directory}; without --config FILE the rules are in \
             ./{LOCAL_RULES}, or else in {SYSTEM_RULES}; {example}"
        ),
    }
}

/// Opens the users file and reserves memory for its hashes.
fn open_users(path: &Path) -> Result<Authenticator, ProgramError> {
    Authenticator::open(path, check_memory).map_err(|error| users_error(path, &error))
}

/// Is so much memory left for a file? A clause says what is left.
pub(crate) fn check_memory(needed: u64) -> Result<(), String> {
    server::check_memory(needed).map_err(|error| error.to_string())
}

/// All errors of the users file.
pub(crate) fn users_error(path: &Path, error: &LoadError) -> ProgramError {
    let mut lines = error.describe(path);
    // A user that is added does not make a file readable.
    lines.push(match access(path, AccessFlags::R_OK) {
        Err(Errno::EACCES) => {
            "this process may not read the file; a service of systemd gets it by \
                               LoadCredential (see threadsocks.service)"
                .to_owned()
        }
        _ => format!(
            "to add a user, run: threadsocks --new-user alice --users {}",
            path.display()
        ),
    });
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
