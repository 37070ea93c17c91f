//! The end of a stream: closing it, whole or by halves, and learning that the peer has.
//!
//! May touch: fd/. Mirrors `conn.Close`, `TCPConn.CloseRead`, `CloseWrite` (`net/tcpsock.go`).

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Stream;
use crate::net::error::Cause;
use crate::net::fd::{Failure, Fd};
use crate::runtime::context;

impl<K> Stream<K> {
    /// Closes the connection, for every handle, before it returns. What is parked on it fails with
    /// "use of closed network connection".
    ///
    /// What was written is still sent, by the system; with a linger set, on the blocking pool.
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn close(&self) -> io::Result<()> {
        self.fd
            .close()
            .map_err(|failure| self.error("close", failure))
    }

    /// Closes with a RST: what was not sent is thrown away, and no TIME_WAIT stays behind.
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn abort(&self) -> io::Result<()> {
        let zero = Some(Duration::ZERO);
        let set = self.fd.with_socket(|socket| socket.set_linger(zero));
        set.map_err(|failure| self.error("close", failure))?;
        self.close()
    }

    /// Ends reading: a parked read gets end of file. What the peer still sends is the system's
    /// business.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn close_read(&self) -> io::Result<()> {
        self.shut_down(Shutdown::Read)
    }

    /// Ends writing: the peer reads end of file, and can still answer.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn close_write(&self) -> io::Result<()> {
        self.shut_down(Shutdown::Write)
    }

    fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        let done = self.fd.with_socket(|socket| socket.shutdown(how));
        done.map_err(|failure| match failure {
            Failure::System(error) => self.fd.op_error("close", Cause::system("shutdown", error)),
            refused => self.error("close", refused),
        })
    }

    /// Waits until the peer has sent FIN or RST, whether or not anybody reads.
    ///
    /// After our own [`close_read`](Stream::close_read) the system can't tell: it may come at once.
    ///
    /// # Errors
    ///
    /// Closed, on our side.
    pub fn hung_up(&self) -> impl Future<Output = io::Result<()>> {
        HungUp {
            fd: &self.fd,
            ticket: None,
            yielded: false,
        }
    }
}

/// [`Stream::hung_up`].
struct HungUp<'a> {
    fd: &'a Fd,
    ticket: Option<u32>,
    /// It is ready, and let others have their turn first.
    yielded: bool,
}

impl Future for HungUp<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = ready!(this.fd.poll_hung_up(&mut this.ticket, cx));
        ready!(context::poll_budget_once(&mut this.yielded, cx.waker()));
        Poll::Ready(polled.map_err(|failure| this.fd.error("read", failure, 0)))
    }
}

impl Drop for HungUp<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.fd.forget_hang_up(ticket);
        }
    }
}
