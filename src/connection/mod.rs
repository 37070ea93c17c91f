//! Connections as hand-written state machines: a few hundred bytes each, no task, no buffer.
//!
//! A server makes a [`Protocol`] for each connection and calls it with a [`Conn`] when something
//! happens.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
//! use std::io;
//!
//! /// Counts the bytes of its connection.
//! struct Count(usize);
//! impl Protocol for Count {
//!     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
//!         self.0 += bytes.len();
//!         conn.write(format!("{}\n", self.0).as_bytes())?;
//!         Ok(bytes.len())
//!     }
//! }
//!
//! let runtime = Runtime::new()?;
//! let bound = Server::new(|_peer| Count(0)).bind("127.0.0.1:0")?;
//! let _serving = bound.run_in(&runtime)?;
//! runtime.block_on(async {
//!     let stream = TcpStream::connect(bound.local_addr()).await?;
//!     for total in ["5\n", "10\n"] {
//!         stream.write_all(b"hello").await?;
//!         assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, total.as_bytes());
//!     }
//!     Ok(())
//! })
//! # }
//! ```

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

pub use conn::Conn;
pub use error::CloseReason;
pub use filter::{Filter, FilterIo, IntoFilter};
pub use handle::{ConnHandle, ConnId};
pub use limits::Limits;
pub use protocol::Protocol;
pub use state::Drain;
