//! The descriptor itself: lent, taken in from std, and given out to std.
//!
//! May touch: fd/, and the types it gives this to. Mirrors Go's `net/rawconn.go` and `net/file.go`.
//!
//! There is no `AsFd`: what it lends lives as long as the handle, and a close through another
//! handle would leave it dangling, or naming somebody else's file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::datagram::Datagram;
use super::fd::{Failure, Fd};
use super::listener::Listener;
use super::stream::Stream;
use super::tcp::{Tcp, TcpListener, TcpStream};
use super::udp::{Udp, UdpSocket};
use super::unix::{Unix, UnixListener, UnixStream};
use super::unixgram::UnixDatagram;
use crate::endpoints::Network;
use socket2::SockRef;

use crate::reactor::Refusal;
use crate::runtime::context;

impl Fd {
    fn lend<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let lent = self.with_fd(f);
        lent.map_err(|failure| self.error("raw-control", failure, 0))
    }

    /// The number; whoever has it may have set a linger.
    fn number(&self) -> RawFd {
        self.resource().handle.note_linger();
        match self.is_closed() {
            true => -1,
            false => self.resource().handle.raw(),
        }
    }

    /// Takes in a socket of somebody else's making.
    fn take_in(what: &str, fd: OwnedFd, network: Network) -> io::Result<Fd> {
        let taken = context::with(what, |scheduler| Fd::open(scheduler, fd, network))?;
        taken.resource().handle.note_linger();
        Ok(taken)
    }

    /// As [`Fd::take_in`], for a listener: what it accepts is ours alone, and inherits its linger.
    fn take_in_listener(what: &str, fd: OwnedFd, network: Network) -> io::Result<Fd> {
        let lingers = SockRef::from(&fd).linger()?.is_some();
        let taken = context::with(what, |scheduler| Fd::open(scheduler, fd, network))?;
        taken.resource().handle.note_duplicate();
        if lingers {
            taken.resource().handle.note_linger();
        }
        Ok(taken)
    }

    /// Gives the socket out; for every other handle it is closed.
    fn give_out(&self) -> io::Result<OwnedFd> {
        let closed = || self.error("file", Failure::Refused(Refusal::Closed), 0);
        if self.is_closed() || self.resource().handle.is_lent() {
            return Err(closed());
        }
        self.learn_endpoints();
        self.detach().ok_or_else(closed)
    }
}

impl<K> Stream<K> {
    /// Lends the descriptor, for what this crate has no method for: Go's `Control`.
    ///
    /// A close that comes while it is lent is put off until it is back. Don't wait inside.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use socket2::SockRef;
    /// let listener = netpoller::TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = netpoller::TcpStream::connect(listener.local_addr()?).await?;
    /// let reuses = stream.with_fd(|fd| SockRef::from(&fd).reuse_address())??;
    /// assert!(!reuses);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.fd.lend(f)
    }
}

impl<K> Listener<K> {
    /// Lends the descriptor: see [`Stream::with_fd`].
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.fd.lend(f)
    }
}

impl<K> Datagram<K> {
    /// Lends the descriptor: see [`Stream::with_fd`].
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.fd.lend(f)
    }
}

/// The descriptor's number, -1 once it is closed.
impl<K> AsRawFd for Stream<K> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.number()
    }
}

/// The descriptor's number, -1 once it is closed.
impl<K> AsRawFd for Listener<K> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.number()
    }
}

/// The descriptor's number, -1 once it is closed.
impl<K> AsRawFd for Datagram<K> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.number()
    }
}

impl Stream<Tcp> {
    /// Takes over a connection of std's, as it is set.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let taken = Fd::take_in("TcpStream::from_std", stream.into(), Network::Tcp);
        taken.map(Stream::new)
    }

    /// Gives the connection to std. It stays non-blocking, and for other handles it is closed.
    ///
    /// # Errors
    ///
    /// Closed; lent just now by [`with_fd`](Stream::with_fd).
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.fd.give_out().map(Into::into)
    }
}

impl Stream<Unix> {
    /// Takes over a connection of std's, as it is set.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        stream.set_nonblocking(true)?;
        let taken = Fd::take_in("UnixStream::from_std", stream.into(), Network::Unix);
        taken.map(Stream::new)
    }

    /// Gives the connection to std: see [`TcpStream::into_std`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixStream> {
        self.fd.give_out().map(Into::into)
    }
}

impl Listener<Tcp> {
    /// Takes over a listener of std's, as it is set.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let taken = Fd::take_in_listener("TcpListener::from_std", listener.into(), Network::Tcp);
        taken.map(Listener::new)
    }

    /// Gives the listener to std: see [`TcpStream::into_std`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        self.fd.give_out().map(Into::into)
    }
}

impl Listener<Unix> {
    /// Takes over a listener of std's, as it is set. Its path is not removed when it is closed,
    /// unless [`set_unlink_on_close`](Listener::set_unlink_on_close) asks for it.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        let taken = Fd::take_in_listener("UnixListener::from_std", listener.into(), Network::Unix);
        taken.map(Listener::new)
    }

    /// Gives the listener to std: see [`TcpStream::into_std`]. Its path stays.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixListener> {
        let given = self.fd.give_out()?;
        self.keep_path();
        Ok(given.into())
    }
}

impl Datagram<Udp> {
    /// Takes over a socket of std's, as it is set, connected or not.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        let taken = Fd::take_in("UdpSocket::from_std", socket.into(), Network::Udp)?;
        taken.learn_endpoints();
        Ok(Datagram::new(taken))
    }

    /// Gives the socket to std: see [`TcpStream::into_std`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_std(self) -> io::Result<std::net::UdpSocket> {
        self.fd.give_out().map(Into::into)
    }
}

impl Datagram<Unix> {
    /// Takes over a socket of std's, as it is set, connected or not.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        let taken = Fd::take_in("UnixDatagram::from_std", socket.into(), Network::Unixgram)?;
        taken.learn_endpoints();
        Ok(Datagram::new(taken))
    }

    /// Gives the socket to std: see [`TcpStream::into_std`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixDatagram> {
        self.fd.give_out().map(Into::into)
    }
}
