//! Which kind a socket is of: TCP, UDP or Unix.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix;

use super::addr;
use crate::endpoints::Addr;

/// The kind of a [`TcpStream`](crate::TcpStream) and a [`TcpListener`](crate::TcpListener).
///
/// ```
/// use netpoller::net::{Stream, Tcp};
///
/// // `netpoller::TcpStream` is short for this.
/// fn quick(stream: &Stream<Tcp>) -> std::io::Result<()> {
///     stream.set_nodelay(true)
/// }
/// ```
#[derive(Debug)]
pub enum Tcp {}

/// The kind of a [`UdpSocket`](crate::UdpSocket).
///
/// ```
/// use netpoller::net::{Datagram, Udp};
///
/// // `netpoller::UdpSocket` is short for this.
/// async fn ask(socket: &Datagram<Udp>) -> std::io::Result<usize> {
///     socket.send(b"?").await
/// }
/// ```
#[derive(Debug)]
pub enum Udp {}

/// The kind of a [`UnixStream`](crate::UnixStream), a [`UnixListener`](crate::UnixListener) and a
/// [`UnixDatagram`](crate::UnixDatagram).
///
/// ```
/// use netpoller::net::{Stream, Unix};
///
/// // `netpoller::UnixStream` is short for this.
/// async fn greet(stream: &Stream<Unix>) -> std::io::Result<()> {
///     stream.write_all(b"hello").await
/// }
/// ```
#[derive(Debug)]
pub enum Unix {}

/// A kind of sockets, and what their addresses are: [`Tcp`], [`Udp`] or [`Unix`]. Code that takes
/// connections of TCP and of Unix is generic in it:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::net::{Kind, Stream};
/// async fn greet<K: Kind>(stream: &Stream<K>) -> std::io::Result<()> {
///     let greeting = format!("hello, {:?}\n", stream.peer_addr()?);
///     stream.write_all(greeting.as_bytes()).await
/// }
/// # netpoller::Runtime::new()?.block_on(async {
/// # let (ours, theirs) = netpoller::UnixStream::pair()?;
/// # greet(&ours).await?;
/// # assert_eq!(theirs.read_with(|bytes| bytes.to_vec()).await?, b"hello, (unnamed)\n");
/// # Ok(())
/// # })
/// # }
/// ```
pub trait Kind: sealed::Sealed + 'static {
    /// [`SocketAddr`] for TCP and UDP, [`std::os::unix::net::SocketAddr`] for Unix.
    type Addr: fmt::Debug + 'static;

    #[doc(hidden)]
    fn addr(addr: &Addr) -> Option<Self::Addr>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Tcp {}
    impl Sealed for super::Udp {}
    impl Sealed for super::Unix {}
}

impl Kind for Tcp {
    type Addr = SocketAddr;

    fn addr(addr: &Addr) -> Option<SocketAddr> {
        addr.socket()
    }
}

impl Kind for Udp {
    type Addr = SocketAddr;

    fn addr(addr: &Addr) -> Option<SocketAddr> {
        addr.socket()
    }
}

impl Kind for Unix {
    type Addr = unix::net::SocketAddr;

    fn addr(addr: &Addr) -> Option<unix::net::SocketAddr> {
        match addr {
            Addr::Path(path) => addr::std_name(path).ok(),
            _ => None,
        }
    }
}
