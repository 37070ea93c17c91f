//! A test that hangs fails, and says which.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// poll(2) costs the square of the connections: a thousand take half a minute.
const PATIENCE: Duration = Duration::from_secs(if cfg!(mio_unsupported_force_poll_poll) {
    240
} else {
    60
});

/// Ends the process if it lives for longer than [`PATIENCE`].
pub struct Watchdog {
    _done: Sender<()>,
}

pub fn watchdog() -> Watchdog {
    let (_done, done) = channel();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // Past the capture of a test's output, which would be lost with the process.
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    Watchdog { _done }
}
