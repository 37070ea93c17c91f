//! What threads share, run through every order of events that the memory model allows.
//!
//! The files of `src/` that hold it are compiled here as they are, with loom's types in place of
//! std's; what they need of other files is made up below. loom can't run a selector:
//! the break is a channel, in `reactor`. A thread that waits in vain is a deadlock, which loom reports.
//!
//! `cargo test -p netpoller-loom`

#![allow(
    dead_code,
    unused_imports,
    clippy::all,
    reason = "the library's files, of which the models use a part"
)]

/// As in `src/lib.rs`.
macro_rules! fault {
    ($name:literal) => {
        cfg!(netpoller_fault = $name)
            || cfg!(netpoller_fault = "any")
                && std::env::var_os("NETPOLLER_FAULT").is_some_and(|name| name == $name)
    };
}

pub mod models;

#[path = "."]
mod runtime {
    use loom::sync as shared_types;

    #[path = "../../src/runtime/sync.rs"]
    pub(crate) mod sync;
    #[path = "../../src/runtime/waiters.rs"]
    pub(crate) mod waiters;
    #[path = "../../src/runtime/waker.rs"]
    pub(crate) mod waker;

    pub(crate) mod running {
        #[derive(Default)]
        pub(crate) struct Running;
    }
    pub(crate) mod blocking {
        pub(crate) struct Lane;
    }
    /// No model panics.
    pub(crate) mod panics {
        pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, ()> {
            Ok(f())
        }
    }
    /// No model makes a dump.
    pub(crate) mod look {
        pub(crate) async fn noted<F: Future>(_: &'static str, future: F) -> F::Output {
            future.await
        }
    }
    pub(crate) mod machine {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct MachineId(pub(crate) usize);
    }
    /// No thread of a model is inside a runtime: each wakes from outside.
    pub(crate) mod current {
        use std::sync::Arc;

        pub(crate) struct Scheduler {
            pub(crate) remote: Arc<super::waker::Remote>,
        }

        impl Scheduler {
            pub(crate) fn wake(&self, _: super::machine::MachineId) {}
        }

        pub(crate) fn at_home<R>(
            _: &Arc<super::waker::Remote>,
            _: impl FnOnce(&Scheduler) -> R,
        ) -> Option<R> {
            None
        }
    }

    pub(crate) fn wake_quietly(waker: std::task::Waker) {
        waker.wake();
    }
}

mod reactor {
    use std::io;
    use std::sync::Arc;

    use loom::sync::{Condvar, Mutex};

    /// The break, as a channel: what is sent ends the wait that is under way, or else the next.
    #[derive(Clone)]
    pub(crate) struct Breaker(Arc<(Mutex<Channel>, Condvar)>);

    #[derive(Default)]
    struct Channel {
        is_broken: bool,
        /// How many breaks fail before one succeeds.
        failures: usize,
        breaks: usize,
    }

    impl Breaker {
        pub(crate) fn failing(failures: usize) -> Self {
            let channel = Channel {
                failures,
                ..Channel::default()
            };
            Breaker(Arc::new((Mutex::new(channel), Condvar::new())))
        }

        pub(crate) fn break_netpoll(&self) -> io::Result<()> {
            let mut channel = self.0.0.lock().unwrap();
            if channel.failures > 0 {
                channel.failures -= 1;
                return Err(io::ErrorKind::Other.into());
            }
            channel.breaks += 1;
            channel.is_broken = true;
            self.0.1.notify_one();
            Ok(())
        }

        /// The selector's wait: until it is broken.
        pub(crate) fn wait(&self) {
            let mut channel = self.0.0.lock().unwrap();
            while !channel.is_broken {
                channel = self.0.1.wait(channel).unwrap();
            }
            channel.is_broken = false;
        }

        pub(crate) fn breaks(&self) -> usize {
            self.0.0.lock().unwrap().breaks
        }
    }
}

mod sys {
    pub(crate) struct Process;

    impl Process {
        pub(crate) fn current() -> Self {
            Process
        }

        pub(crate) fn is_current(&self) -> bool {
            true
        }
    }
}

#[path = "."]
mod trace {
    use loom::sync::atomic::AtomicU64;

    const ON: bool = true;
    pub(crate) const NOTHING: u64 = u64::MAX;
    /// Two records.
    const LEAST: usize = 48;

    #[derive(Clone, Copy)]
    pub(crate) enum Kind {
        Turn,
        TurnEnd,
        Foreign,
        Mail,
        Run,
        Unpark,
    }

    #[path = "../../src/trace/ring.rs"]
    mod ring;

    pub(crate) use ring::{Recorder, Tape};

    /// The ids and details of the records that are there, and how many went before them.
    pub(crate) fn read(tape: &Tape) -> (Vec<[u64; 2]>, u64) {
        let (records, lost) = tape.copy().expect("there is a ring");
        let records = records.into_iter().map(|[_, id, detail]| [id, detail]);
        (records.collect(), lost)
    }

    pub(crate) fn smallest() -> Tape {
        Tape::new(LEAST).expect("there is memory")
    }
}

#[path = "."]
mod net {
    #[path = "../../src/net/permits.rs"]
    pub(crate) mod permits;

    pub(crate) mod listener {
        /// A connection that was accepted, by its number.
        #[derive(Debug, PartialEq, Eq)]
        pub(crate) struct Accepted {
            pub(crate) peer: usize,
        }
    }
}

#[path = "."]
mod connection {
    #[path = "../../src/connection/limits.rs"]
    pub(crate) mod limits;
    #[path = "../../src/connection/stats.rs"]
    pub(crate) mod stats;

    pub(crate) mod shared {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Phase {
            Serving,
            Draining,
            Stopped,
        }
    }

    pub(crate) fn quota(limit: usize) -> limits::Quota {
        limits::Quota::new(limit)
    }
}

#[path = "."]
mod server {
    #[path = "../../src/server/dispatch.rs"]
    pub(crate) mod dispatch;
}
