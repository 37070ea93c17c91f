//! Dialling.
//!
//! May touch: fd.rs, resolve.rs. Mirrors Go's `net/dial.go` and `net/fd_unix.go` (`netFD.connect`).

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockRef, Socket, Type};

use super::addr::ToAddr;
use super::error::{Cause, OpError};
use super::fd::{Connecting, Fd, Op};
use super::options;
use super::resolve::{self, Purpose};
use super::stream::Stream;
use super::tcp::TcpStream;
use crate::endpoints::{Addr, End, Network};
use crate::runtime::context;

/// How to dial: Go's `net.Dialer`.
#[derive(Clone, Debug)]
pub struct Dialer {
    network: Network,
}

impl Default for Dialer {
    fn default() -> Self {
        Dialer::new()
    }
}

impl Dialer {
    /// Go's defaults.
    #[must_use]
    pub fn new() -> Self {
        Dialer {
            network: Network::Tcp,
        }
    }

    /// Dials `addr`.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn dial(&self, addr: impl ToAddr) -> io::Result<TcpStream> {
        let target = addr.to_addr();
        let name = Addr::from(target.clone());
        let resolved = resolve::resolve(self.network, target, Purpose::Dial).await;
        let addresses = resolved.map_err(|cause| self.error(name.clone(), cause))?;
        let mut failed = None;
        for address in addresses {
            match self.connect(address).await {
                Ok(fd) => {
                    return Ok(Stream {
                        fd,
                        kind: PhantomData,
                    });
                }
                Err(cause) => failed = Some(self.error(Addr::Socket(address), cause)),
            }
        }
        Err(failed
            .unwrap_or_else(|| self.error(name, Cause::Other(io::ErrorKind::NotFound.into()))))
    }

    fn error(&self, addr: Addr, cause: Cause) -> io::Error {
        OpError {
            op: "dial",
            net: self.network.name(),
            source: None,
            addr: Some(addr),
            written: 0,
            cause,
        }
        .into()
    }

    async fn connect(&self, address: SocketAddr) -> Result<Fd, Cause> {
        let call = |name| move |error| Cause::system(name, error);
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            None,
        )
        .map_err(call("socket"))?;
        options::set_tcp_defaults(&SockRef::from(&socket)).map_err(call("setsockopt"))?;
        let under_way = match socket.connect(&address.into()) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
            Err(error) => return Err(Cause::system("connect", error)),
        };
        let open = |scheduler: &_| Fd::open(scheduler, OwnedFd::from(socket), self.network);
        let fd = context::with("dialling", open).map_err(call("epoll_ctl"))?;
        if under_way {
            let connected = Op::new(Connecting, &fd, |fd| {
                let socket = fd.socket();
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                match socket.peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    _ => Ok(()),
                }
            });
            // The dial has names of its own to add; only the cause is wanted.
            let failed = |error: io::Error| match error.downcast::<OpError>() {
                Ok(error) => error.cause,
                Err(error) => Cause::system("connect", error),
            };
            connected.await.map_err(failed)?;
        }
        fd.resource()
            .endpoints
            .set(End::Peer, Addr::Socket(address));
        Ok(fd)
    }
}
