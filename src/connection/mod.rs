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
//! | `worker.rs`, `permits.rs`, `stats.rs` | what a thread's connections share; what all threads do; what they did |
//! | `server.rs`, `bound.rs`, `control.rs` | serving: settings, threads, orders |
//! | `work.rs`, `accept.rs`, `hand_over.rs` | a worker's life; accepting; sockets handed over to other threads |

mod accept;
mod allowance;
mod bound;
mod conn;
mod control;
mod ending;
mod flush;
mod hand_over;
mod handle;
mod intervals;
mod limits;
mod offer;
mod out_queue;
mod passed_on;
mod permits;
mod progress;
mod protocol;
mod run;
mod server;
mod standing;
mod state;
mod stats;
mod straight;
mod watch;
mod work;
mod worker;

pub use bound::{Bound, ServerHandle};
pub use conn::Conn;
pub use handle::ConnHandle;
pub use limits::Limits;
pub use protocol::Protocol;
pub use server::{Accept, Server};
pub use stats::{Stats, WorkerStats};
