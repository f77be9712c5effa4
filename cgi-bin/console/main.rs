//! console.cgi: runs up to five remote shells on one web page, each through a SOCKS server.
//!
//! A web server starts this program once per request (CGI, RFC 3875). The query
//! is in the environment, and the server forwards stdout to the browser. The
//! program never reads its arguments: RFC 3875, section 4.4, lets a web server
//! pass parts of a query as arguments.

#![allow(missing_docs, reason = "a program, not a library")]

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use html::Nonce;
use json::JsonPage;
use kept_page::KeptPage;
use output::{StdoutWriter, log_error};
use page::HtmlPage;
use query::{Format, Query};
use recorded::RecordedPage;
use request_origin::RequestOrigin;
use row::Column;
use run::Page;
use settings::Settings;
use status::RunStatus;
use text::TextPage;
use threadsocks::net::Deadline;

/// The allow list of destinations.
mod allow;
/// Batch files: the lines to send to a shell.
mod batch;
/// The texts of the batch files in the form.
mod batch_list;
/// The body of a POST request.
mod body;
/// Whole lines in bulk.
mod bulk;
/// The connection to a shell.
mod connect;
/// The failure of a row.
mod failure;
/// The files of a folder beside the console.
mod folder;
/// Escaping, headers and the document head, for both HTML pages.
mod html;
/// The run page as JSON.
mod json;
/// The pages of the kept runs.
mod kept_page;
/// The files of the kept runs.
mod kept_runs;
/// The mistakes of a form.
mod mistakes;
/// Stdout with a deadline; the error log.
mod output;
/// Protection against DNS rebinding.
mod own_names;
/// The run page as HTML.
mod page;
/// The form.
mod panel;
/// The fields of the form.
mod panel_fields;
/// Filled forms of the administrator.
mod presets;
/// Detection of the prompt in the output of a shell.
mod prompt;
/// Parsing of the query string into five rows of text.
mod query;
/// A page that is also written to a file.
mod recorded;
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
/// Logins for SOCKS servers.
mod socks_logins;
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
const PRESS_RUN: &str = "Nothing runs yet: press Run to run these rows. A bookmark, a link from \
    another site, Back and reload lead to this form and start no run.";

/// The notice of a form after a POST that is not from the form of this console.
const FOREIGN_FORM: &str = "Nothing runs yet: this request did not come from this form. Press Run \
    to run these rows. If that leads here again, the web server passes on another host name than \
    the one in the address bar.";

/// The reason for a program why nothing runs.
const NO_ROW: &str = "Nothing runs: no row that is to run has a shell server.";

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
        return output.write_all(html::unknown_host(&host, query.format).as_bytes());
    }
    match environment_variable("REQUEST_METHOD").as_encoded_bytes() {
        // HEAD is a safe method (RFC 9110, section 9.2.1): it starts no session.
        b"HEAD" => {
            let headers = html::headers(query.page_format(), &Nonce::new());
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
    if query.list_runs || !query.show_run.is_empty() {
        return write_kept_runs(&query, settings, output);
    }
    let origin = RequestOrigin::from_environment();
    let may_run = match query.token.as_str() {
        "" if origin.is_program() => MayRun::ValidRows,
        "" if origin.is_click_on_same_site() => MayRun::IfAllAreValid,
        "" => MayRun::Nothing,
        token => match run_token::redeem(&settings.token_folder, token) {
            // The rows were valid when the token was issued.
            Some(rows) => {
                query = Query::parse(&rows);
                MayRun::ValidRows
            }
            None if origin.is_program() => MayRun::ValidRows,
            None => MayRun::Nothing,
        },
    };
    match runnable_columns(&query, settings, may_run) {
        None => write_form(&query, settings, None, output),
        Some(columns) if may_run != MayRun::Nothing => run_page(&query, columns, settings, output),
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
            let query = Query {
                format: query.format,
                ..Query::default()
            };
            return write_form(&query, settings, Some(&notice), output);
        }
    };
    let origin = RequestOrigin::from_environment();
    if !query.stop_run.is_empty() {
        let may_stop = origin.is_program() || origin.is_own_form();
        return stop_run(&query, settings, may_stop, output);
    }
    if origin.is_program() {
        return match runnable_columns(&query, settings, MayRun::ValidRows) {
            Some(columns) => run_page(&query, columns, settings, output),
            None => write_form(&query, settings, None, output),
        };
    }
    match runnable_columns(&query, settings, MayRun::IfAllAreValid) {
        Some(_) if origin.is_own_form() => redirect_to_run(&query, settings, output),
        Some(_) => write_form(&query, settings, Some(FOREIGN_FORM), output),
        None => write_form(&query, settings, None, output),
    }
}

/// Writes a redirect to the run, or the form if no token can be created.
fn redirect_to_run(query: &Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    let token = match run_token::issue(&settings.token_folder, &query.encode_run()) {
        Ok(token) => token,
        Err(error) => {
            let folder = settings.token_folder.display();
            log_error(&format!("no token for a run in {folder}: {error}"));
            let notice = format!("Nothing runs: this console cannot write a file ({error}).");
            return write_form(query, settings, Some(&notice), output);
        }
    };
    // The URL keeps the rows, so Back and reload show the filled form.
    let mut shown = query.encode();
    if shown.len() > MAX_ROWS_IN_URL {
        shown.clear();
    }
    let page = html::redirect(&format!("?{shown}once={token}"), "Run");
    output.write_all(page.as_bytes())
}

/// Stops a kept run, and redirects to its page. A request that is not from a page of this
/// console stops nothing, and gets the same redirect.
fn stop_run(
    query: &Query,
    settings: &Settings,
    may_stop: bool,
    output: &mut impl Write,
) -> io::Result<()> {
    let id = &query.stop_run;
    let result = match &settings.kept_runs {
        Some(runs) if may_stop => runs.stop(id),
        _ => Ok(false),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            log_error(&format!("the run cannot be stopped: {error}"));
        }
        _ => {}
    }
    // Only a valid name becomes part of a header.
    let target = match kept_runs::is_id(id) {
        true => format!("?run={id}"),
        false => "?runs".to_owned(),
    };
    output.write_all(html::redirect(&target, "Show the run").as_bytes())
}

/// Writes the list of the kept runs, or one of them.
fn write_kept_runs(query: &Query, settings: &Settings, output: &mut impl Write) -> io::Result<()> {
    let nonce = Nonce::new();
    let format = query.page_format();
    let headers = html::headers(format, &nonce);
    let page = KeptPage {
        runs: settings.kept_runs.as_ref(),
        format,
        nonce,
    };
    output.write_all(headers.as_bytes())?;
    match query.show_run.as_str() {
        "" => page.write_list(output),
        id => page.write_run(id, output),
    }
}

/// Which rows of a request may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MayRun {
    /// No row: a browser has sent the request without a click of its user.
    Nothing,
    /// All rows, if all are valid: otherwise the user of the browser corrects them first.
    IfAllAreValid,
    /// The valid rows. Each invalid row gets a column with its error.
    ValidRows,
}

/// The columns of a run. `None` if the form must be shown: the user edits the rows, or
/// mends a mistake. The plain text page and JSON report the errors of the rows themselves.
fn runnable_columns(query: &Query, settings: &Settings, may_run: MayRun) -> Option<Vec<Column>> {
    let columns = row::columns(query, &settings.policy);
    let valid = columns.iter().filter(|column| column.plan.is_ok()).count();
    let enough = match may_run {
        _ if query.edit || columns.is_empty() || !query.excess_shells.is_empty() => false,
        MayRun::Nothing | MayRun::IfAllAreValid => valid == columns.len(),
        MayRun::ValidRows => valid > 0 || query.format != Format::Html,
    };
    enough.then_some(columns)
}

/// Writes the form; no session starts.
fn write_form(
    query: &Query,
    settings: &Settings,
    notice: Option<&str>,
    output: &mut impl Write,
) -> io::Result<()> {
    let nonce = Nonce::new();
    if query.format != Format::Html && !query.edit && RequestOrigin::from_environment().is_program()
    {
        return write_refusal(query, notice.unwrap_or(NO_ROW), output);
    }
    let page =
        html::headers(Format::Html, &nonce) + &panel::render(query, settings, notice, &nonce);
    output.write_all(page.as_bytes())
}

/// Tells a program that has asked for text or JSON why nothing runs, with the outcome.
fn write_refusal(query: &Query, reason: &str, output: &mut impl Write) -> io::Result<()> {
    let headers = html::headers(query.format, &Nonce::new());
    let reason = match query.excess_shells.len() {
        0 => reason.to_owned(),
        count => format!("Nothing runs: a run has five rows, and {count} shells have none."),
    };
    let page = match query.format {
        Format::Json => json::refusal(&reason),
        _ => format!("# {reason}\n# FAILED 0 of 0\n"),
    };
    output.write_all((headers + &page).as_bytes())
}

/// Runs all sessions, and writes their output in the format of the query.
fn run_page(
    query: &Query,
    columns: Vec<Column>,
    settings: &Settings,
    output: &mut impl Write,
) -> io::Result<()> {
    let nonce = Nonce::new();
    let headers = html::headers(query.format, &nonce);
    let run_file = settings.kept_runs.as_ref().and_then(|runs| {
        let result = runs.create(&recorded::first_lines(&client(), &query.encode_run()));
        result
            .inspect_err(|error| log_error(&format!("this run is not kept: {error}")))
            .ok()
    });
    let run_id = run_file.as_ref().map(|file| file.id.clone());
    let mut page: Box<dyn Page> = match query.format {
        Format::Html => Box::new(HtmlPage::new(query, nonce, run_id)),
        Format::Text => Box::new(TextPage::default()),
        Format::Json => Box::new(JsonPage::new()),
    };
    if let Some(file) = run_file {
        page = Box::new(RecordedPage::new(page, file));
    }
    let status = RunStatus::new(&columns, settings.time_limit);
    run::run(columns, status, headers, &mut *page, output)
}

/// The user whom the web server has authenticated, or else the address of the client.
fn client() -> String {
    let names = ["REMOTE_USER", "REMOTE_ADDR"].map(environment_variable);
    let name = names.into_iter().find(|name| !name.is_empty());
    let name = terminal::plain(name.unwrap_or_default().as_encoded_bytes());
    name.replace(char::is_control, " ")
}

/// The value of an environment variable; empty if the variable is not set.
fn environment_variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_default()
}
