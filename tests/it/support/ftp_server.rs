//! A real FTP server, and a real client that makes it connect back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::child::{ChildOutput, RunningChild};
use super::socksify::socksify;
use crate::support::endpoints::random_bytes;
use crate::support::wait::until;

/// By its whole name, because only administrators have its folder on their path.
pub(crate) const VSFTPD: &str = "/usr/sbin/vsftpd";

/// Loopback, but an address on which no other test opens connections, so that
/// the port found free for the FTP server stays free until it has it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 116, 0, 1);

/// Chunks keep memory small, however large the file is.
const CHUNK_BYTES: usize = 1 << 20;

/// vsftpd, for anonymous visitors who may also write.
pub(crate) struct FtpServer {
    address: SocketAddr,
    _running: RunningChild,
}

impl FtpServer {
    /// Serves this folder, as whoever runs the test.
    pub(crate) fn start(folder: &Path, config: &Path) -> FtpServer {
        let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let port = address.port();
        let root = folder.display();
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let settings = format!(
            "listen=YES\nlisten_address={ADDRESS}\nlisten_port={port}\nbackground=NO\n\
             run_as_launching_user=YES\nseccomp_sandbox=NO\n\
             pasv_enable=NO\nanonymous_enable=YES\nno_anon_password=YES\n\
             anon_root={root}\nanon_world_readable_only=NO\nwrite_enable=YES\n\
             anon_upload_enable=YES\nftp_username={user}"
        );
        fs::write(config, settings).unwrap();
        let mut running = RunningChild::start(Command::new(VSFTPD).arg(config), b"");
        until("the FTP server", || {
            running.assert_running();
            TcpStream::connect(address).ok()
        });
        FtpServer {
            address,
            _running: running,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// One session of tnftp in active mode, through the proxy, in this folder.
pub(crate) fn run_session(
    proxy: (&str, SocketAddr),
    server: &FtpServer,
    folder: &Path,
    script: &str,
    timeout: Duration,
) -> ChildOutput {
    let mut command = socksify(proxy);
    command
        .args(["tnftp", "-A", "-n", "-i", "-v"])
        .args([ADDRESS.to_string(), server.port().to_string()])
        .current_dir(folder)
        .env("HOME", folder);
    RunningChild::start(&mut command, script.as_bytes()).wait_for_exit(timeout)
}

/// Writes a file that no compression and no repetition can hide a fault in.
pub(crate) fn write_random_file(path: &Path, megabytes: u64) -> Vec<u8> {
    let mut file = File::create(path).unwrap();
    let mut hash = Sha256::new();
    for seed in 0..megabytes {
        let chunk = random_bytes(seed, CHUNK_BYTES);
        hash.update(&chunk);
        file.write_all(&chunk).unwrap();
    }
    hash.finalize().to_vec()
}

/// The SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    while let count @ 1.. = file.read(&mut chunk).unwrap() {
        hash.update(&chunk[..count]);
    }
    hash.finalize().to_vec()
}
