//! Servers: a [`Protocol`](crate::Protocol) for each connection, on one thread or on several.
//!
//! [`Server`] holds the settings, [`Bound`] is a server that listens, and a [`ServerHandle`] ends it
//! from any thread. Each worker is a thread with a loop of its own, and a connection stays with its
//! worker.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use std::io::{self, Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use netpoller::{Conn, Protocol, Server};
//!
//! struct Echo;
//! impl Protocol for Echo {
//!     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
//!         conn.write(bytes)?;
//!         Ok(bytes.len())
//!     }
//! }
//!
//! let server = Server::new(|_peer| Echo).workers(2).idle_timeout(Duration::from_secs(60));
//! let bound = server.bind("127.0.0.1:0")?;
//! let (addr, handle) = (bound.local_addr(), bound.handle());
//! let serving = std::thread::spawn(move || bound.run());
//!
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! client.read_exact(&mut answer)?;
//! assert_eq!(&answer, b"hello");
//!
//! // Connections in flight have ten seconds; this one is quiet, and is closed at once.
//! handle.drain(Duration::from_secs(10));
//! assert_eq!(serving.join().unwrap()?.accepted(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # The end
//!
//! [`ServerHandle::drain`] ends a server in good order, within a limit of time; a second drain with
//! a shorter limit wins. [`ServerHandle::stop`] ends it at once, also while it is being drained.
//! Both return at once; [`Bound::run`] returns when the last connection has ended.

// | file | what it is |
// |---|---|
// | `builder.rs`, `settings.rs` | what a server is asked for; what its threads share |
// | `bound.rs` | a server that listens, and the handle to it |
// | `worker_loop.rs` | one worker's life: serve, drain, stop |
// | `dispatch.rs` | between threads: orders to every worker, connections to the worker that has fewest |
// | `signals.rs` | signals that drain or stop it (feature `signal`) |

mod bound;
pub(crate) mod builder;
mod dispatch;
mod settings;
#[cfg(feature = "signal")]
mod signals;
mod worker_loop;

pub use crate::connection::stats::{Stats, WorkerStats};
pub use bound::{Bound, ServerHandle};
pub use builder::Server;
#[allow(deprecated)]
pub use settings::Accept;
pub use settings::{Dispatch, Factory, Listeners, Peer, WithPeer};
