//! console.cgi: runs up to five remote shells on one web page, each through a SOCKS server.
//!
//! A web server starts this program once per request (CGI, RFC 3875). The query
//! is in the environment, and the server forwards stdout to the browser. The
//! program never reads its arguments: RFC 3875, section 4.4, lets a web server
//! pass parts of a query as arguments.

#![allow(missing_docs, reason = "a program, not a library")]

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use allow::AllowList;
use html::Nonce;
use output::StdoutWriter;
use page::HtmlPage;
use panel::FormMode;
use query::Query;
use request_origin::RequestOrigin;
use row::Column;
use text::TextPage;
use threadsocks::net::Deadline;

/// The allow list of destinations.
mod allow;
/// Batch files: the lines to send to a shell.
mod batch;
/// Escaping, headers and the document head, for both HTML pages.
mod html;
/// Stdout with a deadline.
mod output;
/// The run page as HTML.
mod page;
/// The form.
mod panel;
/// Detection of the prompt in the output of a shell.
mod prompt;
/// Parsing of the query string into five rows of text.
mod query;
/// Protection against cross-site request forgery.
mod request_origin;
/// Validation of a row: a session plan, or the errors of its fields.
mod row;
/// One thread per session, and the thread that owns the page.
mod run;
/// One session with a shell.
mod shell;
/// State, progress and elapsed time of every column.
mod status;
/// Removal of Telnet commands.
mod telnet;
/// Conversion of terminal output into styled text.
mod terminal;
/// The run page as plain text.
mod text;

/// Time limit of a page without `CONSOLE_LIMIT`: a shell that never sends a prompt
/// must not keep this process running for ever.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Additional time to write the end of the page, after the time limit, to a web
/// server that reads slowly or not at all.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let query = Query::parse(&environment_variable("QUERY_STRING").into_vec());
    let settings = Settings::from_environment();
    let deadline = Deadline::after(settings.time_limit.saturating_add(FINAL_WRITE_TIMEOUT));
    let mut output = StdoutWriter::with_deadline(deadline);
    match respond(&query, &settings, &mut output) {
        // A client may disconnect at any time. Only a page of which no byte was
        // written is a failure.
        Err(_) if output.written == 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The settings of the administrator, from the environment.
struct Settings {
    allowed: AllowList,
    time_limit: Duration,
}

impl Settings {
    /// Reads `CONSOLE_ALLOW` and `CONSOLE_LIMIT`. Errors go to stderr, which is the
    /// web server's error log. An invalid allow list denies everything (fail
    /// closed).
    fn from_environment() -> Settings {
        let allowed = match env::var("CONSOLE_ALLOW") {
            Err(env::VarError::NotPresent) => AllowList::allow_all(),
            list => AllowList::parse(&list.unwrap_or_else(|_| "not UTF-8".to_owned()))
                .unwrap_or_else(|entry| {
                    log_error(&format!(
                        "CONSOLE_ALLOW: \"{entry}\" is not HOST:PORTS; nothing is allowed"
                    ));
                    AllowList::deny_all()
                }),
        };
        let time_limit = match env::var("CONSOLE_LIMIT") {
            Err(env::VarError::NotPresent) => DEFAULT_TIME_LIMIT,
            text => humantime::parse_duration(text.as_deref().unwrap_or_default()).unwrap_or_else(
                |error| {
                    log_error(&format!("CONSOLE_LIMIT: {error}; it stays at 10 minutes"));
                    DEFAULT_TIME_LIMIT
                },
            ),
        };
        Settings {
            allowed,
            time_limit,
        }
    }
}

/// Writes the requested page: headers only, the form, or a run.
fn respond(query: &Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    if environment_variable("REQUEST_METHOD") == "HEAD" {
        // HEAD is a safe method (RFC 9110, section 9.2.1): it starts no session.
        let headers = match query.as_text {
            true => html::text_headers(),
            false => html::html_headers(&Nonce::new()),
        };
        return output.write_all(headers.as_bytes());
    }
    if query.edit {
        return write_form(query, settings, FormMode::Edit, output);
    }
    let columns = row::columns(query, &settings.allowed);
    let none_can_run = columns.iter().all(|column| column.plan.is_err());
    // The plain text page reports the errors of the rows itself.
    let text_reports_errors = query.as_text && !columns.is_empty();
    if none_can_run && !text_reports_errors {
        return write_form(query, settings, FormMode::Edit, output);
    }
    if !RequestOrigin::from_environment().is_user_initiated() {
        return write_form(query, settings, FormMode::Confirm, output);
    }
    run_page(query, columns, settings.time_limit, output)
}

/// Writes the form; no session starts.
fn write_form(
    query: &Query,
    settings: &Settings,
    mode: FormMode,
    output: &mut impl Write,
) -> io::Result<()> {
    let nonce = Nonce::new();
    let page = html::html_headers(&nonce) + &panel::render(query, &settings.allowed, mode, &nonce);
    output.write_all(page.as_bytes())
}

/// Runs all sessions, and writes their output as HTML or as plain text.
fn run_page(
    query: &Query,
    columns: Vec<Column>,
    time_limit: Duration,
    output: &mut impl Write,
) -> io::Result<()> {
    if query.as_text {
        let mut page = TextPage::default();
        return run::run(columns, time_limit, html::text_headers(), &mut page, output);
    }
    let nonce = Nonce::new();
    let headers = html::html_headers(&nonce);
    let mut page = HtmlPage::new(query, nonce);
    run::run(columns, time_limit, headers, &mut page, output)
}

/// The value of an environment variable; empty if the variable is not set.
fn environment_variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_default()
}

/// Writes a line to stderr, which is the web server's error log.
fn log_error(message: &str) {
    let _ = writeln!(io::stderr(), "console.cgi: {message}");
}
