//! A real Apache on a port of the test's own, as Debian would have it, with the
//! console in it.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
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
const CONTROL: &str = "<!DOCTYPE html><title>Control</title><p>How this page shrinks, shrinks!\n";

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
        furnish(folder.path(), batch_files);
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
        let console = until("the console", || self.a_console());
        let mut most = 0;
        until_within(LONG_TIMEOUT, "the console's end", || {
            match peak_memory(&console) {
                Some(memory) => {
                    most = memory.max(most);
                    None
                }
                None => Some(most),
            }
        })
    }

    /// Is there a page in progress?
    pub(crate) fn runs_a_console(&self) -> bool {
        self.a_console().is_some()
    }

    /// Kills it with all its children, except for the programs they have started.
    pub(crate) fn is_killed(&self) {
        let group = self.running.id().to_string();
        let mut killed = 0;
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // 4711 (name) state parent group ...
            let fields: Vec<&str> = stat.split_whitespace().collect();
            if let [id, "(apache2)", _, _, its_group, ..] = *fields.as_slice()
                && its_group == group
            {
                let _ = kill(Pid::from_raw(id.parse().unwrap()), Signal::SIGKILL);
                killed += 1;
            }
        }
        assert!(killed > 1, "the parent and those who serve");
    }

    /// Its folder in /proc: of all consoles, one that works in our folder.
    fn a_console(&self) -> Option<PathBuf> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut folders = processes.map(|entry| entry.path());
        folders.find(|process| {
            let name = fs::read_to_string(process.join("comm"));
            let place = fs::read_link(process.join("cwd"));
            name.is_ok_and(|name| name.trim_end() == "console.cgi")
                && place.is_ok_and(|place| place == self.folder.path())
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
fn furnish(folder: &Path, batch_files: &[(&str, &str)]) {
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    open(folder);
    let program = folder.join("console.cgi");
    fs::copy(console(), &program).expect("the console copied");
    open(&program);
    let control = folder.join("control.html");
    fs::write(&control, CONTROL.repeat(50)).unwrap();
    open(&control);
    let batches = folder.join("test_case");
    fs::create_dir(&batches).unwrap();
    open(&batches);
    for entry in fs::read_dir(project().join("cgi-bin/test_case")).unwrap() {
        let entry = entry.unwrap();
        let copy = batches.join(entry.file_name());
        fs::copy(entry.path(), &copy).expect("a batch file copied");
        open(&copy);
    }
    for (name, content) in batch_files {
        let file = batches.join(name);
        fs::write(&file, content).unwrap();
        open(&file);
    }
}

/// The console's own binary.
fn console() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_console"))
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
