//! systemd, or another service manager with the same protocols: sd_notify(3) and the journal.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;
use nix::time::{ClockId, clock_gettime};

/// Time between two texts for `systemctl status`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// What the service manager is told. Without a service manager, nothing is sent.
///
/// No message waits, and no failure is reported: the service manager may be gone, or busy,
/// and the server serves all the same.
#[derive(Debug, Default)]
pub struct ServiceManager {
    /// A socket without a name, and where it sends: `$NOTIFY_SOCKET`.
    socket: Option<(UnixDatagram, SocketAddr)>,
    last_status: Option<(String, Instant)>,
}

impl ServiceManager {
    /// The service manager of this process, if it has one that waits for messages.
    pub fn from_env() -> ServiceManager {
        let name = env::var_os("NOTIFY_SOCKET");
        let socket = name.and_then(|name| open(&name).ok());
        ServiceManager {
            socket,
            last_status: None,
        }
    }

    /// The server accepts clients.
    pub(crate) fn ready(&mut self, status: String) {
        self.send(&format!("READY=1\nSTATUS={status}"));
        self.last_status = Some((status, Instant::now()));
    }

    /// The state of the server, in words for `systemctl status`. At most one message is sent
    /// in [`STATUS_INTERVAL`], and none without a change.
    pub(crate) fn status(&mut self, status: String, now: Instant) {
        let is_due = self.last_status.as_ref().is_none_or(|(last, since)| {
            *last != status && now.saturating_duration_since(*since) >= STATUS_INTERVAL
        });
        if is_due {
            self.send(&format!("STATUS={status}"));
            self.last_status = Some((status, now));
        }
    }

    /// The server reads its files again. [`reloaded`](Self::reloaded) follows.
    pub(crate) fn reloading(&self) {
        // Fails on no system that has the clock. Only `Type=notify-reload` needs the time.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let time = time.as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={time}"));
    }

    /// The server has read its files again.
    pub(crate) fn reloaded(&self) {
        self.send("READY=1");
    }

    /// The server stops, and has ended in this time at the latest. The service manager waits
    /// so long, also if its own limit (`TimeoutStopSec=`) is shorter.
    pub(crate) fn stopping(&self, limit: Duration, status: &str) {
        let limit = limit.as_micros();
        self.send(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={limit}\nSTATUS={status}"
        ));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// A socket that does not block, and the address with this name.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => abstract_address(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// An address without a file.
#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

/// Only Linux has addresses without a file.
#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does this output end in the journal? Then a line can begin with its priority, such as `<4>`
/// (sd-daemon(3)). `$JOURNAL_STREAM` has the device and inode of the socket: a process of the
/// service can write its output to another place.
pub fn is_journal(output: &impl AsFd) -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    fstat(output).is_ok_and(|status| {
        let of_output = format!("{}:{}", status.st_dev, status.st_ino);
        stream.as_bytes() == of_output.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o26_the_status_is_sent_after_a_change_and_not_too_often() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let receiver = UnixDatagram::bind(&path).expect("a socket");
        receiver.set_nonblocking(true).expect("set");
        let mut service_manager = ServiceManager {
            socket: Some(open(path.as_os_str()).expect("a socket")),
            last_status: None,
        };
        let start = Instant::now();
        for (seconds, status) in [
            (0, "one"),
            (5, "two"),
            (10, "one"),
            (20, "two"),
            (25, "one"),
        ] {
            let now = start + Duration::from_secs(seconds);
            service_manager.status(status.to_owned(), now);
        }
        let mut received = Vec::new();
        let mut buffer = [0; 100];
        while let Ok(count) = receiver.recv(&mut buffer) {
            received.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        assert_eq!(received, ["STATUS=one", "STATUS=two"]);
    }
}
