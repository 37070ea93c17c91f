//! Sockets that behave as Go's do: TCP, UDP, Unix; dialling, deadlines, closing, errors.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use netpoller::{NetError, TcpListener, TcpStream, time};
//! use std::time::Duration;
//! # netpoller::Runtime::new()?.block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let stream = TcpStream::connect(listener.local_addr()?).await?;
//! stream.set_read_deadline(Some(time::now() + Duration::from_millis(10)))?;
//! let error = stream.read(&mut [0; 8]).await.unwrap_err(); // nothing comes
//! assert!(error.is_timeout());
//! // read tcp 127.0.0.1:50124->127.0.0.1:36171: i/o timeout
//! assert!(error.to_string().ends_with(": i/o timeout"));
//! # Ok(())
//! # })
//! # }
//! ```

// Mirrors Go's `net` and `internal/poll`.

pub(crate) mod accept_loop;
pub(crate) mod addr;
mod copy;
mod datagram;
mod dial;
mod error;
pub(crate) mod fd;
mod handles;
pub(crate) mod listener;
mod options;
pub(crate) mod permits;
mod resolve;
mod source;
mod stream;
mod unix;

pub use accept_loop::{Serve, ServeCounters};
pub use addr::{Kind, Tcp, ToAddr, Udp, Unix};
pub use copy::{CopySink, CopySource, Relay, copy, copy_bidirectional};
pub use datagram::{Datagram, UdpSocket};
pub use dial::Dialer;
pub(crate) use error::with_written;
pub use error::{Cause, NetError, OpError};
pub use listener::{ListenConfig, Listener, TcpListener};
pub use options::KeepAlive;
pub(crate) use resolve::Hook;
pub use source::{Pipe, Source};
pub use stream::{Stream, TcpStream};
pub use unix::{UnixDatagram, UnixListener, UnixStream};
