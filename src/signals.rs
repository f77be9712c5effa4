//! Signals become controls of the server, and requests for its tables.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::{SigSet, Signal};

use threadsocks::server::{Control, StatusReporter};

/// Pause after each pair of tables. Signals that come meanwhile become one (the system keeps one
/// that is pending), so a storm of them costs little.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Blocks the signals whose default action would end a server:
///
/// - TERM and HUP, so that only the thread `signals`, which waits for them, receives them. Those
///   that come during the start stay pending until then.
/// - USR1 stays pending until the thread `status` waits for it; USR2 is never received.
/// - XFSZ: if stdout is a file that has reached its size limit (ulimit -f), write(2) then fails
///   with EFBIG, and the logger counts the loss.
///
/// Returns TERM and HUP.
///
/// # Errors
///
/// As pthread_sigmask(3).
pub(crate) fn block() -> io::Result<SigSet> {
    let others = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGXFSZ];
    let controls: SigSet = [Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    let all: SigSet = controls.iter().chain(others).collect();
    all.thread_block()?;
    Ok(controls)
}

/// Lets TERM and HUP end this process again: it is no server.
///
/// # Errors
///
/// As pthread_sigmask(3).
pub(crate) fn unblock(controls: SigSet) -> io::Result<()> {
    Ok(controls.thread_unblock()?)
}

/// Starts the two threads that turn signals into controls: INT and TERM stop the server,
/// HUP reloads the files. The program does not join them; they end with the process.
///
/// # Errors
///
/// The system has no thread left, or there is a handler of INT already.
pub(crate) fn receive(signals: SigSet) -> io::Result<Receiver<Control>> {
    // Any number of signals can arrive, so the channel is bounded. The server executes a
    // control within milliseconds: 16 are rarely waiting.
    let (control_sender, controls) = bounded(16);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn({
            let control_sender = control_sender.clone();
            move || forward_signals(&signals, &control_sender)
        })?;
    ctrlc::set_handler(move || request_stop(&control_sender)).map_err(io::Error::other)?;
    Ok(controls)
}

/// Starts the thread `status`, which prints the tables at USR1. The program does not join it; it
/// ends with the process. A thread of its own: many USR1 delay no TERM, for which another thread
/// waits.
///
/// # Errors
///
/// The system has no thread left.
pub(crate) fn report_status(reporter: StatusReporter) -> io::Result<()> {
    let body = move || {
        let signal: SigSet = [Signal::SIGUSR1].into_iter().collect();
        // sigwait(3) fails only for an invalid set, and this one is valid.
        while signal.wait().is_ok() {
            reporter.report();
            std::thread::sleep(STATUS_PAUSE);
        }
    };
    let builder = std::thread::Builder::new().name("status".to_owned());
    builder.spawn(body)?;
    Ok(())
}

/// The body of the thread `signals`: sends a control for each TERM or HUP.
fn forward_signals(signals: &SigSet, control_sender: &Sender<Control>) {
    loop {
        match signals.wait() {
            // A full channel contains reloads or stops that the server has not executed yet;
            // one more reload would change nothing.
            Ok(Signal::SIGHUP) => drop(control_sender.try_send(Control::Reload)),
            Ok(_) => request_stop(control_sender),
            // sigwait(3) fails only for an invalid set, and this one is valid.
            Err(_) => return,
        }
    }
}

/// Sends the control to stop. Waits for room in the channel, because the control must not
/// get lost. Fails only if the server has ended and the channel is closed.
fn request_stop(control_sender: &Sender<Control>) {
    let _ = control_sender.send(Control::Stop);
}
