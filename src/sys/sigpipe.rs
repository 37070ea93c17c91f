//! SIGPIPE kept out of one call that has no flag against it.

// Go's runtime takes the signal itself (`os/signal_unix.go`, `sigpipe`).

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Makes a call that may raise SIGPIPE, without it.
///
/// A Rust program has the signal ignored, and that costs one short system call to find out. In a C
/// host that has not, the thread blocks it meanwhile, and takes out the one that our own call left
/// pending. The signal is sent to the thread that made the call, so no other can get it.
pub(super) fn without<R>(call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    if is_ignored() {
        return call();
    }
    let blocked = Blocked::new()?;
    let done = call();
    if matches!(&done, Err(error) if error.raw_os_error() == Some(libc::EPIPE)) {
        blocked.take_out();
    }
    done
}

fn set(fill: impl FnOnce(*mut libc::sigset_t)) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    fill(set.as_mut_ptr());
    // SAFETY: a set of signals is plain bits: all zeros is one, and `fill` wrote another.
    unsafe { set.assume_init() }
}

fn only_sigpipe() -> libc::sigset_t {
    set(|set| {
        // SAFETY: `set` is valid, and the signal exists: neither call can fail.
        unsafe {
            libc::sigemptyset(set);
            libc::sigaddset(set, libc::SIGPIPE);
        }
    })
}

fn is_pending() -> bool {
    let pending = set(|set| {
        // SAFETY: `set` is valid.
        unsafe { libc::sigpending(set) };
    });
    // SAFETY: `pending` is valid, and the signal exists.
    unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
}

/// Whether SIGPIPE is ignored. Asked anew each time: a host may change that at any time.
fn is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and what is asked for goes where there is room for it.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are a value of it, and the call, if it succeeded, wrote another.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// SIGPIPE is blocked in this thread while this lives.
struct Blocked {
    before: libc::sigset_t,
    was_pending: bool,
}

impl Blocked {
    fn new() -> io::Result<Self> {
        let was_pending = is_pending();
        let mut failed = 0;
        let before = set(|before| {
            let signal = only_sigpipe();
            // SAFETY: both sets are valid.
            failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, before) };
        });
        match failed {
            0 => Ok(Blocked {
                before,
                was_pending,
            }),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }

    /// Takes out the signal that is pending by our doing. One that was there before us is the
    /// host's, who had it blocked and will want to see it.
    fn take_out(&self) {
        if self.was_pending {
            return;
        }
        let signal = only_sigpipe();
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time are valid. EAGAIN says there was none: as well.
        unsafe { libc::sigtimedwait(&raw const signal, ptr::null_mut(), &raw const at_once) };
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask as it was.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}
