//! Go's network poller and a small single-threaded runtime over it, in Rust on mio.
//! Sockets, deadlines, dialling, errors and closing behave as those of Go's `net` do. You write
//! async functions; or a [`Protocol`] of a few callbacks, which a [`Server`] runs as a state
//! machine for each connection; or state machines of your own on the bare [`Reactor`], which hands
//! back what was parked on it. You can embed it in a loop of your own, run it by itself, or read
//! it.
//!
//! ```
//! use netpoller::{NetError, Runtime, TcpListener, TcpStream, spawn, time};
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! Runtime::new()?.block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     let echo = spawn(async move {
//!         let (stream, _peer) = listener.accept().await?;
//!         let heard = stream.read_with(|bytes| bytes.to_vec()).await?;
//!         stream.write_all(&heard).await
//!     });
//!
//!     let stream = TcpStream::connect(address).await?;
//!     stream.write_all(b"hello").await?;
//!     let mut answer = [0; 5];
//!     stream.read_exact(&mut answer).await?;
//!     assert_eq!(&answer, b"hello");
//!     echo.await.expect("the echo does not panic")?;
//!
//!     stream.set_read_deadline(Some(time::now() - Duration::from_secs(1)))?;
//!     assert!(stream.read(&mut answer).await.unwrap_err().is_timeout());
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # What is where
//!
//! | to | take |
//! |---|---|
//! | run something | [`Runtime`], its [`Builder`]; [`spawn`], [`spawn_named`], [`JoinHandle`], [`JoinError`], [`yield_now`] |
//! | put it under a loop of your own | [`Runtime::turn`], which says in a [`Turn`] what it did; [`Runtime::next_timeout`] |
//! | reach it from other threads, or block on one | [`Handle`], [`spawn_blocking`] |
//! | read a loop's figures | [`Runtime::stats`], [`Handle::stats`]; [`RuntimeStats`], [`LoopStats`], [`Histogram`] |
//! | see what waits, and for what | [`Runtime::dump`], [`Handle::dump`]; [`Dump`], see [`mod@dump`] |
//! | read a loop's trace | with the feature `trace`: `Builder::trace`, `Handle::trace_last`, `Reactor::with_trace` |
//! | sleep, or give something a limit | [`time`]: `now`, `sleep`, `sleep_until`, `timeout`, `interval` |
//! | end many things at once | [`CancelToken`], [`CancelError`] |
//! | talk TCP | [`TcpListener`], [`TcpStream`]; with choices: [`ListenConfig`], [`Dialer`], [`KeepAlive`] |
//! | talk UDP, or to this machine only | [`UdpSocket`]; [`UnixStream`], [`UnixListener`], [`UnixDatagram`] |
//! | give an address | [`ToAddr`]: `"host:port"` as Go reads it, a socket address, or a pair |
//! | read and write a pipe, a terminal, a child's I/O | [`Pipe`] |
//! | wait for any other descriptor | [`Source`], [`Direction`] |
//! | serve with tasks | [`Serve`]: tasks for connections, a back-off in a shortage, a limit |
//! | serve without tasks | [`Protocol`], with its [`Conn`]; [`Server`], [`Bound`], [`ServerHandle`]; [`Dispatch`], [`Peer`], [`Limits`], [`ServerStats`], [`WorkerStats`]; [`Drain`], [`CloseReason`]; see [`connection`] |
//! | write to such a connection from elsewhere | on its thread by a [`ConnHandle`]; from any thread by its [`ConnId`], with [`ServerHandle::write`] |
//! | move bytes between two ends | [`copy()`], [`copy_bidirectional`], [`Relay`] |
//! | keep a silent peer informed | [`Heartbeat`], [`HeartbeatBuilder`] |
//! | know what went wrong | [`NetError`] for [`std::io::Error`]; [`OpError`], [`Cause`], [`Addr`] |
//! | poll without a runtime | [`Reactor`], [`Park`], [`Turn`]; a selector of your own: [`Selector`]; see [`reactor`] |
//! | find a recipe, or a crate that fits | [`cookbook`] |
//! | learn how a netpoller works | [`guide`], an hour's reading |
//! | use the timer wheel alone | [`wheel`] |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `signal` | `ServerHandle::drain_on`: a signal ends a server in good order |
//! | `observe` | the histograms of times in [`Handle::stats`]; costs about 280 instructions a message, and a reading of the clock for each run |
//! | `trace` | `Builder::trace`: a ring of records of what a loop does |
#![warn(missing_docs)]
#![deny(unsafe_code)]

// Deliberate faults. `--cfg netpoller_fault="NAME"` breaks one line, to see that the proofs notice; with
// "any" for a name, the line that NETPOLLER_FAULT names in the environment is broken, so that
// `tests/deliberate_faults.py` needs one build for all. Without that cfg nothing of it is compiled.

/// Whether this build has the fault of that name. A name that Cargo.toml does not list is a warning.
macro_rules! fault {
    ($name:literal) => {
        cfg!(netpoller_fault = $name)
            || cfg!(netpoller_fault = "any")
                && std::env::var_os("NETPOLLER_FAULT").is_some_and(|name| name == $name)
    };
}

pub mod cancel;
pub mod connection;
#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}
mod endpoints;
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
mod heartbeat;
pub mod net;
pub mod reactor;
mod runtime;
pub mod server;
mod sys;
pub mod time;
#[cfg(not(feature = "trace"))]
mod trace;
#[cfg(feature = "trace")]
pub mod trace;
pub mod wheel;

pub use cancel::{CancelError, CancelToken};
pub use connection::{
    CloseReason, Conn, ConnHandle, ConnId, Drain, Filter, FilterIo, IntoFilter, Limits, Protocol,
};
pub use endpoints::Addr;
pub use heartbeat::{Heartbeat, HeartbeatBuilder};
pub use net::{
    Cause, Dialer, KeepAlive, ListenConfig, NetError, OpError, Pipe, Relay, Serve, Source,
    TcpListener, TcpStream, ToAddr, UdpSocket, UnixDatagram, UnixListener, UnixStream, copy,
    copy_bidirectional,
};
pub use reactor::{Descriptor, Direction, Park, Reactor, Selector, Turn};
pub use runtime::{
    Builder, Dump, Handle, Histogram, JoinError, JoinHandle, LoopStats, Runtime, Stats,
    Stats as RuntimeStats, spawn, spawn_blocking, spawn_named, yield_now,
};
/// What a [`Dump`] consists of: entries, which are names with values.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::Runtime;
/// use netpoller::dump::{Entry, Value};
///
/// let runtime = Runtime::new()?;
/// runtime.spawn(std::future::pending::<()>());
/// let dump = runtime.dump();
/// let machine: &Entry = &dump.machines[0];
/// assert_eq!(machine.get("kind"), Some(&Value::Text("task".into())));
/// for (name, value) in &machine.0 {
///     println!("{name}: {value}");
/// }
/// # Ok(())
/// # }
/// ```
pub mod dump {
    pub use crate::runtime::{Dump, Entry, Value};
}
#[allow(deprecated)]
pub use server::Accept;
pub use server::{Bound, Dispatch, Peer, Server, ServerHandle, Stats as ServerStats, WorkerStats};
pub use time::Elapsed;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
