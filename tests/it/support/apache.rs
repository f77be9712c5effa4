//! Apache with the console, on a free port and with the defaults of Debian.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::child::{LONG_TIMEOUT, RunningChild, peak_memory};
use crate::support::endpoints::free_ports;
use crate::support::project::{console_binary, project};
use crate::support::wait::{until, until_within};

/// The absolute path, because only the PATH of root contains the folder.
pub(crate) const APACHE: &str = "/usr/sbin/apache2";

/// The folder of Apache's modules on Debian.
const MODULES: &str = "/usr/lib/apache2/modules";

/// Configuration in addition to the project's: the compression that Debian enables for every
/// page, and a control page that proves it.
const COMPRESSION: &str = "\
LoadModule filter_module ${APACHE_MODULES}/mod_filter.so
LoadModule deflate_module ${APACHE_MODULES}/mod_deflate.so
Include /etc/apache2/mods-available/deflate.conf
Alias /control.html ${CONSOLE_DIR}/control.html
<Location /control.html>
    Require all granted
    ForceType text/html
</Location>
";

/// One part of the control page, which is repeated because Apache does not compress short
/// pages.
const CONTROL_PAGE: &str =
    "<!DOCTYPE html><title>Control</title><p>How this page shrinks, shrinks!\n";

/// A running Apache; it terminates on drop.
pub(crate) struct Apache {
    running: RunningChild,
    folder: TempDir,
    port: u16,
}

impl Apache {
    /// Starts Apache with the project's batch files and these additional ones.
    pub(crate) fn start(batch_files: &[(&str, &str)]) -> Apache {
        Apache::start_with(batch_files, "")
    }

    /// Starts Apache with these lines after the project's configuration.
    pub(crate) fn start_with(batch_files: &[(&str, &str)], configuration: &str) -> Apache {
        let folder = tempfile::tempdir().expect("a folder for Apache");
        install_files(folder.path(), batch_files);
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let additional = folder.path().join("additional.conf");
        fs::write(&additional, format!("{COMPRESSION}{configuration}")).unwrap();
        let port = free_ports(1);
        let mut command = Command::new(APACHE);
        command
            .arg("-f")
            .arg(project().join("cgi-bin/apache.conf"))
            .arg("-c")
            .arg(format!("Include {}", additional.display()))
            .arg("-DFOREGROUND")
            .env("CONSOLE_DIR", folder.path())
            .env("CONSOLE_RUN", run)
            .env("CONSOLE_PORT", port.to_string())
            .env("APACHE_MODULES", MODULES);
        let mut running = RunningChild::start(&mut command, b"");
        until("Apache", || {
            running.assert_running();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Apache {
            running,
            folder,
            port,
        }
    }

    /// The console's URL with this query.
    pub(crate) fn console(&self, query: &str) -> String {
        self.url(&format!("cgi-bin/console.cgi?{query}"))
    }

    /// The console's URL with this query, at this host name for 127.0.0.1.
    pub(crate) fn console_at(&self, host: &str, query: &str) -> String {
        self.console(query).replacen("127.0.0.1", host, 1)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Waits for the console process of the next run and for its end. Returns its peak memory in
    /// kB.
    pub(crate) fn peak_memory_of_next_run(&self) -> u64 {
        let console = until("the console process", || {
            self.console_process().filter(|process| {
                let environment = fs::read_to_string(process.join("environ"));
                environment.is_ok_and(|variables| variables.contains("once="))
            })
        });
        let mut peak = 0;
        until_within(
            LONG_TIMEOUT,
            "the end of the console process",
            || match peak_memory(&console) {
                Some(memory) => {
                    peak = memory.max(peak);
                    None
                }
                None => Some(peak),
            },
        )
    }

    /// Whether a console process of this Apache runs.
    pub(crate) fn has_console(&self) -> bool {
        self.console_process().is_some()
    }

    /// Kills Apache and its worker processes, but not the CGI programs that they started.
    pub(crate) fn kill(&self) {
        let group = self.running.id().to_string();
        let mut killed = 0;
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // The fields of proc_pid_stat(5): pid, (name), state, parent, process group.
            let fields: Vec<&str> = stat.split_whitespace().collect();
            if let [id, "(apache2)", _, _, process_group, ..] = *fields.as_slice()
                && process_group == group
            {
                let _ = signal::kill(Pid::from_raw(id.parse().unwrap()), Signal::SIGKILL);
                killed += 1;
            }
        }
        assert!(killed > 1, "killed {killed} processes: no worker process");
    }

    /// The folder in /proc of a console process with this Apache's working directory.
    fn console_process(&self) -> Option<PathBuf> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut folders = processes.map(|entry| entry.path());
        folders.find(|process| {
            let name = fs::read_to_string(process.join("comm"));
            let working_folder = fs::read_link(process.join("cwd"));
            name.is_ok_and(|name| name.trim_end() == "console.cgi")
                && working_folder.is_ok_and(|folder| folder == self.folder.path())
        })
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.running.stop();
    }
}

/// Creates the files that Apache serves. Every user may read them: if the tests run as root,
/// Apache's worker processes run as another user.
fn install_files(folder: &Path, batch_files: &[(&str, &str)]) {
    let make_readable =
        |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    make_readable(folder);
    let program = folder.join("console.cgi");
    fs::copy(console_binary(), &program).expect("the console copied");
    make_readable(&program);
    let control = folder.join("control.html");
    fs::write(&control, CONTROL_PAGE.repeat(50)).unwrap();
    make_readable(&control);
    let batch_folder = folder.join("test_case");
    fs::create_dir(&batch_folder).unwrap();
    make_readable(&batch_folder);
    for entry in fs::read_dir(project().join("cgi-bin/test_case")).unwrap() {
        let entry = entry.unwrap();
        let copy = batch_folder.join(entry.file_name());
        fs::copy(entry.path(), &copy).expect("a batch file copied");
        make_readable(&copy);
    }
    for (name, content) in batch_files {
        let file = batch_folder.join(name);
        fs::write(&file, content).unwrap();
        make_readable(&file);
    }
}
