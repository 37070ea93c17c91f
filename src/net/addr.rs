//! Addresses, as they are given, as the system has them, and as errors show them; and the kinds of
//! sockets, which have addresses of a type of their own.
// Mirrors Go's `net.JoinHostPort`, `net/ipsock.go` and `net/unixsock_posix.go`.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::Path;

use socket2::SockAddr;

use super::error::Cause;
use crate::endpoints::Addr;
pub(crate) use crate::endpoints::{from_system, unmapped};

/// What can be given where an address is asked for: `"host:port"` as `&str` or `String`,
/// a [`SocketAddr`], an [`Addr`], or a pair of host and port.
///
/// The text is read as Go reads it. A port is a number up to 65,535 or a service's name; empty, it
/// is 0. A host is an IP address (IPv6 in brackets, with a zone if it has one: `[fe80::1%eth0]:80`)
/// or a name; empty, it is this machine for a dial and every address for a listener. A host that is
/// all numbers and no address, such as `127.1` or `0x7f.1`, is a name that does not exist.
///
/// ```
/// use netpoller::ToAddr;
/// use std::net::Ipv4Addr;
/// let address = "127.0.0.1:80".to_addr();
/// assert_eq!(address.socket(), Some(([127, 0, 0, 1], 80).into()));
/// assert_eq!(("127.0.0.1", 80).to_addr(), address);
/// assert_eq!((Ipv4Addr::LOCALHOST, 80).to_addr(), address);
/// // A name is not looked up before it is dialled or listened on.
/// assert_eq!("example.com:https".to_addr(), "example.com:https".to_owned().to_addr());
/// ```
pub trait ToAddr {
    /// The address, not resolved yet: [`Addr::Socket`] if there is nothing to resolve, else
    /// [`Addr::Name`], `host:port`. It never fails: what is no address is an error of the operation
    /// that it is given to.
    fn to_addr(&self) -> Addr;
}

impl<T: ToAddr + ?Sized> ToAddr for &T {
    fn to_addr(&self) -> Addr {
        (**self).to_addr()
    }
}

impl ToAddr for str {
    fn to_addr(&self) -> Addr {
        match self.parse() {
            Ok(address) => Addr::Socket(address),
            Err(_) => Addr::Name(self.to_owned()),
        }
    }
}

impl ToAddr for String {
    fn to_addr(&self) -> Addr {
        self.as_str().to_addr()
    }
}

impl ToAddr for SocketAddr {
    fn to_addr(&self) -> Addr {
        Addr::Socket(*self)
    }
}

/// A path of a Unix socket becomes a name that does not resolve.
impl ToAddr for Addr {
    fn to_addr(&self) -> Addr {
        match self {
            Addr::Path(_) => Addr::Name(self.to_string()),
            other => other.clone(),
        }
    }
}

/// A host, by the text that it prints as, and a port.
impl<H: fmt::Display> ToAddr for (H, u16) {
    fn to_addr(&self) -> Addr {
        let (host, port) = (self.0.to_string(), self.1);
        match host.parse::<IpAddr>() {
            Ok(ip) => Addr::Socket((ip, port).into()),
            // Go's JoinHostPort: what has a colon goes into brackets.
            Err(_) if host.contains(':') => Addr::Name(format!("[{host}]:{port}")),
            Err(_) => Addr::Name(format!("{host}:{port}")),
        }
    }
}

// ---- the names of Unix sockets ----

/// Whether it is a name of Linux's abstract namespace: with the `@` that Go writes, or with the zero
/// byte that `@` stands for.
pub(super) fn is_abstract(path: &Path) -> bool {
    let abstract_names = cfg!(any(target_os = "linux", target_os = "android"));
    abstract_names && matches!(path.as_os_str().as_bytes(), [b'@' | 0, ..])
}

/// The address of a path, or of a name of Linux's abstract namespace, as Go writes it.
pub(super) fn system_addr(path: &Path) -> Result<SockAddr, Cause> {
    let invalid = |text| Cause::Other(io::Error::new(io::ErrorKind::InvalidInput, text));
    let made = match path.as_os_str().as_bytes() {
        // Any byte may be in such a name.
        [_, rest @ ..] if is_abstract(path) => {
            SockAddr::unix(OsStr::from_bytes(&[b"\0", rest].concat()))
        }
        name if name.contains(&0) => {
            return Err(invalid("a zero byte in the path of a Unix socket"));
        }
        _ => SockAddr::unix(path),
    };
    made.map_err(|_too_long| invalid("path too long for a Unix socket"))
}

/// The name as std's type. std refuses a name of maximal length. Such a peer counts as unnamed, so
/// that accept succeeds.
pub(crate) fn std_name(path: &Path) -> io::Result<net::SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let [b'@' | 0, name @ ..] = path.as_os_str().as_bytes() {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        return net::SocketAddr::from_abstract_name(name);
    }
    net::SocketAddr::from_pathname(path).or_else(|_too_long| net::SocketAddr::from_pathname(""))
}

// ---- kinds ----

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
    type Addr = net::SocketAddr;

    fn addr(addr: &Addr) -> Option<net::SocketAddr> {
        match addr {
            Addr::Path(path) => std_name(path).ok(),
            _ => None,
        }
    }
}
