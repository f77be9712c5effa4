//! One system call of the program: its arguments, its memory, its socket, and its answer.

use std::cell::Cell;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::address::{self, Family, ProgramAddress};
use crate::context::Context;
use crate::kept::inode_in;
use crate::kernel::{self, Answer, Notification};
use crate::permissions;
use crate::sockets::SocketId;

/// What a handler returns: an error is an answer too.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// One call. The thread of the program waits until it is answered.
pub(crate) struct Call<'a> {
    pub(crate) context: &'a Arc<Context>,
    pub(crate) notification: Notification,
    is_answered: Cell<bool>,
}

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Other,
}

/// A copy of the descriptor of the program's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    pub(crate) id: SocketId,
}

impl<'a> Call<'a> {
    pub(crate) fn new(context: &'a Arc<Context>, notification: Notification) -> Call<'a> {
        Call {
            context,
            notification,
            is_answered: Cell::new(false),
        }
    }

    /// An argument of the call.
    pub(crate) fn argument(&self, index: usize) -> u64 {
        let argument = self.notification.arguments.get(index);
        argument.copied().unwrap_or_default()
    }

    /// An argument of type `int`: the kernel ignores its upper half.
    pub(crate) fn number(&self, index: usize) -> i32 {
        self.argument(index) as i32
    }

    /// Answers the call. Only the first answer counts.
    pub(crate) fn answer(&self, answer: Answer) {
        if !self.is_answered.replace(true) {
            // The program may have been killed meanwhile.
            let _ = kernel::answer(self.context.listener.as_fd(), self.notification.id, answer);
        }
    }

    /// Answers the call with a copy of this descriptor, in one step.
    ///
    /// # Errors
    ///
    /// `EMFILE` and others.
    pub(crate) fn give(&self, descriptor: &OwnedFd, close_on_exec: bool) -> Result<Answer> {
        let (listener, id) = (self.context.listener.as_fd(), self.notification.id);
        kernel::give_descriptor(listener, id, descriptor.as_fd(), close_on_exec)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        self.is_answered.set(true);
        Ok(Answer::Value(0))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.get()
    }

    /// Does the program's thread still wait? Without it, its number may mean another thread.
    pub(crate) fn is_waiting(&self) -> bool {
        kernel::is_waiting(self.context.listener.as_fd(), self.notification.id)
    }

    /// Copies the socket that is the first argument. `None`: it is no socket, or there is none;
    /// the kernel knows the error.
    ///
    /// # Errors
    ///
    /// `EACCES` without the permission to copy it.
    pub(crate) fn socket(&self) -> Result<Option<Socket>> {
        if let Some(kept) = &self.context.kept {
            let copy = self.inode()?.and_then(|inode| kept.copy(inode));
            return Ok(copy.and_then(|it| Socket::new(it).ok()));
        }
        let thread = self.notification.thread;
        let process = match kernel::open_thread(thread) {
            // Before Linux 6.9 only processes can be opened.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                kernel::open_process(self.process())
            }
            result => result,
        };
        let Ok(process) = process else {
            return Ok(None);
        };
        if !self.is_waiting() {
            return Err(Errno::EINTR);
        }
        let descriptor = match kernel::copy_descriptor(process.as_fd(), self.number(0)) {
            Ok(descriptor) => descriptor,
            Err(error) if permissions::is_refusal(&error) => {
                let reason = permissions::reason("pidfd_getfd", &error);
                let line = format!("cannot serve {}: {reason}", self.program());
                self.context.messages.say(&line);
                return Err(Errno::EACCES);
            }
            Err(_) => return Ok(None),
        };
        Ok(Socket::new(descriptor).ok())
    }

    /// The inode of the socket that is the first argument. `None`: it is no socket.
    ///
    /// # Errors
    ///
    /// `EINTR` if the program's thread has ended.
    pub(crate) fn inode(&self) -> Result<Option<u64>> {
        let (thread, number) = (self.notification.thread, self.number(0));
        let target = fs::read_link(format!("/proc/{thread}/fd/{number}"));
        if !self.is_waiting() {
            return Err(Errno::EINTR);
        }
        Ok(target.ok().and_then(|it| inode_in(&it.to_string_lossy())))
    }

    /// Reads the program's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it has none there; `EACCES` without the permission.
    pub(crate) fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let memory = self.memory()?;
        match memory.read_exact_at(&mut bytes, address) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(Errno::EFAULT),
        }
    }

    /// Writes the program's memory.
    ///
    /// # Errors
    ///
    /// As for [`Call::read`].
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let written = self.memory()?.write_all_at(bytes, address);
        written.map_err(|_| Errno::EFAULT)
    }

    fn memory(&self) -> Result<File> {
        let path = format!("/proc/{}/mem", self.notification.thread);
        let file = File::options().read(true).write(true).open(path);
        // The thread may have ended before the file was opened.
        if !self.is_waiting() {
            return Err(Errno::EINTR);
        }
        file.map_err(|error| {
            let reason = permissions::reason("/proc/PID/mem", &error);
            let line = format!("cannot serve {}: {reason}", self.program());
            self.context.messages.say(&line);
            Errno::EACCES
        })
    }

    /// The address that the program passes in these arguments.
    ///
    /// # Errors
    ///
    /// As for [`Call::read`].
    pub(crate) fn passed_address(&self, pointer: usize, length: usize) -> Result<ProgramAddress> {
        let length = self.argument(length) as u32 as usize;
        if length > address::MAX_LENGTH {
            return Ok(ProgramAddress::Other);
        }
        Ok(address::decode(&self.read(self.argument(pointer), length)?))
    }

    /// Writes an address to where the program wants it: as much as there is room for, and how
    /// long the address is.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a negative length.
    pub(crate) fn return_address(
        &self,
        address: SocketAddr,
        family: Family,
        pointer: usize,
        length: usize,
    ) -> Result<()> {
        let bytes = address::encode(address, family);
        let room = self.read(self.argument(length), 4)?;
        let room = room.first_chunk().copied().unwrap_or_default();
        let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| Errno::EINVAL)?;
        let written = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.write(self.argument(pointer), written)?;
        let whole = (bytes.len() as u32).to_ne_bytes();
        self.write(self.argument(length), &whole)
    }

    /// The process of the thread.
    pub(crate) fn process(&self) -> i32 {
        let status = self.status();
        let found = status_field(&status, "Tgid:").and_then(|it| it.parse().ok());
        found.unwrap_or(self.notification.thread)
    }

    /// Has a signal come for which the program has a handler? The handler runs when the call is
    /// answered.
    pub(crate) fn has_signal(&self) -> bool {
        let status = self.status();
        let set = |name| {
            let field = status_field(&status, name);
            field.and_then(|it| u64::from_str_radix(it, 16).ok())
        };
        let set = |name| set(name).unwrap_or_default();
        (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & set("SigCgt:") != 0
    }

    fn status(&self) -> String {
        let path = format!("/proc/{}/status", self.notification.thread);
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The program, for a message.
    pub(crate) fn program(&self) -> String {
        let thread = self.notification.thread;
        let name = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
        format!("{} (process {})", name.trim_end(), self.process())
    }
}

/// A field of /proc/PID/status.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

impl Socket {
    /// # Errors
    ///
    /// `ENOTSOCK` for a descriptor of something else.
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Socket> {
        let cookie = kernel::cookie(&descriptor).map_err(|_| Errno::ENOTSOCK)?;
        let inode = nix::sys::stat::fstat(&descriptor)?.st_ino;
        let id = SocketId { cookie, inode };
        Ok(Socket { descriptor, id })
    }

    pub(crate) fn kind(&self) -> Kind {
        let option = |option| kernel::socket_option(&self.descriptor, option);
        let is_internet = self.family().is_some();
        match (option(libc::SO_TYPE), option(libc::SO_PROTOCOL)) {
            (Ok(libc::SOCK_STREAM), Ok(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)) if is_internet => {
                Kind::Tcp
            }
            (Ok(libc::SOCK_DGRAM), Ok(libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE))
                if is_internet =>
            {
                Kind::Udp
            }
            _ => Kind::Other,
        }
    }

    /// `None` for a socket that is not of the Internet.
    pub(crate) fn family(&self) -> Option<Family> {
        match kernel::socket_option(&self.descriptor, libc::SO_DOMAIN) {
            Ok(libc::AF_INET) => Some(Family::V4),
            Ok(libc::AF_INET6) => Some(Family::V6),
            _ => None,
        }
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        let flags = fcntl(&self.descriptor, FcntlArg::F_GETFL);
        flags.is_ok_and(|it| OFlag::from_bits_retain(it).contains(OFlag::O_NONBLOCK))
    }

    /// Does it refuse IPv4-mapped addresses?
    pub(crate) fn is_v6_only(&self) -> bool {
        use nix::sys::socket::{getsockopt, sockopt};
        self.family() == Some(Family::V6)
            && getsockopt(&self.descriptor, sockopt::Ipv6V6Only).unwrap_or(false)
    }
}
