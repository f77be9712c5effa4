//! The tasks of the program beside the server: each prints its result on stdout.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use threadsocks::admin::explain::ExplainQuery;
use threadsocks::admin::{check, edit_file, new_user, probe};
use threadsocks::auth::{self, UsersFile};
use threadsocks::cli::Options;
use threadsocks::config::QuotedName;
use threadsocks::logger::Stdout;

use crate::files::{check_memory, open_rules, users_error};
use crate::program_error::{EXIT_DENIED, EXIT_FAILURE, EXIT_INVALID, ProgramError};

/// Prints the rules with warnings, then the number of users.
///
/// # Errors
///
/// A file that cannot be used; with `strict` also each warning.
pub(crate) fn check_files(options: &Options, strict: bool) -> Result<ExitCode, ProgramError> {
    let (rules_file, clock) = open_rules(options)?;
    // Without an authenticator, which would reserve memory for hashes.
    let open = |path| {
        let users_file = UsersFile::open_with(path, |_| Ok(()), check_memory);
        users_file.map_err(|error| users_error(path, &error))
    };
    let users_file = options.users.as_deref().map(open).transpose()?;
    let clients = options.settings.client_kinds(users_file.is_some());
    let path = rules_file.path().display();
    let remarks = prefixed(&path, rules_file.remarks(clock.now(), clients));
    let mut report = check::check(&path.to_string(), &rules_file.content(), &remarks);
    let mut errors = remarks;
    if let Some(users_file) = users_file {
        let path = users_file.path().display();
        let remarks = prefixed(&path, users_file.remarks());
        report.push_str(&format!("{path}: {}\n", users_file.content()));
        remarks
            .iter()
            .for_each(|remark| report.push_str(&format!("{remark}\n")));
        errors.extend(remarks);
    }
    print(&report)?;
    errors.retain(|remark| remark.contains(": warning: "));
    if !strict || errors.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    errors.push("--strict: a warning is an error".to_owned());
    Err(ProgramError {
        status: EXIT_INVALID,
        lines: errors,
    })
}

/// The remarks on a file, each with the path before it.
fn prefixed(path: &impl Display, remarks: Vec<String>) -> Vec<String> {
    let remarks = remarks.into_iter();
    remarks.map(|remark| format!("{path}: {remark}")).collect()
}

/// Prints which rule decides. The exit status says whether the server permits the connection; to
/// a name, it needs one address that the rules permit.
pub(crate) fn explain(options: &Options, query: &ExplainQuery) -> Result<ExitCode, ProgramError> {
    let (rules_file, clock) = open_rules(options)?;
    let path = rules_file.path().display().to_string();
    let nat64 = &options.settings.nat64;
    let explained = query.explain(&path, &rules_file.content(), clock.now(), nat64);
    let explained = explained.map_err(|reason| ProgramError::new(EXIT_FAILURE, reason))?;
    print(&explained.report)?;
    Ok(match explained.permitted {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DENIED),
    })
}

/// Reads a password, and prints the line of the user for a users file.
pub(crate) fn print_user(name: &[u8]) -> Result<ExitCode, ProgramError> {
    // The line is usually redirected to a file, and the disk may be full.
    print_all(&line_of_user(name)?)
}

/// Reads a password, and writes the line of the user into the users file.
pub(crate) fn add_user(name: &[u8], file: &Path, replace: bool) -> Result<ExitCode, ProgramError> {
    let edit = |text: &[u8], line: &str| {
        let edited = auth::with_line(text, name, line, replace);
        edited.map_err(|error| format!("{}: {error}", file.display()))
    };
    let fail = |reason| ProgramError::new(EXIT_FAILURE, reason);
    // Before the password is typed: would the edit succeed?
    edit_file::read_file(file)
        .and_then(|text| edit(&text, ""))
        .map_err(fail)?;
    let line = line_of_user(name)?;
    edit_file::edit_file(file, |text| edit(text, &line)).map_err(fail)?;
    print(&format!(
        "{}: {} can log in\n",
        file.display(),
        QuotedName(name)
    ))
}

/// Reads the password of a user, and makes the line of the users file.
fn line_of_user(name: &[u8]) -> Result<String, ProgramError> {
    let password = new_user::new_password(name);
    let line = password.and_then(|password| auth::users_file_line(name, &password));
    line.map_err(|reason| ProgramError::new(EXIT_FAILURE, reason))
}

/// Says that the server at this address answers SOCKS5 clients.
pub(crate) fn probe(server: SocketAddr) -> Result<ExitCode, ProgramError> {
    match probe::probe(server) {
        Ok(line) => print(&line),
        Err(reason) => Err(ProgramError::new(EXIT_FAILURE, reason)),
    }
}

/// Prints on stdout. A reader that closes a pipe early (`| head`) has read what it needs.
pub(crate) fn print(text: &str) -> Result<ExitCode, ProgramError> {
    match Stdout.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => written(result),
    }
}

/// Prints on stdout, all of the text.
fn print_all(text: &str) -> Result<ExitCode, ProgramError> {
    written(Stdout.write_all(text.as_bytes()))
}

fn written(result: io::Result<()>) -> Result<ExitCode, ProgramError> {
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let line = format!("cannot write the output: {error}");
            Err(ProgramError::new(EXIT_FAILURE, line))
        }
    }
}
