//! The supervisor: takes the program's calls, and gives each to a thread of the pool.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use libc::c_long;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::call::{Call, Result};
use crate::context::{Context, Parts};
use crate::filter::ARCHITECTURE;
use crate::kernel::{self, Answer, Notification};
use crate::messages;
use crate::options::Options;
use crate::server::Server;
use crate::{bind, connect, datagrams, name_service, queries, sockets};

/// How often sockets that are gone are removed from the table, in milliseconds.
const SWEEP_INTERVAL_MS: u16 = 5_000;
/// A socket with a younger state is not looked for.
const YOUNG: Duration = Duration::from_secs(10);
/// How long relays may go on when no program is left: a slow server delays the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(60);

/// Serves all calls until no process is left that can make one.
///
/// # Errors
///
/// Those of poll(2).
pub(crate) fn serve(
    listener: OwnedFd,
    server: Server,
    options: &Options,
    keeps_sockets: bool,
) -> io::Result<()> {
    let any_port = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (name_server, sink) = (any_port()?, any_port()?);
    let context = Arc::new(Context::new(Parts {
        listener,
        server,
        direct: options.direct.clone(),
        loopback: options.loopback,
        strict: options.strict,
        name_server: name_server.local_addr().ok(),
        refused_datagrams: sink.local_addr().ok(),
        keeps_sockets,
    }));
    let shared = Arc::clone(&context);
    let serve_dns = move || name_service::serve_dns(&shared, &name_server);
    context.threads.start("dns".to_owned(), serve_dns)?;
    let shared = Arc::clone(&context);
    let read_refused = move || datagrams::read_refused(&shared, &sink);
    context.threads.start("refused".to_owned(), read_refused)?;
    receive(&context)?;
    // No process is left, but bytes that one has written may be on their way.
    let began = Instant::now();
    while Arc::strong_count(&context.relays) > 1 && began.elapsed() < LAST_BYTES {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Takes calls until the listener reports that no process has the filter any more. The end of
/// the first process is not enough: a program may leave another one in the background.
fn receive(context: &Arc<Context>) -> io::Result<()> {
    let mut swept = Instant::now();
    loop {
        let mut descriptors = [PollFd::new(context.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::from(SWEEP_INTERVAL_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [descriptor] = descriptors;
        let events = descriptor.revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            // A call that has ended meanwhile is no error.
            if let Ok(notification) = kernel::receive_call(context.listener.as_fd()) {
                start(context, notification);
            }
        } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(());
        }
        if swept.elapsed() >= Duration::from_millis(SWEEP_INTERVAL_MS.into()) {
            swept = Instant::now();
            sweep(context);
        }
    }
}

/// Gives a call to a thread.
fn start(context: &Arc<Context>, notification: Notification) {
    let shared = Arc::clone(context);
    let name = format!("{} {}", name_of(notification.number), notification.thread);
    let started = context.threads.start(name, move || {
        let call = Call::new(&shared, notification);
        let result = handle(&call);
        call.answer(result.unwrap_or_else(Answer::Error));
    });
    if let Err(error) = started {
        let line = format!("no thread for a system call: {error}");
        context.messages.say(&line);
        let answer = Answer::Error(Errno::ENOBUFS);
        let _ = kernel::answer(context.listener.as_fd(), notification.id, answer);
    }
}

/// The name of a system call, for the name of its thread.
fn name_of(number: i64) -> &'static str {
    match number as c_long {
        libc::SYS_connect => "connect",
        libc::SYS_bind => "bind",
        libc::SYS_listen => "listen",
        libc::SYS_accept | libc::SYS_accept4 => "accept",
        libc::SYS_getsockname => "sockname",
        libc::SYS_getpeername => "peername",
        libc::SYS_getsockopt => "sockopt",
        libc::SYS_socket => "socket",
        _ => "send",
    }
}

/// Executes a call.
fn handle(call: &Call<'_>) -> Result<Answer> {
    if call.notification.architecture != ARCHITECTURE {
        return end_foreign(call);
    }
    match call.notification.number as c_long {
        libc::SYS_connect => connect::connect(call),
        libc::SYS_bind => bind::bind(call),
        libc::SYS_listen => bind::listen(call),
        libc::SYS_accept => bind::accept(call, 0),
        libc::SYS_accept4 => bind::accept(call, call.number(3)),
        libc::SYS_getsockname => queries::local_address(call),
        libc::SYS_getpeername => queries::peer_address(call),
        libc::SYS_getsockopt => queries::pending_error(call),
        libc::SYS_sendto => datagrams::send_to(call),
        libc::SYS_sendmsg | libc::SYS_sendmmsg => datagrams::send_message(call),
        libc::SYS_socket => datagrams::socket(call),
        _ => Ok(Answer::Continue),
    }
}

/// A program for another architecture has other numbers for its calls, so it would go around
/// the server.
fn end_foreign(call: &Call<'_>) -> Result<Answer> {
    let program = call.program();
    let line = format!("{program} is ended: programs of 32 bits are not supported");
    call.context.messages.say(&line);
    let _ = kill(Pid::from_raw(call.process()), Signal::SIGKILL);
    Err(Errno::ENOSYS)
}

/// Removes what is known of sockets and processes that are gone.
fn sweep(context: &Context) {
    if let Some(kept) = &context.kept {
        kept.sweep(YOUNG);
    }
    if context.sockets.is_empty() {
        return;
    }
    let mut live = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => live.extend(sockets::inodes(&text)),
            // There is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Without the table it is unknown which sockets are gone.
            Err(error) => {
                messages::say(&format!("{table}: {error}"));
                return;
            }
        }
    }
    let has_process = |process: i32| Path::new(&format!("/proc/{process}")).exists();
    let is_live = |inode| live.contains(&inode);
    context.sockets.sweep(YOUNG, is_live, has_process);
    context.forget_processes(has_process);
}
