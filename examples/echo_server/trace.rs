//! `--trace PATH`: what the loop has done, written to a file at each SIGUSR1 and at the end. All of it
//! needs the feature `trace`; without that, `main` refuses the flag.
#![cfg_attr(not(feature = "trace"), allow(unused_variables))]

use std::io;
use std::path::Path;

use netpoller::reactor::Reactor;
use netpoller::{Builder, Handle, Runtime};

use super::Options;

/// The ring's size: some 130,000 records. A message makes two (in reactor mode one), and one more if it
/// moves a deadline.
#[cfg(feature = "trace")]
const BYTES: usize = 4 << 20;

/// A runtime, with a ring if a trace is asked for.
pub fn builder(options: &Options) -> Builder {
    let builder = Runtime::builder().spin(options.spin);
    #[cfg(feature = "trace")]
    if options.trace.is_some() {
        return builder.trace(BYTES);
    }
    builder
}

/// As [`builder`], for a bare reactor.
pub fn reactor(options: &Options) -> io::Result<Reactor<usize>> {
    #[cfg(feature = "trace")]
    if options.trace.is_some() {
        // The trace shows the largest u64s as words. The lower halves of `LISTENER`, `STOP` and
        // `TRACE` stay numbers, and differ.
        return Reactor::with_trace(BYTES, |&id| u64::from(id as u32));
    }
    Reactor::new()
}

/// Opens the file, or makes it, so that an error comes before the server begins.
pub fn try_path(options: &Options) -> io::Result<()> {
    if let Some(path) = &options.trace {
        let mut file = std::fs::OpenOptions::new();
        let opened = file.append(true).create(true).open(path);
        opened.map_err(|error| of(path, error))?;
    }
    Ok(())
}

fn of(path: &Path, error: io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Writes the file at each SIGUSR1, from a thread.
pub fn write_at_signals(options: &Options, runtime: &Handle) -> io::Result<()> {
    #[cfg(feature = "trace")]
    if options.trace.is_some() {
        let (options, runtime) = (options.clone(), runtime.clone());
        let mut signals = crate::common::trace_signals()?;
        std::thread::spawn(move || {
            while io::Read::read_exact(&mut signals, &mut [0]).is_ok() {
                log_failure(write(&options, &runtime));
            }
        });
    }
    Ok(())
}

/// A trace that can't be written at a signal ends no server.
#[cfg(feature = "trace")]
fn log_failure(written: io::Result<()>) {
    if let Err(error) = written {
        log::error!("no trace: {error}");
    }
}

/// Writes the file now, of a runtime.
pub fn write(options: &Options, runtime: &Handle) -> io::Result<()> {
    #[cfg(feature = "trace")]
    save(options, runtime.trace_last(LAST))?;
    Ok(())
}

/// Writes the file now, of a reactor.
pub fn write_of_reactor(options: &Options, reactor: &Reactor<usize>) -> io::Result<()> {
    #[cfg(feature = "trace")]
    save(options, reactor.trace_last(LAST))?;
    Ok(())
}

/// Writes the file of a bare reactor in a thread, so that the loop goes on meanwhile: the text of a full
/// ring has more than ten megabytes.
pub fn begin_to_write(options: &Options, reactor: &Reactor<usize>) {
    #[cfg(feature = "trace")]
    {
        let (options, trace) = (options.clone(), reactor.trace_last(LAST));
        std::thread::spawn(move || log_failure(save(&options, trace)));
    }
}

#[cfg(feature = "trace")]
const LAST: std::time::Duration = std::time::Duration::from_secs(10);

/// Held while the file is written: what is written at the end comes last.
#[cfg(feature = "trace")]
static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(feature = "trace")]
fn save(options: &Options, trace: Option<netpoller::trace::Trace>) -> io::Result<()> {
    match (&options.trace, trace) {
        (Some(path), Some(trace)) => {
            let _writing = WRITING.lock();
            std::fs::write(path, trace.to_json()).map_err(|error| of(path, error))
        }
        _ => Ok(()),
    }
}
