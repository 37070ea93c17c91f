//! What the handles share: [`Stream`], [`Datagram`], [`Listener`] and [`Pipe`].
//!
//! They are different types, so that a listener can't be read from. `handles!` writes what all have,
//! `carriers!` what those have that carry data, `sockets!` the addresses, `from_std!` how std's sockets are
//! taken over and given back, and `futures_io!` the traits of futures-io.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_io::{AsyncRead, AsyncWrite};

use super::addr::{Kind, Tcp, Udp, Unix};
use super::datagram::Datagram;
use super::fd::{Fd, Needs};
use super::listener::{self, Listener};
use super::source::Pipe;
use super::stream::Stream;
use crate::endpoints::{End, Network};
use crate::reactor::Direction;

macro_rules! handles {
    ($($Handle:ident $(<$K:ident>)?;)*) => { $(
        impl$(<$K>)? Clone for $Handle$(<$K>)? {
            fn clone(&self) -> Self {
                $Handle::of(self.fd.clone())
            }
        }

        impl$(<$K>)? fmt::Debug for $Handle$(<$K>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.fd.debug(stringify!($Handle), f)
            }
        }

        /// The descriptor's number, -1 once it is closed. What is said of
        #[doc = concat!("[`with_fd`](", stringify!($Handle), "::with_fd) holds here too.")]
        impl$(<$K>)? AsRawFd for $Handle$(<$K>)? {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.number()
            }
        }

        impl$(<$K>)? $Handle$(<$K>)? {
            pub(super) fn of(fd: Fd) -> Self {
                $Handle { fd, $(kind: PhantomData::<$K>)? }
            }

            /// Lends the descriptor, for what this crate has no method for: Go's `Control`. It is for
            /// options and the like. If a call inside says `WouldBlock`, the runtime does not know, and
            /// `readable` or `writable` would then return at once: for such calls there are
            /// [`Stream::io`] and [`Stream::try_io`].
            ///
            /// A close that comes while it is lent is put off until it is back. Don't wait inside. After
            /// the first call a short read or write proves nothing (the closure may have set up
            /// kTLS, say), and costs one system call more.
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
            /// There is no `AsFd`: what it lends would live as long as the handle, and a close
            /// through another handle would leave it dangling, or naming another file.
            ///
            /// # Errors
            ///
            /// Closed.
            #[doc(alias = "control")]
            pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
                self.fd.with_fd(f)
            }
        }
    )* };
}

handles! { Stream<K>; Datagram<K>; Listener<K>; Pipe; }

macro_rules! carriers {
    ($($Handle:ident $(<$K:ident>)?;)*) => { $(
        impl$(<$K>)? $Handle$(<$K>)? {
            // ---- deadlines ----

            /// Sets both deadlines: see
            #[doc = concat!("[`set_read_deadline`](", stringify!($Handle), "::set_read_deadline).")]
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{NetError, UnixStream, time};
            /// let (ours, _theirs) = UnixStream::pair()?;
            /// ours.set_deadline(Some(time::now()))?;
            /// assert!(ours.write(b"late").await.unwrap_err().is_timeout());
            /// ours.set_deadline(None)?;
            /// assert_eq!(ours.write(b"again").await?, 5);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Closed.
            pub fn set_deadline(&self, when: Option<Instant>) -> io::Result<()> {
                self.set_read_deadline(when)?;
                self.set_write_deadline(when)
            }

            /// From this time on reads fail with a timeout; `None` for never. It holds for a read that
            /// is under way too.
            ///
            /// "Now" and the past expire at once, even with data waiting. Expired stays expired until
            /// the deadline is moved. Moving it later costs a store: do it on every byte.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{NetError, UnixStream, time};
            /// use std::time::Duration;
            /// let (ours, _theirs) = UnixStream::pair()?;
            /// ours.set_read_deadline(Some(time::now() + Duration::from_millis(10)))?;
            /// let error = ours.read(&mut [0; 8]).await.unwrap_err();
            /// assert!(error.is_timeout());
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Closed.
            pub fn set_read_deadline(&self, when: Option<Instant>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, when)
            }

            /// When writes fail with a timeout: see
            #[doc = concat!("[`set_read_deadline`](", stringify!($Handle), "::set_read_deadline).")]
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{NetError, UnixStream, time};
            /// let (ours, theirs) = UnixStream::pair()?;
            /// theirs.write_all(b"hello").await?;
            /// ours.set_write_deadline(Some(time::now()))?;
            /// assert!(ours.write(b"late").await.unwrap_err().is_timeout());
            /// assert_eq!(ours.read(&mut [0; 8]).await?, 5); // reads have their own
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Closed.
            pub fn set_write_deadline(&self, when: Option<Instant>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Write, when)
            }

            // ---- readiness ----

            /// Waits until a read may succeed, or would report an end of file or an error. A new socket counts
            /// as ready until a try says `WouldBlock`, also one whose connect(2) is under way.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use std::io::ErrorKind::WouldBlock;
            /// let (ours, theirs) = netpoller::UnixStream::pair()?;
            /// theirs.write_all(b"hello").await?;
            /// let mut buffer = [0; 16];
            /// let got = loop {
            ///     ours.readable().await?;
            ///     match ours.try_read(&mut buffer) {
            ///         Err(error) if error.kind() == WouldBlock => continue, // it only seemed so
            ///         read => break read?,
            ///     }
            /// };
            /// assert_eq!(&buffer[..got], b"hello");
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// A timeout once the read deadline has passed; closed.
            pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
                self.fd.readiness(Direction::Read)
            }

            /// Waits until a write may take something, or would fail: see
            #[doc = concat!("[`readable`](", stringify!($Handle), "::readable) for new sockets.")]
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let (ours, theirs) = netpoller::UnixStream::pair()?;
            /// while ours.try_write(&[0; 64 << 10]).is_ok() {}
            /// let reading = netpoller::spawn(async move {
            ///     while theirs.read_with(|bytes| bytes.len()).await? > 0 {}
            ///     std::io::Result::Ok(())
            /// });
            /// ours.writable().await?; // the task has made room
            /// assert!(ours.try_write(b"more")? > 0);
            /// ours.close()?;
            /// reading.await.unwrap()?;
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// A timeout once the write deadline has passed; closed.
            pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
                self.fd.readiness(Direction::Write)
            }

            /// Makes a system call of your own (`sendfile`, say) on the lent descriptor, again and
            /// again as the direction becomes ready, until it says something other than
            /// `WouldBlock` or `Interrupted`. Like a read or a write of ours it has the direction to itself
            /// meanwhile.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{Direction, UnixStream};
            /// use socket2::SockRef;
            /// let (ours, theirs) = UnixStream::pair()?;
            /// let sent = ours.io(Direction::Write, |fd| SockRef::from(&fd).send(b"hello"));
            /// assert_eq!(sent.await?, 5);
            /// # assert_eq!(theirs.read_with(|bytes| bytes.to_vec()).await?, b"hello");
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Those of `call`, which must say `WouldBlock` only where the socket did; a timeout once
            /// the direction's deadline has passed; closed.
            ///
            /// # Cancel safety
            ///
            /// If it is dropped while it waits, nothing was done.
            pub fn io<R>(
                &self,
                direction: Direction,
                mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
            ) -> impl Future<Output = io::Result<R>> {
                self.fd.op(direction, move |fd| fd.call(&mut call))
            }

            /// Makes a system call of your own on the lent descriptor, without waiting: as
            #[doc = concat!("[`io`](", stringify!($Handle), "::io),")]
            /// once. It does not wait for the operations that queue for the direction.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{Direction, UnixStream};
            /// use socket2::SockRef;
            /// let (ours, _theirs) = UnixStream::pair()?;
            /// let sent = ours.try_io(Direction::Write, |fd| SockRef::from(&fd).send(b"hello"))?;
            /// assert_eq!(sent, 5);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Those of `call`. After `WouldBlock`, `readable` and `writable` wait until another try
            /// may succeed.
            pub fn try_io<R>(
                &self,
                direction: Direction,
                call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
            ) -> io::Result<R> {
                self.fd.try_call(direction, call)
            }

            // ---- closing ----

            /// Closes it, for every handle, before it returns. What is parked on it fails
            /// with "use of closed network connection".
            ///
            /// The system still sends what was written to a stream, unless its linger is zero. With a
            /// longer linger, a thread closes the socket.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{NetError, UnixStream, spawn, yield_now};
            /// let (ours, _theirs) = UnixStream::pair()?;
            /// let same = ours.clone();
            /// let reading = spawn(async move { same.read(&mut [0; 8]).await });
            /// yield_now().await;
            /// ours.close()?;
            /// let error = reading.await.expect("the task does not panic").unwrap_err();
            /// assert!(error.is_closed());
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Closed already.
            pub fn close(&self) -> io::Result<()> {
                self.fd.close()
            }
        }
    )* };
}

carriers! { Stream<K>; Datagram<K>; Pipe; }

macro_rules! sockets {
    ($($Handle:ident)*) => { $(
        impl<K: Kind> $Handle<K> {
            /// Our end's address, with the real port.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let socket = netpoller::UdpSocket::bind("127.0.0.1:0").await?;
            /// assert_ne!(socket.local_addr()?.port(), 0);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn local_addr(&self) -> io::Result<K::Addr> {
                self.fd.addr::<K>(End::Local)
            }

            /// The peer's address.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use netpoller::{TcpListener, TcpStream};
            /// let listener = TcpListener::bind("127.0.0.1:0").await?;
            /// let stream = TcpStream::connect(listener.local_addr()?).await?;
            /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Not connected; no longer connected, if it was not asked for before.
            pub fn peer_addr(&self) -> io::Result<K::Addr> {
                self.fd.addr::<K>(End::Peer)
            }
        }
    )* };
}

sockets!(Stream Datagram);

// Sockets taken over from std, and given back to it: Go's `net/file.go` (`FileConn`, `TCPConn.File`).
macro_rules! from_std {
    ($($Ours:ident<$Kind:ident>, $name:literal: $Std:ty, $network:ident $(, $set:path)?;)*) => { $(
        impl $Ours<$Kind> {
            /// Takes over a socket of std's, with its options as they are. A TCP listener gets Go's
            /// defaults for what it accepts: no delay, and keep-alive if it has none.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let (theirs, ours) = std::os::unix::net::UnixStream::pair()?;
            /// let ours = netpoller::UnixStream::from_std(ours)?;
            /// ours.write_all(b"hello").await?;
            /// let back: std::os::unix::net::UnixStream = ours.into_std()?;
            /// # drop((theirs, back));
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
            pub fn from_std(socket: $Std) -> io::Result<Self> {
                socket.set_nonblocking(true)?;
                $($set(&socket);)?
                let what = concat!($name, "::from_std");
                let fd = Fd::adopt(what, socket, Network::$network)?;
                // What lies between it and the wire may end a read early: see `with_fd`.
                fd.desc.set_short_io_inconclusive();
                // While the system can tell: after a reset it knows no peer.
                fd.learn_endpoints();
                Ok($Ours::of(fd))
            }

            /// Gives the socket to std. It stays non-blocking, and for other handles it is closed.
            /// A Unix listener's path stays.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// use std::io::{Read, Write};
            /// let (ours, theirs) = netpoller::UnixStream::pair()?;
            /// theirs.write_all(b"hello").await?;
            /// let mut ours = ours.into_std()?;
            /// ours.set_nonblocking(false)?; // for a thread that may block
            /// ours.read_exact(&mut [0; 5])?;
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Closed; lent just now by `with_fd`.
            pub fn into_std(self) -> io::Result<$Std> {
                self.fd.give_out().map(Into::into)
            }
        }
    )* };
}

from_std! {
    Stream<Tcp>, "TcpStream": std::net::TcpStream, Tcp;
    Stream<Unix>, "UnixStream": unix::net::UnixStream, Unix;
    Listener<Tcp>, "TcpListener": std::net::TcpListener, Tcp, listener::set_defaults;
    Listener<Unix>, "UnixListener": unix::net::UnixListener, Unix;
    Datagram<Udp>, "UdpSocket": std::net::UdpSocket, Udp;
    Datagram<Unix>, "UnixDatagram": unix::net::UnixDatagram, Unixgram;
}

// ---- futures-io ----
//
// The traits that helpers of other crates know. In Go, `net.Conn` is an `io.Reader` and an `io.Writer`.
//
// One waker a direction, and the last poller wins: the traits have no place for a queue. A poller
// holds no lock between two polls, so it waits while one of our own operations holds its direction
// (`poll_write` never comes between the pieces of a `write_all`), and gives way to those that come
// while it waits for the system.

macro_rules! futures_io {
    ($($Handle:ty $(, $K:ident)?: $read:path, $write:path, $close:path
        $(, vectored $read_vectored:path, $write_vectored:path)?;)*) => { $(
        impl$(<$K>)? AsyncRead for $Handle {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffer.is_empty());
                self.fd
                    .poll_unheld(Direction::Read, "read", needs, cx, |fd| $read(fd, buffer))
            }

            $(fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffers.iter().all(|buffer| buffer.is_empty()));
                self.fd
                    .poll_unheld(Direction::Read, "read", needs, cx, |fd| $read_vectored(fd, buffers))
            })?
        }

        /// Closing shuts down a stream's writing: the peer reads end of file, and can still answer.
        /// The socket is closed by `close`, or with its last handle. A pipe, which has no half-close,
        /// is closed.
        impl$(<$K>)? AsyncWrite for $Handle {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(bytes.is_empty());
                self.fd
                    .poll_unheld(Direction::Write, "write", needs, cx, |fd| $write(fd, bytes))
            }

            $(fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffers.iter().all(|buffer| buffer.is_empty()));
                self.fd
                    .poll_unheld(Direction::Write, "write", needs, cx, |fd| $write_vectored(fd, buffers))
            })?

            fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                $close(&self.fd, cx)
            }
        }
    )* };
}

futures_io! {
    Stream<K>, K: Fd::read, Fd::write, poll_close_write, vectored Fd::read_vectored, Fd::write_vectored;
    &Stream<K>, K: Fd::read, Fd::write, poll_close_write, vectored Fd::read_vectored, Fd::write_vectored;
    Pipe: Fd::read_file, Fd::write_file, poll_close;
    &Pipe: Fd::read_file, Fd::write_file, poll_close;
}

fn poll_close_write(fd: &Fd, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    fd.poll_unheld(Direction::Write, "close", Needs::Lock, cx, Fd::half_close)
}

fn poll_close(fd: &Fd, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match fd.is_closed() {
        true => Poll::Ready(Ok(())),
        false => Poll::Ready(fd.close()),
    }
}
