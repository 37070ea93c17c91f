//! What a [`Dialer`](crate::Dialer) and a [`ListenConfig`](crate::ListenConfig) have in common: the
//! network by its name, a hook on the socket, a resolver.
// Mirrors the fields `Control` and `Resolver` of Go's `net.Dialer` and `net.ListenConfig`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A function of the user's. Cheap to clone; any thread may call it.
pub(crate) struct Hook<F: ?Sized>(pub(crate) Arc<F>);

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Hook(self.0.clone())
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// A hook that is given a socket before it is bound or connected, to set options.
pub(super) type Control = Hook<dyn Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync>;

/// Finds a host's addresses in place of the system. It may block: it runs on a thread for look-ups.
pub(super) type Resolver = Hook<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The settings that both have, as setters.
macro_rules! common_settings {
    ($Settings:ident) => {
        impl Default for $Settings {
            fn default() -> Self {
                $Settings::new()
            }
        }

        impl $Settings {
            /// `tcp`, or `tcp4` or `tcp6` for one family alone. Any other name is an error when
            /// you dial or bind.
            pub fn network(mut self, network: &str) -> Self {
                self.resolution.set_tcp(network);
                self
            }

            /// A hook that is given every socket before it is bound and connected, with the address
            /// that it is for, in order to set options. Its error fails that address.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// use netpoller::{Dialer, ListenConfig};
            /// use socket2::SockRef;
            /// netpoller::Runtime::new()?.block_on(async {
            ///     let config = ListenConfig::new()
            ///         .control(|fd, _address| SockRef::from(&fd).set_recv_buffer_size(64 << 10));
            ///     let listener = config.bind("127.0.0.1:0").await?;
            ///     let dialer = Dialer::new()
            ///         .control(|_fd, address| Err(std::io::Error::other(format!("not {address}"))));
            ///     let refused = dialer.dial(listener.local_addr()?).await.unwrap_err();
            ///     assert!(refused.to_string().contains("not 127.0.0.1:"));
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn control(
                mut self,
                hook: impl Fn(std::os::fd::BorrowedFd<'_>, std::net::SocketAddr) -> std::io::Result<()> + Send + Sync + 'static,
            ) -> Self {
                self.control = Some($crate::net::config::Hook(std::sync::Arc::new(hook)));
                self
            }

            /// Looks names up in place of the system: given a host, finds its addresses, the
            /// preferred first. It may block: it runs on a thread for look-ups. When the time is up,
            /// its answer is no longer waited for.
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
            pub fn resolver(
                mut self,
                look_up: impl Fn(&str) -> std::io::Result<Vec<std::net::IpAddr>> + Send + Sync + 'static,
            ) -> Self {
                self.resolution.resolver = Some($crate::net::config::Hook(std::sync::Arc::new(look_up)));
                self
            }
        }
    };
}

pub(super) use common_settings;
