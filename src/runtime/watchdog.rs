//! A thread that names the machine which holds the loop, while it holds it.

// Mirrors `sysmon` in Go's `runtime/proc.go`, which preempts where this can only tell.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::dump::Entry;
use super::running::Running;

/// The thread ends within a second after this is dropped. It is not joined: a child of fork(2) has no
/// such thread.
pub(super) struct Watchdog {
    _alive: Arc<()>,
}

/// The least time between two log lines about the same run.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn start(running: &Arc<Running>, threshold: Duration) -> io::Result<Watchdog> {
    let alive = Arc::new(());
    let (its, while_alive) = (running.clone(), Arc::downgrade(&alive));
    let thread = thread::Builder::new().name("netpoller-watchdog".into());
    thread.spawn(move || watch(&its, threshold, &while_alive))?;
    running.is_watched.store(true, Ordering::Relaxed);
    Ok(Watchdog { _alive: alive })
}

fn watch(running: &Running, threshold: Duration, alive: &Weak<()>) {
    let step = (threshold / 4).clamp(Duration::from_millis(1), QUIET);
    let mut first = (running.sample(), Instant::now());
    // What was named, when it began, and when that was logged last.
    let mut named: Option<(Entry, Instant, Instant)> = None;
    loop {
        // Nothing wakes it: the loop must not pay for being watched.
        thread::sleep(step);
        if alive.strong_count() == 0 {
            return;
        }
        let now = running.sample();
        if now != first.0 {
            if let Some((origin, began, _)) = named.take() {
                log::warn!(
                    "{origin} has let the loop go on after {:.1?}",
                    began.elapsed()
                );
            }
            first = (now, Instant::now());
            continue;
        }
        let Some((origin, began)) = running.holder(first.0, first.1) else {
            continue;
        };
        // The run may have begun up to a step before it was first seen. `began` may include earlier
        // machines of the batch, so `first` must be long ago as well.
        let is_long = first.1.elapsed() + step >= threshold && began.elapsed() >= threshold;
        let is_quiet = named
            .as_ref()
            .is_none_or(|(_, _, at)| at.elapsed() >= QUIET);
        if is_long && is_quiet {
            log::warn!(
                "{origin} holds the loop, for {:.1?} so far",
                began.elapsed()
            );
            named = Some((origin, began, Instant::now()));
        }
    }
}
