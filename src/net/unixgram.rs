//! Unix datagram sockets.
//!
//! May touch: fd/, datagram.rs, and unix.rs for the names. Mirrors Go's `net/unixsock.go`
//! (`ListenUnixgram`, `UnixConn.ReadFrom`, `WriteTo`).

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, Type};

use super::addr;
use super::datagram::Datagram;
use super::error::Cause;
use super::unix::{Unix, op_error, std_addr, std_name, system_addr, take_in};
use crate::endpoints::{Addr, End, Network};
use crate::runtime::context;
use crate::sys;

/// A Unix datagram socket: see [`Datagram`] for the rest of what it can do.
pub type UnixDatagram = Datagram<Unix>;

impl Datagram<Unix> {
    /// Binds a socket to `path`, which stays when the socket is closed. On Linux, `@name` is a
    /// name in the abstract namespace.
    ///
    /// # Errors
    ///
    /// An [`OpError`](crate::OpError) with `listen` as its operation; `address already in use` if the path exists.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        context::take_turn().await;
        let path = path.as_ref();
        let open = || {
            let call = |name| move |error| Cause::system(name, error);
            let on = system_addr(path)?;
            let socket = sys::socket(Domain::UNIX, Type::DGRAM).map_err(call("socket"))?;
            socket.bind(&on).map_err(call("bind"))?;
            take_in("UnixDatagram::bind", socket, Network::Unixgram)
        };
        let fd = open().map_err(|cause| op_error("listen", Network::Unixgram, path, cause))?;
        fd.endpoint(End::Local);
        Ok(Datagram::new(fd))
    }

    /// A socket without a name: it can send, and can't be answered.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Datagram::<Unix>::from_std(std::os::unix::net::UnixDatagram::unbound()?)
    }

    /// Two sockets, connected to each other.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((
            Datagram::<Unix>::from_std(one)?,
            Datagram::<Unix>::from_std(other)?,
        ))
    }

    /// Connects: from now on the socket sends to `path`, and receives from there only.
    ///
    /// # Errors
    ///
    /// An [`OpError`](crate::OpError) with `dial` as its operation.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let connect = || {
            let to = system_addr(path)?;
            let connected = self.fd.with_socket(|socket| socket.connect(&to));
            connected.map_err(|failure| failure.cause("connect"))
        };
        connect().map_err(|cause| op_error("dial", Network::Unixgram, path, cause))?;
        let resource = self.fd.resource();
        resource.forget_endpoints();
        resource.set_endpoint(End::Peer, Addr::Path(path.to_owned()));
        Ok(())
    }

    /// Receives a message, and says from where it comes; the sender may have no name.
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (got, from) = self.recv_from_system(buffer).await?;
        Ok((got, std_name(&addr::unix_name(&from))?))
    }

    /// Sends a message to `path`; waits while the receiver has no room for it. All of it goes, or
    /// nothing.
    ///
    /// The system tells an unconnected socket of room only when one of its own messages is
    /// received: set a deadline, or connect, where others may have filled the receiver's queue.
    ///
    /// # Errors
    ///
    /// As [`send`](Datagram::send); if the socket is connected.
    pub async fn send_to(&self, message: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let path = path.as_ref();
        let name = Addr::Path(path.to_owned());
        self.check_unconnected(&name).await?;
        let to = match system_addr(path) {
            Ok(to) => to,
            Err(cause) => {
                context::take_turn().await;
                return Err(op_error("write", Network::Unixgram, path, cause));
            }
        };
        self.send_to_system(message, &to, name).await
    }

    /// Our end's address.
    ///
    /// # Errors
    ///
    /// Closed, if it was not asked for before.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        std_addr(&self.fd, End::Local)
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// Not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        std_addr(&self.fd, End::Peer)
    }
}
