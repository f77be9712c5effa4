//! The Debian package of the console, with Debian's Apache.

use std::fs;

use super::debian::CopiedSystem;
use super::{debian_packages, succeed};
use crate::support::apache::APACHE;
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// As apache2ctl(8), but the process of the shell becomes Apache, which a signal then stops.
const START: &str = ". /etc/apache2/envvars && mkdir -p $APACHE_RUN_DIR $APACHE_LOCK_DIR \
    && exec apache2 -D FOREGROUND";

const URL: &str = "http://127.0.0.1/threadsocks-console/console.cgi";

/// The HTTP status of a page, and its text. curl gets these further arguments.
fn page(url: &str, arguments: &[&str]) -> Option<(String, String)> {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--write-out", "\n%{http_code}", url]);
    let output = RunningChild::start(curl.args(arguments), b"").wait_for_exit(LONG_TIMEOUT);
    let text = output.text();
    let (page, status) = text.rsplit_once('\n')?;
    (status != "000").then(|| (status.to_owned(), page.to_owned()))
}

/// Debian's Apache with its own configuration.
fn apache(system: &CopiedSystem) -> RunningChild {
    let mut apache = system.command("sh");
    let mut running = RunningChild::start(apache.args(["-c", START]), b"");
    until("Apache", || {
        running.assert_running();
        page("http://127.0.0.1/", &[])
    });
    running
}

#[test]
#[ignore = "builds packages"]
fn p09_the_console_runs_after_it_is_enabled_and_for_this_machine_only() {
    if !is_installed(APACHE, "apache2") || !is_installed("curl", "curl") {
        return;
    }
    let [_, package] = debian_packages();
    CopiedSystem::with(|system| {
        system.dpkg(&["--install"], &[package]);
        succeed(system.command("a2enmod").arg("cgi"), LONG_TIMEOUT);
        let running = apache(system);
        assert_eq!(page(URL, &[]).unwrap().0, "404");
        running.terminate();
        running.wait_for_exit(LONG_TIMEOUT);

        succeed(
            system.command("a2enconf").arg("threadsocks-console"),
            LONG_TIMEOUT,
        );
        let own = system.path("etc/threadsocks-console/test_case/own-batch.txt");
        fs::write(own, "ls\n").unwrap();
        let _running = apache(system);
        let (status, form) = page(URL, &[]).unwrap();
        assert_eq!(status, "200");
        assert!(
            form.contains("t1.txt") && form.contains("own-batch.txt"),
            "{form}"
        );
        // From another address, or by another name.
        let other = URL.replace("127.0.0.1", "192.0.2.1");
        let from_another = ["--interface", "192.0.2.2", "--header", "Host: localhost"];
        assert_eq!(page(&other, &from_another).unwrap().0, "403");
        assert_eq!(
            page(URL, &["--header", "Host: example.org"]).unwrap().0,
            "403"
        );
        // Apache sends no file of the folder.
        for name in ["", "test_case/t1.txt", "console.cgi/t1.txt"] {
            let (status, _) = page(&URL.replace("console.cgi", name), &[]).unwrap();
            assert_eq!(status, "404", "{name}");
        }

        system.dpkg(&["--purge", "threadsocks-console"], &[]);
        assert!(
            !system
                .path("etc/apache2/conf-enabled/threadsocks-console.conf")
                .is_symlink()
        );
    });
}
