//! Signals become controls of the server.

use std::io;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::{SigSet, Signal};

use threadsocks::server::Control;

/// Blocks TERM and HUP, so that only the thread `signals`, which waits for them, receives
/// them. Returns both.
///
/// # Errors
///
/// As pthread_sigmask(3).
pub(crate) fn block() -> io::Result<SigSet> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    // If stdout is a file that has reached its size limit (ulimit -f), SIGXFSZ would end the
    // process. Blocked, it makes write(2) fail with EFBIG, and the logger counts the loss.
    let too_large: SigSet = [Signal::SIGXFSZ].into_iter().collect();
    too_large.thread_block()?;
    Ok(signals)
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
