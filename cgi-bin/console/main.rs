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

use html::Nonce;
use output::{StdoutWriter, log_error};
use page::HtmlPage;
use query::Query;
use request_origin::RequestOrigin;
use row::Column;
use settings::Settings;
use text::TextPage;
use threadsocks::net::Deadline;

/// The allow list of destinations.
mod allow;
/// Batch files: the lines to send to a shell.
mod batch;
/// The body of a POST request.
mod body;
/// Whole lines in bulk.
mod bulk;
/// Escaping, headers and the document head, for both HTML pages.
mod html;
/// Stdout with a deadline; the error log.
mod output;
/// Protection against DNS rebinding.
mod own_names;
/// The run page as HTML.
mod page;
/// The form.
mod panel;
/// Detection of the prompt in the output of a shell.
mod prompt;
/// Parsing of the query string into five rows of text.
mod query;
/// Who asked for a run: the user, a program, or a browser by itself.
mod request_origin;
/// Validation of a row: a session plan, or the errors of its fields.
mod row;
/// One thread per session, and the thread that owns the page.
mod run;
/// One-time tokens: each permits one run.
mod run_token;
/// The settings of the administrator.
mod settings;
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

/// Additional time to write the end of the page, after the time limit, to a web
/// server that reads slowly or not at all.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of the rows in the URL of a run, in bytes. Apache accepts a request
/// line of 8190 bytes.
const MAX_ROWS_IN_URL: usize = 6000;

/// The notice of a form after a request that the user did not start here.
const PRESS_RUN: &str = "Nothing runs yet: press Run to run these rows. Only this button starts \
    a run. A bookmark, a link from another site, Back and reload lead to this form.";

/// The notice of a form after a POST that is not from the form of this console.
const FOREIGN_FORM: &str = "Nothing runs yet: this request did not come from this form. Press Run \
    to run these rows. If that leads here again, the web server passes on another host name than \
    the one in the address bar.";

fn main() -> ExitCode {
    let settings = Settings::from_environment();
    let deadline = Deadline::after(settings.time_limit.saturating_add(FINAL_WRITE_TIMEOUT));
    let mut output = StdoutWriter::with_deadline(deadline);
    match respond(&settings, &mut output) {
        // A client may disconnect at any time. Only a page of which no byte was
        // written is a failure.
        Err(_) if output.written == 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes the response to the request in the environment.
fn respond(settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    let query = Query::parse(&environment_variable("QUERY_STRING").into_vec());
    let host = environment_variable("HTTP_HOST");
    let host = host.to_string_lossy();
    if !settings.own_names.permit(&host) {
        return output.write_all(html::unknown_host(&host, query.as_text).as_bytes());
    }
    match environment_variable("REQUEST_METHOD").as_encoded_bytes() {
        // HEAD is a safe method (RFC 9110, section 9.2.1): it starts no session.
        b"HEAD" => {
            let headers = match query.as_text {
                true => html::text_headers(),
                false => html::html_headers(&Nonce::new()),
            };
            output.write_all(headers.as_bytes())
        }
        b"POST" => respond_to_post(query, settings, output),
        _ => respond_to_get(query, settings, output),
    }
}

/// Writes the form or a run. A token permits the run of its rows; nothing else of its
/// request counts. A browser with a token that is gone gets the form.
fn respond_to_get(
    mut query: Query,
    settings: &Settings,
    output: &mut impl Write,
) -> io::Result<()> {
    let origin = RequestOrigin::from_environment();
    let may_run = match query.token.as_str() {
        "" => origin.is_program() || origin.is_click_on_same_site(),
        token => match run_token::redeem(&settings.token_folder, token) {
            Some(rows) => {
                query = Query::parse(&rows);
                true
            }
            None => origin.is_program(),
        },
    };
    match runnable_columns(&query, settings) {
        None => write_form(&query, settings, None, output),
        Some(columns) if may_run => run_page(&query, columns, settings.time_limit, output),
        Some(_) => write_form(&query, settings, Some(PRESS_RUN), output),
    }
}

/// Redirects the form of this console to a GET with a one-time token, so that no request
/// in the history of a browser starts a run. A program gets its run at once.
fn respond_to_post(query: Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    let content_length = environment_variable("CONTENT_LENGTH");
    let query = match body::read(&content_length.to_string_lossy()) {
        Ok(body) if body.is_empty() => query,
        Ok(body) => Query::parse(&body),
        Err(error) => {
            let notice = format!("The rows did not arrive: {error}.");
            return write_form(&Query::default(), settings, Some(&notice), output);
        }
    };
    let origin = RequestOrigin::from_environment();
    match runnable_columns(&query, settings) {
        Some(columns) if origin.is_program() => {
            run_page(&query, columns, settings.time_limit, output)
        }
        Some(_) if origin.is_own_form() => redirect_to_run(&query, settings, output),
        Some(_) => write_form(&query, settings, Some(FOREIGN_FORM), output),
        None => write_form(&query, settings, None, output),
    }
}

/// Writes a redirect to the run, or the form if no token can be created.
fn redirect_to_run(query: &Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    let rows = query.encode();
    let token = match run_token::issue(&settings.token_folder, &rows) {
        Ok(token) => token,
        Err(error) => {
            let folder = settings.token_folder.display();
            log_error(&format!("no token for a run in {folder}: {error}"));
            let notice = format!("Nothing runs: this console cannot write a file ({error}).");
            return write_form(query, settings, Some(&notice), output);
        }
    };
    // The rows in the URL are for Back, reload and bookmarks, which show the form.
    let shown = if rows.len() > MAX_ROWS_IN_URL {
        ""
    } else {
        &rows
    };
    let page = html::redirect(&format!("?{shown}once={token}"));
    output.write_all(page.as_bytes())
}

/// The columns of a run. `None` if the form must be shown: the user edits the rows, or
/// no row can run. The plain text page reports the errors of the rows itself.
fn runnable_columns(query: &Query, settings: &Settings) -> Option<Vec<Column>> {
    let columns = row::columns(query, &settings.policy);
    let none_can_run = columns.iter().all(|column| column.plan.is_err());
    let text_reports_errors = query.as_text && !columns.is_empty();
    let is_runnable = !query.edit && (!none_can_run || text_reports_errors);
    is_runnable.then_some(columns)
}

/// Writes the form; no session starts.
fn write_form(
    query: &Query,
    settings: &Settings,
    notice: Option<&str>,
    output: &mut impl Write,
) -> io::Result<()> {
    let nonce = Nonce::new();
    let page = html::html_headers(&nonce) + &panel::render(query, &settings.policy, notice, &nonce);
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
