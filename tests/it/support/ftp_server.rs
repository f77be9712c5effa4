//! The FTP server vsftpd, and the client tnftp in active mode, where the server connects to the client.

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

/// The absolute path, because only the PATH of root contains the folder.
pub(crate) const VSFTPD: &str = "/usr/sbin/vsftpd";

/// A loopback address that no other test uses, so that a free port found for the FTP server
/// stays free until the server binds it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 116, 0, 1);

/// Bytes that are written or hashed at once, so that memory does not grow with the file.
const CHUNK_BYTES: usize = 1 << 20;

/// A running vsftpd; anonymous users may read and write.
pub(crate) struct FtpServer {
    address: SocketAddr,
    _running: RunningChild,
}

impl FtpServer {
    /// Starts a server for this folder, with the permissions of the test's user.
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

/// Runs a session of tnftp in active mode through the proxy, in this folder.
///
/// `proxy` is the variable for `socksify` and the address of the proxy.
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

/// Writes a file of random data, in which lost or repeated parts change the hash. Returns its
/// SHA-256.
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
