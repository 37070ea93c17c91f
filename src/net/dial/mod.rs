//! Dialling TCP.
//!
//! ```text
//!   mod.rs:    resolve ──► race.rs: first family ──(300 ms, or all failed)──► the other family
//!                                      │                                         │
//!                                      └─► one address after the other, each with a share of
//!                                          the time ─► connect.rs: socket, control, bind, connect
//! ```
// Mirrors Go's `net/dial.go` (`Dialer.DialContext`).

mod connect;
mod race;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::cancel::CancelToken;
use crate::endpoints::{Addr, Network};
use crate::net::addr::{ToAddr, unmapped};
use crate::net::config::{AskedNetwork, Control, Resolver, common_settings};
use crate::net::error::{Cause, OpError};
use crate::net::host_port;
use crate::net::kinds::Tcp;
use crate::net::options::KeepAlive;
use crate::net::resolve::{Purpose, Resolution};
use crate::net::stream::{Stream, TcpStream};
use crate::runtime::context;
use crate::time;
use connect::Dial;

/// How to dial TCP: Go's `net.Dialer`.
///
/// A name may have several addresses. Those of the family that comes first are tried one after the
/// other; after 300 ms, or as soon as they have all failed, those of the other family are tried
/// beside them. The first connection is kept, and every other socket is closed before `dial`
/// returns. A limit in time is shared: each address gets an equal part of the time that is left,
/// and at least two seconds of it.
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
    network: AskedNetwork,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
    local: Option<SocketAddr>,
    fallback_delay: Duration,
    keepalive: Option<KeepAlive>,
    control: Option<Control>,
    resolver: Option<Resolver>,
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

impl Default for Dialer {
    fn default() -> Self {
        Dialer::new()
    }
}

impl Dialer {
    /// Go's defaults: any family, no limit, 300 ms until the other family is tried too, keep-alive
    /// every 15 s.
    pub fn new() -> Self {
        Dialer {
            network: Ok(Network::Tcp),
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

    /// The longest that a dial may take, looking up the name included. Zero or `None`: as long as
    /// the system takes, which is the default. With a [deadline](Dialer::deadline) too, the earlier
    /// counts.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.timeout = limit.into().filter(|limit| !limit.is_zero());
        self
    }

    /// When a dial fails at the latest. One that has passed fails every dial at once.
    pub fn deadline(mut self, when: Instant) -> Self {
        self.deadline = Some(when);
        self
    }

    /// The scope that a dial belongs to: the dial ends with the scope.
    pub fn cancel(mut self, scope: &CancelToken) -> Self {
        self.cancel = Some(scope.clone());
        self
    }

    /// The address to dial from; with port 0 the system chooses the port. Only addresses of its
    /// family are dialled, unless it is `0.0.0.0` or `::`.
    pub fn local_addr(mut self, address: SocketAddr) -> Self {
        self.local = Some(unmapped(address));
        self
    }

    /// How long the first family is tried alone, 300 ms by default. With [`Duration::MAX`] the other
    /// is tried only after the first has failed.
    pub fn fallback_delay(mut self, delay: Duration) -> Self {
        self.fallback_delay = delay;
        self
    }

    /// TCP's own probing of an idle peer; `None` for none.
    pub fn keepalive(mut self, keepalive: Option<KeepAlive>) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Dials `addr`, for instance `"example.com:https"` or a [`SocketAddr`]. An empty host is this
    /// machine.
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
    /// Dropped, it closes its sockets and waits for no look-up.
    pub async fn dial(&self, addr: impl ToAddr) -> io::Result<Stream<Tcp>> {
        let target = addr.to_addr();
        let scope = self.scope();
        let addresses = async {
            // Here too, for a loop that dials in vain.
            context::yield_once().await;
            let resolution = Resolution {
                network: self.network.clone().map_err(Cause::UnknownNetwork)?,
                purpose: Purpose::Dial,
                resolver: self.resolver.clone(),
            };
            let found = resolution.addresses(target.clone(), &scope).await?;
            Ok((resolution.network, self.reachable(found)?))
        };
        let (network, addresses) = match addresses.await {
            Ok(found) => found,
            Err(cause) => return Err(self.error(Some(target), cause).into()),
        };
        debug_assert!(!addresses.is_empty(), "a resolution without an address");
        let dial = Dial {
            network,
            local: self.local,
            keepalive: self.keepalive,
            control: self.control.as_ref(),
            scope,
        };
        let fd = race::race(&dial, &addresses, self.fallback_delay).await;
        fd.map(Stream::of)
            .map_err(|failed| self.all_failed(failed).into())
    }

    /// The error of a dial of which every attempt has failed: the first one's, with the others.
    fn all_failed(&self, mut failed: Vec<OpError>) -> OpError {
        if failed.len() == 1 {
            return failed.remove(0);
        }
        let (source, addr) = (failed[0].source.clone(), failed[0].addr.clone());
        OpError {
            source,
            ..self.error(addr, Cause::Attempts(failed))
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
        let any = |ip: IpAddr| ip.is_unspecified();
        found.retain(|address| {
            any(local.ip()) || any(address.ip()) || address.is_ipv4() == local.is_ipv4()
        });
        match found.is_empty() {
            true => Err(host_port::wrong(
                &local.to_string(),
                "no suitable address found",
            )),
            false => Ok(found),
        }
    }

    fn error(&self, addr: Option<Addr>, cause: Cause) -> OpError {
        let net = self.network.as_ref().map_or("", |network| network.name());
        OpError::new("dial", net, addr, cause)
    }
}
