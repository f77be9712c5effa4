//! The system calls that neither the standard library nor nix has: the only file with unsafe code.
//!
//! Each function checks what its system call returns, and gives out values that own their
//! descriptors, so its callers can break no rule of memory.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_ulong, c_void, sock_filter, sock_fprog};
use nix::errno::Errno;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, UnixAddr,
};
use nix::unistd::ForkResult;

use crate::filter::HAND_OVER;

/// The error by which a system call says that a signal has interrupted it, and that the system may
/// start it again (`ERESTARTSYS` in the kernel; no program ever sees it).
pub(crate) const RESTART: i32 = 512;

/// One system call of the program that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Names this call until it is answered.
    pub(crate) id: u64,
    /// The thread that makes the call.
    pub(crate) thread: i32,
    /// The architecture for which the program was compiled (`AUDIT_ARCH_...`).
    pub(crate) architecture: u32,
    /// The number of the system call.
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

/// Starts a second process, as fork(2).
///
/// # Errors
///
/// Those of fork(2).
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread, so no lock is held that the new process would find
    // locked for ever.
    unsafe { nix::unistd::fork() }
}

/// Lets a command run this function in its new process, right before the program starts there.
pub(crate) fn before_program(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the command is started while this process has one thread (start.rs), so the new
    // process may allocate memory and take locks.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Installs a filter for the system calls of this process and of those that it starts. Returns
/// the listener that receives the calls that the filter hands over.
///
/// # Errors
///
/// `EBUSY`: there is a listener already. `EINVAL`, `ENOSYS`: the kernel lacks it.
pub(crate) fn install_filter(program: &mut [sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(Errno::EINVAL))?;
    let program = sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // With the second flag (Linux 5.19) a call that was received is ended by a deadly signal
    // only. Without it, a signal handler would run while the call is still being answered.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match seccomp(killable, &program) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => seccomp(flags, &program),
        result => result,
    }
}

fn seccomp(flags: c_ulong, program: &sock_fprog) -> io::Result<OwnedFd> {
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` and the instructions to which it points live until the call returns; the
    // kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, program) };
    own(result)
}

/// Sends a descriptor to the process at the other end.
///
/// # Errors
///
/// Those of sendmsg(2).
pub(crate) fn send_descriptor(to: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    let data = [io::IoSlice::new(b"l")];
    let to = to.as_raw_fd();
    let flags = MsgFlags::from_bits_retain(HAND_OVER as i32);
    socket::sendmsg::<UnixAddr>(to, &data, &message, flags, None)?;
    Ok(())
}

/// Receives the descriptor that [`send_descriptor`] has sent.
///
/// # Errors
///
/// Those of recvmsg(2); `EPROTO` if no descriptor has come.
pub(crate) fn receive_descriptor(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut data = [0];
    let mut data = [io::IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let from = from.as_raw_fd();
    let message = socket::recvmsg::<UnixAddr>(from, &mut data, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for this process, and no other
            // value owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(Errno::EPROTO.into())
}

/// Takes the next call of the program from the listener; waits for one.
///
/// # Errors
///
/// `ENOENT` if the call has ended meanwhile.
pub(crate) fn receive_call(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // The kernel wants it to be zero.
    // SAFETY: the structure has only numbers, for which zero is a valid value.
    let mut received: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one structure of this type, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &mut received,
        )
    };
    Errno::result(result)?;
    Ok(Notification {
        id: received.id,
        thread: i32::try_from(received.pid).unwrap_or_default(),
        architecture: received.data.arch,
        number: i64::from(received.data.nr),
        arguments: received.data.args,
    })
}

/// What a call of the program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel executes the call, as if there were no filter.
    Continue,
    /// This value.
    Value(i64),
    /// This error.
    Error(Errno),
    /// A signal has come: the kernel runs its handler, and then starts the call again or ends it
    /// with `EINTR`, as the program has chosen.
    Restart,
}

/// Answers a call.
///
/// # Errors
///
/// `ENOENT` if the call has ended meanwhile.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (value, error, flags) = match answer {
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(error) => (0, -(error as i32), 0),
        Answer::Restart => (0, -RESTART, 0),
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val: value,
        error,
        flags,
    };
    // SAFETY: the kernel reads one structure of this type, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &mut response,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Does this call still wait for its answer? If not, its thread may be gone, and another one may
/// have its number.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &id,
        )
    };
    result == 0
}

/// Answers a call with a copy of this descriptor, which gets the lowest free number.
///
/// # Errors
///
/// `EMFILE` and others; `ENOENT` if the call has ended meanwhile.
pub(crate) fn give_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: descriptor.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if close_on_exec {
            libc::O_CLOEXEC as u32
        } else {
            0
        },
    };
    // SAFETY: the kernel reads one structure of this type, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD,
            &request,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// A descriptor that stands for this thread, and for no later one with the same number.
///
/// # Errors
///
/// `EINVAL` before Linux 6.9, for a thread that is not the first of its process.
pub(crate) fn open_thread(thread: i32) -> io::Result<OwnedFd> {
    let flags = libc::PIDFD_THREAD;
    // SAFETY: the arguments are numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })
}

/// A descriptor that stands for this process.
///
/// # Errors
///
/// Those of `pidfd_open(2)`.
pub(crate) fn open_process(process: i32) -> io::Result<OwnedFd> {
    // SAFETY: the arguments are numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })
}

/// Copies a descriptor of a process: both then refer to the same socket.
///
/// # Errors
///
/// `EPERM` if this process may not; `EBADF` if that process has no such descriptor.
pub(crate) fn copy_descriptor(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    let process = process.as_raw_fd();
    // SAFETY: the arguments are numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) })
}

/// The descriptor that a system call has made.
fn own(result: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = Errno::result(result)?;
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for this process, and no other value owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Makes a socket.
///
/// # Errors
///
/// Those of socket(2).
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: the arguments are numbers.
    let result = unsafe { libc::socket(domain, kind, protocol) };
    own(libc::c_long::from(result))
}

/// A number that identifies this socket, whatever descriptors refer to it. The kernel gives it to
/// no other socket, ever.
///
/// # Errors
///
/// `ENOTSOCK` for a descriptor of something else.
pub(crate) fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    get_option(socket.as_fd(), libc::SO_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// An option of the level `SOL_SOCKET` whose value is a number, such as `SO_TYPE`.
///
/// # Errors
///
/// `ENOTSOCK` for a descriptor of something else.
pub(crate) fn socket_option(socket: impl AsFd, option: c_int) -> io::Result<i32> {
    let mut value = 0_i32;
    get_option(socket.as_fd(), option, &mut value)?;
    Ok(value)
}

fn get_option<T: Copy>(socket: BorrowedFd<'_>, option: c_int, value: &mut T) -> io::Result<()> {
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    let value: *mut T = value;
    // SAFETY: the kernel writes at most `length` bytes, the size of the value, and any bytes are
    // a valid value: the callers read numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.cast::<c_void>(),
            &mut length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Makes a TCP socket new again after a connect(2) that has failed or is in progress.
///
/// # Errors
///
/// Those of connect(2).
pub(crate) fn disconnect(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: the structure has only numbers, for which zero is a valid value; the family 0 is
    // AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    // SAFETY: the kernel reads one structure of this type, which outlives the call.
    let result = unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            &nowhere,
            mem::size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Accepts a connection. `flags`: `SOCK_NONBLOCK`, if the new socket must not block.
///
/// # Errors
///
/// `EAGAIN` if there is none and the listener does not block.
pub(crate) fn accept(listener: BorrowedFd<'_>, flags: c_int) -> io::Result<OwnedFd> {
    let flags = flags | libc::SOCK_CLOEXEC;
    let none = std::ptr::null_mut();
    // SAFETY: without room for an address the kernel writes nothing.
    let result = unsafe { libc::accept4(listener.as_raw_fd(), none, std::ptr::null_mut(), flags) };
    own(libc::c_long::from(result))
}

/// Closes this descriptor, if a program that this process starts would inherit it. The descriptors
/// of this program's own values are never inherited.
pub(crate) fn close_if_inherited(number: RawFd) {
    // SAFETY: the arguments are numbers.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
        // SAFETY: no value owns this descriptor, since the standard library and nix set
        // FD_CLOEXEC for all that they make, and so does this file.
        let _ = unsafe { libc::close(number) };
    }
}

/// The local address of an internet socket.
///
/// # Errors
///
/// Those of getsockname(2); `EAFNOSUPPORT` for another family.
pub(crate) fn local_address(socket: impl AsFd) -> io::Result<std::net::SocketAddr> {
    internet(socket::getsockname(socket.as_fd().as_raw_fd())?)
}

/// The address of the peer of an internet socket.
///
/// # Errors
///
/// Those of getpeername(2); `EAFNOSUPPORT` for another family.
pub(crate) fn peer_address(socket: impl AsFd) -> io::Result<std::net::SocketAddr> {
    internet(socket::getpeername(socket.as_fd().as_raw_fd())?)
}

fn internet(address: SockaddrStorage) -> io::Result<std::net::SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|it| std::net::SocketAddrV4::from(*it).into());
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|it| std::net::SocketAddrV6::from(*it).into())
    };
    v4.or_else(v6).ok_or_else(|| Errno::EAFNOSUPPORT.into())
}
