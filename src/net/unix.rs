//! Unix sockets, by path: streams, listeners and datagrams.

// Mirrors Go's `net/unixsock.go` and `net/unixsock_posix.go`.

use std::fs;
use std::io;
use std::os::unix::net;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket};

use super::addr::Unix;
use super::addr::{is_abstract, system_addr};
use super::datagram::Datagram;
use super::error::{Cause, OpError};
use super::fd::Fd;
use super::listener::Listener;
use super::stream::Stream;
use crate::endpoints::{Addr, End, Network};
use crate::runtime::context;
use crate::sys;

/// A connection over a Unix socket: see [`Stream`] for what it can do.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::UnixStream;
/// let (ours, theirs) = UnixStream::pair()?;
/// ours.write_all(b"hello").await?;
/// assert_eq!(theirs.read_with(|bytes| bytes.to_vec()).await?, b"hello");
/// # Ok(())
/// # })
/// # }
/// ```
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

/// A Unix datagram socket: see [`Datagram`] for the rest of what it can do.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::UnixDatagram;
/// let path = std::env::temp_dir().join(format!("netpoller-doc-dgram-{}", std::process::id()));
/// let server = UnixDatagram::bind(&path).await?;
/// let client = UnixDatagram::unbound()?;
/// client.send_to(b"ping", &path).await?;
/// let mut buffer = [0; 1500];
/// let (length, from) = server.recv_from(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"ping");
/// assert!(from.is_unnamed());
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # })
/// # }
/// ```
pub type UnixDatagram = Datagram<Unix>;

impl Stream<Unix> {
    /// Connects to `path`. On Linux, `@name` is a name in the abstract namespace.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{UnixListener, UnixStream};
    /// let path = std::env::temp_dir().join(format!("doc-connect-{}", std::process::id()));
    /// let listener = UnixListener::bind(&path).await?;
    /// let client = UnixStream::connect(&path).await?;
    /// let (server, _) = listener.accept().await?;
    /// client.write_all(b"hello").await?;
    /// assert_eq!(server.read(&mut [0; 8]).await?, 5);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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
        let path = path.as_ref();
        let connect =
            |socket: &Socket, to: &SockAddr| socket.connect(to).map_err(Cause::by("connect"));
        let fd = open("dial", "UnixStream::connect", Network::Unix, path, connect).await?;
        fd.learn_new_endpoints(Addr::Path(path.to_owned()));
        Ok(Stream::of(fd))
    }

    /// Two streams, connected to each other.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// ours.write_all(b"hello").await?;
    /// assert_eq!(theirs.read_with(|bytes| bytes.len()).await?, 5);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = net::UnixStream::pair()?;
        Ok((UnixStream::from_std(one)?, UnixStream::from_std(other)?))
    }
}

impl Listener<Unix> {
    /// Listens on `path`. On Linux, `@name` is a name in the abstract namespace.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UnixListener;
    /// let path = std::env::temp_dir().join(format!("doc-listen-{}", std::process::id()));
    /// let listener = UnixListener::bind(&path).await?;
    /// let error = UnixListener::bind(&path).await.unwrap_err();
    /// assert!(error.to_string().ends_with("bind: address already in use"));
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `listen` as its operation; `address already in use` if the path exists.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let listen = |socket: &Socket, on: &SockAddr| {
            bind(socket, on)?;
            // The system takes its own limit for any larger number.
            socket.listen(i32::MAX).map_err(Cause::by("listen"))
        };
        let path = path.as_ref();
        let fd = open("listen", "UnixListener::bind", Network::Unix, path, listen).await?;
        let listener = Listener::of(fd);
        listener.set_unlink_on_close(true);
        Ok(listener)
    }

    /// Whether the path is removed when the listener is closed or dropped. By default it is, unless the
    /// listener came from std.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UnixListener;
    /// let path = std::env::temp_dir().join(format!("doc-unlink-{}", std::process::id()));
    /// let listener = UnixListener::bind(&path).await?;
    /// listener.set_unlink_on_close(false); // another process has taken the path over
    /// listener.close()?;
    /// std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    #[doc(alias = "SetUnlinkOnClose")]
    pub fn set_unlink_on_close(&self, unlink: bool) {
        let path = match self.fd.endpoint(End::Local) {
            Some(Addr::Path(path)) if unlink && !self.fd.is_closed() => Some(path),
            _ => None,
        };
        self.fd
            .socket()
            .set_unlink(path.filter(|path| is_file(path)));
    }
}

impl Datagram<Unix> {
    /// Binds a socket to `path`, which stays when the socket is closed. On Linux, `@name` is a
    /// name in the abstract namespace.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UnixDatagram;
    /// let path = std::env::temp_dir().join(format!("netpoller-doc-log-{}", std::process::id()));
    /// let log = UnixDatagram::bind(&path).await?;
    /// let client = UnixDatagram::unbound()?;
    /// client.connect(&path)?;
    /// client.send(b"a line").await?;
    /// assert_eq!(log.recv(&mut [0; 1500]).await?, 6);
    /// std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `listen` as its operation; `address already in use` if the path exists.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        let (what, path) = ("UnixDatagram::bind", path.as_ref());
        let fd = open("listen", what, Network::Unixgram, path, bind).await;
        fd.map(Datagram::of)
    }

    /// A socket without a name: it can send, and can't be answered.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(net::UnixDatagram::unbound()?)
    }

    /// Two sockets, connected to each other.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// ours.send(b"one").await?;
    /// ours.send(b"two").await?;
    /// assert_eq!(theirs.recv(&mut [0; 1500]).await?, 3); // messages stay apart
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from_std(one)?, UnixDatagram::from_std(other)?))
    }

    /// Connects: from now on the socket sends to `path`, and receives from there only.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let connect = || {
            let to = system_addr(path)?;
            let connected = self.fd.with_socket(|socket| socket.connect(&to));
            connected.map_err(|failure| failure.cause("connect"))
        };
        connect().map_err(|cause| op_error("dial", Network::Unixgram, path, cause))?;
        self.fd.learn_new_endpoints(Addr::Path(path.to_owned()));
        Ok(())
    }

    /// Sends a message to `path`; waits while the receiver has no room for it. All of it goes, or
    /// nothing.
    ///
    /// An unconnected socket learns of room only when a message that it sent itself is received.
    /// Where others may have filled the receiver's queue, set a deadline, or connect. The
    /// BSDs and macOS say `ENOBUFS` in place of waiting, as they do to Go: try again later.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UnixDatagram;
    /// let path = std::env::temp_dir().join(format!("netpoller-doc-send-{}", std::process::id()));
    /// let log = UnixDatagram::bind(&path).await?;
    /// assert_eq!(UnixDatagram::unbound()?.send_to(b"a line", &path).await?, 6);
    /// assert_eq!(log.recv(&mut [0; 1500]).await?, 6);
    /// std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Datagram::send); if the socket is connected.
    pub async fn send_to(&self, message: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let path = path.as_ref();
        let name = Addr::Path(path.to_owned());
        let to = match system_addr(path) {
            Ok(to) => to,
            Err(cause) => {
                context::yield_once().await;
                return Err(op_error("write", Network::Unixgram, path, cause));
            }
        };
        self.send_to_system(message, &to, name).await
    }
}

/// Opens a socket, which `set_up` binds or connects. This never waits, so it yields first.
async fn open(
    op: &'static str,
    what: &str,
    network: Network,
    path: &Path,
    set_up: impl FnOnce(&Socket, &SockAddr) -> Result<(), Cause>,
) -> io::Result<Fd> {
    context::yield_once().await;
    let open = || {
        let address = system_addr(path)?;
        let socket = sys::socket(Domain::UNIX, network.kind()).map_err(Cause::by("socket"))?;
        set_up(&socket, &address)?;
        Fd::adopt(what, socket, network).map_err(Cause::by("epoll_ctl"))
    };
    open().map_err(|cause| {
        // It is bound, and nothing will use it: the path would refuse the next try.
        if let ("listen", Cause::System { call, .. }) = (op, &cause)
            && ["listen", "epoll_ctl"].contains(call)
            && is_file(path)
        {
            drop(fs::remove_file(path));
        }
        op_error(op, network, path, cause)
    })
}

/// Whether it is the path of a file, and no name of the abstract namespace.
fn is_file(path: &Path) -> bool {
    !path.as_os_str().is_empty() && !is_abstract(path)
}

fn bind(socket: &Socket, on: &SockAddr) -> Result<(), Cause> {
    socket.bind(on).map_err(Cause::by("bind"))
}

pub(super) fn op_error(op: &'static str, network: Network, path: &Path, cause: Cause) -> io::Error {
    OpError::new(op, network.name(), Some(Addr::Path(path.to_owned())), cause).into()
}
