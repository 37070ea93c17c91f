//! A connection's life as a pure table: an event in, the next state out. No I/O and no clock.
//!
//! # The table
//!
//! | event \ state | Opening | Open | Finishing | Finished | PeerEnded | Closing | Lingering |
//! |---|---|---|---|---|---|---|---|
//! | Opened | Open | | | | | | |
//! | Flushed | | | Finished | | | Closed | |
//! | FlushedUnread | | | | | | Lingering | |
//! | Acknowledged | | | | | | | Closed |
//! | PeerEnded | | PeerEnded | Closing | Closed | | | Closed |
//! | Idle | | Closing | Closing | Closing | Closing | Closed | Closed |
//! | EndAsked | | Finishing | – | – | Closing | – | – |
//! | CloseAsked | | Closing | Closing | Closing | Closing | – | – |
//! | Aborted | Closed | Closed | Closed | Closed | Closed | Closed | Closed |
//!
//! A dash changes nothing. An empty field is illegal, as is every event in Closed.
//!
//! What is to be done belongs to the state that is reached (`Connection::on`): on entering Open,
//! Closing and Lingering the idle time starts again; Finished and Lingering send a FIN; Closed closes
//! the socket and tells the protocol why.

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Both directions flow. It is zero, so that one comparison finds the common case.
    Open = 0,
    /// The connection was accepted. Its protocol has not run yet.
    Opening,
    /// Our direction is to end. Bytes are left to write.
    Finishing,
    /// Our direction has ended. The peer's goes on.
    Finished,
    /// The peer's direction has ended. Ours goes on.
    PeerEnded,
    /// The connection closes once what is left has been written.
    Closing,
    /// All is written, and input is unread: a close now would make the system send a RST, which may
    /// overtake the last bytes. Input is discarded until the peer has acknowledged everything and
    /// sends nothing more.
    Lingering,
    /// The socket is closed, and the protocol was told.
    Closed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The loop has run the connection for the first time.
    Opened,
    /// Nothing is left to write.
    Flushed,
    /// Nothing is left to write, and input is unread.
    FlushedUnread,
    /// The peer has acknowledged everything, and sends nothing more.
    Acknowledged,
    /// End of file.
    PeerEnded,
    /// The peer has shown no sign of life for the idle timeout.
    Idle,
    /// Our direction is to end.
    EndAsked,
    /// The connection is to be closed once all is written.
    CloseAsked,
    /// The connection is to be closed, whatever is left: that was asked for, the peer is too slow or
    /// reset it, or a system call failed.
    Aborted,
}

impl State {
    /// In the order of the enum.
    pub(crate) const ALL: [State; 8] = [
        State::Open,
        State::Opening,
        State::Finishing,
        State::Finished,
        State::PeerEnded,
        State::Closing,
        State::Lingering,
        State::Closed,
    ];

    /// The table: the next state, `None` for what is illegal.
    pub(crate) const fn on(self, event: Event) -> Option<State> {
        use State::{Closed, Closing, Finished, Finishing, Lingering, Open, Opening, PeerEnded};
        Some(match (event, self) {
            (_, Closed) => return None,
            (Event::Aborted, _) => Closed,
            (Event::Opened, Opening) => Open,
            (_, Opening) => return None,

            (Event::EndAsked, Open) => Finishing,
            (Event::EndAsked, PeerEnded) => Closing,
            (Event::EndAsked, _) | (Event::CloseAsked, Lingering) => self,
            (Event::Idle, Closing | Lingering) => Closed,
            (Event::CloseAsked | Event::Idle, _) => Closing,

            (Event::Flushed, Finishing) => Finished,
            (Event::Flushed, Closing) => Closed,
            (Event::FlushedUnread, Closing) => Lingering,
            (Event::Acknowledged | Event::PeerEnded, Lingering) => Closed,

            (Event::PeerEnded, Open) => PeerEnded,
            (Event::PeerEnded, Finishing) => Closing,
            (Event::PeerEnded, Finished) => Closed,
            _ => return None,
        })
    }

    /// Whether the protocol may write.
    pub(crate) const fn takes_writes(self) -> bool {
        matches!(self, State::Opening | State::Open | State::PeerEnded)
    }

    /// Whether what the peer sends is for the protocol.
    pub(crate) const fn delivers(self) -> bool {
        matches!(self, State::Open | State::Finishing | State::Finished)
    }

    /// Whether the connection only waits for the peer to take the last bytes.
    pub(crate) const fn closes(self) -> bool {
        matches!(self, State::Closing | State::Lingering)
    }

    /// Whether the next state is entered once the queue is empty.
    pub(crate) const fn flushes(self) -> bool {
        matches!(self, State::Finishing | State::Closing)
    }
}

/// When a connection that [drains](crate::Protocol::draining) closes.
///
/// Never while anything is in flight on it: bytes that are queued or unused, a call of
/// [`writable`](crate::Protocol::writable) that is owed, or a mark as [busy](crate::Conn::set_busy).
///
/// ```
/// use netpoller::{Conn, Drain, Protocol};
/// use std::io;
///
/// struct Lines;
///
/// impl Protocol for Lines {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         conn.write(bytes)?;
///         Ok(bytes.len())
///     }
///     fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
///         conn.write(b"-SHUTDOWN\n")?;
///         Ok(Drain::AtBoundary)
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drain {
    /// Once there was no traffic for the [grace](crate::Server::drain_grace) as well: a client may
    /// have sent its next request already.
    #[default]
    WhenQuiet,
    /// At the next boundary between messages: as soon as all that has come is used. For a protocol
    /// whose clients repeat an unanswered request elsewhere.
    AtBoundary,
}

/// `Socket::note` holds three things in one byte: the connection's state, what was asked for and is not
/// done yet, and whether there is something to attend to besides reading.
///
/// ```text
///   | 6      | 5     | 4     | 3   | 2 1 0 |
///   | attend | abort | close | end | state |
/// ```
///
/// Zero is an open connection with nothing to do but to read: one comparison finds it.
pub(super) const STATE: u8 = 7;
pub(super) const END: u8 = 1 << 3;
pub(super) const CLOSE: u8 = 1 << 4;
pub(super) const ABORT: u8 = 1 << 5;
pub(super) const ASKED: u8 = END | CLOSE | ABORT;
pub(super) const ATTEND: u8 = 1 << 6;

#[cfg(test)]
mod tests;
