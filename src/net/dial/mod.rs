//! Dialling: what is asked for, and until when.
//!
//! May touch: resolve.rs, the cancel scopes, and the two files beside it. Mirrors Go's
//! `net/dial.go` (`Dialer.DialContext`).
//!
//! ```text
//!   resolve ──► race.rs: first family ──(300 ms, or all failed)──► the other family
//!                            │                                          │
//!                            └─► one address after the other, each with a share of the time
//!                                     └─► connect.rs: socket, control, bind, connect
//! ```

mod connect;
mod race;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addr::ToAddr;
use super::error::{Cause, OpError};
use super::hostport;
use super::keepalive::KeepAlive;
use super::resolve::{Purpose, Resolution, Resolver};
use super::stream::Stream;
use super::tcp::TcpStream;
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, Network};
use crate::time;

/// A hook that sees a socket before it is bound or connected: Go's `Dialer.Control`.
#[derive(Clone)]
pub(super) struct Control(Arc<Hook>);

type Hook = dyn Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync;

impl Control {
    pub(super) fn new(
        hook: impl Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Control(Arc::new(hook))
    }

    pub(super) fn call(&self, socket: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Cause> {
        (self.0)(socket, address).map_err(Cause::Other)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// A network as the user named it: of TCP, or not known.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Known(Network),
    Unknown(String),
}

impl Asked {
    pub(super) fn tcp(name: &str) -> Self {
        let all = [Network::Tcp, Network::Tcp4, Network::Tcp6];
        match all.into_iter().find(|network| network.name() == name) {
            Some(network) => Asked::Known(network),
            None => Asked::Unknown(name.to_owned()),
        }
    }

    pub(super) fn network(&self) -> Result<Network, Cause> {
        match self {
            Asked::Known(network) => Ok(*network),
            Asked::Unknown(name) => Err(Cause::UnknownNetwork(name.clone())),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Asked::Known(network) => network.name(),
            Asked::Unknown(_) => "",
        }
    }
}

/// How to dial: Go's `net.Dialer`.
///
/// A name may have several addresses. Those of the family that comes first are tried one after the
/// other; after 300 ms, or as soon as they have all failed, those of the other family are tried
/// beside them. The first to connect is kept, and every other socket is closed before `dial`
/// returns. A limit in time is shared: each address gets an equal part of what is left, though not
/// less than two seconds if there are as many.
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
///     // What ends the scope ends dials that are under way, not what they brought.
///     scope.cancel();
///     stream.write_all(b"hello").await?;
///     let error = dialer.dial(listener.local_addr()?).await.unwrap_err();
///     assert!(error.is_canceled());
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dialer {
    network: Asked,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
    local: Option<SocketAddr>,
    fallback_delay: Duration,
    keepalive: Option<KeepAlive>,
    control: Option<Control>,
    resolver: Option<Resolver>,
}

impl Default for Dialer {
    fn default() -> Self {
        Dialer::new()
    }
}

impl Dialer {
    /// Go's defaults: any family, no limit, 300 ms until the other family is tried too, keep-alive
    /// every 15 s.
    #[must_use]
    pub fn new() -> Self {
        Dialer {
            network: Asked::Known(Network::Tcp),
            timeout: None,
            deadline: None,
            cancel: None,
            local: None,
            fallback_delay: Duration::from_millis(300),
            keepalive: Some(KeepAlive::default()),
            control: None,
            resolver: None,
        }
    }

    /// `tcp`, or `tcp4` or `tcp6` for one family alone. Any other is an error of the dial.
    #[must_use]
    pub fn network(mut self, network: &str) -> Self {
        self.network = Asked::tcp(network);
        self
    }

    /// The longest a dial may take, looking up the name included; zero fails at once. With a
    /// deadline too, the earlier counts.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// When a dial fails at the latest.
    #[must_use]
    pub fn deadline(mut self, when: Instant) -> Self {
        self.deadline = Some(when);
        self
    }

    /// The scope that a dial belongs to: it ends with the scope.
    #[must_use]
    pub fn cancel(mut self, scope: &CancelToken) -> Self {
        self.cancel = Some(scope.clone());
        self
    }

    /// The address to dial from; with port 0 the system chooses the port.
    #[must_use]
    pub fn local_addr(mut self, address: SocketAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// The start that the first family has over the other; [`Duration::MAX`] gives the other no
    /// chance before the first has failed.
    #[must_use]
    pub fn fallback_delay(mut self, delay: Duration) -> Self {
        self.fallback_delay = delay;
        self
    }

    /// TCP's own probing of an idle peer; `None` for none.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Option<KeepAlive>) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// A hook that is given every socket before it is bound and connected, with the address that it
    /// is to be connected to: to set options. Its error fails that address.
    #[must_use]
    pub fn control(
        mut self,
        hook: impl Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.control = Some(Control::new(hook));
        self
    }

    /// Looks names up in place of the system: given a host, finds its addresses, the preferred
    /// first. It may block: it runs on a thread of the pool, and is left to itself when the dial's
    /// time is up.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Dialer, TcpListener};
    /// netpoller::Runtime::new()?.block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let dialer = Dialer::new().resolver(|host: &str| match host {
    ///         "db.test" => Ok(vec![[127, 0, 0, 1].into()]),
    ///         _ => Err(std::io::Error::other("not one of ours")),
    ///     });
    ///     dialer.dial(("db.test", listener.local_addr()?.port())).await?;
    ///     let error = dialer.dial("elsewhere.test:1").await.unwrap_err();
    ///     assert_eq!(error.to_string(), "dial tcp: lookup elsewhere.test: not one of ours");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn resolver(
        mut self,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Some(Resolver::new(look_up));
        self
    }

    /// Dials `addr`. An empty host is this machine.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation: a [timeout](crate::NetError::is_timeout) when
    /// the time is up, whoever set it; [canceled](crate::NetError::is_canceled); the system's. If
    /// several addresses failed it is the first one's, and has the others in
    /// [`attempts`](OpError::attempts).
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes its sockets and waits for no look-up.
    pub async fn dial(&self, addr: impl ToAddr) -> io::Result<TcpStream> {
        let target = addr.to_addr();
        let asked = Addr::from(target.clone());
        let failed = |cause| self.error(None, Some(asked), cause);
        let network = match self.network.network() {
            Ok(network) => network,
            Err(cause) => return Err(failed(cause).into()),
        };
        let scope = self.scope();
        let resolution = Resolution {
            network,
            purpose: Purpose::Dial,
            resolver: self.resolver.as_ref(),
            scope: scope.as_ref(),
        };
        let resolved = resolution.addresses(target).await;
        let addresses = match resolved.and_then(|found| self.reachable(found)) {
            Ok(addresses) => addresses,
            Err(cause) => return Err(failed(cause).into()),
        };
        let dial = Dial {
            dialer: self,
            network,
            scope,
        };
        let fd = race::race(&dial, &addresses).await;
        fd.map(Stream::new).map_err(|attempts| {
            let mut attempts = attempts.into_iter();
            match (attempts.next(), attempts.len()) {
                (None, _) => failed(hostport::wrong("", "missing address")).into(),
                (Some(only), 0) => only.into(),
                (Some(first), _) => OpError {
                    source: first.source.clone(),
                    addr: first.addr.clone(),
                    cause: Cause::Attempts([first].into_iter().chain(attempts).collect()),
                    ..self.error(None, None, Cause::Timeout)
                }
                .into(),
            }
        })
    }

    /// The scope of one dial: the user's, within the time that there is. `None` without limits.
    fn scope(&self) -> Option<CancelToken> {
        let limit = |limit| time::after(time::clock(), limit);
        let by_timeout = self.timeout.map(limit);
        match by_timeout.into_iter().chain(self.deadline).min() {
            Some(deadline) => {
                let above = self.cancel.clone().unwrap_or_default();
                Some(above.with_deadline(deadline))
            }
            None => self.cancel.clone(),
        }
    }

    /// Those that can be dialled from the local address.
    fn reachable(&self, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Cause> {
        let Some(local) = self.local else {
            return Ok(found);
        };
        let any = |ip: IpAddr| ip.is_unspecified();
        found.retain(|address| {
            any(local.ip()) || any(address.ip()) || address.is_ipv4() == local.is_ipv4()
        });
        match found.is_empty() {
            true => Err(hostport::wrong(
                &local.to_string(),
                "no suitable address found",
            )),
            false => Ok(found),
        }
    }

    fn error(&self, source: Option<SocketAddr>, addr: Option<Addr>, cause: Cause) -> OpError {
        OpError {
            op: "dial",
            net: self.network.name(),
            source: source.map(Addr::Socket),
            addr,
            written: 0,
            cause,
        }
    }
}

/// One dial under way.
struct Dial<'a> {
    dialer: &'a Dialer,
    network: Network,
    scope: Option<CancelToken>,
}

impl Dial<'_> {
    /// The error of one address.
    fn error(&self, address: SocketAddr, cause: Cause) -> OpError {
        let (source, addr) = (self.dialer.local, Addr::Socket(address));
        let error = self.dialer.error(source, Some(addr), cause);
        log::debug!("{error}");
        error
    }
}
