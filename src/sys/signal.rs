//! A byte into a socket for each signal. A handler that was there before still runs.
//!
//! Mirrors Go's `os/signal`, where the runtime's handler
//! hands signals to a goroutine.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::{process, ptr};

use signal_hook_registry::{FORBIDDEN, SigId, register, unregister};

/// While it lives, signals are noted. After its drop they are ignored, unless another handler exists.
#[derive(Debug)]
pub(crate) struct SignalNotes(Vec<SigId>);

/// From here on each of the `signals` that comes to this process puts a byte into `socket`, a
/// non-blocking one.
pub(crate) fn note_signals(signals: &[i32], socket: UnixStream) -> io::Result<SignalNotes> {
    // Checks all before it sets one: a handler that is set stays for good.
    let is_wrong = |signal: &&i32| {
        // SAFETY: with two null pointers it changes nothing, and says whether there is such a signal.
        let known = unsafe { libc::sigaction(**signal, ptr::null(), ptr::null_mut()) } == 0;
        !known || FORBIDDEN.contains(*signal)
    };
    if let Some(signal) = signals.iter().find(is_wrong) {
        let text = format!("netpoller: signal {signal} can't be handled");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let (socket, ours) = (Arc::new(socket), process::id());
    let mut notes = SignalNotes(Vec::new());
    // One that is listed twice is noted once: the second note of a signal would stop the server.
    for signal in BTreeSet::from_iter(signals.iter().copied()) {
        let socket = socket.clone();
        let note = move || {
            // A child of fork(2) has the handler and the socket too. Its signals are its own.
            if process::id() != ours {
                return;
            }
            // SAFETY: it is allowed in a handler, as is getpid: it is one system call on a descriptor
            // that the closure owns. The handler of the registry keeps errno. A full socket holds as many
            // notes as will ever count.
            unsafe {
                libc::send(
                    socket.as_raw_fd(),
                    [1].as_ptr().cast(),
                    1,
                    super::SEND_FLAGS,
                )
            };
        };
        // SAFETY: as said above, the action does only what a handler may.
        notes.0.push(unsafe { register(signal, note) }?);
    }
    Ok(notes)
}

impl Drop for SignalNotes {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            unregister(id);
        }
    }
}
