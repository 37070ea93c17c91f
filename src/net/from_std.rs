//! Sockets taken over from std, and given back to it.

// Mirrors Go's `net/file.go` (`FileConn`, `TCPConn.File`).

use std::io;
use std::os::unix;

use super::datagram::Datagram;
use super::fd::Fd;
use super::kinds::{Tcp, Udp, Unix};
use super::listener::Listener;
use super::stream::Stream;
use crate::endpoints::Network;

macro_rules! from_std {
    ($($Ours:ident<$Kind:ident>, $name:literal: $Std:ty, $network:ident;)*) => { $(
        impl $Ours<$Kind> {
            /// Takes over a socket of std's, as it is set.
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
                let what = concat!($name, "::from_std");
                let taken = Fd::take_in(what, socket, Network::$network);
                taken.map($Ours::of)
            }

            /// Gives the socket to std. It stays non-blocking, and for other handles it is closed.
            /// A Unix listener's path stays.
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
    Listener<Tcp>, "TcpListener": std::net::TcpListener, Tcp;
    Listener<Unix>, "UnixListener": unix::net::UnixListener, Unix;
    Datagram<Udp>, "UdpSocket": std::net::UdpSocket, Udp;
    Datagram<Unix>, "UnixDatagram": unix::net::UnixDatagram, Unixgram;
}
