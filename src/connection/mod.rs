//! Connections as hand-written state machines: a few hundred bytes each, no task, no buffer.
//!
//! May touch: net, the runtime, and what is below. Mirrors Go's `net/http.Server` and its `conn`.
//!
//! | file | what it is |
//! |---|---|
//! | `state.rs`, `standing.rs` | the machine as a pure table; where a connection stands in it, in a byte |
//! | `protocol.rs` | what one writes: the callbacks |
//! | `conn.rs` | what the callbacks are given |
//! | `run.rs` | the machine as the loop runs it |
//! | `ending.rs` | how it ends |
//! | `offer.rs` | what came: offered to the protocol, and what it leaves kept |
//! | `flush.rs`, `passed_on.rs` | how what is written goes out |
//! | `out_queue.rs`; `limits.rs`, `allowance.rs` | what waits to be written; how much of it may, on a connection and on all of a server's |
//! | `watch.rs`, `progress.rs` | whether a peer is fast enough: when one looks, and the judgement, which is pure |
//! | `handle.rs` | writing from elsewhere |
//! | `worker.rs`, `stats.rs` | what a thread's connections share; what they did |

pub(crate) mod allowance;
pub(crate) mod conn;
pub(crate) mod ending;
pub(crate) mod flush;
pub(crate) mod handle;
pub(crate) mod intervals;
pub(crate) mod limits;
pub(crate) mod offer;
pub(crate) mod out_queue;
pub(crate) mod passed_on;
pub(crate) mod progress;
pub(crate) mod protocol;
pub(crate) mod run;
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod straight;
pub(crate) mod watch;
pub(crate) mod worker;

#[allow(deprecated)]
pub use crate::server::{Accept, Bound, Server, ServerHandle, Stats, WorkerStats};
pub use conn::Conn;
pub use handle::ConnHandle;
pub use limits::Limits;
pub use protocol::Protocol;
