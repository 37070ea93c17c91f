//! A connected byte stream, of TCP or of Unix.

// Mirrors `net.conn` and `net.TCPConn` (`net/net.go`, `net/tcpsock.go`), and `io.ReadFull`.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::Shutdown;

use super::addr::Tcp;
use super::fd::Fd;
use crate::reactor::Direction::{Read, Write};
use crate::sys::Filling;

/// A connected byte stream: [`TcpStream`](crate::TcpStream) or [`UnixStream`](crate::UnixStream).
///
/// A cheap handle: clones are the same connection, and closing one closes all. Reads queue up
/// behind each other, first come first served, and so do writes; the two directions are apart. It
/// closes by itself when the last handle is dropped.
///
/// It is not `Send`: a socket belongs to the runtime, and so to the thread, that opened it. To give
/// it to another thread, take it out by `into_std` and in again by `from_std`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _peer) = listener.accept().await?;
///
/// client.write_all(b"hello").await?;
/// client.close_write()?;
/// let mut hello = [0; 5];
/// server.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// assert_eq!(server.read(&mut [0; 8]).await?, 0); // the end
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind and loses no byte, but those which move data
/// in several steps ([`write_all`](Stream::write_all), [`read_exact`](Stream::read_exact)) may
/// have moved some.
pub struct Stream<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

/// A TCP connection: see [`Stream`] for what it can do.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stream = TcpStream::connect(listener.local_addr()?).await?; // or "example.com:http"
/// let (server, _) = listener.accept().await?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// stream.close_write()?;
/// while server.read_with(|bytes| bytes.len()).await? > 0 {}
/// # Ok(())
/// # })
/// # }
/// ```
pub type TcpStream = Stream<Tcp>;

impl<K> Stream<K> {
    // ---- reading ----

    /// Reads what is there, up to the buffer's length; waits while nothing is. Returns 0 at end of
    /// file, and at once if the buffer is empty.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"hello").await?;
    /// let mut buffer = [0; 16];
    /// let got = ours.read(&mut buffer).await?;
    /// assert_eq!(&buffer[..got], b"hello");
    /// theirs.close()?;
    /// assert_eq!(ours.read(&mut buffer).await?, 0); // the end
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed.
    pub fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.read(buffer))
    }

    /// As [`read`](Stream::read), into memory that need not be initialised, such as
    /// [`Vec::spare_capacity_mut`]; gives the part that was filled.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::mem::MaybeUninit;
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"hello").await?;
    /// let mut buffer = [MaybeUninit::uninit(); 1024];
    /// assert_eq!(ours.read_uninit(&mut buffer).await?, b"hello");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub async fn read_uninit<'b>(
        &self,
        buffer: &'b mut [MaybeUninit<u8>],
    ) -> io::Result<&'b mut [u8]> {
        let empty = buffer.is_empty();
        let mut filling = Filling::new(buffer);
        let read = |fd: &Fd| fd.read_uninit(&mut filling);
        self.fd.op_on(Read, empty, read).await?;
        Ok(filling.into_filled())
    }

    /// Reads into several buffers, one after the other, with one system call.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::io::IoSliceMut;
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 16]);
    /// let mut pieces = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(ours.read_vectored(&mut pieces).await?, 8);
    /// assert_eq!((&head, &body[..4]), (b"head", &b"body"[..]));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn read_vectored(
        &self,
        buffers: &mut [IoSliceMut<'_>],
    ) -> impl Future<Output = io::Result<usize>> {
        let empty = buffers.iter().all(|buffer| buffer.is_empty());
        self.fd
            .op_on(Read, empty, move |fd| fd.read_vectored(buffers))
    }

    /// Fills the whole buffer.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"hello").await?;
    /// let mut head = [0; 2];
    /// ours.read_exact(&mut head).await?;
    /// assert_eq!(&head, b"he");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read); [`io::ErrorKind::UnexpectedEof`] if the stream ends first.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it has taken bytes from the stream.
    #[doc(alias = "ReadFull")]
    pub fn read_exact<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<()>> + 'a {
        self.fd
            .move_all(Read, buffer.len(), |fd, from| fd.read(&mut buffer[from..]))
    }

    /// Reads into the loop's own buffer and lends what came to `f`: a connection that waits holds
    /// no buffer. At end of file, `f` gets an empty slice.
    ///
    /// `f` may do anything but wait: no borrow is held while it runs.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"hello").await?;
    /// assert_eq!(ours.read_with(|bytes| bytes.to_vec()).await?, b"hello");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> impl Future<Output = io::Result<R>> {
        self.fd.read_with(f)
    }

    /// Reads without taking the bytes out: the next read sees them again.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"GET /").await?;
    /// let mut start = [0; 3];
    /// assert_eq!(ours.peek(&mut start).await?, 3);
    /// assert_eq!(&start, b"GET");
    /// assert_eq!(ours.read_with(|bytes| bytes.to_vec()).await?, b"GET /");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.peek(buffer))
    }

    /// Reads what is there without waiting.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// let error = ours.try_read(&mut [0; 8]).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    ///
    /// theirs.write_all(b"hello").await?;
    /// ours.readable().await?;
    /// assert_eq!(ours.try_read(&mut [0; 8])?, 5);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`read`](Stream::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.try_now(Read, |fd| fd.read(buffer))
    }

    // ---- writing ----

    /// Waits until the kernel takes something, and writes that, by one system call.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, _theirs) = netpoller::UnixStream::pair()?;
    /// let much = vec![0; 16 << 20];
    /// let gone = ours.write(&much).await?; // as much as the kernel's buffer takes
    /// assert!(gone > 0 && gone < much.len());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the write deadline has passed; closed.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Write, bytes.is_empty(), move |fd| fd.write(bytes))
    }

    /// Writes several buffers, one after the other, with one system call.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::io::{IoSlice, IoSliceMut};
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// let pieces = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    /// assert_eq!(ours.write_vectored(&pieces).await?, 8);
    ///
    /// let (mut head, mut body) = ([0; 4], [0; 4]);
    /// let mut pieces = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(theirs.read_vectored(&mut pieces).await?, 8);
    /// assert_eq!((&head, &body), (b"head", b"body"));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Stream::write).
    pub fn write_vectored(
        &self,
        buffers: &[IoSlice<'_>],
    ) -> impl Future<Output = io::Result<usize>> {
        let empty = buffers.iter().all(|buffer| buffer.is_empty());
        self.fd.op_on(Write, empty, |fd| fd.write_vectored(buffers))
    }

    /// Writes everything: Go's `Write`. No other write comes between its pieces, but a `try_write` or a
    /// `try_io`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// let writing = netpoller::spawn(async move { ours.write_all(&[0; 1 << 20]).await });
    /// let mut all = vec![0; 1 << 20];
    /// theirs.read_exact(&mut all).await?;
    /// writing.await.expect("no panic")?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Stream::write); the [`OpError`](crate::OpError) says how much had gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, some of it has been written.
    #[doc(alias = "Write")]
    #[inline]
    pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> + 'a {
        self.fd
            .move_all(Write, bytes.len(), |fd, from| fd.write(&bytes[from..]))
    }

    /// Writes what the kernel takes without waiting.
    ///
    /// It does not queue behind other writes: await [`writable`](Stream::writable) before it, or be the
    /// only writer.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, _theirs) = netpoller::UnixStream::pair()?;
    /// let full = loop {
    ///     if let Err(error) = ours.try_write(&[0; 64 << 10]) {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing; else as [`write`](Stream::write).
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.fd.try_now(Write, |fd| fd.write(bytes))
    }

    // ---- the end: see also `close` ----

    /// Closes with a RST, on TCP: unsent bytes are thrown away, and no TIME_WAIT stays.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (server, _) = listener.accept().await?;
    /// server.abort()?;
    /// let error = client.read(&mut [0; 8]).await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn abort(&self) -> io::Result<()> {
        self.fd.abort()
    }

    /// Ends reading: a parked read gets end of file. The system may still acknowledge what the peer
    /// sends.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{UnixStream, spawn, yield_now};
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let same = ours.clone();
    /// let reading = spawn(async move { same.read(&mut [0; 8]).await });
    /// yield_now().await;
    /// ours.close_read()?;
    /// assert_eq!(reading.await.unwrap()?, 0); // the end
    /// ours.write_all(b"still there").await?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; closed.
    #[doc(alias = "CloseRead")]
    pub fn close_read(&self) -> io::Result<()> {
        self.fd.shut_down(Shutdown::Read)
    }

    /// Ends writing: the peer reads end of file, and can still answer.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// ours.write_all(b"a question").await?;
    /// ours.close_write()?;
    /// assert_eq!(theirs.read_with(|bytes| bytes.len()).await?, 10);
    /// assert_eq!(theirs.read_with(|bytes| bytes.len()).await?, 0); // the end
    /// theirs.write_all(b"an answer").await?;
    /// assert_eq!(ours.read_with(|bytes| bytes.to_vec()).await?, b"an answer");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; closed.
    #[doc(alias = "CloseWrite")]
    pub fn close_write(&self) -> io::Result<()> {
        self.fd.shut_down(Shutdown::Write)
    }

    /// Waits until the peer has sent FIN or RST, whether or not anything reads.
    ///
    /// After our own [`close_read`](Stream::close_read) this may return at once: the system can't tell.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixStream::pair()?;
    /// theirs.write_all(b"unread").await?;
    /// theirs.close()?;
    /// ours.hung_up().await?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed, on our side.
    pub fn hung_up(&self) -> impl Future<Output = io::Result<()>> {
        self.fd.hung_up()
    }
}
