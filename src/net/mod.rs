//! Sockets that behave as Go's do.
//!
//! May touch: the runtime and what is below. Mirrors Go's `net` and `internal/poll`.

pub(crate) mod accept_loop;
pub(crate) mod addr;
mod copy;
mod datagram;
mod dial;
mod error;
mod family;
pub(crate) mod fd;
mod futures_io;
mod hostport;
mod listener;
mod options;
mod raw;
mod resolve;
mod serve;
mod source;
mod stream;
mod tcp;
mod udp;
mod unix;
mod unixgram;

pub use addr::{Target, ToAddr};
pub use copy::{CopyReader, CopySink, CopySource, CopyWriter, Relay, copy, copy_bidirectional};
pub use datagram::Datagram;
pub use dial::Dialer;
pub use error::{Cause, NetError, OpError};
pub use listener::{ListenConfig, Listener, ListenerKind};
pub use options::KeepAlive;
pub use serve::{Serve, ServeCounters};
pub use source::Source;
pub use stream::Stream;
pub use tcp::{Tcp, TcpListener, TcpStream};
pub use udp::{Udp, UdpSocket};
pub use unix::{Unix, UnixListener, UnixStream};
pub use unixgram::UnixDatagram;
