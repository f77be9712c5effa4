//! The console, started with a CGI environment but without a web server.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::project::console_binary;
use crate::support::wait::until;

/// The command that starts the console, and its working directory with batch files.
pub(crate) struct Console {
    pub(crate) folder: TempDir,
    pub(crate) command: Command,
}

impl Console {
    pub(crate) fn new(files: &[(&str, &str)]) -> Console {
        let folder = tempfile::tempdir().unwrap();
        let folder_of_batches = folder.path().join("test_case");
        fs::create_dir(&folder_of_batches).unwrap();
        for (name, content) in files {
            fs::write(folder_of_batches.join(name), content).unwrap();
        }
        let mut command = Command::new(console_binary());
        command
            .current_dir(folder.path())
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", "GET");
        Console { folder, command }
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Console {
        self.command.env(name, value);
        self
    }

    pub(crate) fn batch_folder(&self) -> PathBuf {
        self.folder.path().join("test_case")
    }

    pub(crate) fn start(&mut self, query: &str) -> RunningChild {
        RunningChild::start(self.command.env("QUERY_STRING", query), b"")
    }

    /// Runs the console until it exits with success, and returns its output.
    pub(crate) fn page(&mut self, query: &str) -> String {
        assert_success(&self.start(query).wait_for_exit(LONG_TIMEOUT))
    }

    /// Starts the console for a form that is sent with POST.
    pub(crate) fn start_post(&mut self, body: &str) -> RunningChild {
        self.command
            .env("REQUEST_METHOD", "POST")
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("CONTENT_TYPE", "application/x-www-form-urlencoded")
            .env("QUERY_STRING", "");
        let child = RunningChild::start(&mut self.command, body.as_bytes());
        self.command.env("REQUEST_METHOD", "GET");
        child
    }

    /// Sends this form with POST, and returns the page.
    pub(crate) fn post(&mut self, body: &str) -> String {
        assert_success(&self.start_post(body).wait_for_exit(LONG_TIMEOUT))
    }
}

pub(crate) fn assert_success(output: &ChildOutput) -> String {
    assert!(output.status.success(), "{output:#?}");
    assert_eq!(output.stderr, "");
    output.text()
}

pub(crate) fn split_headers(page: &str) -> (&str, &str) {
    page.split_once("\r\n\r\n").expect("headers and a body")
}

/// The query string for one row.
pub(crate) fn query_row(number: usize, shell: SocketAddr, file: &str, socks: SocketAddr) -> String {
    format!(
        "h{number}={}&p{number}={}&f{number}={file}&sh{number}={}&sp{number}={}&",
        shell.ip(),
        shell.port(),
        socks.ip(),
        socks.port()
    )
}

/// The output and the last state of one column, from a page of plain text.
pub(crate) fn column_text(page: &str, title: &str) -> (String, String) {
    let (output_prefix, status_prefix) = (format!("{title} | "), format!("{title} # "));
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix(&output_prefix));
    let mut last = page
        .lines()
        .filter_map(|line| line.strip_prefix(&status_prefix))
        .filter(|status| !status.starts_with("next: "));
    let last = last
        .next_back()
        .unwrap_or_else(|| panic!("no column {title} in {page}"));
    let output: String = lines.map(|line| format!("{line}\n")).collect();
    (output, last.to_owned())
}

/// Waits until the output so far contains this text.
pub(crate) fn wait_for_text(page: &mut RunningChild, text: &str) {
    until(text, || {
        let so_far = page.stdout_so_far();
        if !so_far.contains(text) {
            page.assert_running();
        }
        so_far.contains(text).then_some(())
    });
}
