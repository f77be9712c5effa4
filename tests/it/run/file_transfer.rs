//! FTP in active mode: the server connects to the client, by BIND.

use std::fs;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::ftp_server::{ADDRESS, FtpServer, VSFTPD};
use crate::support::proxy::Proxy;
use crate::support::run::{CURL, VERSIONS, run, sessions};
use crate::support::tools::is_installed;

const CONTENT: &str = "the content of a file\n";

/// Fetches a file through the server with this program. `URL` in its arguments becomes the
/// address of the file, `HOST` and `PORT` that of the FTP server.
fn assert_fetches(words: &[&str], input: &str) {
    if !is_installed(VSFTPD, "vsftpd") {
        return;
    }
    for version in VERSIONS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), CONTENT).unwrap();
        let server = FtpServer::start(&root, &folder.path().join("vsftpd.conf"));
        let proxy = Proxy::open();
        let (host, port) = (ADDRESS.to_string(), server.port().to_string());
        let url = format!("ftp://{host}:{port}/file");
        let words = words.iter().map(|word| match *word {
            "URL" => url.as_str(),
            "HOST" => host.as_str(),
            "PORT" => port.as_str(),
            word => word,
        });
        let mut command = run((version, proxy.address()));
        command.args(words).env("HOME", folder.path());
        let output = RunningChild::start(&mut command, input.as_bytes());
        let output = output.wait_for_exit(LONG_TIMEOUT);
        assert!(output.text().contains(CONTENT), "{version} {output:#?}");
        let sessions = sessions(&proxy, 2);
        assert_eq!(sessions[0], format!("{host}:{port} CONNECT Accept"));
        assert_eq!(sessions[1], format!("{host}:{port} BIND Accept"));
        proxy.finish();
    }
}

#[test]
fn k08_tnftp_fetches_a_file_in_active_mode() {
    if is_installed("tnftp", "tnftp") {
        let script = "user anonymous x\nget file -\nquit\n";
        assert_fetches(&["tnftp", "-A", "-n", "-i", "HOST", "PORT"], script);
    }
}

#[test]
fn k08_curl_fetches_a_file_in_active_mode() {
    if is_installed("curl", "curl") {
        assert_fetches(&[&CURL[..], &["-P", "-", "URL"]].concat(), "");
    }
}

#[test]
fn k08_ftplib_fetches_a_file_in_active_mode() {
    const SCRIPT: &str = "
import ftplib, sys
ftp = ftplib.FTP()
ftp.connect(sys.argv[1], int(sys.argv[2]), timeout=20)
ftp.login()
ftp.set_pasv(False)
ftp.retrlines('RETR file')
ftp.quit()
";
    if is_installed("python3", "python3") {
        assert_fetches(&["python3", "-c", SCRIPT, "HOST", "PORT"], "");
    }
}
