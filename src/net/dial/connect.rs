//! Connecting to one address.
// Mirrors Go's `netFD.connect` (`net/fd_unix.go`), `netFD.dial` (`net/sock_posix.go`), and the loop
// of `doDialTCPProto` and `selfConnect` (`net/tcpsock_posix.go`).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, SockRef, Socket, Type};

use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};
use crate::net::config::{Control, Hook};
use crate::net::error::{Cause, OpError};
use crate::net::family;
use crate::net::fd::Fd;
use crate::net::options::{self, KeepAlive};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys;

/// How often a dial is repeated that failed by the system's own choice of a port.
const MORE_TRIES: usize = 2;

/// One dial under way: what each of its attempts needs.
pub(super) struct Dial<'a> {
    pub(super) network: Network,
    pub(super) local: Option<SocketAddr>,
    pub(super) keepalive: Option<KeepAlive>,
    pub(super) control: Option<&'a Control>,
    /// What ends it.
    pub(super) scope: CancelToken,
}

impl Dial<'_> {
    /// The error of one address.
    pub(super) fn error(&self, address: SocketAddr, cause: Cause) -> OpError {
        let error = OpError {
            source: self.local.map(Addr::Socket),
            ..OpError::new(
                "dial",
                self.network.name(),
                Some(Addr::Socket(address)),
                cause,
            )
        };
        log::debug!("{error}");
        error
    }

    /// Connects. The system chooses the local port, and may choose badly: the very port that is
    /// dialled, so that, without a listener there, the socket connects to itself (legal TCP, and
    /// never meant); or one that is taken. Then it is asked again.
    pub(super) async fn connect(&self, address: SocketAddr) -> Result<Fd, Cause> {
        let address = family::to_dial(address);
        let port_is_given = self.local.is_some_and(|local| local.port() != 0);
        for _ in 0..MORE_TRIES {
            let connected = self.connect_once(address).await;
            let again = match &connected {
                Ok(fd) => is_self_connected(fd),
                Err(cause) => is_address_not_available(cause),
            };
            if !again || port_is_given {
                return connected;
            }
        }
        self.connect_once(address).await
    }

    async fn connect_once(&self, address: SocketAddr) -> Result<Fd, Cause> {
        // An attempt may fail, or even succeed, without waiting: so it yields here.
        context::yield_once().await;
        let socket = self.prepare(address)?;
        let under_way = match socket.connect(&address.into()) {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::EISCONN) => false,
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => true,
                _ => return Err(Cause::by("connect")(error)),
            },
        };
        let fd = Fd::adopt("dialling", socket, self.network).map_err(Cause::by("netpoll"))?;
        if self.control.is_some() {
            // The hook was lent the descriptor: see `with_fd`.
            fd.desc.short_io_is_inconclusive();
        }
        if under_way {
            let connected = fd.op(Direction::Write, is_connected).opening().await;
            // The dial adds the names: only the cause is wanted.
            connected.map_err(|error| match error.downcast::<OpError>() {
                Ok(error) => error.cause,
                Err(error) => Cause::by("connect")(error),
            })?;
        }
        // Both ends as the system has them: errors name them after a reset too. If the reset has come
        // already, the system has forgotten the peer, and what was dialled is noted.
        if fd.endpoint(End::Peer).is_none() {
            fd.socket().set_endpoint(End::Peer, Addr::Socket(address));
        }
        fd.endpoint(End::Local);
        Ok(fd)
    }

    /// A socket with its options, shown to the hook, and bound if that was asked for.
    fn prepare(&self, address: SocketAddr) -> Result<Socket, Cause> {
        let socket = sys::socket(Domain::for_address(address), Type::STREAM);
        let socket = socket.map_err(Cause::by("socket"))?;
        options::set_on_all(&SockRef::from(&socket), self.keepalive);
        if let Some(Hook(control)) = self.control {
            control(socket.as_fd(), address).map_err(Cause::Other)?;
        }
        if let Some(local) = self.local {
            let local = in_family_of(address, local);
            socket.bind(&local.into()).map_err(Cause::by("bind"))?;
        }
        Ok(socket)
    }
}

/// Whether a connect that was under way has ended, and how. Readiness alone says nothing: the
/// selector may wake us without a reason, and a socket that is not connected yet has no error.
fn is_connected(fd: &Fd) -> io::Result<()> {
    let socket = fd.sock_ref();
    match socket.take_error()? {
        Some(error) => match error.raw_os_error() {
            Some(libc::EISCONN) => Ok(()),
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            _ => Err(error),
        },
        None if socket.peer_addr().is_ok() => Ok(()),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Whether a socket is its own peer. The system's answers are compared, by address and port: a zone
/// that was dialled is in neither of them for a loopback address.
fn is_self_connected(fd: &Fd) -> bool {
    let end = |end| match fd.endpoint(end) {
        Some(Addr::Socket(address)) => Some((address.ip(), address.port())),
        _ => None,
    };
    let local = end(End::Local);
    local.is_some() && local == end(End::Peer)
}

/// "Any address" is written differently in each family.
fn in_family_of(peer: SocketAddr, local: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) if local.ip().is_unspecified() => {
            (Ipv4Addr::UNSPECIFIED, local.port()).into()
        }
        SocketAddr::V6(_) if local.ip().is_unspecified() => {
            (Ipv6Addr::UNSPECIFIED, local.port()).into()
        }
        _ => local,
    }
}

fn is_address_not_available(cause: &Cause) -> bool {
    matches!(cause, Cause::System { error, .. } if error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
}
