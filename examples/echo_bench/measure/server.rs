//! The server under test: the echo server's own `serve::run`, on a thread of its own in this process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::measure::system;
use crate::serve::{self, Counts, Mode, Options};

/// Armed on every connection and moved with every read, as in a real server.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long starting and stopping may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Server {
    pub address: SocketAddr,
    /// The server stops when this is dropped.
    stop: UnixStream,
    thread: JoinHandle<io::Result<Counts>>,
}

impl Server {
    /// Starts it, pinned to a CPU where one is given, and waits until it listens.
    pub fn start(mode: Mode, cpu: Option<usize>) -> Result<Server, String> {
        let options = Options {
            addr: "127.0.0.1:0".to_owned(),
            mode,
            idle_timeout: Some(IDLE_TIMEOUT),
            heartbeat: None,
            spin: Duration::ZERO,
            dumps: false,
            trace: None,
        };
        let trouble = |error: io::Error| format!("the {mode} server did not start: {error}");
        let (stop, stopped) = UnixStream::pair().map_err(trouble)?;
        let (ready, listening) = mpsc::channel();
        let run = move || {
            if let Some(cpu) = cpu {
                system::pin_to(cpu);
            }
            serve::run(&options, vec![stopped], |address| {
                // The receiver is gone if it took too long.
                let _ = ready.send(address);
            })
        };
        let thread = thread::Builder::new()
            .name(format!("server {mode}"))
            .spawn(run)
            .map_err(trouble)?;
        match listening.recv_timeout(PATIENCE) {
            Ok(address) => Ok(Server {
                address,
                stop,
                thread,
            }),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(format!("the {mode} server did not start listening"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(format!(
                "the {mode} server did not start: {}",
                ending(thread)
            )),
        }
    }

    /// Stops it and returns what it counted.
    pub fn stop(self) -> Result<Counts, String> {
        drop(self.stop);
        let asked = Instant::now();
        while !self.thread.is_finished() {
            if asked.elapsed() > PATIENCE {
                return Err("the server did not stop when told to".to_owned());
            }
            thread::sleep(Duration::from_millis(1));
        }
        match self.thread.join() {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err(error)) => Err(format!("the server failed: {error}")),
            Err(_) => Err("the server panicked".to_owned()),
        }
    }

    /// Why the server is gone, if it is. The loader has only seen its connections break.
    pub fn post_mortem(self, seen: String) -> String {
        // The connections break a moment before the thread ends.
        thread::sleep(Duration::from_millis(20));
        if !self.thread.is_finished() {
            return seen;
        }
        format!(
            "the server ended in the middle of the run: {} ({seen})",
            ending(self.thread)
        )
    }
}

fn ending(thread: JoinHandle<io::Result<Counts>>) -> String {
    match thread.join() {
        Ok(Ok(_)) => "it returned by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked".to_owned(),
    }
}
