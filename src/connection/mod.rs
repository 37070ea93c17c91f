//! Connections as hand-written state machines: a few hundred bytes each, no task, no buffer.
//!
//! A server makes a [`Protocol`] for each connection and calls it with a [`Conn`] when something
//! happens. See [`Protocol`] for an example.

// Mirrors Go's `net/http.Server` and its `conn`.
//
// | file | what it is |
// |---|---|
// | `state.rs` | the machine as a pure table; its state and requests in a byte |
// | `protocol.rs` | what one writes: the callbacks |
// | `conn.rs`, `handle.rs` | what the callbacks are given; writing from elsewhere |
// | `run.rs` | the machine as the loop runs it: the fast path, then the general loop |
// | `receive.rs`, `send.rs`, `out_queue.rs` | what comes in; what goes out, and what waits to |
// | `filter.rs`, `filtering.rs` | what stands between the socket and the protocol |
// | `timers.rs`, `rate.rs` | the one timer; whether a peer is fast enough, which is pure |
// | `shared.rs`, `stats.rs` | what a thread's connections share, and all threads |
// | `limits.rs` | how much memory they may take |
// | `error.rs` | why connections end |

pub(crate) mod conn;
pub(crate) mod error;
pub(crate) mod filter;
mod filtering;
pub(crate) mod handle;
pub(crate) mod limits;
mod out_queue;
pub(crate) mod protocol;
pub(crate) mod rate;
mod receive;
pub(crate) mod run;
mod send;
pub(crate) mod shared;
mod state;
pub(crate) mod stats;
mod timers;

#[allow(deprecated)]
pub use crate::server::{Accept, Bound, Server, ServerHandle, Stats, WorkerStats};
pub use conn::Conn;
pub use error::CloseReason;
pub use filter::{Filter, FilterIo, IntoFilter};
pub use handle::{ConnHandle, ConnId};
pub use limits::Limits;
pub use protocol::Protocol;
pub use state::Drain;
