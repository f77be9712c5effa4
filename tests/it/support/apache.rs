//! A real Apache on a port of the test's own, as Debian would have it, with the
//! console in it.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::child::LONG_TIMEOUT;
use crate::support::child::{RunningChild, peak_memory};
use crate::support::endpoints::free_ports;
use crate::support::wait::until;
use crate::support::wait::until_within;

/// By its whole name, because only administrators have its folder on their path.
pub(crate) const APACHE: &str = "/usr/sbin/apache2";

/// Where Debian has its parts.
const MODULES: &str = "/usr/lib/apache2/modules";

/// The project's own settings know nothing of compression here; these add what
/// Debian does to every page, and a page to see that it really does it.
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

/// Long enough for Apache to think it worth the trouble.
const CONTROL_PAGE: &str =
    "<!DOCTYPE html><title>Control</title><p>How this page shrinks, shrinks!\n";

/// A running Apache.
pub(crate) struct Apache {
    running: RunningChild,
    folder: TempDir,
    port: u16,
}

impl Apache {
    /// Starts one whose console finds these batch files beside the project's.
    pub(crate) fn start(batch_files: &[(&str, &str)]) -> Apache {
        let folder = tempfile::tempdir().expect("a folder for Apache");
        install_files(folder.path(), batch_files);
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let compression = folder.path().join("compression.conf");
        fs::write(&compression, COMPRESSION).unwrap();
        let port = free_ports(1);
        let mut command = Command::new(APACHE);
        command
            .arg("-f")
            .arg(project().join("cgi-bin/apache.conf"))
            .arg("-c")
            .arg(format!("Include {}", compression.display()))
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

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Waits for the console of the next page, and for its end: the most
    /// memory, in kB, that it has ever had.
    pub(crate) fn peak_memory_of_next_console(&self) -> u64 {
        let console = until("the console", || self.console_process());
        let mut peak = 0;
        until_within(LONG_TIMEOUT, "the console's end", || {
            match peak_memory(&console) {
                Some(memory) => {
                    peak = memory.max(peak);
                    None
                }
                None => Some(peak),
            }
        })
    }

    /// Is there a page in progress?
    pub(crate) fn has_console(&self) -> bool {
        self.console_process().is_some()
    }

    /// Kills it with all its children, except for the programs they have started.
    pub(crate) fn kill(&self) {
        let group = self.running.id().to_string();
        let mut killed = 0;
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // 4711 (name) state parent group ...
            let fields: Vec<&str> = stat.split_whitespace().collect();
            if let [id, "(apache2)", _, _, process_group, ..] = *fields.as_slice()
                && process_group == group
            {
                let _ = signal::kill(Pid::from_raw(id.parse().unwrap()), Signal::SIGKILL);
                killed += 1;
            }
        }
        assert!(killed > 1, "the parent and those who serve");
    }

    /// Its folder in /proc: of all consoles, one that works in our folder.
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

/// Puts everything there. Whoever runs the tests as root has an Apache that
/// serves as somebody else, so everybody may read it.
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

/// The console's own binary.
fn console_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_console"))
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
