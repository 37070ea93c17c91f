//! Unix sockets: streams and listeners, by path; and the names of all Unix sockets.
//!
//! May touch: fd/, stream/, listen.rs. Mirrors Go's `net/unixsock.go` and
//! `net/unixsock_posix.go`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::{Cause, OpError};
use super::fd::Fd;
use super::listener::Listener;
use super::options;
use super::stream::Stream;
use crate::endpoints::{Addr, End, Network};
use crate::runtime::context;
use crate::sys;

/// The kind of a [`UnixStream`], a [`UnixListener`] and a
/// [`UnixDatagram`](crate::UnixDatagram).
#[derive(Debug)]
pub enum Unix {}

/// A connection over a Unix socket: see [`Stream`] for what it can do.
pub type UnixStream = Stream<Unix>;

/// A listener on a Unix socket: see [`Listener`].
///
/// Closing it removes its path, as Go's does.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{UnixListener, UnixStream};
/// let path = std::env::temp_dir().join(format!("netpoller-doc-{}", std::process::id()));
/// let listener = UnixListener::bind(&path).await?;
/// let client = UnixStream::connect(&path).await?;
/// let (server, _peer) = listener.accept().await?;
/// client.write_all(b"hello").await?;
/// assert_eq!(server.read_with(|bytes| bytes.to_vec()).await?, b"hello");
///
/// listener.close()?;
/// assert!(!path.exists());
/// # Ok(())
/// # })
/// # }
/// ```
pub type UnixListener = Listener<Unix>;

impl Stream<Unix> {
    /// Connects to `path`. On Linux, `@name` is a name in the abstract namespace.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation; if the listener's backlog is full, with
    /// `WouldBlock`, as in Go: the system has no way to wait for room.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        // It never waits, nor does any bind.
        context::take_turn().await;
        let path = path.as_ref();
        let fail = |cause| op_error("dial", Network::Unix, path, cause);
        let to = system_addr(path).map_err(fail)?;
        let open = || {
            let call = |name| move |error| Cause::system(name, error);
            let socket = sys::socket(Domain::UNIX, Type::STREAM).map_err(call("socket"))?;
            socket.connect(&to).map_err(call("connect"))?;
            take_in("UnixStream::connect", socket, Network::Unix)
        };
        let fd = open().map_err(fail)?;
        let peer = Addr::Path(path.to_owned());
        fd.resource().set_endpoint(End::Peer, peer);
        Ok(Stream::new(fd))
    }

    /// Two streams, connected to each other.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((
            Stream::<Unix>::from_std(one)?,
            Stream::<Unix>::from_std(other)?,
        ))
    }

    /// Our end's address; a stream that connected has none.
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
    /// Closed, or no longer connected, if it was not asked for before.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        std_addr(&self.fd, End::Peer)
    }
}

impl Listener<Unix> {
    /// Listens on `path`. On Linux, `@name` is a name in the abstract namespace.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `listen` as its operation; `address already in use` if the path exists.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        context::take_turn().await;
        let path = path.as_ref();
        let open = || {
            let call = |name| move |error| Cause::system(name, error);
            let on = system_addr(path)?;
            let socket = sys::socket(Domain::UNIX, Type::STREAM).map_err(call("socket"))?;
            socket.bind(&on).map_err(call("bind"))?;
            let backlog = i32::try_from(options::most_backlog()).unwrap_or(i32::MAX);
            socket.listen(backlog).map_err(call("listen"))?;
            take_in("UnixListener::bind", socket, Network::Unix)
        };
        let fd = open().map_err(|cause| op_error("listen", Network::Unix, path, cause))?;
        fd.endpoint(End::Local);
        let listener = Listener::new(fd);
        listener.set_unlink_on_close(true);
        Ok(listener)
    }

    /// Whether the path is removed when the listener is closed or dropped. It is, unless it came
    /// from std.
    pub fn set_unlink_on_close(&self, unlink: bool) {
        self.keep_path();
        if !unlink || self.fd.is_closed() {
            return;
        }
        let Some(Addr::Path(path)) = self.fd.endpoint(End::Local) else {
            return;
        };
        let is_file = !path.as_os_str().is_empty() && !is_abstract(&path);
        if is_file {
            let unlink = Box::new(Unlink { path, still: true });
            self.fd.resource().attach(Some(unlink));
        }
    }

    pub(super) fn keep_path(&self) {
        let attached = self.fd.resource().attach(None);
        if let Some(mut unlink) = attached.and_then(|attached| attached.downcast::<Unlink>().ok()) {
            unlink.still = false;
        }
    }
}

/// Removes a path when it is dropped, if it is still to.
struct Unlink {
    path: PathBuf,
    still: bool,
}

impl Drop for Unlink {
    fn drop(&mut self) {
        if self.still
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!("can't remove {}: {error}", self.path.display());
        }
    }
}

// ---- names ----

/// Of Linux's abstract namespace: as Go writes it, or with the zero byte that it is there.
fn is_abstract(path: &Path) -> bool {
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

/// As std has it. A peer may have filled its address to the last byte; std makes none of such a
/// name, and it counts as none: nobody's choice of a name is to fail an accept.
pub(super) fn std_name(path: &Path) -> io::Result<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let [b'@' | 0, name @ ..] = path.as_os_str().as_bytes() {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(path).or_else(|_too_long| SocketAddr::from_pathname(""))
}

pub(super) fn std_addr(fd: &Fd, end: End) -> io::Result<SocketAddr> {
    match fd.endpoint(end) {
        Some(Addr::Path(path)) => std_name(&path),
        _ => Err(fd.no_address()),
    }
}

pub(super) fn op_error(op: &'static str, network: Network, path: &Path, cause: Cause) -> io::Error {
    OpError {
        op,
        net: network.name(),
        source: None,
        addr: Some(Addr::Path(path.to_owned())),
        written: 0,
        cause,
    }
    .into()
}

pub(super) fn take_in(what: &str, socket: Socket, network: Network) -> Result<Fd, Cause> {
    let open = |scheduler: &_| Fd::open(scheduler, OwnedFd::from(socket), network);
    context::with(what, open).map_err(|error| Cause::system("epoll_ctl", error))
}
