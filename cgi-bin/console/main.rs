//! console.cgi: up to five remote shells on one live page, each through SOCKS.
//!
//! A web server starts this program for every visit (CGI, RFC 3875). The query
//! is in the environment; what goes to stdout goes to the browser. Arguments
//! are never read: web servers put queries there too.

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

/// Where the administrator lets this program go.
mod allow;
/// Batch files: which there are, and what is in one.
mod batch;
/// What both pages have in common.
mod html;
/// The way to the web server.
mod output;
/// The page on which everything runs.
mod page;
/// The form.
mod panel;
/// Where in a shell's output it asks for the next line.
mod prompt;
/// The query becomes five rows of text.
mod query;
/// Whether somebody asked for this page.
mod request_origin;
/// A row becomes a visit, or what is wrong with it.
mod row;
/// One thread per shell, and the owner of the page.
mod run;
/// One shell's visit.
mod shell;
/// What is known of every column.
mod status;
/// Telnet commands are left out.
mod telnet;
/// A shell's bytes become text in colours.
mod terminal;
/// The page as plain text.
mod text;

/// How long a page may take, unless the administrator says otherwise.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a reader who reads nothing is waited for at the end of a page.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let query = Query::parse(&environment_variable("QUERY_STRING").into_vec());
    let settings = Settings::from_environment();
    let deadline = Deadline::after(settings.time_limit.saturating_add(FINAL_WRITE_TIMEOUT));
    let mut output = StdoutWriter::with_deadline(deadline);
    match respond(&query, &settings, &mut output) {
        // A reader who has left has had his page.
        Err(_) if output.written == 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// What the administrator of the web server says.
struct Settings {
    allowed: AllowList,
    time_limit: Duration,
}

impl Settings {
    /// Reads the environment. Mistakes go to the web server's error log; they
    /// never widen what is allowed.
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

/// Writes the page that the query asks for.
fn respond(query: &Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    if environment_variable("REQUEST_METHOD") == "HEAD" {
        // Somebody just asks what this is; nothing must run for that.
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
    // Plain text has room for what is wrong with the rows, if there are any.
    let text_will_do = query.as_text && !columns.is_empty();
    if none_can_run && !text_will_do {
        return write_form(query, settings, FormMode::Edit, output);
    }
    if !RequestOrigin::from_environment().is_user_initiated() {
        return write_form(query, settings, FormMode::Confirm, output);
    }
    run_page(query, columns, settings.time_limit, output)
}

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

/// A variable of the environment; empty if there is none.
fn environment_variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_default()
}

/// A line in the web server's error log.
fn log_error(what: &str) {
    let _ = writeln!(io::stderr(), "console.cgi: {what}");
}
