//! Dialling TCP.
//!
//! ```text
//!   resolve ──► race: first family ──(300 ms, or all failed)──► the other family
//!                        │                                         │
//!                        └─► one address after the other, each with a share of
//!                            the time ─► connect: socket, control, bind, connect
//! ```
// Mirrors Go's `net/dial.go` (`Dialer.DialContext`, `dialParallel`, `dialSerial`, `partialDeadline`),
// `netFD.connect` (`net/fd_unix.go`), `netFD.dial` (`net/sock_posix.go`), and the loop of
// `doDialTCPProto` and `selfConnect` (`net/tcpsock_posix.go`).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::addr::{Tcp, ToAddr, unmapped};
use super::error::{Cause, OpError};
use super::fd::{Fd, Name};
use super::options::{self, KeepAlive};
use super::resolve::{self, Control, Hook, Resolution, common_settings};
use super::stream::{Stream, TcpStream};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::{Either, select};
use crate::{sys, time};

/// How to dial TCP: Go's `net.Dialer`.
///
/// A name may have several addresses. Those of the family that comes first are tried one after the
/// other; after 300 ms, or as soon as they have all failed, those of the other family are tried
/// beside them. The first connection is kept, and every other socket is closed before `dial`
/// returns. A limit in time is shared: each address gets an equal part of the time that is left,
/// but at least two seconds, so that the last may get none.
///
/// An IPv4 address written as IPv6 (`::ffff:127.0.0.1`) is taken for IPv4 wherever one is given.
///
/// A dialer can be kept, cloned and used for any number of dials.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{CancelToken, Dialer, NetError, TcpListener};
/// use std::time::Duration;
/// netpoller::Runtime::new()?.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let scope = CancelToken::new();
///     let dialer = Dialer::new()
///         .network("tcp4")
///         .timeout(Duration::from_secs(5))
///         .cancel(&scope);
///     let stream = dialer.dial(listener.local_addr()?).await?;
///
///     // The end of the scope ends dials that are under way, and no connection that was made.
///     scope.cancel();
///     stream.write_all(b"hello").await?;
///     let error = dialer.dial(listener.local_addr()?).await.unwrap_err();
///     assert!(error.is_canceled());
///     Ok(())
/// })
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Dialer {
    resolution: Resolution,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
    local: Option<SocketAddr>,
    fallback_delay: Duration,
    keepalive: Option<KeepAlive>,
    control: Option<Control>,
}

common_settings!(Dialer);

impl Stream<Tcp> {
    /// Dials `addr`, as [`Dialer::dial`] does with its defaults.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let (_accepted, peer) = listener.accept().await?;
    /// assert_eq!(stream.local_addr()?, peer);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Dialer::dial`].
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[doc(alias = "Dial")]
    pub async fn connect(addr: impl ToAddr) -> io::Result<TcpStream> {
        Dialer::new().dial(addr).await
    }
}

impl Dialer {
    /// Go's defaults: any family, no limit, 300 ms until the other family is tried too, keep-alive
    /// every 15 s.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, TcpListener};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let dialer = Dialer::new();
    /// for _ in 0..2 {
    ///     dialer.dial(listener.local_addr()?).await?; // as `TcpStream::connect`
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn new() -> Self {
        Dialer {
            resolution: Resolution::new("dial", Network::Tcp),
            timeout: None,
            deadline: None,
            cancel: None,
            local: None,
            fallback_delay: Duration::from_millis(300),
            keepalive: Some(KeepAlive::default()),
            control: None,
        }
    }

    /// The longest that a dial may take, looking up the name included. Zero or `None`: as long as
    /// the system takes, which is the default. With a [deadline](Dialer::deadline) too, the earlier
    /// counts.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Dialer, NetError};
    /// use std::time::Duration;
    /// netpoller::Runtime::new()?.block_on(async {
    ///     let dialer = Dialer::new().timeout(Duration::from_nanos(1));
    ///     assert!(dialer.dial("127.0.0.1:1").await.unwrap_err().is_timeout());
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.timeout = limit.into().filter(|limit| !limit.is_zero());
        self
    }

    /// The latest time for a dial. A deadline in the past fails each dial at once.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, NetError, time};
    /// let late = Dialer::new().deadline(time::now());
    /// assert!(late.dial("127.0.0.1:1").await.unwrap_err().is_timeout());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn deadline(mut self, when: Instant) -> Self {
        self.deadline = Some(when);
        self
    }

    /// The scope that a dial belongs to: the dial ends with the scope.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{CancelToken, Dialer, NetError};
    /// let scope = CancelToken::new();
    /// let dialer = Dialer::new().cancel(&scope);
    /// scope.cancel();
    /// assert!(dialer.dial("127.0.0.1:1").await.unwrap_err().is_canceled());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn cancel(mut self, scope: &CancelToken) -> Self {
        self.cancel = Some(scope.clone());
        self
    }

    /// The address to dial from; with port 0 the system chooses the port. Only addresses of its
    /// family are dialled, unless it is `0.0.0.0` or `::`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, TcpListener};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let from = "127.0.0.1:0".parse().unwrap();
    /// let stream = Dialer::new().local_addr(from).dial(listener.local_addr()?).await?;
    /// assert_eq!(stream.local_addr()?.ip(), from.ip());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn local_addr(mut self, address: SocketAddr) -> Self {
        self.local = Some(unmapped(address));
        self
    }

    /// How long the first family is tried alone, 300 ms by default. With [`Duration::MAX`] the other
    /// is tried only after the first has failed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, TcpListener};
    /// use std::time::Duration;
    /// let listener = TcpListener::bind("localhost:0").await?;
    /// let port = listener.local_addr()?.port();
    /// let hasty = Dialer::new().fallback_delay(Duration::from_millis(50));
    /// hasty.dial(("localhost", port)).await?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn fallback_delay(mut self, delay: Duration) -> Self {
        self.fallback_delay = delay;
        self
    }

    /// TCP's own probing of an idle peer; `None` for none.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, KeepAlive, TcpListener};
    /// use std::time::Duration;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let minute = KeepAlive::new().with_idle(Duration::from_secs(60));
    /// let dialer = Dialer::new().keepalive(Some(minute));
    /// let stream = dialer.dial(listener.local_addr()?).await?;
    /// assert_eq!(stream.keepalive()?, Some(minute));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn keepalive(mut self, keepalive: Option<KeepAlive>) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Dials `addr`, for instance `"example.com:https"` or a [`SocketAddr`]. An empty host is this
    /// machine.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Dialer, TcpListener};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let address = listener.local_addr()?;
    /// let stream = Dialer::new().dial(address).await?;
    /// assert_eq!(stream.peer_addr()?, address);
    ///
    /// let error = Dialer::new().dial("127.0.0.1:1").await.unwrap_err();
    /// assert_eq!(error.to_string(), "dial tcp 127.0.0.1:1: connect: connection refused");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation: a [timeout](crate::NetError::is_timeout) when
    /// the time is up, whatever set it; [canceled](crate::NetError::is_canceled); the system's. If
    /// several addresses failed it is the first one's, and has the others in
    /// [`attempts`](OpError::attempts).
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, it closes its sockets and abandons the look-up.
    pub async fn dial(&self, addr: impl ToAddr) -> io::Result<Stream<Tcp>> {
        let target = addr.to_addr();
        let scope = self.scope();
        let found = self.resolution.addresses(&target, &scope).await?;
        let addresses = self.reachable(found);
        let addresses = addresses.map_err(|cause| self.resolution.error(Some(target), cause))?;
        debug_assert!(!addresses.is_empty(), "a resolution without an address");
        let fd = self.race(&addresses, &scope).await;
        fd.map(Stream::of)
            .map_err(|failed| self.all_failed(failed).into())
    }

    /// The error of a dial of which every attempt has failed: the first one's, with the others.
    fn all_failed(&self, mut failed: Vec<OpError>) -> OpError {
        debug_assert!(!failed.is_empty(), "each address that failed has an error");
        if failed.len() == 1 {
            return failed.remove(0);
        }
        let (source, addr) = (failed[0].source.clone(), failed[0].addr.clone());
        OpError {
            source,
            ..self.resolution.error(addr, Cause::Attempts(failed))
        }
    }

    /// The scope of one dial: the user's, within the time that there is.
    fn scope(&self) -> CancelToken {
        let scope = self.cancel.clone().unwrap_or_default();
        let by_timeout = self.timeout.map(|limit| time::after(time::clock(), limit));
        match by_timeout.into_iter().chain(self.deadline).min() {
            Some(deadline) => scope.with_deadline(deadline),
            None => scope,
        }
    }

    /// The addresses that can be dialled from the local address.
    fn reachable(&self, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Cause> {
        let Some(local) = self.local else {
            return Ok(found);
        };
        let any = |address: &SocketAddr| address.ip().is_unspecified();
        found.retain(|to| any(&local) || any(to) || to.is_ipv4() == local.is_ipv4());
        resolve::some_of(found, &local.to_string())
    }

    /// One family against the other. Every attempt but the one that connects is closed on return. When
    /// all fail, the first error is the one to show.
    async fn race(
        &self,
        addresses: &[SocketAddr],
        scope: &CancelToken,
    ) -> Result<Fd, Vec<OpError>> {
        let (primaries, fallbacks): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
            .iter()
            .partition(|address| address.is_ipv4() == addresses[0].is_ipv4());
        let mut primary = pin!(self.one_by_one(&primaries, scope));
        if fallbacks.is_empty() {
            return primary.await;
        }
        let mut fallback = pin!(self.one_by_one(&fallbacks, scope));
        // The other family starts after this delay, or when the first has failed.
        let head_start = time::sleep(self.fallback_delay);
        let ended = match select(primary.as_mut(), head_start).await {
            Either::First(ended) => Either::First(ended),
            Either::Second(()) => {
                log::debug!("dial: no answer from {primaries:?} yet, trying {fallbacks:?} too");
                select(primary.as_mut(), fallback.as_mut()).await
            }
        };
        // If one family has failed, the other decides. Its errors come behind those of the first.
        let (failed, others) = match ended {
            Either::First(Ok(fd)) | Either::Second(Ok(fd)) => return Ok(fd),
            Either::First(Err(failed)) => (failed, fallback.await),
            Either::Second(Err(others)) => match primary.await {
                Ok(fd) => return Ok(fd),
                Err(failed) => (failed, Err(others)),
            },
        };
        others.map_err(|others| failed.into_iter().chain(others).collect())
    }

    /// Within a family one address after the other, each in its share of the time. Returns the
    /// errors, the first one first; if the scope ends, its error comes first, and nothing else is tried.
    async fn one_by_one(
        &self,
        addresses: &[SocketAddr],
        all: &CancelToken,
    ) -> Result<Fd, Vec<OpError>> {
        let mut failed = Vec::new();
        for (done, &address) in addresses.iter().enumerate() {
            let has_ended = all.err().is_some();
            let remaining = addresses.len() - done;
            let scope = match all.deadline() {
                Some(deadline) if remaining > 1 => {
                    let share = share(time::clock(), deadline, remaining);
                    all.with_deadline(share)
                }
                _ => all.clone(),
            };
            let cause = match scope.run(self.connect(address)).await {
                Ok(Ok(fd)) => return Ok(fd),
                Ok(Err(cause)) => cause,
                Err(ended) => ended.into(),
            };
            let ends = has_ended || matches!(cause, Cause::Canceled);
            let error = OpError {
                source: self.local.map(Addr::Socket),
                ..self.resolution.error(Some(address.into()), cause)
            };
            log::debug!("{error}");
            failed.insert(if ends { 0 } else { failed.len() }, error);
            if ends {
                break;
            }
        }
        Err(failed)
    }

    /// Connects. The system chooses the local port. It may choose the very port that is dialled:
    /// without a listener there, the socket then connects to itself, which is legal TCP, and never
    /// meant. Or it may choose one that is taken. In both cases it is asked again.
    async fn connect(&self, address: SocketAddr) -> Result<Fd, Cause> {
        /// How often to connect again after the system chose a bad local port.
        const MORE_TRIES: usize = 2;
        let address = resolve::to_dial(address);
        let port_is_given = self.local.is_some_and(|local| local.port() != 0);
        let mut more_tries = 0..MORE_TRIES;
        loop {
            let connected = self.connect_once(address).await;
            let again = match &connected {
                Ok(fd) => is_self_connected(fd),
                Err(Cause::System { error, .. }) => {
                    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
                }
                Err(_) => false,
            };
            if !again || port_is_given || more_tries.next().is_none() {
                return connected;
            }
        }
    }

    async fn connect_once(&self, address: SocketAddr) -> Result<Fd, Cause> {
        // An attempt may fail, or even succeed, without waiting: so it yields here.
        context::yield_once().await;
        let socket = self.prepare(address)?;
        let under_way = match socket.connect(&address.into()) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EISCONN) => false,
            Err(error) if is_under_way(&error) => true,
            Err(error) => return Err(Cause::by("connect")(error)),
        };
        let network = self.resolution.network;
        let fd = Fd::adopt("dialling", socket, network).map_err(Cause::by("epoll_ctl"))?;
        if self.control.is_some() {
            // The hook was lent the descriptor: see `with_fd`.
            fd.desc.set_short_io_inconclusive();
        }
        // If it connected at once, the first read reports a later reset, as in Go.
        if under_way {
            let connected = fd.op(Direction::Write, is_connected);
            let connected = connected.named(Name::Connect).await;
            // The dial adds the names: only the cause is wanted.
            connected.map_err(|error| match error.downcast::<OpError>() {
                Ok(error) => error.cause,
                Err(error) => Cause::by("connect")(error),
            })?;
        }
        fd.learn_new_endpoints(address.into());
        Ok(fd)
    }

    /// A socket with its options, shown to the hook, and bound if that was asked for.
    fn prepare(&self, address: SocketAddr) -> Result<Socket, Cause> {
        let socket = sys::socket(Domain::for_address(address), Type::STREAM);
        let socket = socket.map_err(Cause::by("socket"))?;
        options::set_on_all(&SockRef::from(&socket), self.keepalive);
        if let Some(Hook(control)) = &self.control {
            control(socket.as_fd(), address).map_err(Cause::Other)?;
        }
        if let Some(mut local) = self.local {
            // "Any address" is written differently in each family.
            if local.ip().is_unspecified() {
                local.set_ip(match address {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                });
            }
            socket.bind(&local.into()).map_err(Cause::by("bind"))?;
        }
        Ok(socket)
    }
}

/// When an attempt is given up for the next: after an equal part of the time that is left, but not
/// before two seconds, so that the last addresses may get no time.
fn share(now: Instant, deadline: Instant, remaining: usize) -> Instant {
    const SANE: Duration = Duration::from_secs(2);
    let left = deadline.saturating_duration_since(now);
    let part = left / u32::try_from(remaining).unwrap_or(u32::MAX);
    now + part.max(SANE.min(left))
}

/// Whether a connect has ended, and how. Readiness alone says nothing: the selector may wake us without
/// a reason, and a socket that is not connected yet has no error.
fn is_connected(fd: &Fd) -> io::Result<()> {
    let socket = fd.sock_ref();
    match socket.take_error()? {
        Some(error) if !is_under_way(&error) => Err(error),
        _ if socket.peer_addr().is_ok() => Ok(()),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Whether an error of connect(2) says that connecting goes on, or is done.
fn is_under_way(error: &io::Error) -> bool {
    use libc::{EALREADY, EINPROGRESS, EINTR, EISCONN};
    let number = error.raw_os_error();
    matches!(number, Some(EINPROGRESS | EALREADY | EINTR | EISCONN))
}

/// Whether a socket is its own peer. The system's answers are compared, by address and port: a zone
/// that was dialled is in neither of them for a loopback address.
fn is_self_connected(fd: &Fd) -> bool {
    let end = |end| {
        let address = fd.endpoint(end)?.socket()?;
        Some((address.ip(), address.port()))
    };
    let local = end(End::Local);
    local.is_some() && local == end(End::Peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_as_go_shares_it() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        for (left, remaining, part) in [
            (seconds(12), 1, seconds(12)),
            (seconds(12), 2, seconds(6)),
            (seconds(12), 3, seconds(4)),
            (seconds(12), 1000, seconds(2)),
            (seconds(3), 2, seconds(2)),
            (seconds(1), 2, seconds(1)),
            (Duration::from_nanos(1), 2, Duration::from_nanos(1)),
            (seconds(0), 2, seconds(0)),
        ] {
            assert_eq!(share(now, now + left, remaining), now + part);
        }
    }
}
