//! The network of a socket, and its two addresses if they are of IPv4, in fourteen bytes.

// Mirrors `net`, `laddr` and `raddr` of Go's `netFD`, which take a few hundred.

use std::cell::Cell;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fmt, io, vec};

use socket2::{SockAddr, Type};

/// One end of a socket or of an operation, as errors name it. It can be given where an address is
/// asked for, here and in std, and compared with a [`SocketAddr`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{NetError, TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// listener.close()?;
/// let error = TcpStream::connect(address).await.unwrap_err();
/// let failed = error.op_error().unwrap();
/// let addr = failed.addr.as_ref().unwrap();
/// assert_eq!(*addr, address);
/// assert_eq!(addr.socket(), Some(address));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addr {
    /// An address and a port.
    Socket(SocketAddr),
    /// A path of a Unix socket; empty for one that has none.
    Path(PathBuf),
    /// A name that is not resolved, or text that is no address.
    Name(String),
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Socket(address) => address.fmt(f),
            // Go prints `@` for a Unix socket without a name.
            Addr::Path(path) if path.as_os_str().is_empty() => f.write_str("@"),
            Addr::Path(path) => path.display().fmt(f),
            Addr::Name(name) => f.write_str(name),
        }
    }
}

impl Addr {
    /// The address and port, if it is one.
    ///
    /// ```
    /// use netpoller::{Addr, ToAddr};
    /// let addr = "127.0.0.1:80".to_addr();
    /// assert_eq!(addr.socket(), Some(([127, 0, 0, 1], 80).into()));
    /// assert_eq!(Addr::Path("/run/socket".into()).socket(), None);
    /// ```
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Addr::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(address: SocketAddr) -> Self {
        Addr::Socket(address)
    }
}

impl PartialEq<SocketAddr> for Addr {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket() == Some(*other)
    }
}

impl PartialEq<Addr> for SocketAddr {
    fn eq(&self, other: &Addr) -> bool {
        other == self
    }
}

/// A name is looked up, and blocks; a path of a Unix socket is an error.
impl ToSocketAddrs for Addr {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self {
            Addr::Socket(address) => Ok(vec![*address].into_iter()),
            Addr::Name(name) => name.to_socket_addrs(),
            Addr::Path(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// A socket's end, as the system gives it.
pub(crate) fn from_system(address: &SockAddr) -> Addr {
    if let Some(address) = address.as_socket() {
        return Addr::Socket(unmapped(address));
    }
    Addr::Path(match address.as_abstract_namespace() {
        Some(name) => OsString::from_vec([b"@", name].concat()).into(),
        None => address.as_pathname().unwrap_or(Path::new("")).to_owned(),
    })
}

/// Turns `::ffff:a.b.c.d` into IPv4.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// A network, by Go's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Network {
    Tcp,
    Tcp4,
    Tcp6,
    Udp,
    Unix,
    Unixgram,
    /// Any other source.
    File,
}

impl Network {
    pub(crate) const fn is_tcp(self) -> bool {
        matches!(self, Network::Tcp | Network::Tcp4 | Network::Tcp6)
    }

    /// The type of its sockets.
    pub(crate) const fn kind(self) -> Type {
        match self {
            Network::Udp | Network::Unixgram => Type::DGRAM,
            _ => Type::STREAM,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Network::Tcp => "tcp",
            Network::Tcp4 => "tcp4",
            Network::Tcp6 => "tcp6",
            Network::Udp => "udp",
            Network::Unix => "unix",
            Network::Unixgram => "unixgram",
            Network::File => "file",
        }
    }
}

/// The network, and the addresses of both ends as far as they are of IPv4.
pub(crate) struct Endpoints {
    pub(crate) network: Network,
    /// The address of each end; [`UNKNOWN`] if it is not known, or not of IPv4.
    v4: [Cell<SocketAddrV4>; 2],
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Local = 0,
    Peer = 1,
}

/// In place of an address that is not known. No peer has it; a socket that has it is not bound yet.
const UNKNOWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

const _: () = assert!(size_of::<Endpoints>() == 14);

impl Endpoints {
    pub(crate) fn new(network: Network) -> Self {
        Endpoints {
            network,
            v4: [Cell::new(UNKNOWN), Cell::new(UNKNOWN)],
        }
    }

    pub(crate) fn get(&self, end: End) -> Option<Addr> {
        let known = self.v4[end as usize].get();
        (known != UNKNOWN).then(|| Addr::Socket(known.into()))
    }

    /// Notes an end, in place of the last note. An address that is not of IPv4 comes back.
    pub(crate) fn set(&self, end: End, address: Addr) -> Option<Addr> {
        let (v4, back) = match address {
            Addr::Socket(SocketAddr::V4(v4)) => (v4, None),
            other => (UNKNOWN, Some(other)),
        };
        self.v4[end as usize].set(v4);
        back
    }
}
