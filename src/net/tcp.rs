//! TCP: connecting and listening.

// Mirrors Go's `net/tcpsock.go`.

use std::io;

use super::addr::ToAddr;
use super::dial::Dialer;
use super::kinds::Tcp;
use super::listener::{ListenConfig, Listener};
use super::stream::Stream;

/// A TCP connection: see [`Stream`] for what it can do.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::TcpStream;
/// let stream = TcpStream::connect("example.com:http").await?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// while stream.read_with(|bytes| bytes.len()).await? > 0 {}
/// # Ok(())
/// # })
/// # }
/// ```
pub type TcpStream = Stream<Tcp>;

/// A TCP listener: see [`Listener`].
pub type TcpListener = Listener<Tcp>;

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

impl Listener<Tcp> {
    /// Listens on `addr`, as [`ListenConfig::bind`] does with its defaults.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let listener = netpoller::TcpListener::bind("localhost:0").await?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ListenConfig::bind`].
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[doc(alias = "Listen")]
    pub async fn bind(addr: impl ToAddr) -> io::Result<TcpListener> {
        ListenConfig::new().bind(addr).await
    }
}
