//! The processes: the one that was started, the supervisor, and the program.
//!
//! ```text
//! shell
//!   └─ threadsocks-run      waits, passes signals on, exits as the program does
//!        └─ supervisor      serves the program's calls until no process is left
//!             └─ program    with the filter, which its children inherit
//! ```
//!
//! The supervisor is a process of its own, since it must outlive the program's first process if
//! that leaves another one in the background (`ssh -f`); the shell waits for the first only.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;

use libc::c_int;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid, pipe, setpgid};

use crate::messages::say;
use crate::options::{self, Action, HELP, Options, shown};
use crate::server::Server;
use crate::{filter, kernel, permissions, supervisor};

/// The command line is invalid.
const EXIT_USAGE: u8 = 2;
/// The program or its supervision cannot be started, as env(1) says it.
const EXIT_CANNOT_START: u8 = 126;
/// There is no such program, as env(1) says it.
const EXIT_NOT_FOUND: u8 = 127;

/// How long the end of the program may wait for that of its supervisor, in milliseconds. Without
/// it, a container whose first process collects no others would keep each supervisor.
const SUPERVISOR_END_MS: u16 = 50;

/// Signals that are passed on to the program. The terminal sends them to all processes itself.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Parses the command line and runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = env::args_os().skip(1).collect();
    let options = match options::parse(arguments, |name| env::var_os(name)) {
        Ok(Action::Run(options)) => options,
        Ok(Action::Help) => return print(HELP),
        Ok(Action::Version) => {
            return print(concat!("threadsocks-run ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let server = match Server::look_up(&options) {
        Ok(server) => server,
        Err(error) => {
            say(&format!("the server {}: {error}", options.server));
            return ExitCode::from(EXIT_CANNOT_START);
        }
    };
    match start(server, &options) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("cannot start: {error}"));
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Starts the supervisor, and waits for the program.
fn start(server: Server, options: &Options) -> io::Result<ExitCode> {
    let signals = PASSED_ON.into_iter().collect::<SigSet>();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))?;
    let (reports, reporter) = UnixStream::pair()?;
    match kernel::fork()? {
        ForkResult::Parent { child } => {
            drop(reporter);
            release_descriptors();
            wait_for_program(&reports, &signals, child)
        }
        ForkResult::Child => {
            drop(reports);
            Ok(supervise(server, options, before, reporter))
        }
    }
}

/// What the supervisor reports: eight bytes.
#[derive(Clone, Copy)]
enum Report {
    /// The program runs in this process.
    Started(i32),
    /// It has ended with this status, as wait(2) returns it.
    Ended(i32),
    /// It could not be started; the supervisor has said why.
    Failed(u8),
}

impl Report {
    fn send(self, mut to: &UnixStream) {
        let (kind, value) = match self {
            Report::Started(process) => (0, process),
            Report::Ended(status) => (1, status),
            Report::Failed(status) => (2, i32::from(status)),
        };
        // An error means that the first process was killed: no process reads the report.
        let _ = to.write_all(&(i64::from(value) << 8 | kind).to_ne_bytes());
    }

    fn receive(mut from: &UnixStream) -> io::Result<Report> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        let number = i64::from_ne_bytes(bytes);
        let value = (number >> 8) as i32;
        Ok(match number & 0xff {
            0 => Report::Started(value),
            1 => Report::Ended(value),
            _ => Report::Failed(value as u8),
        })
    }
}

/// Waits for the program, and passes signals on to it.
fn wait_for_program(
    reports: &UnixStream,
    signals: &SigSet,
    supervisor: Pid,
) -> io::Result<ExitCode> {
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut program = None;
    loop {
        let mut descriptors = [
            PollFd::new(reports.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [has_report, _] = descriptors.map(|it| it.any().unwrap_or(true));
        if has_report {
            match Report::receive(reports) {
                Ok(Report::Started(process)) => program = Some(Pid::from_raw(process)),
                Ok(Report::Ended(status)) => {
                    await_supervisor(reports, supervisor);
                    return Ok(end_like(ExitStatus::from_raw(status)));
                }
                Ok(Report::Failed(status)) => return Ok(ExitCode::from(status)),
                Err(_) => {
                    say("the supervisor was killed, and the program with it");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        // Before the program runs, a signal waits until it does.
        if let Some(program) = program {
            pass_on(&signals, program);
        }
    }
}

/// Waits for the end of the supervisor, for a moment: it goes on if the program has left
/// processes in the background.
fn await_supervisor(reports: &UnixStream, supervisor: Pid) {
    // The end of the supervisor closes the other end.
    let mut descriptors = [PollFd::new(reports.as_fd(), PollFlags::POLLIN)];
    if poll(&mut descriptors, PollTimeout::from(SUPERVISOR_END_MS)) == Ok(1) {
        let _ = waitpid(supervisor, None);
    }
}

/// Passes on the signals that another process has sent.
fn pass_on(signals: &SignalFd, program: Pid) {
    while let Ok(Some(received)) = signals.read_signal() {
        let signal = Signal::try_from(received.ssi_signo as c_int);
        // The terminal has sent its signal to the program, too.
        let is_from_process = received.ssi_code <= 0;
        if let (Ok(signal), true) = (signal, is_from_process) {
            let _ = kill(program, signal);
        }
    }
}

/// Ends this process as the program has ended: a shell tells a signal from an exit status.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(code) = status.code() {
        return ExitCode::from(code as u8);
    }
    let number = status.signal().unwrap_or_default();
    if let Ok(signal) = Signal::try_from(number) {
        // The program has written its core file, if it was to.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let signals = [signal].into_iter().collect::<SigSet>();
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals), None);
        let _ = raise(signal);
    }
    ExitCode::from(128_u8.wrapping_add(number as u8))
}

/// Starts the program, reports its end, and serves its calls.
fn supervise(server: Server, options: &Options, signals: SigSet, reporter: UnixStream) -> ExitCode {
    let keeps_sockets = !may_copy_sockets();
    let (mut child, listener) = match start_program(options, signals, keeps_sockets) {
        Ok(started) => started,
        Err(status) => {
            Report::Failed(status).send(&reporter);
            return ExitCode::from(status);
        }
    };
    // A group of its own: what stops or kills the group of the program (Ctrl-Z, timeout(1)) does not
    // reach the supervisor, which may have processes in the background to serve.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    // Otherwise a message to the terminal could stop it.
    let stop = [Signal::SIGTTOU].into_iter().collect::<SigSet>();
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None);
    release_descriptors();
    Report::Started(child.id() as i32).send(&reporter);
    let waiter = std::thread::Builder::new().name("wait".to_owned());
    let reporter = Arc::new(reporter);
    let waiter_reporter = Arc::clone(&reporter);
    let waiter = waiter.spawn(move || {
        if let Ok(status) = child.wait() {
            Report::Ended(status.into_raw()).send(&waiter_reporter);
        }
        drop(waiter_reporter);
        // The remaining processes run in the background, so later messages have no reader.
        if let Ok((_, broken)) = pipe() {
            let _ = dup2_stderr(broken);
        }
    });
    let result = supervisor::serve(listener, server, options, keeps_sockets);
    if let Err(error) = &result {
        say(&format!("the supervisor ends: {error}"));
    }
    if let Ok(waiter) = waiter {
        let _ = waiter.join();
    }
    // From here on nothing can be left to do that the first process would miss.
    drop(reporter);
    ExitCode::from(u8::from(result.is_err()))
}

/// Starts the program with its filter. Returns its process and the listener, or the exit status
/// after the reason was said.
fn start_program(
    options: &Options,
    signals: SigSet,
    keeps_sockets: bool,
) -> Result<(Child, std::os::fd::OwnedFd), u8> {
    let cannot_start = |error: io::Error| {
        say(&format!("cannot start: {error}"));
        EXIT_CANNOT_START
    };
    let (receiver, sender) = UnixStream::pair().map_err(cannot_start)?;
    let mut command = Command::new(&options.program);
    command.args(&options.arguments);
    let supervisor = nix::unistd::getpid();
    let mut program = filter::program(options.strict, keeps_sockets);
    kernel::before_program(&mut command, move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
        // If the supervisor is killed, so is the program. Calls of its children then fail with
        // ENOSYS, since no process has the listener. In both cases, nothing goes around the server.
        prctl::set_pdeathsig(Some(Signal::SIGKILL))?;
        if getppid() != supervisor {
            return Err(Errno::ESRCH.into());
        }
        // Without privileges a filter needs it; set-user-ID programs then run without theirs.
        prctl::set_no_new_privs()?;
        let listener = kernel::install_filter(&mut program)?;
        kernel::send_descriptor(&sender, listener.as_fd())
    });
    let started = command.spawn();
    // Closes the sender, so that the receiver does not wait for it.
    drop(command);
    let listener = kernel::receive_descriptor(&receiver);
    match (started, listener) {
        (Ok(child), Ok(listener)) if keeps_sockets => Ok((child, listener)),
        (Ok(mut child), Ok(listener)) => match may_supervise(&child) {
            Ok(()) => Ok((child, listener)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                say(&permissions::reason("pidfd_getfd", &error));
                Err(EXIT_CANNOT_START)
            }
        },
        (Err(error), Ok(_)) => {
            say(&format!("{}: {error}", shown(&options.program)));
            Err(match error.kind() {
                io::ErrorKind::NotFound => EXIT_NOT_FOUND,
                _ => EXIT_CANNOT_START,
            })
        }
        (Err(error), Err(_)) => {
            say(&permissions::filter_reason(&error));
            Err(EXIT_CANNOT_START)
        }
        (Ok(mut child), Err(error)) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(cannot_start(error))
        }
    }
}

/// May this process call pidfd_getfd(2) at all? A container may forbid the call itself.
fn may_copy_sockets() -> bool {
    let process = kernel::open_process(nix::unistd::getpid().as_raw());
    let copy = process.and_then(|process| kernel::copy_descriptor(process.as_fd(), 2));
    !copy.is_err_and(|error| permissions::is_refusal(&error))
}

/// Asks the kernel whether this process may copy descriptors of the program.
fn may_supervise(child: &Child) -> io::Result<()> {
    let process = kernel::open_process(child.id() as i32)?;
    match kernel::copy_descriptor(process.as_fd(), 0) {
        Err(error) if permissions::is_refusal(&error) => Err(error),
        // The program may have no such descriptor, or have ended.
        _ => Ok(()),
    }
}

/// Gives up stdin, stdout and the descriptors that were inherited: a pipe must end when the
/// program closes it. Messages go to stderr.
fn release_descriptors() {
    // EOF to read, an error to write. A sandbox may have no /dev/null.
    if let Ok((eof, broken)) = pipe() {
        let _ = dup2_stdin(&eof);
        let _ = dup2_stdout(&broken);
    }
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = entries
        .flatten()
        .filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<i32>>() {
        kernel::close_if_inherited(number);
    }
}
